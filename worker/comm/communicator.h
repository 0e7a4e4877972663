// Collectives between the ranks of a pool.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace shardmax {

class DeviceCollectives;

// Successful calls, their payload bytes and time since the communicator was made, by operation. Bytes are what this
// rank contributes to the call (its own block, or the whole vector that is summed; for a broadcast its length, on every
// rank), so that they follow from the shapes alone. Seconds include the wait for late ranks.
struct CommStats {
  struct Counter {
    int64_t calls = 0;
    int64_t bytes = 0;
    double seconds = 0;
  };
  Counter all_gather;
  Counter all_reduce;
  Counter reduce_scatter;
  Counter broadcast;
  Counter barrier;

  // Over all operations.
  Counter Total() const;
};

// A group of ranks that call the same collectives in the same order.
//
// Every method but the accessors is collective: every rank calls, with equal sizes. Not thread-safe: one thread of a
// rank at a time calls. Sums are added in rank order or by a fixed tree, so a repeated run gives the same bits.
//
// Errors: DeadlineExceeded when a peer did not arrive within timeout_ms (the message names the operation and, where
// known, the ranks that are missing); Unavailable when a peer is lost; InvalidArgument when the spans of this call do
// not fit each other, or are seen not to fit those of the peers. After any error the communicator is broken and
// every later call returns that error: abandon the step, and the group.
class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const CommStats& stats() const = 0;

  // all [N * mine.size()] becomes the concatenation of every rank's `mine`, in rank order. No overlap.
  virtual absl::Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all) = 0;

  // values[i] becomes the sum over ranks of values[i], the same bits on every rank.
  virtual absl::Status AllReduceSum(std::span<float> values) = 0;

  // mine [n] becomes the elements [rank * n, (rank + 1) * n) of the sum over ranks of all [N * n]. No overlap.
  virtual absl::Status ReduceScatterSum(std::span<const float> all, std::span<float> mine) = 0;

  // bytes becomes those of `root` on every rank.
  virtual absl::Status Broadcast(std::span<std::byte> bytes, int root) = 0;

  // Returns OK once every rank has called.
  virtual absl::Status Barrier() = 0;

  // Collectives between devices, of the same ranks, or null where this communicator has none (device_collectives.h).
  virtual DeviceCollectives* device() { return nullptr; }
};

// Agrees on success: OK when every rank passes OK, else, on every rank alike, the error of the lowest rank that failed
// with "rank R: " before its message (cut to 1000 bytes). Collective, one AllGather.
absl::Status AgreeOk(Communicator& comm, const absl::Status& mine);

// A string of rank `root`, of any length, on every rank. Collective, two broadcasts. `value` of other ranks is ignored.
absl::StatusOr<std::string> BroadcastString(Communicator& comm, const std::string& value, int root);

// The status of rank `root`, its message uncut, on every rank; or the communicator's own error. Collective, two
// broadcasts. `status` of other ranks is ignored.
absl::Status BroadcastStatus(Communicator& comm, const absl::Status& status, int root);

}  // namespace shardmax
