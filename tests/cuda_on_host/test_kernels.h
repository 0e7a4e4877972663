// What the tests of the stand-in share.
#pragma once

#include <gmock/gmock.h>

#include <utility>
#include <vector>

#include "cuda_runtime.h"
#include "tests/cuda_on_host/control.h"

namespace cuda_on_host {

// A machine of its own for each test, in which a failed call fails the test.
class OnHost : public testing::Test {
 protected:
  void SetUp() override {
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    SetMachine({});
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
  }
  void TearDown() override {
    for (void* pointer : allocations_) EXPECT_EQ(cudaFree(pointer), cudaSuccess);
    EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess);
    SetMachine({});
  }

  template <typename T>
  T* Device(const std::vector<T>& values) {
    T* pointer = nullptr;
    EXPECT_EQ(cudaMalloc(&pointer, values.size() * sizeof(T)), cudaSuccess);
    allocations_.push_back(pointer);
    cudaMemcpyAsync(pointer, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice, stream_);
    cudaStreamSynchronize(stream_);
    return pointer;
  }
  template <typename T>
  std::vector<T> Host(const T* pointer, size_t count) {
    std::vector<T> values(count);
    cudaMemcpyAsync(values.data(), pointer, count * sizeof(T), cudaMemcpyDeviceToHost, stream_);
    cudaStreamSynchronize(stream_);
    return values;
  }
  template <typename... Parameters, typename... Arguments>
  cudaError_t Run(dim3 blocks, dim3 threads, void (*kernel)(Parameters...), Arguments&&... arguments) {
    cudaLaunchConfig_t config = {};
    config.gridDim = blocks;
    config.blockDim = threads;
    config.stream = stream_;
    return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  }

  cudaStream_t stream_ = nullptr;
  std::vector<void*> allocations_;
};

}  // namespace cuda_on_host
