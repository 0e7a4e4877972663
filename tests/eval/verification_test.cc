#include <cmath>

#include "tests/eval/eval_fixture.h"
#include "worker/eval/embeddings.h"

namespace shardmax {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class Verification : public EvalTest {};

TEST_F(Verification, GivesTheSameAtAnyNumberOfRanks) {
  Write(Sample(300, 16, 30));
  const std::string protocol = "verification { num_pairs: 1001 fars: [0.01, 0.1, 0.5] }";
  const EvaluationResult alone = ResultOn(1, protocol);
  EXPECT_EQ(alone["genuine_pairs"], 501);
  EXPECT_EQ(alone["impostor_pairs"], 500);
  EXPECT_GT(alone["accuracy"]["mean"], 0.7);
  EXPECT_LT(alone["accuracy"]["mean"], 1);
  EXPECT_EQ(ResultOn(2, protocol), alone);
  EXPECT_EQ(ResultOn(3, protocol), alone);
}

TEST_F(Verification, ScoresAPairByItsCosine) {
  // Angles of 0, 60 and 90 degrees, at lengths far from 1.
  WriteFeatures("e.npy", {1e30F, 0, 1e-30F, std::sqrt(3.0F) * 1e-30F, 0, 5, 2, 0}, 2);
  WriteIntegers("i.npy", {0, 0, 1, 0});
  WriteIntegers("p.npy", {0, 3, 1, 0, 1, 1, 0, 2, 0, 1, 2, 0}, 3);
  const EvaluationResult result = ResultOn(2, "verification { pairs: 'p.npy' folds: 2 fars: 0.5 }");
  EXPECT_THAT(result["roc"]["threshold"].size(), 4u);
  EXPECT_NEAR(result["roc"]["threshold"][0], 1, 1e-7);
  EXPECT_NEAR(result["roc"]["threshold"][1], std::sqrt(0.75), 1e-7);
  EXPECT_NEAR(result["roc"]["threshold"][2], 0.5, 1e-7);
  EXPECT_NEAR(result["roc"]["threshold"][3], 0, 1e-7);
  EXPECT_EQ(result["auc"], 0.75) << "sqrt(3) / 2 is of an impostor pair, 1 / 2 of a genuine one";
}

TEST_F(Verification, SaysWhatItCannotResolve) {
  Write(Sample(100, 8, 10));
  const EvaluationResult result = ResultOn(1, "verification { num_pairs: 200 fars: [0.01, 0.001] }");
  EXPECT_EQ(result["tar_at_far"][0]["resolvable"], true);
  EXPECT_EQ(result["tar_at_far"][1]["resolvable"], false);
  EXPECT_EQ(result["tar_at_far"][1]["reason"], "takes 1000 impostor pairs, there are 100");
  EXPECT_FALSE(result["tar_at_far"][1].contains("tar"));
  EXPECT_THAT(ResultTable(result), testing::Contains(HasSubstr("not resolvable: takes 1000 impostor pairs")));
}

TEST_F(Verification, DoesNotLookAtIgnoredRows) {
  Sample sample(60, 4, 6);
  for (const int64_t row : {3, 17, 59}) {
    sample.identities[row] = kNobody;
    sample.features[row * 4] = NAN;
  }
  Write(sample);
  const EvaluationResult result = ResultOn(3, "verification { num_pairs: 100 }");
  EXPECT_EQ(result["ignored_rows"], 3);
  EXPECT_EQ(result["identities"], 6);
}

TEST_F(Verification, StopsWhenAnyRankAsks) {
  Write(Sample(60, 4, 6));
  for (const auto& outcome : RunOn(2, "verification { num_pairs: 100 }", 1, {0, 1})) {
    ASSERT_TRUE(outcome.ok()) << outcome.status();
    EXPECT_FALSE(outcome->has_value());
  }
}

TEST_F(Verification, TellsItsProgressOnEveryRank) {
  Write(Sample(60, 4, 6));
  RunOn(2, "verification { num_pairs: 100 }");
  for (const RecordingHost& host : hosts_) {
    EXPECT_THAT(host.progress, ElementsAre(std::pair(0, 100), std::pair(100, 100)));
  }
}

TEST_F(Verification, FailsAlikeOnAllRanksForARowThatOneRankReads) {
  Sample sample(60, 4, 6);
  sample.features[59 * 4 + 2] = INFINITY;
  Write(sample);
  EXPECT_EQ(ErrorOn(3, "verification { num_pairs: 100 }"), "rank 2: evaluate.embeddings: " + folder_.path("e.npy") +
                                                               ": row 59: column 2 is inf: every value must be finite");
  for (int i = 0; i < 4; ++i) sample.features[59 * 4 + i] = 0;
  Write(sample);
  EXPECT_THAT(ErrorOn(2, "verification { num_pairs: 100 }"), HasSubstr("row 59: has length zero"));
}

TEST_F(Verification, NamesTheFileThatIsWrong) {
  const std::string protocol = "verification { num_pairs: 100 }";
  Sample sample(60, 4, 6);
  Write(sample);
  sample.identities[7] = -2;
  WriteIntegers("i.npy", sample.identities);
  EXPECT_THAT(ErrorOn(2, protocol), HasSubstr("evaluate.identities: " + folder_.path("i.npy") +
                                              ": row 7: identity -2 is neither -1 nor 0 or more"));
  sample.identities.resize(59);
  WriteIntegers("i.npy", sample.identities);
  EXPECT_THAT(ErrorOn(2, protocol), HasSubstr("has 59 rows, the embeddings have 60"));
  WriteFeatures("i.npy", sample.features, 4);
  EXPECT_THAT(ErrorOn(2, protocol), HasSubstr("i.npy: dtype is float32, int32 or int64 is needed"));
  WriteIntegers("e.npy", sample.identities);
  EXPECT_THAT(ErrorOn(2, protocol), HasSubstr("e.npy: dtype is int64, float32 or float16 is needed"));
  WriteFeatures("e.npy", {}, 4);
  EXPECT_THAT(ErrorOn(2, protocol), HasSubstr("e.npy: has no rows"));
  folder_.Write("e.npy", "");
  EXPECT_THAT(ErrorOn(2, protocol), HasSubstr("e.npy: is not an .npy file"));
}

TEST_F(Verification, NeedsPairsOfBothKindsAndOneForEachFold) {
  Write(Sample(6, 4, 3));
  WriteIntegers("p.npy", {0, 3, 1, 1, 4, 1}, 3);
  EXPECT_THAT(ErrorOn(2, "verification { pairs: 'p.npy' folds: 2 }"),
              HasSubstr("evaluate.verification.pairs has 2 genuine and 0 impostor pairs: at least one of each"));
  EXPECT_THAT(ErrorOn(2, "verification { pairs: 'p.npy' folds: 3 }"),
              HasSubstr("evaluate.verification.folds is 3: allowed is at most the number of pairs, which is 2"));
  Write(Sample(6, 4, 6));
  EXPECT_THAT(ErrorOn(2, "verification { num_pairs: 10 }"), HasSubstr("there are 0 and 15"));
}

}  // namespace
}  // namespace shardmax
