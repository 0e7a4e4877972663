// Graphs on the stand-in: what was captured runs at each launch, with the memory that it was captured with.
#include "tests/cuda_on_host/test_kernels.h"

namespace cuda_on_host {
namespace {

__global__ void AddTo(int* out, const int* what, int more) {
  out[0] += what[0] + more;
}

class Graphs : public OnHost {
 protected:
  // Captures out += what + more, twice.
  cudaGraphExec_t Capture(int* out, const int* what) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    EXPECT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    EXPECT_EQ(Run(1, 1, AddTo, out, what, 1), cudaSuccess);
    EXPECT_EQ(Run(1, 1, AddTo, out, what, 2), cudaSuccess);
    EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
    EXPECT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
    return exec;
  }
};
using GraphsDeathTest = Graphs;

TEST_F(Graphs, RunWhatWasCapturedAtEachLaunchAndNotBefore) {
  for (const Timing timing : {Timing::kAtOnce, Timing::kLate, Timing::kSometimes}) {
    SetMachine({.timing = timing});
    int* out = Device(std::vector<int>{0});
    int* what = Device(std::vector<int>{10});
    const int64_t launches = GraphLaunches();
    const cudaGraphExec_t exec = Capture(out, what);
    EXPECT_EQ(Host(out, 1)[0], 0);
    ASSERT_EQ(cudaGraphLaunch(exec, stream_), cudaSuccess);
    EXPECT_EQ(Host(out, 1)[0], 23);
    // Arguments are those of the capture; memory is read anew.
    cudaMemsetAsync(what, 0, sizeof(int), stream_);
    ASSERT_EQ(cudaGraphLaunch(exec, stream_), cudaSuccess);
    EXPECT_EQ(Host(out, 1)[0], 26);
    EXPECT_EQ(GraphLaunches() - launches, 2);
    EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
  }
}

TEST_F(GraphsDeathTest, ThatOutliveTheirMemoryAreReported) {
  int* out = Device(std::vector<int>(1000));
  int* what = nullptr;
  ASSERT_EQ(cudaMalloc(&what, 4000), cudaSuccess);
  const cudaGraphExec_t exec = Capture(out, what);
  ASSERT_EQ(cudaFree(what), cudaSuccess);
  EXPECT_DEATH(cudaGraphLaunch(exec, stream_), "that was freed in a kernel|SEGV|stack-overflow");
  cudaGraphExecDestroy(exec);
}

TEST_F(GraphsDeathTest, AreNotCapturedWhileTheHostWaitsOrAllocates) {
  void* pointer = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaErrorInvalidValue);
  EXPECT_DEATH(cudaStreamSynchronize(stream_), "cudaStreamSynchronize while a stream is captured");
  EXPECT_DEATH(cudaMalloc(&pointer, 4), "allocating or freeing memory while a stream is captured");
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
  cudaGraphDestroy(graph);
  EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace cuda_on_host
