// Small evaluations that run on ranks-as-threads.
#pragma once

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>

#include <random>
#include <string>
#include <vector>

#include "tests/data/npy_builder.h"
#include "tests/data/temp_folder.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"
#include "worker/eval/evaluation.h"
#include "worker/spec/job_spec.h"

namespace shardmax {

// Asks to stop from the `stop_at`-th question on (0: never), and writes down the progress.
class RecordingHost final : public EvaluationHost {
 public:
  explicit RecordingHost(int stop_at = 0) : stop_at_(stop_at) {}

  bool StopRequested() override { return ++questions_ >= stop_at_ && stop_at_ > 0; }
  void OnProgress(int64_t done, int64_t total) override { progress.emplace_back(done, total); }

  std::vector<std::pair<int64_t, int64_t>> progress;

 private:
  int stop_at_;
  int questions_ = 0;
};

// `rows` vectors of width `dim` around one centre for each identity; row r is of identity r % identities.
struct Sample {
  int64_t rows, dim;
  std::vector<float> features;  // [rows, dim]
  std::vector<int64_t> identities;

  Sample(int64_t rows, int64_t dim, int64_t num_identities, uint32_t seed = 1, float spread = 0.8F)
      : rows(rows), dim(dim) {
    std::mt19937 bits(seed);
    std::normal_distribution<float> normal;
    std::vector<float> centres(static_cast<size_t>(num_identities * dim));
    for (float& x : centres) x = normal(bits);
    for (int64_t row = 0; row < rows; ++row) {
      identities.push_back(row % num_identities);
      for (int64_t i = 0; i < dim; ++i) {
        features.push_back(centres[row % num_identities * dim + i] + spread * normal(bits));
      }
    }
  }
};

class EvalTest : public testing::Test {
 protected:
  void WriteFeatures(const std::string& name, const std::vector<float>& values, int64_t dim) {
    const std::string shape = fmt::format("({}, {})", static_cast<int64_t>(values.size()) / dim, dim);
    folder_.Write(name, NpyBytes(NpyDict("<f4", shape), BytesOf(values)));
  }
  void WriteIntegers(const std::string& name, const std::vector<int64_t>& values, int64_t cols = 0) {
    const auto size = static_cast<int64_t>(values.size());
    const std::string shape = cols > 0 ? fmt::format("({}, {})", size / cols, cols) : fmt::format("({},)", size);
    folder_.Write(name, NpyBytes(NpyDict("<i8", shape), BytesOf(values)));
  }
  // As e.npy and i.npy, which the spec of Run names.
  void Write(const Sample& sample) {
    WriteFeatures("e.npy", sample.features, sample.dim);
    WriteIntegers("i.npy", sample.identities);
  }

  shardmax::v1::Evaluate Spec(const std::string& protocol) const {
    shardmax::v1::JobSpec spec;
    const std::string text = "name: 'a' evaluate { embeddings: 'e.npy' identities: 'i.npy' " + protocol + " }";
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &spec)) << text;
    auto resolved = ResolveJobSpec(spec);
    EXPECT_TRUE(resolved.ok()) << resolved.status();
    return resolved.ok() ? resolved->evaluate() : spec.evaluate();
  }

  using Outcome = absl::StatusOr<std::optional<EvaluationResult>>;

  // What each of `ranks` threads got. Rank r stops at stop_at[r].
  std::vector<Outcome> RunOn(int ranks, const std::string& protocol, int threads = 1, std::vector<int> stop_at = {}) {
    stop_at.resize(static_cast<size_t>(ranks));
    std::vector<Outcome> outcomes(static_cast<size_t>(ranks), absl::UnknownError("not run"));
    hosts_.clear();
    for (const int at : stop_at) hosts_.emplace_back(at);
    const shardmax::v1::Evaluate spec = Spec(protocol);
    SpawnRanks(ranks, [&](Communicator& comm) -> absl::Status {
      SHARDMAX_ASSIGN_OR_RETURN(const DataRoots roots, DataRoots::Make({}, folder_.path()));
      outcomes[comm.rank()] = Evaluate({comm, spec, roots, threads, {}, hosts_[comm.rank()]});
      return absl::OkStatus();
    });
    return outcomes;
  }

  // The result on rank 0 without what depends on the number of ranks.
  EvaluationResult ResultOn(int ranks, const std::string& protocol, int threads = 1) {
    const Outcome outcome = RunOn(ranks, protocol, threads)[0];
    EXPECT_TRUE(outcome.ok()) << outcome.status();
    if (!outcome.ok() || !outcome->has_value()) return {};
    EvaluationResult result = **outcome;
    EXPECT_EQ(result["ranks"], ranks);
    EXPECT_TRUE(result.contains("speed"));
    result.erase("ranks");
    result.erase("speed");
    return result;
  }

  // The message that all of `ranks` ranks return alike.
  std::string ErrorOn(int ranks, const std::string& protocol) {
    const std::vector<Outcome> outcomes = RunOn(ranks, protocol);
    for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome.status(), outcomes[0].status());
    EXPECT_FALSE(outcomes[0].ok());
    return Message(outcomes[0].status());
  }

  TempFolder folder_;
  std::vector<RecordingHost> hosts_;
};

}  // namespace shardmax
