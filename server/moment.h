// The time, for code that is told it rather than asks: what is kept is wall time, what is waited for is steady time.
#pragma once

#include <chrono>
#include <cstdint>

#include "google/protobuf/timestamp.pb.h"

namespace shardmax {

struct Moment {
  std::chrono::steady_clock::time_point steady;
  int64_t unix_us = 0;

  static Moment Now() {
    using std::chrono::duration_cast;
    using std::chrono::microseconds;
    const auto wall = std::chrono::system_clock::now().time_since_epoch();
    return {std::chrono::steady_clock::now(), duration_cast<microseconds>(wall).count()};
  }
};

inline google::protobuf::Timestamp ToTimestamp(int64_t unix_us) {
  google::protobuf::Timestamp time;
  time.set_seconds(unix_us / 1'000'000);
  time.set_nanos(static_cast<int32_t>(unix_us % 1'000'000 * 1000));
  return time;
}

inline int64_t ToUnixMicros(const google::protobuf::Timestamp& time) {
  return time.seconds() * 1'000'000 + time.nanos() / 1000;
}

}  // namespace shardmax
