#include <cmath>
#include <numeric>

#include "tests/eval/eval_fixture.h"
#include "worker/data/permutation.h"
#include "worker/eval/embeddings.h"
#include "worker/eval/error_rates.h"
#include "worker/eval/score_counts.h"

namespace shardmax {
namespace {

using testing::HasSubstr;

// Rows of 64 numbers +1 or -1: their cosines are multiples of 1/32, exact in either precision, and tie a lot.
Sample SignSample(int64_t rows, int64_t identities, uint32_t seed) {
  Sample sample(rows, 64, identities, seed, 1.5F);
  for (float& x : sample.features) x = x > 0 ? 1.0F : -1.0F;
  return sample;
}

// x / |x| of every row.
std::vector<double> DirectionsOf(const Sample& sample) {
  std::vector<double> directions(sample.features.begin(), sample.features.end());
  for (int64_t row = 0; row < sample.rows; ++row) {
    double square = 0;
    for (int64_t i = 0; i < sample.dim; ++i) square += std::pow(directions[row * sample.dim + i], 2);
    for (int64_t i = 0; i < sample.dim; ++i) directions[row * sample.dim + i] /= std::sqrt(square);
  }
  return directions;
}

// Every probe with every gallery row; each pair of rows once if both are the same.
RocCurve BruteForce(const Sample& probes, const Sample& gallery) {
  const std::vector<double> a = DirectionsOf(probes);
  const std::vector<double> b = DirectionsOf(gallery);
  const int64_t dim = probes.dim;
  std::vector<double> genuine;
  std::vector<double> impostor;
  for (int64_t p = 0; p < probes.rows; ++p) {
    if (probes.identities[p] == kNobody) continue;
    for (int64_t g = &probes == &gallery ? p + 1 : 0; g < gallery.rows; ++g) {
      if (gallery.identities[g] == kNobody) continue;
      const double score = std::inner_product(&a[p * dim], &a[p * dim] + dim, &b[g * dim], 0.0);
      (probes.identities[p] == gallery.identities[g] ? genuine : impostor).push_back(score);
    }
  }
  return MakeRocCurve(std::move(genuine), std::move(impostor));
}

class AllPairs : public EvalTest {
 protected:
  void WriteGallery(const Sample& sample) {
    WriteFeatures("ge.npy", sample.features, sample.dim);
    WriteIntegers("gi.npy", sample.identities);
  }
  static std::string WithGallery(const std::string& fields) {
    return "all_pairs { gallery_embeddings: 'ge.npy' gallery_identities: 'gi.npy' " + fields + " }";
  }
  // Every rate of the result is that of the curve, exactly or up to `slack` pairs whose scores were rounded.
  static void ExpectRatesOf(const RocCurve& curve, const EvaluationResult& result, int64_t slack) {
    EXPECT_EQ(result["genuine_pairs"], curve.pairs.genuine);
    EXPECT_EQ(result["impostor_pairs"], curve.pairs.impostor);
    for (const EvaluationResult& entry : result["tpr_at_fpr"]) {
      const auto expected = PointAtRate(curve, entry["fpr"].get<double>());
      ASSERT_EQ(entry["resolvable"].get<bool>(), expected.has_value()) << entry;
      if (!expected.has_value()) continue;
      EXPECT_LE(std::abs(entry["true_accepts"].get<int64_t>() - expected->true_accepts), slack) << entry;
      EXPECT_LE(std::abs(entry["false_accepts"].get<int64_t>() - expected->false_accepts), slack) << entry;
      EXPECT_NEAR(entry["tpr"].get<double>(),
                  entry["true_accepts"].get<double>() / static_cast<double>(curve.pairs.genuine), 1e-15);
    }
  }
};

constexpr char kFprs[] = "fprs: [1, 0.3, 0.01, 1e-3, 1e-4, 1e-5, 1e-7]";

TEST_F(AllPairs, EqualsBruteForceExactlyWhereProductsAreExact) {
  Sample sample = SignSample(700, 60, 1);
  sample.identities[3] = sample.identities[699] = kNobody;
  Write(sample);
  const RocCurve expected = BruteForce(sample, sample);
  for (const std::string precision : {"FLOAT32", "BFLOAT16"}) {
    SCOPED_TRACE(precision);
    const std::string protocol = "all_pairs { " + std::string(kFprs) + " precision: " + precision + " }";
    EvaluationResult alone = ResultOn(1, protocol);
    ExpectRatesOf(expected, alone, 0);
    EXPECT_EQ(alone["precision"], precision);
    EXPECT_EQ(ResultOn(2, protocol), alone);
    EXPECT_EQ(ResultOn(3, protocol, 2), alone);
  }
}

TEST_F(AllPairs, EqualsBruteForceAgainstAnotherGallery) {
  const Sample probes = SignSample(300, 40, 2);
  Sample gallery = SignSample(1000, 70, 2);  // The first 40 centres are the same.
  gallery.identities[11] = kNobody;
  Write(probes);
  WriteGallery(gallery);
  const RocCurve expected = BruteForce(probes, gallery);
  const EvaluationResult alone = ResultOn(1, WithGallery(kFprs));
  ExpectRatesOf(expected, alone, 0);
  EXPECT_EQ(alone["gallery_embeddings"], 1000);
  EXPECT_EQ(alone["gallery_ignored_rows"], 1);
  EXPECT_EQ(ResultOn(2, WithGallery(kFprs)), alone);
  EXPECT_EQ(ResultOn(3, WithGallery(kFprs), 2), alone);
}

TEST_F(AllPairs, IsWithinRoundingOfBruteForceInFloat32) {
  const Sample sample(900, 24, 90);
  Write(sample);
  const EvaluationResult alone = ResultOn(1, "all_pairs { " + std::string(kFprs) + " }");
  ExpectRatesOf(BruteForce(sample, sample), alone, 1);
  EXPECT_EQ(ResultOn(3, "all_pairs { " + std::string(kFprs) + " }"), alone);
}

TEST_F(AllPairs, HasACurveOfExactPoints) {
  const Sample sample = SignSample(500, 50, 3);
  Write(sample);
  const RocCurve whole = BruteForce(sample, sample);
  const EvaluationResult curve = ResultOn(2, "all_pairs { fprs: 1 }")["roc"];
  ASSERT_GT(curve["fpr"].size(), 20u);
  for (size_t i = 0; i < curve["fpr"].size(); ++i) {
    const double threshold = curve["threshold"][i];
    RocPoint accepted;
    for (const RocPoint& point : whole.points) {
      if (point.threshold >= threshold - 1e-9) accepted = point;
    }
    EXPECT_EQ(curve["fpr"][i], static_cast<double>(accepted.false_accepts) / static_cast<double>(whole.pairs.impostor));
    EXPECT_EQ(curve["tpr"][i], static_cast<double>(accepted.true_accepts) / static_cast<double>(whole.pairs.genuine));
  }
}

TEST_F(AllPairs, ScoresAgainWhereTheSampleMisledIt) {
  // The rows that the sample takes are all alike, with cosine 1; but a sixth of all pairs are such, and a fifth is
  // wanted.
  constexpr int64_t kRows = 2200;
  Sample sample = SignSample(kRows, kRows, 4);
  sample.identities[1] = sample.identities[0];
  for (const uint32_t seed : {1, 2}) {
    const Permutation order(kRows, seed, 0);
    for (int i = 0; i < 512; ++i) {
      for (int64_t k = 0; k < 64; ++k) sample.features[order(i) * 64 + k] = 1;
    }
  }
  Write(sample);
  ExpectRatesOf(BruteForce(sample, sample), ResultOn(2, "all_pairs { fprs: [0.2, 1e-5] }"), 0);
  EXPECT_EQ(hosts_[0].progress.front().first, 0);
  EXPECT_EQ(
      std::count(hosts_[0].progress.begin(), hosts_[0].progress.end(), std::pair(int64_t{0}, kRows * (kRows - 1) / 2)),
      2)
      << "the sample did not mislead it";
}

TEST_F(AllPairs, SaysWhatItCannotResolve) {
  Write(Sample(100, 8, 10));
  const EvaluationResult result = ResultOn(1, "all_pairs { }");  // 450 genuine and 4500 impostor pairs.
  EXPECT_EQ(result["tpr_at_fpr"].size(), 7u);
  EXPECT_EQ(result["tpr_at_fpr"][0]["resolvable"], true);
  EXPECT_EQ(result["tpr_at_fpr"][1]["resolvable"], false);
  EXPECT_EQ(result["tpr_at_fpr"][6]["reason"], "takes 1000000000 impostor pairs, there are 4500");
}

TEST_F(AllPairs, StopsBetweenRoundsWhenAnyRankAsks) {
  Write(Sample(20000, 4, 100));
  for (const auto& outcome : RunOn(2, "all_pairs { }", 1, {0, 2})) {
    ASSERT_TRUE(outcome.ok()) << outcome.status();
    EXPECT_FALSE(outcome->has_value());
  }
}

TEST_F(AllPairs, ReportsItsSpeed) {
  Write(Sample(6000, 32, 100));
  const auto outcome = RunOn(2, "all_pairs { }")[0];
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  const EvaluationResult speed = (**outcome)["speed"];
  EXPECT_NEAR(speed["pairs_per_second"].get<double>() * speed["seconds"].get<double>(), 6000.0 * 5999 / 2, 1);
  EXPECT_NEAR(speed["gemm_gflops"].get<double>(), 64e-9 * speed["pairs_per_second"].get<double>(), 1e-6);
  EXPECT_GT(speed["gemm_peak_gflops"], 0);
  EXPECT_GT(speed["share_of_gemm_peak"], 0);
  Write(Sample(200, 32, 100));
  const auto small = RunOn(2, "all_pairs { }")[0];
  ASSERT_TRUE(small.ok()) << small.status();
  EXPECT_FALSE((**small)["speed"].contains("gemm_peak_gflops")) << "too short to tell";
}

TEST_F(AllPairs, RefusesWhatHasNoPairs) {
  Write(Sample(6, 4, 6));
  EXPECT_EQ(ErrorOn(2, "all_pairs { }"),
            "evaluate.identities: there are 0 genuine and 15 impostor pairs: at least one of each is needed");
  Write(Sample(6, 4, 1));
  EXPECT_THAT(ErrorOn(2, "all_pairs { }"), HasSubstr("there are 15 genuine and 0 impostor pairs"));
  Sample nobody(6, 4, 2);
  nobody.identities.assign(6, kNobody);
  Write(nobody);
  EXPECT_THAT(ErrorOn(2, "all_pairs { }"), HasSubstr("there are 0 genuine and 0 impostor pairs"));
}

TEST_F(AllPairs, RefusesAGalleryThatDoesNotFit) {
  Write(Sample(60, 4, 6));
  WriteGallery(Sample(60, 5, 6));
  EXPECT_THAT(ErrorOn(2, WithGallery("")), HasSubstr("ge.npy has width 5, evaluate.embeddings has 4"));
  Sample gallery(60, 4, 6);
  gallery.features[59 * 4] = NAN;
  WriteGallery(gallery);
  EXPECT_THAT(ErrorOn(2, WithGallery("")),
              HasSubstr("rank 1: evaluate.all_pairs.gallery_embeddings: " + folder_.path("ge.npy") + ": row 59"));
}

}  // namespace
}  // namespace shardmax
