#include "worker/eval/all_pairs.h"

#include <algorithm>
#include <chrono>

#include "worker/base/status.h"
#include "worker/data/checksum.h"
#include "worker/eval/exchange.h"
#include "worker/eval/gemm_peak.h"
#include "worker/eval/high_scores.h"
#include "worker/eval/pair_scan.h"
#include "worker/eval/protocol_data.h"
#include "worker/eval/result.h"
#include "worker/eval/tail_curve.h"
#include "worker/eval/tail_floor.h"

namespace shardmax {
namespace {

constexpr RateNames kPairRates = {"fpr", "tpr"};

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The rows of both sides, sorted by identity.
struct Sides {
  ProtocolData probes;
  std::optional<ProtocolData> gallery;  // None: the probes again.
  PairCounts pairs;
  std::vector<Range> mates;  // Of each probe: the gallery positions of its identity.

  const ProtocolData& other() const { return gallery.has_value() ? *gallery : probes; }
  bool same_rows() const { return !gallery.has_value(); }
};

// Positions of the rows of `identity`.
Range PositionsOf(const ProtocolData& data, int64_t identity) {
  const std::vector<int64_t>& rows = data.groups.rows;
  const auto below = [&](int64_t row, int64_t value) { return data.identities[row] < value; };
  const auto above = [&](int64_t value, int64_t row) { return value < data.identities[row]; };
  const auto first = std::lower_bound(rows.begin(), rows.end(), identity, below);
  const auto end = std::upper_bound(first, rows.end(), identity, above);
  return {first - rows.begin(), end - first};
}

void CountPairs(Sides& sides) {
  const auto probes = static_cast<int64_t>(sides.probes.groups.rows.size());
  const auto gallery = static_cast<int64_t>(sides.other().groups.rows.size());
  for (const int64_t row : sides.probes.groups.rows) {
    sides.mates.push_back(PositionsOf(sides.other(), sides.probes.identities[row]));
  }
  if (sides.same_rows()) {
    sides.pairs = {sides.probes.groups.genuine_pairs(), sides.probes.groups.impostor_pairs()};
    return;
  }
  for (const Range& mates : sides.mates) sides.pairs.genuine += mates.count;
  sides.pairs.impostor = probes * gallery - sides.pairs.genuine;
}

absl::StatusOr<Sides> OpenSides(const EvaluationContext& context) {
  const v1::Evaluate& evaluate = context.evaluate;
  const v1::AllPairs& spec = evaluate.all_pairs();
  SHARDMAX_ASSIGN_OR_RETURN(ProtocolData probes, OpenProtocolData(context));
  Sides sides = {.probes = std::move(probes)};
  if (spec.has_gallery_embeddings()) {
    const std::string field = "evaluate.all_pairs.gallery_";
    SHARDMAX_ASSIGN_OR_RETURN(sides.gallery, OpenRows(context, {field + "embeddings", spec.gallery_embeddings()},
                                                      {field + "identities", spec.gallery_identities()}));
    if (sides.gallery->embeddings.dim() != sides.probes.embeddings.dim()) {
      return InvalidArgument("{} has width {}, evaluate.embeddings has {}", sides.gallery->embeddings.name(),
                             sides.gallery->embeddings.dim(), sides.probes.embeddings.dim());
    }
  }
  CountPairs(sides);
  if (sides.pairs.genuine == 0 || sides.pairs.impostor == 0) {
    return InvalidArgument(
        "evaluate.identities: there are {} genuine and {} impostor pairs: at least one of each is needed",
        sides.pairs.genuine, sides.pairs.impostor);
  }
  return sides;
}

// Counts the scores of both kinds from a floor on.
class Counter final : public PairVisitor {
 public:
  static absl::StatusOr<Counter> Make(const Sides& sides, int32_t floor, int threads) {
    SHARDMAX_ASSIGN_OR_RETURN(ScoreCounts genuine, ScoreCounts::Make(floor));
    SHARDMAX_ASSIGN_OR_RETURN(ScoreCounts impostor, ScoreCounts::Make(floor));
    return Counter(sides, std::move(genuine), std::move(impostor), threads);
  }

  const ScoreCounts& genuine() const { return genuine_; }
  const ScoreCounts& impostor() const { return impostor_; }

  void Visit(int thread, int64_t probe, int64_t first_gallery, std::span<const float> scores) override {
    const auto size = static_cast<int64_t>(scores.size());
    const Range mates = sides_->mates[probe];
    const int64_t first = std::clamp<int64_t>(mates.first - first_gallery, 0, size);
    const int64_t end = std::clamp<int64_t>(mates.end() - first_gallery, 0, size);
    Count(impostor_, thread, scores.subspan(0, first));
    Count(genuine_, thread, scores.subspan(first, end - first));
    Count(impostor_, thread, scores.subspan(end));
  }

 private:
  Counter(const Sides& sides, ScoreCounts genuine, ScoreCounts impostor, int threads)
      : sides_(&sides), genuine_(std::move(genuine)), impostor_(std::move(impostor)), high_(threads) {}

  void Count(ScoreCounts& counts, int thread, std::span<const float> scores) {
    if (scores.empty()) return;
    const std::span<const float> found = high_[thread].AtLeast(counts.lowest_score(), scores);
    if (!found.empty()) counts.Add(found);
  }

