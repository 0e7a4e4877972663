// Damaged files are refused or read; they never crash, which the sanitizer presets watch.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "tests/data/mutate.h"
#include "tests/data/npy_builder.h"
#include "tests/data/safetensors_builder.h"
#include "tests/data/temp_folder.h"
#include "worker/base/status.h"
#include "worker/data/npy.h"
#include "worker/data/safetensors.h"

namespace shardmax {
namespace {

constexpr int kMutations = 5000;
constexpr uint32_t kSeed = 20'240'101;

TEST(Mutation, NpyNeverCrashes) {
  const TempFolder folder;
  const std::string sound = NpyBytes(NpyDict("<f4", "(3, 4)"), std::string(48, '\x01'));
  std::mt19937 random(kSeed);
  int refused = 0;
  for (int i = 0; i < kMutations; ++i) {
    const std::string bytes = Mutate(sound, sound.size() - 48, random);
    const absl::StatusOr<NpyFile> file = NpyFile::Open(folder.Write("x.npy", bytes));
    if (!file.ok()) {
      ++refused;
      EXPECT_LT(Message(file.status()).size(), 1000u) << "seed " << kSeed << " mutation " << i;
      continue;
    }
    std::vector<std::byte> copy(file->rows() * file->row_bytes());
    if (!copy.empty()) std::memcpy(copy.data(), file->data(), copy.size());
    EXPECT_LE(copy.size(), bytes.size()) << "seed " << kSeed << " mutation " << i;
  }
  EXPECT_GT(refused, kMutations / 2);
  EXPECT_LT(refused, kMutations);
}

TEST(Mutation, SafetensorsNeverCrashes) {
  const TempFolder folder;
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"weight":{"dtype":"F32","shape":[3,4],"data_offsets":[0,48]},)"
      R"("momentum":{"dtype":"F32","shape":[3,4],"data_offsets":[48,96]}}    )";
  const std::string sound = SafetensorsBytes(header, std::string(96, '\x01'));
  std::mt19937 random(kSeed);
  int refused = 0;
  for (int i = 0; i < kMutations; ++i) {
    const std::string bytes = Mutate(sound, sound.size() - 96, random);
    const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(folder.Write("w", bytes));
    if (!file.ok()) {
      ++refused;
      EXPECT_LT(Message(file.status()).size(), 2000u) << "seed " << kSeed << " mutation " << i;
      continue;
    }
    std::vector<float> rows(12);
    if (file->CheckMatrix("weight", 3, 4).ok()) {
      EXPECT_TRUE(file->ReadRows("weight", {0, 3}, {rows.data(), 3, 4}).ok()) << "seed " << kSeed << " mutation " << i;
    }
  }
  EXPECT_GT(refused, kMutations / 2);
  EXPECT_LT(refused, kMutations);
}

}  // namespace
}  // namespace shardmax
