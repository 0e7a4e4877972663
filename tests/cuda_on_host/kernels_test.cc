// Kernels on the stand-in: what is right runs, and what a GPU would reject is reported.
#include <cuda_bf16.h>

#include <cmath>
#include <numeric>

#include "tests/cuda_on_host/test_kernels.h"
#include "tests/support/sanitizers.h"

namespace cuda_on_host {
namespace {

constexpr unsigned kAll = 0xffffffffU;

__global__ void WriteIds(int* ids) {
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  ids[block * blockDim.x * blockDim.y * blockDim.z + thread] = static_cast<int>(block * 1000 + thread);
}

// Sums of 256 values a block, by shuffles and shared memory.
__global__ void BlockSums(const int* values, int* sums) {
  __shared__ int warps[8];
  int sum = values[blockIdx.x * 256 + threadIdx.x];
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAll, sum, lanes);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < 8; ++i) sum += warps[i];
    sums[blockIdx.x] = sum;
  }
  __syncthreads();
}

__global__ void BlockSumsWithoutBarrier(const int* values, int* sums) {
  __shared__ int warps[8];
  int sum = values[blockIdx.x * 256 + threadIdx.x];
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAll, sum, lanes);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
  if (threadIdx.x == 0) {
    for (int i = 1; i < 8; ++i) sum += warps[i];
    sums[blockIdx.x] = sum;
  }
}

__global__ void ShuffleInHalfAWarp(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(kAll, static_cast<int>(threadIdx.x), 1);
}

__global__ void ReadALaneOutsideTheMask(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffU, static_cast<int>(threadIdx.x), 16);
}

__global__ void BarrierForSome() {
  if (threadIdx.x < 40) __syncthreads();
}

__global__ void PastTheEndOfSharedMemory(int* out, int i) {
  __shared__ int values[4];
  values[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = values[i];
}

__global__ void LoadFour(const float* in, float* out) {
  const float4 four = *reinterpret_cast<const float4*>(in);
  out[0] = four.x + four.y + four.z + four.w;
}

__global__ void Votes(unsigned* out) {
  const unsigned odd = __ballot_sync(kAll, threadIdx.x % 2 == 1 ? 1 : 0);
  const int any = __any_sync(kAll, threadIdx.x == 77 ? 1 : 0);
  out[threadIdx.x] = odd + static_cast<unsigned>(any);
  __syncwarp();
}

__global__ void Count(int* counter, float* total, int* smallest) {
  atomicAdd(counter, 1);
  atomicAdd(total, 0.5F);
  atomicMin(smallest, static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) - 5);
}

using Kernels = OnHost;
using KernelsDeathTest = OnHost;

TEST_F(Kernels, RunEveryThreadOfEveryBlock) {
  for (const uint64_t seed : {0, 3}) {
    SetMachine({.seed = seed});
    int* ids = Device(std::vector<int>(12 * 30, -1));
    ASSERT_EQ(Run({2, 3, 2}, {5, 3, 2}, WriteIds, ids), cudaSuccess);
    const std::vector<int> written = Host(ids, 12 * 30);
    for (int block = 0; block < 12; ++block) {
      for (int thread = 0; thread < 30; ++thread) EXPECT_EQ(written[block * 30 + thread], block * 1000 + thread);
    }
  }
}

std::vector<int> Iota(int count) {
  std::vector<int> values(count);
  std::iota(values.begin(), values.end(), 1);
  return values;
}

TEST_F(Kernels, MeetAtBarriersAndExchangeBetweenLanesInAnyOrder) {
  const int* values = Device(Iota(512));
  int* sums = Device(std::vector<int>(2, 0));
  for (uint64_t seed = 0; seed < 5; ++seed) {
    SetMachine({.seed = seed});
    ASSERT_EQ(Run(2, 256, BlockSums, values, sums), cudaSuccess);
    EXPECT_THAT(Host(sums, 2), testing::ElementsAre(256 * 257 / 2, 256 * 257 / 2 + 256 * 256));
  }
}

