// Streams and events on the stand-in: an order that nobody asked for is not kept.
#include "tests/cuda_on_host/test_kernels.h"

namespace cuda_on_host {
namespace {

__global__ void Set(int* out, int value) {
  out[0] = value;
}
__global__ void Copy(const int* in, int* out) {
  out[0] = in[0];
}

class Streams : public OnHost {
 protected:
  void SetUp() override {
    OnHost::SetUp();
    ASSERT_EQ(cudaStreamCreateWithFlags(&other_, cudaStreamNonBlocking), cudaSuccess);
    ASSERT_EQ(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), cudaSuccess);
  }
  void TearDown() override {
    cudaEventDestroy(event_);
    cudaStreamDestroy(other_);
    OnHost::TearDown();
  }

  // Sets x on one stream and copies it to y on another, which waits for the first or not; y after that.
  int CopyOnAnotherStream(bool wait) {
    int* x = Device(std::vector<int>{0});
    int* y = Device(std::vector<int>{0});
    Run(1, 1, Set, x, 7);
    cudaEventRecord(event_, stream_);
    std::swap(stream_, other_);
    if (wait) cudaStreamWaitEvent(stream_, event_);
    Run(1, 1, Copy, x, y);
    const int result = Host(y, 1)[0];
    std::swap(stream_, other_);
    cudaStreamSynchronize(stream_);
    return result;
  }

  cudaStream_t other_ = nullptr;
  cudaEvent_t event_ = nullptr;
};

TEST_F(Streams, RunInOrderAndWaitForEvents) {
  for (const Timing timing : {Timing::kAtOnce, Timing::kLate, Timing::kSometimes}) {
    SetMachine({.timing = timing});
    EXPECT_EQ(CopyOnAnotherStream(true), 7);
  }
}

TEST_F(Streams, ShowAMissingWaitWhenTheyAreLate) {
  SetMachine({.timing = Timing::kLate});
  EXPECT_EQ(CopyOnAnotherStream(false), 0);
}

TEST_F(Streams, ReadTheHostsMemoryLate) {
  SetMachine({.timing = Timing::kLate});
  int* x = Device(std::vector<int>{0});
  int value = 5;
  cudaMemcpyAsync(x, &value, sizeof(value), cudaMemcpyHostToDevice, stream_);
  value = 6;  // Too early: nobody waited.
  EXPECT_EQ(Host(x, 1)[0], 6);
}

TEST_F(Streams, SayWhenTheyAreDone) {
  SetMachine({.timing = Timing::kLate});
  int* x = Device(std::vector<int>{0});
  const int64_t kernels = KernelsRun();
  Run(1, 1, Set, x, 1);
  Run(1, 1, Set, x, 2);
  cudaEventRecord(event_, stream_);
  EXPECT_EQ(KernelsRun(), kernels);
  EXPECT_EQ(cudaStreamQuery(stream_), cudaErrorNotReady);
  int polls = 0;
  while (cudaEventQuery(event_) == cudaErrorNotReady) ++polls;
  EXPECT_LE(polls, 3);
  EXPECT_EQ(KernelsRun(), kernels + 2);
  EXPECT_EQ(cudaStreamQuery(stream_), cudaSuccess);
}

TEST_F(Streams, TellTheTimeBetweenEventsThatWereMadeForIt) {
  cudaEvent_t timed[2];
  for (cudaEvent_t& event : timed) {
    ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDefault), cudaSuccess);
    ASSERT_EQ(cudaEventRecord(event, stream_), cudaSuccess);
  }
  cudaEventRecord(event_, stream_);
  cudaStreamSynchronize(stream_);
  float milliseconds = -1;
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, timed[0], timed[1]), cudaSuccess);
  EXPECT_GE(milliseconds, 0);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, timed[0], event_), cudaErrorInvalidResourceHandle);
  for (const cudaEvent_t event : timed) cudaEventDestroy(event);
}

TEST(MachineOnHost, WithoutDriverOrDeviceSaysSo) {
  int count = 1;
  SetMachine({.driver = false});
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
  SetMachine({.devices = 0});
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorNoDevice);
  SetMachine({.devices = 3, .compute_capability = 75});
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
  EXPECT_EQ(count, 3);
  EXPECT_EQ(cudaSetDevice(3), cudaErrorInvalidDevice);
  cudaDeviceProp properties;
  EXPECT_EQ(cudaGetDeviceProperties(&properties, 2), cudaSuccess);
  EXPECT_EQ(properties.major * 10 + properties.minor, 75);
  SetMachine({});
}

}  // namespace
}  // namespace cuda_on_host
