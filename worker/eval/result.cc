#include "worker/eval/result.h"

#include <fmt/format.h>

#include <cmath>

namespace shardmax {
namespace {

double Share(int64_t part, int64_t whole) {
  return static_cast<double>(part) / static_cast<double>(whole);
}

std::string Percent(const EvaluationResult& share) {
  return fmt::format("{:.3f} %", 100 * share.get<double>());
}

void AddRates(const EvaluationResult& rates, const RateNames& names, const std::string& title,
              std::vector<std::string>& lines) {
  for (const EvaluationResult& entry : rates) {
    const std::string label = fmt::format("{} {:.0e}", title, entry[names.false_accepts].get<double>());
    if (!entry["resolvable"].get<bool>()) {
      lines.push_back(fmt::format("{:<24}not resolvable: {}", label, entry["reason"].get<std::string>()));
      continue;
    }
    lines.push_back(fmt::format("{:<24}{}  (threshold {:.4f}, {} false accepts)", label,
                                Percent(entry[names.true_accepts]), entry["threshold"].get<double>(),
                                entry["false_accepts"].get<int64_t>()));
  }
}

}  // namespace

EvaluationResult BeginResult(const EvaluationContext& context, const std::string& protocol, const ProtocolData& data) {
  const auto counted = static_cast<int64_t>(data.groups.rows.size());
  return {{"protocol", protocol},
          {"ranks", context.comm.size()},
          {"embeddings", data.embeddings.rows()},
          {"dim", data.embeddings.dim()},
          {"identities", data.groups.count()},
          {"ignored_rows", data.embeddings.rows() - counted}};
}

EvaluationResult RateEntry(const RateNames& names, double rate, const std::optional<RocPoint>& point,
                           const PairCounts& pairs) {
  EvaluationResult entry = {{names.false_accepts, rate}, {"resolvable", point.has_value()}};
  if (!point.has_value()) {
    entry["reason"] = fmt::format("takes {:.0f} impostor pairs, there are {}", std::ceil(1 / rate), pairs.impostor);
    return entry;
  }
  entry[names.true_accepts] = Share(point->true_accepts, pairs.genuine);
  entry["threshold"] = point->threshold;
  entry["true_accepts"] = point->true_accepts;
  entry["false_accepts"] = point->false_accepts;
  return entry;
}

EvaluationResult CurveEntry(const RateNames& names, const std::vector<RocPoint>& points, const PairCounts& pairs) {
  EvaluationResult false_rates = EvaluationResult::array();
  EvaluationResult true_rates = EvaluationResult::array();
  EvaluationResult thresholds = EvaluationResult::array();
  for (const RocPoint& point : points) {
    false_rates.push_back(Share(point.false_accepts, pairs.impostor));
    true_rates.push_back(Share(point.true_accepts, pairs.genuine));
    thresholds.push_back(point.threshold);
  }
  return {{names.false_accepts, false_rates}, {names.true_accepts, true_rates}, {"threshold", thresholds}};
}

EvaluationResult SpeedEntry(const ScanSpeed& speed) {
  const double pairs_per_second = static_cast<double>(speed.pairs) / speed.seconds;
  const double flops = 2 * static_cast<double>(speed.dim) * pairs_per_second;
  EvaluationResult entry = {{"seconds", speed.seconds}, {"pairs_per_second", pairs_per_second}};
  if (speed.gemm_peak == 0) return entry;
  entry["gemm_gflops"] = flops / 1e9;
  entry["gemm_peak_gflops"] = speed.gemm_peak / 1e9;
  entry["share_of_gemm_peak"] = flops / speed.gemm_peak;
  return entry;
}

std::vector<std::string> ResultTable(const EvaluationResult& result) {
  std::vector<std::string> lines;
  lines.push_back(fmt::format("{}: {} genuine and {} impostor pairs of {} identities",
                              result["protocol"].get<std::string>(), result["genuine_pairs"].get<int64_t>(),
                              result["impostor_pairs"].get<int64_t>(), result["identities"].get<int64_t>()));
  if (result.contains("accuracy")) {
    const EvaluationResult& accuracy = result["accuracy"];
    lines.push_back(fmt::format("{:<24}{} +- {}  ({} folds)", "accuracy", Percent(accuracy["mean"]),
                                Percent(accuracy["deviation"]), accuracy["folds"].size()));
    lines.push_back(fmt::format("{:<24}{:.6f}", "area under the curve", result["auc"].get<double>()));
    lines.push_back(fmt::format("{:<24}{}", "equal error rate", Percent(result["eer"])));
  }
  if (result.contains("rank_1")) {
    for (const EvaluationResult& entry : result["rank_1"]) {
      const std::string label = fmt::format("rank 1 among {}", entry["distractors"].get<int64_t>());
      lines.push_back(fmt::format("{:<24}{}", label,
                                  entry["resolvable"].get<bool>()
                                      ? Percent(entry["rate"])
                                      : "not resolvable: " + entry["reason"].get<std::string>()));
    }
  }
  if (result.contains("tar_at_far")) AddRates(result["tar_at_far"], {"far", "tar"}, "TAR at FAR", lines);
  if (result.contains("tpr_at_fpr")) AddRates(result["tpr_at_fpr"], {"fpr", "tpr"}, "TPR at FPR", lines);
  if (result.contains("speed") && result["speed"].contains("gemm_gflops")) {
    const EvaluationResult& speed = result["speed"];
    lines.push_back(fmt::format("{:<24}{:.3g} pairs/s, {:.0f} of {:.0f} GFLOP/s that products reach here", "speed",
                                speed["pairs_per_second"].get<double>(), speed["gemm_gflops"].get<double>(),
                                speed["gemm_peak_gflops"].get<double>()));
  }
  return lines;
}

}  // namespace shardmax
