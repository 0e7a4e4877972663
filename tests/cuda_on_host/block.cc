#include "tests/cuda_on_host/block.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "tests/cuda_on_host/fiber.h"
#include "tests/cuda_on_host/report.h"

__thread uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_host {
namespace {

constexpr unsigned kWarp = 32;

enum class State { kReady, kAtBarrier, kInWarpCall, kEnded };

struct Thread {
  dim3 index;
  State state = State::kReady;
  Fiber* fiber = nullptr;
  // The warp operation that it waits in, and what it brought.
  const char* call = "";
  unsigned mask = 0;
  uint64_t value = 0;
  uint64_t warp_syncs = 0;
};

std::string Text(const dim3& d) {
  return fmt::format("({}, {}, {})", d.x, d.y, d.z);
}

dim3 At(uint64_t linear, const dim3& size) {
  return {static_cast<unsigned>(linear % size.x), static_cast<unsigned>(linear / size.x % size.y),
          static_cast<unsigned>(linear / size.x / size.y)};
}

uint3 Variable(const dim3& d) {
  return {d.x, d.y, d.z};
}

uint64_t Volume(const dim3& size) {
  return uint64_t{size.x} * size.y * size.z;
}

class Block;
thread_local Block* current_block = nullptr;

// Fibers are kept for the next block: a thread of the system has as many as the largest block had threads that waited.
class FiberPool {
 public:
  Fiber* Take() {
    if (free_.empty()) {
      all_.push_back(std::make_unique<Fiber>());
      free_.push_back(all_.back().get());
    }
    Fiber* fiber = free_.back();
    free_.pop_back();
    return fiber;
  }
  void Return(Fiber* fiber) { free_.push_back(fiber); }

 private:
  std::vector<std::unique_ptr<Fiber>> all_;
  std::vector<Fiber*> free_;
};
thread_local FiberPool fiber_pool;

class Block {
 public:
  Block(const Grid& grid, std::mt19937_64* random) : grid_(grid), random_(random), threads_(Volume(grid.threads)) {
    gathered_.resize((threads_.size() + kWarp - 1) / kWarp * kWarp);
    order_.resize(threads_.size());
    std::iota(order_.begin(), order_.end(), size_t{0});
  }

  void Run(uint64_t linear) {
    index_ = At(linear, grid_.blocks);
    blockIdx = Variable(index_);
    blockDim = Variable(grid_.threads);
    gridDim = Variable(grid_.blocks);
    for (size_t i = 0; i < threads_.size(); ++i) threads_[i] = {.index = At(i, grid_.threads)};
    ended_ = 0;
    ReleaseTo(this);
    while (ended_ < threads_.size()) {
      if (random_ != nullptr) std::shuffle(order_.begin(), order_.end(), *random_);
      bool progress = false;
      for (const size_t i : order_) {
        if (threads_[i].state != State::kReady) continue;
        progress = true;
        RunThread(i);
      }
      if (!progress && ended_ < threads_.size()) OpenBarrier();
    }
    AcquireFrom(this);
  }

  // Called by the running thread.
  void Barrier() {
    void* const meeting = &meetings_[barriers_ % 2];
    ReleaseTo(meeting);
    Wait(State::kAtBarrier);
    AcquireFrom(meeting);
  }

  // Called by the running thread: of warp operations only this one orders memory.
  void SyncWarp(unsigned mask) {
    Thread& me = threads_[running_];
    void* const meeting = &warp_meetings_[running_ / kWarp][me.warp_syncs++ % 2];
    ReleaseTo(meeting);
    WarpCall("__syncwarp", mask, 0);
    AcquireFrom(meeting);
  }

  // Called by the running thread: brings `value` to the lanes of `mask` and returns what they brought, by lane.
  const uint64_t* WarpCall(const char* call, unsigned mask, uint64_t value) {
    Thread& me = threads_[running_];
    if ((mask >> (running_ % kWarp) & 1U) == 0) Report(std::string(call) + " by a lane that is not in its own mask");
    me.call = call;
    me.mask = mask;
    me.value = value;
    Wait(State::kInWarpCall);
    return &gathered_[running_ / kWarp * kWarp];
  }

  const Grid& grid() const { return grid_; }
  const dim3& index() const { return index_; }
  size_t running() const { return running_; }
  const Thread& thread() const { return threads_[running_]; }

 private:
  void RunThread(size_t i) {
    Thread& thread = threads_[i];
    running_ = i;
    threadIdx = Variable(thread.index);
    if (thread.fiber == nullptr) {
      thread.fiber = fiber_pool.Take();
      thread.fiber->Begin([this] {
        AcquireFrom(this);
        grid_.kernel();
        ReleaseTo(this);
      });
    }
    if (thread.fiber->Resume()) {
      thread.state = State::kEnded;
      fiber_pool.Return(thread.fiber);
      ++ended_;
    } else if (thread.state == State::kInWarpCall) {
      CompleteWarpCall(i);
    }
  }

  void Wait(State state) {
    threads_[running_].state = state;
    threads_[running_].fiber->Yield();
  }

  // Lets the lanes of a warp call go on if all have come.
  void CompleteWarpCall(size_t i) {
    const size_t first = i / kWarp * kWarp;
    const Thread& caller = threads_[i];
    // Beginning with the next lane, which in an order of lanes is the one that has not come.
    for (size_t step = 1; step < kWarp; ++step) {
      const size_t lane = (i + step) % kWarp;
      if ((caller.mask >> lane & 1U) == 0) continue;
      if (first + lane >= threads_.size()) return;
      const Thread& other = threads_[first + lane];
      if (other.state != State::kInWarpCall || other.mask != caller.mask) return;
      if (other.call != caller.call && std::strcmp(other.call, caller.call) != 0) return;
    }
    // Read before the next operation of these lanes completes, as each of them has to come to it first.
    for (size_t lane = 0; lane < kWarp; ++lane) {
      if ((caller.mask >> lane & 1U) == 0) continue;
      gathered_[first + lane] = threads_[first + lane].value;
      threads_[first + lane].state = State::kReady;
    }
  }

  // No thread can go on: either all are at the barrier, or some wait for ever.
  void OpenBarrier() {
    for (size_t i = 0; i < threads_.size(); ++i) {
      running_ = i;
      if (threads_[i].state == State::kInWarpCall) {
        Report(std::string(threads_[i].call) + ": not every lane of its mask takes part");
      }
    }
    for (size_t i = 0; i < threads_.size(); ++i) {
      running_ = i;
      if (threads_[i].state == State::kEnded) Report("a thread has ended while others wait in __syncthreads");
    }
    ++barriers_;
    for (Thread& thread : threads_) thread.state = State::kReady;
  }

  const Grid& grid_;
  std::mt19937_64* random_;
  dim3 index_;
  std::vector<Thread> threads_;
  std::vector<uint64_t> gathered_;  // What the lanes of the last warp operation brought, by thread.
  std::vector<size_t> order_;
  size_t running_ = 0;
  size_t ended_ = 0;
  uint64_t barriers_ = 0;
  // A thread may come to a barrier before another has left the last one.
  char meetings_[2] = {};
  char warp_meetings_[kWarp][2] = {};
};

Block& Current(const char* what) {
  if (current_block == nullptr) Report(std::string(what) + " outside of a kernel");
  return *current_block;
}

}  // namespace

void RunGrid(const Grid& grid, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint64_t> order(Volume(grid.blocks));
  std::iota(order.begin(), order.end(), uint64_t{0});
  if (seed != 0) std::shuffle(order.begin(), order.end(), random);
  Block block(grid, seed != 0 ? &random : nullptr);
  current_block = &block;
  for (const uint64_t linear : order) block.Run(linear);
  current_block = nullptr;
}

std::string WhatRuns() {
  if (current_block == nullptr) return "";
  return fmt::format(" in {}, block {}, thread {}", current_block->grid().name, Text(current_block->index()),
                     Text(current_block->thread().index));
}

void Report(const std::string& message) {
  std::fprintf(stderr, "cuda_on_host: %s%s\n", message.c_str(), WhatRuns().c_str());
  std::fflush(stderr);
  std::abort();
}

void SyncThreads() {
  Current("__syncthreads").Barrier();
}

void SyncWarp(unsigned mask) {
  Current("__syncwarp").SyncWarp(mask);
}

const uint64_t* WarpExchange(const char* call, unsigned mask, uint64_t value) {
  return Current(call).WarpCall(call, mask, value);
}

unsigned Lane() {
  return static_cast<unsigned>(Current("a warp operation").running() % kWarp);
}

}  // namespace cuda_on_host
