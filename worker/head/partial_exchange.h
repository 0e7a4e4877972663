// The collective that brings every rank's partial results together, and whether each rank has any.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "worker/comm/communicator.h"
#include "worker/comm/verdict.h"

namespace shardmax {

class PartialExchange {
 public:
  // Gathers `mine`, of equal size on every rank, and agrees on `status`: the error of the lowest rank with one, on
  // every rank. Collective, one AllGather.
  absl::Status Exchange(Communicator& comm, const absl::Status& status, std::span<const std::byte> mine) {
    const StepVerdict verdict = StepVerdict::Of(status);
    block_bytes_ = sizeof(verdict) + mine.size();
    block_.resize(block_bytes_);
    std::memcpy(block_.data(), &verdict, sizeof(verdict));
    std::memcpy(block_.data() + sizeof(verdict), mine.data(), mine.size());
    blocks_.resize(block_bytes_ * comm.size());
    SHARDMAX_RETURN_IF_ERROR(comm.AllGather(block_, blocks_));
    for (int rank = 0; rank < comm.size(); ++rank) {
      StepVerdict theirs;
      std::memcpy(&theirs, blocks_.data() + rank * block_bytes_, sizeof(theirs));
      SHARDMAX_RETURN_IF_ERROR(theirs.From(rank));
    }
    return absl::OkStatus();
  }

  // What each rank brought, as elements of T. Valid until the next exchange.
  template <typename T>
  std::vector<std::span<const T>> gathered() const {
    static_assert(sizeof(StepVerdict) % alignof(T) == 0 && sizeof(T) % alignof(T) == 0);
    std::vector<std::span<const T>> parts;
    for (size_t begin = 0; begin < blocks_.size(); begin += block_bytes_) {
      parts.push_back({reinterpret_cast<const T*>(blocks_.data() + begin + sizeof(StepVerdict)),
                       (block_bytes_ - sizeof(StepVerdict)) / sizeof(T)});
    }
    return parts;
  }

 private:
  size_t block_bytes_ = 0;
  std::vector<std::byte> block_;
  std::vector<std::byte> blocks_;
};

}  // namespace shardmax
