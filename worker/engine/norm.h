// Lengths of rows: where a direction exists, and where it does not.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "worker/base/status.h"
#include "worker/engine/inverse_length.h"

namespace shardmax {

// InverseLength of a row, summed in float64.
inline double InverseNorm(std::span<const float> row) {
  double square = 0;
  for (const float x : row) square += static_cast<double>(x) * x;
  return InverseLength(square);
}

// FailedPrecondition, naming the class by its global id.
inline absl::Status WeightsNotFinite(int64_t global_class) {
  return Error(absl::StatusCode::kFailedPrecondition,
               "the weights of class {} are not finite: they have diverged, lower the learning rate", global_class);
}

// WeightsNotFinite of the first inverse norm that is NaN. The k-th is that of the class class_of(k).
template <typename T, typename ClassOf>
absl::Status CheckNormsOf(std::span<const T> inverse_norms, const ClassOf& class_of) {
  for (size_t k = 0; k < inverse_norms.size(); ++k) {
    if (std::isnan(inverse_norms[k])) return WeightsNotFinite(class_of(static_cast<int64_t>(k)));
  }
  return absl::OkStatus();
}

// The same for classes from `first_class` on.
template <typename T>
absl::Status CheckNorms(std::span<const T> inverse_norms, int64_t first_class) {
  return CheckNormsOf(inverse_norms, [first_class](int64_t k) { return first_class + k; });
}

}  // namespace shardmax
