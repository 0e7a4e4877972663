// A program of its own: the peak of its memory is that of this test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <map>
#include <string>

#include "tests/data/temp_folder.h"
#include "tests/support/sanitizers.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/aligned_buffer.h"
#include "worker/base/status.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/checkpoint/initial_weights.h"

#if defined(SHARDMAX_ASAN) || defined(SHARDMAX_TSAN)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

namespace shardmax {
namespace {

constexpr int64_t kClasses = 60'000;
constexpr int64_t kDim = 512;  // With momentum 246 MB.
constexpr int64_t kAllowedBytes = int64_t{32} << 20;

// VmHWM or VmRSS.
int64_t StatusBytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field + ":")) return int64_t{1024} * std::stoll(line.substr(field.size() + 1));
  }
  return 0;
}

// How far the memory peaks above what is in use before.
int64_t PeakOf(const std::function<absl::Status()>& work) {
  std::ofstream("/proc/self/clear_refs") << "5";  // Begins a new VmHWM.
  const int64_t before = StatusBytes("VmRSS");
  const absl::Status status = work();
  EXPECT_TRUE(status.ok()) << status;
  return StatusBytes("VmHWM") - before;
}

class CheckpointMemory : public ::testing::Test {
 protected:
  CheckpointMemory() {
    manifest_.set_step(1);
    manifest_.set_num_classes(kClasses);
    manifest_.set_dim(kDim);
    manifest_.set_optimizer("sgd");
    for (const char* name : {"weight", "momentum"}) {
      manifest_.add_tensors(name);
      auto tensor = AlignedBuffer<float>::Allocate(kClasses * kDim);
      EXPECT_TRUE(tensor.ok()) << tensor.status();
      for (int64_t i = 0; i < tensor->size(); ++i) tensor->data()[i] = static_cast<float>(i % 1001 + 1);
      shard_[name] = *std::move(tensor);
    }
  }

  MatrixView<float> Rows(const std::string& name, Range classes) {
    return MatrixView<float>{shard_[name].data(), kClasses, kDim}.slice(classes.first, classes.count);
  }

  absl::Status Write(Communicator& comm) {
    const auto read = [&](const std::string& name, Range classes, MatrixView<float> out) {
      std::ranges::copy(Rows(name, classes).flat(), out.data);
      return absl::OkStatus();
    };
    return WriteCheckpoint(comm, temp_.path(), manifest_, {0, kClasses}, read, 1);
  }

  const TempFolder temp_;
  shardmax::v1::Manifest manifest_;
  std::map<std::string, AlignedBuffer<float>> shard_;
};

TEST_F(CheckpointMemory, WritingAndTakingNeedNoSecondCopyOfAShard) {
  if (kSanitized) GTEST_SKIP() << "sanitizers shadow and quarantine memory: the peak is theirs";
  SpawnRanks(1, [&](Communicator& comm) -> absl::Status {
    EXPECT_LT(PeakOf([&] { return Write(comm); }), kAllowedBytes) << "while writing";
    const std::string folder = temp_.path("step-00000001");
    EXPECT_LT(PeakOf([&]() -> absl::Status {
                SHARDMAX_ASSIGN_OR_RETURN(const CheckpointReader reader, CheckpointReader::Open(folder));
                return TakeCheckpoint(
                    comm, reader,
                    [](int) {
                      return Range{0, kClasses};
                    },
                    [&](const std::string& name, Range classes, MatrixView<const float> rows) {
                      std::ranges::copy(rows.flat(), Rows(name, classes).data);
                      return absl::OkStatus();
                    });
              }),
              kAllowedBytes)
        << "while taking";
    EXPECT_LT(PeakOf([&]() -> absl::Status {
                SHARDMAX_ASSIGN_OR_RETURN(InitialWeights weights, OpenWeights(folder, kClasses, kDim));
                const int64_t chunk = RowsOfChunk(kClasses, kDim);
                for (int64_t first = 0; first < kClasses; first += chunk) {
                  const Range classes = {first, std::min(chunk, kClasses - first)};
                  SHARDMAX_RETURN_IF_ERROR(weights.Read(classes, Rows("weight", classes)));
                }
                return absl::OkStatus();
              }),
              kAllowedBytes)
        << "while reading initial weights";
    return absl::OkStatus();
  });
}

}  // namespace
}  // namespace shardmax
