#include "worker/eval/identification.h"

#include <algorithm>
#include <chrono>

#include "worker/base/status.h"
#include "worker/eval/exchange.h"
#include "worker/eval/gemm_peak.h"
#include "worker/eval/lineup.h"
#include "worker/eval/mate_ranks.h"
#include "worker/eval/pair_scan.h"
#include "worker/eval/result.h"
#include "worker/eval/tail_curve.h"
#include "worker/eval/tail_floor.h"

namespace shardmax {
namespace {

Precision PrecisionOf(const v1::Identification& spec) {
  return spec.precision() == v1::BFLOAT16 ? Precision::kBfloat16 : Precision::kFloat32;
}

PairCounts PairsOf(const Lineup& lineup) {
  return {lineup.genuine_pairs(), lineup.probes().size() * lineup.gallery().size()};
}

// The scores of the probes with their mates, from tiles like those of the distractors, so that equal rows tie. Nothing
// if a rank asked to stop. Collective.
absl::StatusOr<std::optional<MateScores>> ScoreMates(const EvaluationContext& context, const Lineup& lineup) {
  const auto have_mates = [&](Range probes, Range others) {
    return lineup.groups[probes.first].first < others.end() && lineup.groups[probes.end() - 1].end() > others.first;
  };
  auto scan = PairScan::Make(context, {.probes = lineup.probes(),
                                       .gallery = lineup.probes(),
                                       .precision = PrecisionOf(context.evaluate.identification()),
                                       .wants = have_mates,
                                       .tells_progress = false});
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(context.comm, scan.status()));
  MateScores mates(lineup);
  SHARDMAX_ASSIGN_OR_RETURN(const bool finished, scan->Run(mates));
  if (!finished) return std::nullopt;
  return mates;
}

// What was found, over all ranks.
struct Found {
  std::vector<int64_t> mates_at_rank;  // [gallery sizes, max_rank]
  std::vector<std::optional<RocPoint>> at_rates;
  std::vector<RocPoint> curve;
  double seconds = 0;
};

// Meets all distractors; nothing if a rank asked to stop. Collective.
absl::StatusOr<std::optional<Found>> MeetDistractors(const EvaluationContext& context, const Lineup& lineup,
                                                     const MateScores& mates, PairScan& scan, int32_t floor) {
  const v1::Identification& spec = context.evaluate.identification();
  const std::vector<double> rates(spec.fars().begin(), spec.fars().end());
  const auto start = std::chrono::steady_clock::now();
  while (true) {
    auto distractors = DistractorCounts::Make(lineup, mates, floor, context.threads);
    auto genuine = ScoreCounts::Make(floor);
    SHARDMAX_RETURN_IF_ERROR(AgreeOk(context.comm, distractors.ok() ? genuine.status() : distractors.status()));
    genuine->Add(mates.all());
    SHARDMAX_ASSIGN_OR_RETURN(const bool finished, scan.Run(*distractors));
    if (!finished) return std::nullopt;
    SHARDMAX_ASSIGN_OR_RETURN(const TailCurve curve,
                              TailCurve::Make(context.comm, *genuine, distractors->impostor(), PairsOf(lineup)));
    if (!std::all_of(rates.begin(), rates.end(), [&](double rate) { return curve.Reaches(rate); })) {
      floor = -kScoreOne;  // The guess was too high: once more, with every score.
      continue;
    }
    Found found;
    SHARDMAX_ASSIGN_OR_RETURN(found.at_rates, curve.AtRates(context.comm, rates));
    found.curve = Thinned(curve.points(), kCurvePoints);
    found.mates_at_rank = distractors->MatesAtRank(spec.max_rank());
    SHARDMAX_RETURN_IF_ERROR(SumCounts(context.comm, found.mates_at_rank));
    found.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return found;
  }
}

// The shares of mates found at rank 1, at rank 2 or better, …: of gallery size `step`.
std::vector<double> CumulativeMatches(const Found& found, int64_t step, int64_t max_rank, int64_t mates) {
  std::vector<double> shares;
  int64_t sum = 0;
  for (int64_t rank = 0; rank < max_rank; ++rank) {
    sum += found.mates_at_rank[step * max_rank + rank];
    shares.push_back(static_cast<double>(sum) / static_cast<double>(mates));
  }
  return shares;
}

void AddRanks(const v1::Identification& spec, const Lineup& lineup, const Found& found, EvaluationResult& result) {
  const int64_t all = lineup.gallery_sizes.back();
  result["rank_1"] = EvaluationResult::array();
  result["cmc"] = EvaluationResult::array();
  for (size_t step = 0; step < lineup.gallery_sizes.size(); ++step) {
    const std::vector<double> shares =
        CumulativeMatches(found, static_cast<int64_t>(step), spec.max_rank(), lineup.genuine_pairs());
    const int64_t size = lineup.gallery_sizes[step];
    result["rank_1"].push_back(EvaluationResult{{"distractors", size}, {"resolvable", true}, {"rate", shares[0]}});
    result["cmc"].push_back(EvaluationResult{{"distractors", size}, {"rates", shares}});
  }
  for (const int64_t size : spec.distractor_counts()) {
    if (size <= all) continue;
    result["rank_1"].push_back(EvaluationResult{
        {"distractors", size}, {"resolvable", false}, {"reason", fmt::format("there are {} distractors", all)}});
  }
}

EvaluationResult MakeResult(const EvaluationContext& context, const Lineup& lineup, const Found& found) {
  const v1::Identification& spec = context.evaluate.identification();
  const PairCounts pairs = PairsOf(lineup);
  EvaluationResult result = BeginResult(context, "identification", lineup.data);
  result["precision"] = v1::Precision_Name(spec.precision());
  result["probes"] = lineup.probes().size();
  result["probe_identities"] = lineup.probe_identities;
  result["distractors"] = lineup.gallery().size();
  result["genuine_pairs"] = pairs.genuine;
  result["impostor_pairs"] = pairs.impostor;
  AddRanks(spec, lineup, found, result);
  result["tar_at_far"] = EvaluationResult::array();
  for (int i = 0; i < spec.fars_size(); ++i) {
    result["tar_at_far"].push_back(RateEntry(kAcceptRates, spec.fars(i), found.at_rates[i], pairs));
  }
  result["roc"] = CurveEntry(kAcceptRates, found.curve, pairs);
  return result;
}

}  // namespace