  const Sides* sides_;
  ScoreCounts genuine_;
  ScoreCounts impostor_;
  std::vector<HighScores> high_;  // Of each thread.
};

// The counters of this rank, once all pairs of all ranks are counted; nothing if a rank asked to stop. Collective.
absl::StatusOr<std::optional<Counter>> CountFrom(const EvaluationContext& context, const Sides& sides, PairScan& scan,
                                                 int32_t floor) {
  auto counter = Counter::Make(sides, floor, context.threads);
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(context.comm, counter.status()));
  SHARDMAX_ASSIGN_OR_RETURN(const bool finished, scan.Run(*counter));
  if (!finished) return std::nullopt;
  return std::optional<Counter>(*std::move(counter));
}

// What was found, and how long it took.
struct Counted {
  std::vector<std::optional<RocPoint>> at_rates;
  std::vector<RocPoint> curve;
  double seconds = 0;
};

// Scores all pairs; nothing if a rank asked to stop. Collective.
absl::StatusOr<std::optional<Counted>> CountAll(const EvaluationContext& context, const Sides& sides, PairScan& scan,
                                                int32_t floor) {
  const auto& fprs = context.evaluate.all_pairs().fprs();
  const std::vector<double> rates(fprs.begin(), fprs.end());
  const auto start = std::chrono::steady_clock::now();
  while (true) {
    SHARDMAX_ASSIGN_OR_RETURN(const std::optional<Counter> counter, CountFrom(context, sides, scan, floor));
    if (!counter.has_value()) return std::nullopt;
    SHARDMAX_ASSIGN_OR_RETURN(const TailCurve curve,
                              TailCurve::Make(context.comm, counter->genuine(), counter->impostor(), sides.pairs));
    if (!std::all_of(rates.begin(), rates.end(), [&](double rate) { return curve.Reaches(rate); })) {
      floor = -kScoreOne;  // The guess was too high: once more, with every score.
      continue;
    }
    Counted counted;
    SHARDMAX_ASSIGN_OR_RETURN(counted.at_rates, curve.AtRates(context.comm, rates));
    counted.curve = Thinned(curve.points(), kCurvePoints);
    counted.seconds = SecondsSince(start);
    return counted;
  }
}

PairScan::Options ScanOptions(const Sides& sides, const v1::AllPairs& spec) {
  const ProtocolData& gallery = sides.other();
  return {.probes = {&sides.probes.embeddings, sides.probes.groups.rows},
          .gallery = {&gallery.embeddings, gallery.groups.rows},
          .same_rows = sides.same_rows(),
          .precision = spec.precision() == v1::BFLOAT16 ? Precision::kBfloat16 : Precision::kFloat32};
}

EvaluationResult MakeResult(const EvaluationContext& context, const Sides& sides, const Counted& counted) {
  const v1::AllPairs& spec = context.evaluate.all_pairs();
  EvaluationResult result = BeginResult(context, "all_pairs", sides.probes);
  if (sides.gallery.has_value()) {
    result["gallery_embeddings"] = sides.gallery->embeddings.rows();
    result["gallery_ignored_rows"] =
        sides.gallery->embeddings.rows() - static_cast<int64_t>(sides.gallery->groups.rows.size());
  }
  result["precision"] = v1::Precision_Name(spec.precision());
  result["genuine_pairs"] = sides.pairs.genuine;
  result["impostor_pairs"] = sides.pairs.impostor;
  result["tpr_at_fpr"] = EvaluationResult::array();
  for (int i = 0; i < spec.fprs_size(); ++i) {
    result["tpr_at_fpr"].push_back(RateEntry(kPairRates, spec.fprs(i), counted.at_rates[i], sides.pairs));
  }
  result["roc"] = CurveEntry(kPairRates, counted.curve, sides.pairs);
  return result;
}

}  // namespace

absl::StatusOr<std::optional<EvaluationResult>> CompareAllPairs(const EvaluationContext& context) {
  SHARDMAX_ASSIGN_OR_RETURN(const Sides sides, OpenSides(context));
  const PairScan::Options lists = ScanOptions(sides, context.evaluate.all_pairs());
  auto scan = PairScan::Make(context, lists);
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(context.comm, scan.status()));
  const auto& rates = context.evaluate.all_pairs().fprs();
  const auto is_impostor = [&](int64_t probe, int64_t gallery) { return !sides.mates[probe].contains(gallery); };
  SHARDMAX_ASSIGN_OR_RETURN(
      const int32_t floor,
      AgreeOnFloor(context.comm, lists, *std::max_element(rates.begin(), rates.end()), is_impostor));
  SHARDMAX_ASSIGN_OR_RETURN(const double peak_before, MeasureGemmPeak(context, lists.precision, scan->flops()));
  SHARDMAX_ASSIGN_OR_RETURN(const auto counted, CountAll(context, sides, *scan, floor));
  if (!counted.has_value()) return std::nullopt;
  SHARDMAX_ASSIGN_OR_RETURN(const double peak_after, MeasureGemmPeak(context, lists.precision, scan->flops()));
  if (context.comm.rank() != 0) return EvaluationResult();
  EvaluationResult result = MakeResult(context, sides, *counted);
  result["speed"] = SpeedEntry({.pairs = scan->pairs(),
                                .dim = sides.probes.embeddings.dim(),
                                .seconds = counted->seconds,
                                .gemm_peak = (peak_before + peak_after) / 2});
  return result;
}

}  // namespace shardmax
