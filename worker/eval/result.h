// Pieces of result.json (docs/evaluation.md#results) that protocols share.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "worker/eval/error_rates.h"
#include "worker/eval/evaluation.h"
#include "worker/eval/protocol_data.h"

namespace shardmax {

// The names of the two rates of a protocol: "far" and "tar", or "fpr" and "tpr".
struct RateNames {
  const char* false_accepts;
  const char* true_accepts;
};
inline constexpr RateNames kAcceptRates = {"far", "tar"};

// Points of a curve in a result, at most.
inline constexpr int64_t kCurvePoints = 1000;

// Starts a result: the protocol, and what was read.
EvaluationResult BeginResult(const EvaluationContext& context, const std::string& protocol, const ProtocolData& data);

// The point at a rate, or that it cannot be resolved with so few pairs.
EvaluationResult RateEntry(const RateNames& names, double rate, const std::optional<RocPoint>& point,
                           const PairCounts& pairs);

// The curve as three lists of equal length.
EvaluationResult CurveEntry(const RateNames& names, const std::vector<RocPoint>& points, const PairCounts& pairs);

// How fast all pairs were scored, beside what the machine could.
struct ScanSpeed {
  int64_t pairs = 0;
  int64_t dim = 0;
  double seconds = 0;
  double gemm_peak = 0;  // Floating-point operations a second, of all ranks; 0 if not measured.
};
EvaluationResult SpeedEntry(const ScanSpeed& speed);

}  // namespace shardmax
