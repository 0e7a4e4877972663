// Runs a collective program on N ranks, each a thread of the test.
#pragma once

#include <chrono>
#include <functional>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "worker/comm/thread_comm.h"

namespace shardmax {

struct SpawnOptions {
  // How long a collective waits for a late rank.
  std::chrono::milliseconds timeout = std::chrono::seconds(30);
  // How long all ranks together may take. Then the test program ends, as a thread that hangs cannot be joined.
  std::chrono::milliseconds limit = std::chrono::seconds(100);
};

// Calls program(comm) on `size` threads and joins them. A failed assertion of gtest in a rank carries "rank R of N" as
// its trace; a program that returns a status other than OK, or throws, fails the test with the rank. When the program
// of a rank returns, its communicator goes away, so ranks that still wait for it get Unavailable.
void SpawnRankThreads(int size, const std::function<absl::Status(ThreadCommunicator&)>& program,
                      const SpawnOptions& options);

// The same for a program that takes a Communicator& or ThreadCommunicator& and returns absl::Status or void.
template <typename Program>
void SpawnRanks(int size, Program&& program, const SpawnOptions& options = {}) {
  SpawnRankThreads(
      size,
      [&program](ThreadCommunicator& comm) -> absl::Status {
        if constexpr (std::is_void_v<std::invoke_result_t<Program&, ThreadCommunicator&>>) {
          program(comm);
          return absl::OkStatus();
        } else {
          return program(comm);
        }
      },
      options);
}

}  // namespace shardmax
