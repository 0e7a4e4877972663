#include <cmath>
#include <set>

#include "tests/eval/eval_fixture.h"
#include "worker/data/permutation.h"
#include "worker/eval/embeddings.h"
#include "worker/eval/error_rates.h"

namespace shardmax {
namespace {

using testing::HasSubstr;

// Rows of 64 numbers +1 or -1: their cosines are exact in either precision, and tie a lot.
Sample SignSample(int64_t rows, int64_t identities, uint32_t seed) {
  Sample sample(rows, 64, identities, seed, 1.2F);
  for (float& x : sample.features) x = x > 0 ? 1.0F : -1.0F;
  return sample;
}

int64_t Product(const Sample& a, int64_t i, const Sample& b, int64_t j) {
  float sum = 0;
  for (int64_t k = 0; k < 64; ++k) sum += a.features[i * 64 + k] * b.features[j * 64 + k];
  return static_cast<int64_t>(sum);
}

// By the definition: each probe, each other row of its identity, each distractor.
struct BruteForce {
  std::vector<std::vector<int64_t>> mates_at_rank;  // [sizes][rank - 1]
  RocCurve curve;

  // Distractors join in the order of `order`. Probes with an identity in `probes` look for their mates.
  BruteForce(const Sample& probes, const std::set<int64_t>& identities, const Sample& others,
             const std::vector<int64_t>& order, const std::vector<int64_t>& sizes, int64_t max_rank)
      : mates_at_rank(sizes.size(), std::vector<int64_t>(static_cast<size_t>(max_rank))) {
    std::vector<double> genuine;
    std::vector<double> impostor;
    for (int64_t i = 0; i < probes.rows; ++i) {
      if (!identities.contains(probes.identities[i])) continue;
      std::vector<int64_t> scores;
      for (const int64_t j : order) scores.push_back(Product(probes, i, others, j));
      impostor.insert(impostor.end(), scores.begin(), scores.end());
      for (int64_t mate = 0; mate < probes.rows; ++mate) {
        if (mate == i || probes.identities[mate] != probes.identities[i]) continue;
        const int64_t score = Product(probes, i, probes, mate);
        genuine.push_back(static_cast<double>(score));
        for (size_t s = 0; s < sizes.size(); ++s) {
          const auto before =
              std::count_if(scores.begin(), scores.begin() + sizes[s], [&](int64_t other) { return other >= score; });
          if (before < max_rank) ++mates_at_rank[s][before];
        }
      }
    }
    curve = MakeRocCurve(std::move(genuine), std::move(impostor));
  }
};

std::vector<int64_t> Shuffled(const std::vector<int64_t>& rows, uint32_t seed) {
  const Permutation order(static_cast<int64_t>(rows.size()), seed, 0);
  std::vector<int64_t> shuffled;
  for (size_t i = 0; i < rows.size(); ++i) shuffled.push_back(rows[order(static_cast<int64_t>(i))]);
  return shuffled;
}

class Identification : public EvalTest {
 protected:
  static void ExpectEqual(const BruteForce& expected, const EvaluationResult& result, int64_t max_rank) {
    const auto mates = static_cast<double>(expected.curve.pairs.genuine);
    EXPECT_EQ(result["genuine_pairs"], expected.curve.pairs.genuine);
    EXPECT_EQ(result["impostor_pairs"], expected.curve.pairs.impostor);
    ASSERT_EQ(result["cmc"].size(), expected.mates_at_rank.size());
    for (size_t s = 0; s < expected.mates_at_rank.size(); ++s) {
      int64_t sum = 0;
      for (int64_t rank = 0; rank < max_rank; ++rank) {
        sum += expected.mates_at_rank[s][rank];
        EXPECT_EQ(result["cmc"][s]["rates"][rank], static_cast<double>(sum) / mates) << "size " << s << ", " << rank;
      }
      EXPECT_EQ(result["rank_1"][s]["rate"], result["cmc"][s]["rates"][0]);
      EXPECT_EQ(result["rank_1"][s]["distractors"], result["cmc"][s]["distractors"]);
    }
    for (const EvaluationResult& entry : result["tar_at_far"]) {
      const auto point = PointAtRate(expected.curve, entry["far"].get<double>());
      ASSERT_EQ(entry["resolvable"].get<bool>(), point.has_value()) << entry;
      if (point.has_value()) {
        EXPECT_EQ(entry["true_accepts"], point->true_accepts) << entry;
        EXPECT_EQ(entry["false_accepts"], point->false_accepts) << entry;
      }
    }
  }
};

TEST_F(Identification, EqualsBruteForceAmongDistractorsOfAFile) {
  Sample probes = SignSample(310, 60, 1);
  for (int64_t row = 0; row < probes.rows; ++row) {
    if (probes.identities[row] == 7 && row > 100) probes.identities[row] = kNobody;
    if (probes.identities[row] == 9 && row > 9) probes.identities[row] = kNobody;  // Alone: no probe.
  }
  const Sample others = SignSample(700, 300, 2);
  Write(probes);
  WriteFeatures("d.npy", others.features, 64);
  std::set<int64_t> identities;
  for (int64_t id = 0; id < 60; ++id) identities.insert(id);
  identities.erase(9);
  std::vector<int64_t> rows(700);
  for (int64_t i = 0; i < 700; ++i) rows[i] = i;
  const BruteForce expected(probes, identities, others, Shuffled(rows, 5), {1, 10, 300, 700}, 12);
  for (const std::string precision : {"FLOAT32", "BFLOAT16"}) {
    const std::string protocol =
        "identification { distractors: 'd.npy' seed: 5 distractor_counts: [1, 10, 300, 700, 1000] max_rank: 12 "
        "fars: [1, 0.1, 1e-3, 1e-4, 1e-9] precision: " +
        precision + " }";
    const EvaluationResult alone = ResultOn(1, protocol);
    ExpectEqual(expected, alone, 12);
    EXPECT_EQ(alone["probe_identities"], 59);
    EXPECT_EQ(alone["distractors"], 700);
    EXPECT_EQ(alone["rank_1"][4]["resolvable"], false);
    EXPECT_EQ(alone["rank_1"][4]["reason"], "there are 700 distractors");
    EXPECT_EQ(ResultOn(2, protocol), alone);
    EXPECT_EQ(ResultOn(3, protocol, 2), alone);
  }
}

TEST_F(Identification, SplitsOneFileByTheSeed) {
  Sample sample = SignSample(400, 50, 3);
  sample.identities[399] = 1000;  // Of one row: a distractor.
  Write(sample);
  const std::string protocol = "identification { probe_identities: 20 seed: 8 max_rank: 5 fars: 0.01 }";
  // Rows of the eligible identities in the order of the seed, and those of all others by identity.
  const Permutation draw(50, 8, 1);
  std::set<int64_t> identities;
  for (int64_t i = 0; i < 20; ++i) identities.insert(draw(i));
  std::vector<int64_t> rows;
  for (int64_t id = 0; id <= 1000; ++id) {
    for (int64_t row = 0; row < 400; ++row) {
      if (sample.identities[row] == id && !identities.contains(id)) rows.push_back(row);
    }
  }
  const auto all = static_cast<int64_t>(rows.size());
  const BruteForce expected(sample, identities, sample, Shuffled(rows, 8), {10, 100, all}, 5);
  const EvaluationResult result = ResultOn(2, protocol);
  ExpectEqual(expected, result, 5);
  EXPECT_EQ(result["probes"], 400 - all);
  EXPECT_THAT(ResultTable(result), testing::Contains(HasSubstr("rank 1 among 100 ")));
}

TEST_F(Identification, PutsADistractorOfTheSameScoreBeforeTheMate) {
  WriteFeatures("e.npy", {1, 0, 0.6F, 0.8F}, 2);
  WriteIntegers("i.npy", {4, 4});
  WriteFeatures("d.npy", {0.6F, 0.8F, -1, 0}, 2);
  // To (1, 0) the first distractor is as near as the mate. To (0.6, 0.8) it is nearer than the mate.
  const EvaluationResult result = ResultOn(1, "identification { distractors: 'd.npy' max_rank: 3 }");
  EXPECT_EQ(result["cmc"][0]["rates"], (std::vector<double>{0, 1, 1}));
}

TEST_F(Identification, StopsWhenAnyRankAsks) {
  const Sample sample(300, 8, 30);
  Write(sample);
  WriteFeatures("d.npy", Sample(20000, 8, 30).features, 8);
  for (const int at : {1, 2}) {  // While mates are scored, and while distractors are.
    for (const auto& outcome : RunOn(2, "identification { distractors: 'd.npy' }", 1, {at, 0})) {
      ASSERT_TRUE(outcome.ok()) << outcome.status();
      EXPECT_FALSE(outcome->has_value());
    }
  }
}

TEST_F(Identification, RefusesWhatCannotBeAsked) {
  Sample sample(60, 4, 6);
  Write(sample);
  EXPECT_THAT(ErrorOn(2, "identification { probe_identities: 7 }"),
              HasSubstr("evaluate.identification.probe_identities is 7: only 6 identities have two rows or more"));
  EXPECT_THAT(ErrorOn(2, "identification { probe_identities: 6 }"),
              HasSubstr("probe_identities is 6: no row of another identity is left as a distractor"));
  WriteFeatures("d.npy", sample.features, 3);
  EXPECT_THAT(ErrorOn(2, "identification { distractors: 'd.npy' }"),
              HasSubstr("d.npy has width 3, evaluate.embeddings has 4"));
  sample.features[50 * 4] = NAN;
  WriteFeatures("d.npy", sample.features, 4);
  EXPECT_THAT(ErrorOn(2, "identification { distractors: 'd.npy' }"),
              HasSubstr("rank 1: evaluate.identification.distractors: " + folder_.path("d.npy") + ": row 50"));
  Write(Sample(6, 4, 6));
  EXPECT_THAT(ErrorOn(2, "identification { distractors: 'd.npy' }"),
              HasSubstr("evaluate.identities: no identity has two rows or more"));
}

}  // namespace
}  // namespace shardmax