absl::StatusOr<std::optional<EvaluationResult>> Identify(const EvaluationContext& context) {
  const v1::Identification& spec = context.evaluate.identification();
  SHARDMAX_ASSIGN_OR_RETURN(const Lineup lineup, MakeLineup(context));
  SHARDMAX_ASSIGN_OR_RETURN(const std::optional<MateScores> mates, ScoreMates(context, lineup));
  if (!mates.has_value()) return std::nullopt;
  const PairScan::Options lists = {
      .probes = lineup.probes(), .gallery = lineup.gallery(), .precision = PrecisionOf(spec)};
  auto scan = PairScan::Make(context, lists);
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(context.comm, scan.status()));
  const double largest_rate = *std::max_element(spec.fars().begin(), spec.fars().end());
  SHARDMAX_ASSIGN_OR_RETURN(const int32_t floor,
                            AgreeOnFloor(context.comm, lists, largest_rate, [](int64_t, int64_t) { return true; }));
  SHARDMAX_ASSIGN_OR_RETURN(const double peak_before, MeasureGemmPeak(context, lists.precision, scan->flops()));
  SHARDMAX_ASSIGN_OR_RETURN(const auto found, MeetDistractors(context, lineup, *mates, *scan, floor));
  if (!found.has_value()) return std::nullopt;
  SHARDMAX_ASSIGN_OR_RETURN(const double peak_after, MeasureGemmPeak(context, lists.precision, scan->flops()));
  if (context.comm.rank() != 0) return EvaluationResult();
  EvaluationResult result = MakeResult(context, lineup, *found);
  result["speed"] = SpeedEntry({.pairs = scan->pairs(),
                                .dim = lineup.data.embeddings.dim(),
                                .seconds = found->seconds,
                                .gemm_peak = (peak_before + peak_after) / 2});
  return result;
}

}  // namespace shardmax
