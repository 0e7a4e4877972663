#include "worker/eval/verification.h"

#include <chrono>
#include <cmath>

#include "worker/base/shard_range.h"
#include "worker/base/status.h"
#include "worker/data/checksum.h"
#include "worker/eval/error_rates.h"
#include "worker/eval/exchange.h"
#include "worker/eval/folds.h"
#include "worker/eval/protocol_data.h"
#include "worker/eval/result.h"
#include "worker/eval/row_pairs.h"

namespace shardmax {
namespace {

// Between two of them a request to stop is heard.
constexpr int64_t kPairsARound = 1 << 16;

PairCounts CountPairs(std::span<const RowPair> pairs) {
  PairCounts counts;
  for (const RowPair& pair : pairs) ++(pair.genuine ? counts.genuine : counts.impostor);
  return counts;
}

absl::StatusOr<std::vector<RowPair>> FindPairs(const EvaluationContext& context, const ProtocolData& data) {
  const v1::Verification& spec = context.evaluate.verification();
  const std::string field = "evaluate.verification";
  std::vector<RowPair> pairs;
  if (spec.has_pairs()) {
    SHARDMAX_ASSIGN_OR_RETURN(const std::string path, context.roots.Resolve(field + ".pairs", spec.pairs()));
    SHARDMAX_ASSIGN_OR_RETURN(pairs, ReadPairs(field + ".pairs", path, data.identities));
  } else {
    SHARDMAX_ASSIGN_OR_RETURN(pairs, DrawPairs(field + ".num_pairs", data.groups, spec.num_pairs(), spec.seed()));
  }
  const auto count = static_cast<int64_t>(pairs.size());
  if (count < spec.folds()) {
    return InvalidArgument("{}.folds is {}: allowed is at most the number of pairs, which is {}", field, spec.folds(),
                           count);
  }
  const PairCounts counts = CountPairs(pairs);
  if (counts.genuine == 0 || counts.impostor == 0) {
    return InvalidArgument("{}.pairs has {} genuine and {} impostor pairs: at least one of each is needed", field,
                           counts.genuine, counts.impostor);
  }
  return pairs;
}

std::string Digest(std::span<const RowPair> pairs) {
  Checksum checksum;
  for (const RowPair& pair : pairs) {
    const int64_t rows[] = {pair.first, pair.second};
    checksum.Update(std::as_bytes(std::span(rows)));
  }
  return "checksum " + checksum.Text();
}

double Cosine(std::span<const float> a, std::span<const float> b) {
  double product = 0;
  double square_a = 0;
  double square_b = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    product += static_cast<double>(a[i]) * b[i];
    square_a += static_cast<double>(a[i]) * a[i];
    square_b += static_cast<double>(b[i]) * b[i];
  }
  return product / std::sqrt(square_a * square_b);
}

class PairScorer {
 public:
  explicit PairScorer(const Embeddings& embeddings)
      : embeddings_(embeddings), a_(static_cast<size_t>(embeddings.dim())), b_(a_.size()) {}

  absl::StatusOr<double> operator()(const RowPair& pair) {
    SHARDMAX_RETURN_IF_ERROR(embeddings_.ReadDirection(pair.first, a_));
    SHARDMAX_RETURN_IF_ERROR(embeddings_.ReadDirection(pair.second, b_));
    return Cosine(a_, b_);
  }

