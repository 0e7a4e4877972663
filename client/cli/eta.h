// How long a job will go on.
#pragma once

#include <deque>
#include <optional>

#include "shardmax/v1/control.pb.h"

namespace shardmax {

// Watches the steps of one job, or the pairs of an evaluation. Not thread-safe.
class Eta {
 public:
  // Call with every message, `now_s` in seconds on any clock that only goes forward. Keeps the batch size of the spec,
  // which is in the first message only.
  void Observe(const v1::Job& job, double now_s);

  // Seconds to the end of the work, or none if nothing is known: by what the last minute did, or until there are enough
  // by the samples per second that the job reports.
  std::optional<double> seconds() const { return seconds_; }

 private:
  struct Mark {
    double at_s;
    int64_t done;  // Steps, or pairs.
  };

  std::deque<Mark> marks_;
  int32_t attempt_ = 0;
  int32_t batch_size_ = 0;
  std::optional<double> seconds_;
};

}  // namespace shardmax
