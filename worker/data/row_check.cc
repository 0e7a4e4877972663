#include "worker/data/row_check.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "worker/base/status.h"

namespace shardmax {
namespace {

// In double, where no square of a float32 overflows or vanishes. Several sums, so that the additions overlap.
double SumOfSquares(std::span<const float> row) {
  constexpr size_t kSums = 8;
  double sums[kSums] = {};
  for (size_t i = 0; i < row.size(); ++i) sums[i % kSums] += static_cast<double>(row[i]) * row[i];
  double sum = 0;
  for (double part : sums) sum += part;
  return sum;
}

}  // namespace

absl::Status CheckDirection(std::span<const float> row) {
  const double length = std::sqrt(SumOfSquares(row));
  if (!std::isfinite(length)) {
    const auto bad = std::find_if(row.begin(), row.end(), [](float value) { return !std::isfinite(value); });
    return InvalidArgument("column {} is {}: every value must be finite", bad - row.begin(), *bad);
  }
  if (length < FLT_MIN) return InvalidArgument("has length zero: it has no direction");
  if (length > FLT_MAX) return InvalidArgument("has length {}: at most {} is allowed", length, FLT_MAX);
  return absl::OkStatus();
}

}  // namespace shardmax
