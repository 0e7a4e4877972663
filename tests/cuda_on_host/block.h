// Runs the threads of a grid, block after block, on the calling thread of the system.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "cuda_runtime.h"

namespace cuda_on_host {

// A kernel with its arguments, to be called by each of its threads.
struct Grid {
  std::string name;
  dim3 blocks;
  dim3 threads;
  std::function<void()> kernel;
};

// Runs every thread of every block. With a `seed` other than 0 the order of blocks, and of the threads between two
// barriers, is a random one; with 0 it is that of their numbers. Reports barriers and warp operations that not all
// threads reach.
void RunGrid(const Grid& grid, uint64_t seed);

// " in kernel K, block (x, y, z), thread (x, y, z)" of what runs on the calling thread, or "".
std::string WhatRuns();

}  // namespace cuda_on_host