 private:
  const Embeddings& embeddings_;
  std::vector<float> a_, b_;
};

absl::Status ScoreRange(std::span<const RowPair> pairs, PairScorer& scorer, std::vector<double>& scores) {
  for (const RowPair& pair : pairs) {
    SHARDMAX_ASSIGN_OR_RETURN(const double score, scorer(pair));
    scores.push_back(score);
  }
  return absl::OkStatus();
}

// The scores of all pairs, on every rank; nothing if a rank asked to stop. Collective.
absl::StatusOr<std::optional<std::vector<double>>> ScoreAll(const EvaluationContext& context, const ProtocolData& data,
                                                            std::span<const RowPair> pairs) {
  const auto total = static_cast<int64_t>(pairs.size());
  const int ranks = context.comm.size();
  PairScorer scorer(data.embeddings);
  std::vector<double> scores;
  scores.reserve(pairs.size());
  context.host.OnProgress(0, total);
  for (int64_t first = 0; first < total; first += kPairsARound * ranks) {
    const int64_t count = std::min(kPairsARound * ranks, total - first);
    const Range mine = BalancedPart(count, context.comm.rank(), ranks);
    std::vector<double> part;
    const absl::Status scored = ScoreRange(
        pairs.subspan(static_cast<size_t>(first + mine.first), static_cast<size_t>(mine.count)), scorer, part);
    SHARDMAX_ASSIGN_OR_RETURN(const bool stop, AnyRank(context.comm, scored, context.host.StopRequested()));
    if (stop) return std::nullopt;
    SHARDMAX_ASSIGN_OR_RETURN(const std::vector<double> joined, GatherParts(context.comm, part, count));
    scores.insert(scores.end(), joined.begin(), joined.end());
    context.host.OnProgress(first + count, total);
  }
  return scores;
}

EvaluationResult AccuracyEntry(const std::vector<FoldResult>& folds) {
  const auto count = static_cast<double>(folds.size());
  double mean = 0;
  for (const FoldResult& fold : folds) mean += fold.accuracy / count;
  double variance = 0;
  for (const FoldResult& fold : folds) variance += (fold.accuracy - mean) * (fold.accuracy - mean) / count;
  EvaluationResult list = EvaluationResult::array();
  for (const FoldResult& fold : folds) {
    list.push_back(EvaluationResult{{"accuracy", fold.accuracy}, {"threshold", fold.threshold}});
  }
  return {{"mean", mean}, {"deviation", std::sqrt(variance)}, {"folds", list}};
}

void Judge(const v1::Verification& spec, std::span<const RowPair> pairs, const std::vector<double>& scores,
           EvaluationResult& result) {
  std::vector<double> genuine;
  std::vector<double> impostor;
  std::vector<uint8_t> is_genuine;
  for (size_t p = 0; p < pairs.size(); ++p) {
    (pairs[p].genuine ? genuine : impostor).push_back(scores[p]);
    is_genuine.push_back(pairs[p].genuine ? 1 : 0);
  }
  result["genuine_pairs"] = genuine.size();
  result["impostor_pairs"] = impostor.size();
  result["accuracy"] = AccuracyEntry(CrossValidate(scores, is_genuine, spec.folds()));
  const RocCurve curve = MakeRocCurve(std::move(genuine), std::move(impostor));
  result["auc"] = AreaUnderCurve(curve);
  result["eer"] = EqualErrorRate(curve);
  result["tar_at_far"] = EvaluationResult::array();
  for (const double far : spec.fars()) {
    result["tar_at_far"].push_back(RateEntry(kAcceptRates, far, PointAtRate(curve, far), curve.pairs));
  }
  result["roc"] = CurveEntry(kAcceptRates, Thinned(curve.points, kCurvePoints), curve.pairs);
}

}  // namespace

absl::StatusOr<std::optional<EvaluationResult>> Verify(const EvaluationContext& context) {
  SHARDMAX_ASSIGN_OR_RETURN(const ProtocolData data, OpenProtocolData(context));
  const auto pairs = FindPairs(context, data);
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(context.comm, pairs.status()));
  SHARDMAX_RETURN_IF_ERROR(AgreeOnFile(context.comm, "evaluate.verification.pairs", Digest(*pairs)));
  const auto start = std::chrono::steady_clock::now();
  SHARDMAX_ASSIGN_OR_RETURN(const auto scores, ScoreAll(context, data, *pairs));
  if (!scores.has_value()) return std::nullopt;
  if (context.comm.rank() != 0) return EvaluationResult();
  EvaluationResult result = BeginResult(context, "verification", data);
  Judge(context.evaluate.verification(), *pairs, *scores, result);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  result["speed"] = {{"seconds", seconds.count()}};
  return result;
}

}  // namespace shardmax
