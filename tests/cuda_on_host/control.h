// What a test asks of the stand-in: the machine that it pretends to be, and how cruel it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace cuda_on_host {

// When work that a stream has been given runs. Every order that is right on a GPU is right under all of them.
enum class Timing {
  kAtOnce,     // Before the call returns, if what it waits for has come.
  kLate,       // Only when somebody waits for it: shows a wait that is missing.
  kSometimes,  // Now or late, by chance.
};

struct Machine {
  int devices = 4;
  bool driver = true;
  int compute_capability = 90;
  size_t memory_bytes = size_t{4} << 30;
  int l2_bytes = 50 << 20;
  bool graphs = true;  // False: no capture can be ended, as if a library had done what one forbids.
  Timing timing = Timing::kAtOnce;
  uint64_t seed = 0;  // Not 0: threads and blocks run in random orders.
};

// Sets the machine for what follows. Without a call it comes from the environment, for programs:
// CUDA_ON_HOST="devices=2,driver=0,cc=75,memory=1000000,graphs=0,timing=late,seed=7".
void SetMachine(const Machine& machine);
Machine CurrentMachine();

// An asynchronous error of NCCL: the `collective`-th call (from 1) of `rank` on each communicator fails with
// ncclRemoteError there, and never comes to the other ranks. rank -1: none.
struct NcclFault {
  int rank = -1;
  int64_t collective = 0;
};
void SetNcclFault(const NcclFault& fault);

// Launches that fail: of the kernels that `device` is given after this call those with these numbers (from 1, below 64)
// are refused with cudaErrorUnknown. device -1: none.
struct LaunchFault {
  int device = -1;
  std::vector<int> launches;
};
void SetLaunchFault(const LaunchFault& fault);

// Bytes that are allocated on all devices now, kernels run, and calls of cudaMalloc, cudaFree and their like for
// pinned memory, since the program began.
size_t AllocatedBytes();
int64_t KernelsRun();
// 2 m n k of every product.
int64_t ProductFlops();
int64_t AllocationCalls();
// Calls that make the host wait for a device, and waits by asking an event until it has come.
int64_t HostWaits();
// Graphs instantiated, and launches of graphs.
int64_t GraphsMade();
int64_t GraphLaunches();

}  // namespace cuda_on_host
