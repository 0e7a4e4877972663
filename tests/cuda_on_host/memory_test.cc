// Device memory on the stand-in.
#include <cmath>

#include "tests/cuda_on_host/test_kernels.h"

namespace cuda_on_host {
namespace {

__global__ void Read(const float* in, float* out, int i) {
  out[0] = in[i];
}
__global__ void Write(float* out, int i) {
  out[i] = 1;
}

using DeviceMemory = OnHost;
using DeviceMemoryDeathTest = OnHost;

TEST_F(DeviceMemory, IsNotANumberUntilItIsWritten) {
  float* pointer = nullptr;
  ASSERT_EQ(cudaMalloc(&pointer, 3 * sizeof(float)), cudaSuccess);
  allocations_.push_back(pointer);
  for (const float value : Host(pointer, 3)) EXPECT_TRUE(std::isnan(value));
}

TEST_F(DeviceMemory, EndsWhereTheMachinesDoes) {
  SetMachine({.memory_bytes = AllocatedBytes() + 1000});
  void* pointer = nullptr;
  EXPECT_EQ(cudaMalloc(&pointer, 1001), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaMalloc(&pointer, 600), cudaSuccess);
  size_t free_bytes = 0, total_bytes = 0;
  ASSERT_EQ(cudaMemGetInfo(&free_bytes, &total_bytes), cudaSuccess);
  EXPECT_EQ(free_bytes, 400);
  EXPECT_EQ(cudaFree(pointer), cudaSuccess);
  ASSERT_EQ(cudaMemGetInfo(&free_bytes, &total_bytes), cudaSuccess);
  EXPECT_EQ(free_bytes, 1000);
}

TEST_F(DeviceMemory, CopiesRowsWithAPitch) {
  int* device = Device(std::vector<int>(12, 0));
  const std::vector<int> rows = {1, 2, 3, 4, 5, 6};
  ASSERT_EQ(cudaMemcpy2DAsync(device, 16, rows.data(), 8, 8, 3, cudaMemcpyHostToDevice, stream_), cudaSuccess);
  EXPECT_THAT(Host(device, 12), testing::ElementsAre(1, 2, 0, 0, 3, 4, 0, 0, 5, 6, 0, 0));
}

TEST_F(DeviceMemoryDeathTest, TouchedPastItsEndIsReported) {
  float* values = Device(std::vector<float>(1000));
  float* out = Device(std::vector<float>(1));
  EXPECT_DEATH(Run(1, 1, Read, values, out, 1000), "allocation of 4000 bytes|SEGV|stack-overflow");
  EXPECT_DEATH(Run(1, 1, Write, values, 1000), "allocation of 4000 bytes|SEGV|stack-overflow");
}

TEST_F(DeviceMemoryDeathTest, WrittenJustOutsideIsReportedWhenItIsFreed) {
  float* values = Device(std::vector<float>(3));
  EXPECT_DEATH((Run(1, 1, Write, values, 3), cudaFree(values)), "wrote past the end of an allocation of 12 bytes");
  EXPECT_DEATH((Run(1, 1, Write, values, -1), cudaFree(values)), "wrote before an allocation of 12");
}

TEST_F(DeviceMemoryDeathTest, TouchedAfterItWasFreedIsReported) {
  float* values = nullptr;
  ASSERT_EQ(cudaMalloc(&values, 4000), cudaSuccess);
  ASSERT_EQ(cudaFree(values), cudaSuccess);
  EXPECT_DEATH(Run(1, 1, Write, values, 0), "that was freed|SEGV|stack-overflow");
  EXPECT_DEATH(cudaFree(values), "freed it twice");
  EXPECT_DEATH(cudaMemsetAsync(values, 0, 4, stream_), "cudaMemsetAsync: the memory was freed");
}

TEST_F(DeviceMemoryDeathTest, CopiedFromTheWrongSideIsReported) {
  float* device = Device(std::vector<float>(4));
  std::vector<float> host(8);
  EXPECT_DEATH(cudaMemcpyAsync(device, host.data(), 32, cudaMemcpyHostToDevice, stream_),
               "destination of a copy: bytes 0 to 32 of an allocation of 16");
  EXPECT_DEATH(cudaMemcpyAsync(host.data(), device, 16, cudaMemcpyHostToDevice, stream_), "destination of a copy");
}

}  // namespace
}  // namespace cuda_on_host
