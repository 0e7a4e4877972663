// The fixture of kernel tests: each runs on every instruction set that this machine has.
#pragma once

#include <gmock/gmock.h>
#include <hwy/targets.h>

#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace shardmax {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

class Kernels : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { Use(GetParam()); }
  void TearDown() override { Use(0); }

  static void Use(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }

  std::vector<float> Draw(int64_t count, float low, float high) {
    std::uniform_real_distribution<float> uniform(low, high);
    std::vector<float> values(count);
    for (float& v : values) v = uniform(random_);
    return values;
  }

  std::mt19937 random_{11};
};

inline std::string NameOfTarget(const testing::TestParamInfo<int64_t>& info) {
  return hwy::TargetName(info.param);
}

}  // namespace shardmax
