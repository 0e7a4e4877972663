// The collective that brings every rank's partial results together, whether each rank has any, and what it asks for.
#pragma once

#include <cstddef>
#include <cstdint>
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
  absl::Status Exchange(Communicator& comm, const absl::Status& status, std::span<const std::byte> mine,
                        uint32_t requests = 0) {
    const Header header = {.verdict = decltype(Header::verdict)::Of(status), .requests = requests};
    block_bytes_ = sizeof(header) + mine.size();
    block_.resize(block_bytes_);
    std::memcpy(block_.data(), &header, sizeof(header));
    std::memcpy(block_.data() + sizeof(header), mine.data(), mine.size());
    blocks_.resize(block_bytes_ * comm.size());
    SHARDMAX_RETURN_IF_ERROR(comm.AllGather(block_, blocks_));
    requests_ = 0;
    for (int rank = 0; rank < comm.size(); ++rank) {
      Header theirs;
      std::memcpy(&theirs, blocks_.data() + rank * block_bytes_, sizeof(theirs));
      SHARDMAX_RETURN_IF_ERROR(theirs.verdict.From(rank));
      requests_ |= theirs.requests;
    }
    return absl::OkStatus();
  }

  uint32_t requests() const { return requests_; }  // The union over ranks, of the last exchange.

  // What each rank brought, as elements of T. Valid until the next exchange.
  template <typename T>
  std::vector<std::span<const T>> gathered() const {
    std::vector<std::span<const T>> parts;
    SetGathered(parts);
    return parts;
  }
  // The same in memory that is there.
  template <typename T>
  void SetGathered(std::vector<std::span<const T>>& parts) const {
    static_assert(sizeof(Header) % alignof(T) == 0 && sizeof(T) % alignof(T) == 0);
    parts.clear();
    for (size_t begin = 0; begin < blocks_.size(); begin += block_bytes_) {
      parts.push_back({reinterpret_cast<const T*>(blocks_.data() + begin + sizeof(Header)),
                       (block_bytes_ - sizeof(Header)) / sizeof(T)});
    }
  }

 private:
  // Begins a block.
  struct Header {
    Verdict<244> verdict;
    uint32_t requests = 0;
  };

  size_t block_bytes_ = 0;
  std::vector<std::byte> block_;
  std::vector<std::byte> blocks_;
  uint32_t requests_ = 0;
};

}  // namespace shardmax
