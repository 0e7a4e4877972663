// From where on impostor scores are counted one by one.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "worker/eval/pair_scan.h"

namespace shardmax {

// A key that probably lies below the threshold of `rate` and of every smaller rate, and above most scores: found in a
// sample of the pairs, the same for the same lists. -kScoreOne where the sample cannot tell. `is_impostor` takes two
// positions, which may be equal if both lists are the same. InvalidArgument: a row that has no direction.
absl::StatusOr<int32_t> GuessFloor(const PairScan::Options& lists, double rate,
                                   const std::function<bool(int64_t probe, int64_t gallery)>& is_impostor);

// GuessFloor of rank 0, on every rank. Collective; its error comes back on all.
absl::StatusOr<int32_t> AgreeOnFloor(Communicator& comm, const PairScan::Options& lists, double rate,
                                     const std::function<bool(int64_t probe, int64_t gallery)>& is_impostor);

}  // namespace shardmax