#if defined(SHARDMAX_TSAN)
TEST_F(KernelsDeathTest, WithoutABarrierAreADataRace) {
  const int* values = Device(Iota(512));
  int* sums = Device(std::vector<int>(2, 0));
  EXPECT_EXIT((Run(2, 256, BlockSumsWithoutBarrier, values, sums), std::exit(0)), testing::ExitedWithCode(66),
              "data race");
}
#else
TEST_F(Kernels, WithoutABarrierComeOutWrong) {
  const int* values = Device(Iota(512));
  int* sums = Device(std::vector<int>(2, 0));
  ASSERT_EQ(Run(2, 256, BlockSumsWithoutBarrier, values, sums), cudaSuccess);
  EXPECT_NE(Host(sums, 2)[0], 256 * 257 / 2);
}
#endif

TEST_F(Kernels, VoteAndCountAtomically) {
  unsigned* votes = Device(std::vector<unsigned>(96, 0));
  ASSERT_EQ(Run(1, 96, Votes, votes), cudaSuccess);
  const std::vector<unsigned> voted = Host(votes, 96);
  for (size_t i = 0; i < 96; ++i) EXPECT_EQ(voted[i], 0xaaaaaaaaU + (i >= 64 ? 1 : 0));
  int* counter = Device(std::vector<int>{0, 9});
  float* total = Device(std::vector<float>{0});
  ASSERT_EQ(Run(7, 33, Count, counter, total, counter + 1), cudaSuccess);
  EXPECT_THAT(Host(counter, 2), testing::ElementsAre(7 * 33, -5));
  EXPECT_EQ(Host(total, 1)[0], 0.5F * 7 * 33);
}

TEST_F(Kernels, BeyondTheLimitsOfALaunchAreRefused) {
  int* ids = Device(std::vector<int>(1));
  EXPECT_EQ(Run(1, 1025, WriteIds, ids), cudaErrorInvalidConfiguration);
  EXPECT_EQ(Run(1, {1, 1, 65}, WriteIds, ids), cudaErrorInvalidConfiguration);
  EXPECT_EQ(Run({1, 65536}, 1, WriteIds, ids), cudaErrorInvalidConfiguration);
  EXPECT_EQ(Run(0, 1, WriteIds, ids), cudaErrorInvalidConfiguration);
}

TEST_F(KernelsDeathTest, ShuffleWithALaneThatIsNotThereIsReported) {
  int* out = Device(std::vector<int>(32));
  EXPECT_DEATH(Run(1, 32, ShuffleInHalfAWarp, out), "__shfl_xor_sync: not every lane of its mask takes part");
  EXPECT_DEATH(Run(1, 32, ReadALaneOutsideTheMask, out), "__shfl_xor_sync reads lane 16, which is not in the mask");
  EXPECT_DEATH(Run(1, 16, BlockSums, out, out), "__shfl_xor_sync: not every lane of its mask takes part");
}

TEST_F(KernelsDeathTest, BarrierThatSomeThreadsLeaveOutIsReported) {
  EXPECT_DEATH(Run(1, 64, BarrierForSome),
               "a thread has ended while others wait in __syncthreads.*thread \\(40, 0, 0\\)");
}

TEST_F(KernelsDeathTest, IndexOutsideOfSharedMemoryIsReported) {
  int* out = Device(std::vector<int>(4));
  EXPECT_DEATH(Run(1, 4, PastTheEndOfSharedMemory, out, 4), "index 4 out of bounds");
}

TEST_F(KernelsDeathTest, MisalignedVectorLoadIsReported) {
#if defined(__clang__)
  GTEST_SKIP() << "Clang does not check the address from which it copies a struct; GCC does";
#endif
  const float* in = Device(std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8});
  float* out = Device(std::vector<float>(1));
  ASSERT_EQ(Run(1, 1, LoadFour, in + 4, out), cudaSuccess);
  EXPECT_EQ(Host(out, 1)[0], 26);
  EXPECT_DEATH(Run(1, 1, LoadFour, in + 1, out), "misaligned address");
}

TEST(Bfloat16OnHost, RoundsToTheNearestEven) {
  for (const auto& [from, to] : std::vector<std::pair<float, float>>{{1.0F, 1.0F},
                                                                     {1.00390625F, 1.0F},
                                                                     {1.01171875F, 1.015625F},
                                                                     {-3.14159F, -3.140625F},
                                                                     {3.4e38F, HUGE_VALF}}) {
    EXPECT_EQ(__bfloat162float(__float2bfloat16(from)), to);
  }
  EXPECT_TRUE(std::isnan(__bfloat162float(__float2bfloat16(NAN))));
}

}  // namespace
}  // namespace cuda_on_host
