#include "worker/engine/reference/reference_engine.h"

#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "worker/base/status.h"
#include "worker/engine/norm.h"
#include "worker/engine/shard_state.h"
#include "worker/loss/portable.h"

namespace shardmax {
namespace {

using Ops = ScalarOps<double>;

std::vector<double> InverseNorms(MatrixView<const float> rows) {
  std::vector<double> inverse(static_cast<size_t>(rows.rows));
  for (int64_t k = 0; k < rows.rows; ++k) inverse[k] = InverseNorm(rows.row(k));
  return inverse;
}

double Dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

ShiftedLogit<double> ShiftedBy(const ClassLogitScale& scale, double threshold, double shift) {
  return {threshold, scale.plain_slope, -shift, scale.support_vector_slope, scale.support_vector_offset - shift};
}

class ReferenceEngine final : public Engine {
 public:
  ReferenceEngine(EngineOptions options, ShardState state) : options_(std::move(options)), state_(std::move(state)) {}

  const EngineOptions& options() const override { return options_; }

  absl::Status ReadRows(const std::string& tensor, Range classes, MatrixView<float> rows) const override {
    return state_.Read(tensor, classes, rows);
  }
  absl::Status WriteRows(const std::string& tensor, Range classes, MatrixView<const float> rows) override {
    return state_.Write(tensor, classes, rows);
  }

  void BeginAt(int64_t steps_done) override { state_.BeginAt(steps_done); }
  absl::Status CatchUp(std::span<const int32_t> local, SkippedSteps& skipped) override {
    state_.Reach(local, skipped);
    for (const int32_t k : local) {
      if (const DecayMap* map = state_.CatchUp(k, skipped)) Apply(*map, k, skipped.noise());
    }
    return absl::OkStatus();
  }

  void LabelCosines(const EngineBatch& batch, std::span<float> cosines) override {
    const std::vector<double> inverse_norms = InverseNorms(state_.weight());
    for (int64_t b = 0; b < batch.features.rows; ++b) {
      const int64_t k = batch.labels[b] - options_.shard.first;
      const bool owned = options_.shard.contains(batch.labels[b]);
      cosines[b] =
          owned ? static_cast<float>(Dot(batch.features.row(b), state_.weight().row(k)) * inverse_norms[k]) : 0;
    }
  }

  absl::Status Score(const EngineBatch& batch, const ClassLogitScale& scale, std::span<const float> thresholds,
                     std::span<ShardPartial> partials) override {
    const Ops ops;
    const std::vector<double> inverse_norms = InverseNorms(state_.weight());
    SHARDMAX_RETURN_IF_ERROR(CheckNorms<double>(inverse_norms, options_.shard.first));
    const std::vector<double> cosines = Cosines(batch.features, inverse_norms);
    const int64_t classes = options_.shard.count;
    const std::vector<int64_t> active = ActiveOf(batch);
    for (int64_t b = 0; b < batch.features.rows; ++b) {
      const double threshold = thresholds[b];
      const int64_t label = batch.labels[b] - options_.shard.first;
      ShardPartial partial;
      for (const int64_t k : active) {
        if (k == label) continue;
        const double z = Logit(ops, scale, threshold, cosines[b * classes + k]);
        partial.max_logit = std::max(partial.max_logit, static_cast<float>(z));
      }
      const ShiftedLogit<double> row = ShiftedBy(scale, threshold, partial.max_logit);
      for (const int64_t k : active) {
        if (k == label) continue;
        const double cosine = cosines[b * classes + k];
        const bool is_support_vector = IsSupportVector(ops, row, cosine);
        partial.sum_exp += ExpLogit(ops, row, cosine, is_support_vector);
        partial.support_vectors += is_support_vector ? 1 : 0;
      }
      partials[b] = partial;
    }
    return absl::OkStatus();
  }

  absl::Status Backward(const EngineBatch& batch, const ClassLogitScale& scale, const RowGradients& rows,
                        const UpdateRule& rule, MatrixView<float> feature_gradients) override {
    const std::vector<double> inverse_norms = InverseNorms(state_.weight());
    const std::vector<double> cosines = Cosines(batch.features, inverse_norms);
    const std::vector<double> gradients = CosineGradients(batch, scale, rows, cosines);
    if (feature_gradients.data != nullptr) AddUpFeatureGradients(gradients, inverse_norms, feature_gradients);
    for (const int64_t k : ActiveOf(batch)) {
      UpdateRow(k, WeightGradient(k, batch.features, gradients, cosines, inverse_norms[k]), rule);
      state_.CountStep(k);
    }
    return absl::OkStatus();
  }

  absl::Status NearestClasses(MatrixView<const float> features, std::span<float> cosines,
                              std::span<int32_t> classes) override {
    const std::vector<double> inverse_norms = InverseNorms(state_.weight());
    SHARDMAX_RETURN_IF_ERROR(CheckNorms<double>(inverse_norms, options_.shard.first));
    const std::vector<double> all = Cosines(features, inverse_norms);
    for (int64_t b = 0; b < features.rows; ++b) {
      int64_t best = 0;
      for (int64_t k = 1; k < options_.shard.count; ++k) {
        if (all[b * options_.shard.count + k] > all[b * options_.shard.count + best]) best = k;
      }
      cosines[b] = static_cast<float>(all[b * options_.shard.count + best]);
      classes[b] = static_cast<int32_t>(options_.shard.first + best);
    }
    return absl::OkStatus();
  }

 private:
  // The classes that take part, from 0 of the shard.
  std::vector<int64_t> ActiveOf(const EngineBatch& batch) const {
    if (batch.active.has_value()) return {batch.active->begin(), batch.active->end()};
    std::vector<int64_t> all(static_cast<size_t>(options_.shard.count));
    std::iota(all.begin(), all.end(), 0);
    return all;
  }

  // cos [B, C_r].
  std::vector<double> Cosines(MatrixView<const float> features, const std::vector<double>& inverse_norms) const {
    std::vector<double> cosines;
    cosines.reserve(static_cast<size_t>(features.rows * options_.shard.count));
    for (int64_t b = 0; b < features.rows; ++b) {
      for (int64_t k = 0; k < options_.shard.count; ++k) {
        cosines.push_back(Dot(features.row(b), state_.weight().row(k)) * inverse_norms[k]);
      }
    }
    return cosines;
  }

  // dloss/dcos [B, C_r].
  std::vector<double> CosineGradients(const EngineBatch& batch, const ClassLogitScale& scale, const RowGradients& rows,
                                      const std::vector<double>& cosines) const {
    const int64_t classes = options_.shard.count;
    const std::vector<int64_t> active = ActiveOf(batch);
    std::vector<double> gradients(cosines.size());  // 0 of those that are not active.
    for (int64_t b = 0; b < batch.features.rows; ++b) {
      const ShiftedLogit<double> row = ShiftedBy(scale, rows.thresholds[b], rows.shifts[b]);
      for (const int64_t k : active) {
        const bool is_label = batch.labels[b] == options_.shard.first + k;
        gradients[b * classes + k] = is_label ? static_cast<double>(rows.label_gradients[b])
                                              : ClassCosineGradient(Ops(), row, static_cast<double>(rows.row_scales[b]),
                                                                    cosines[b * classes + k]);
      }
    }
    return gradients;
  }

  // dloss/dx̂_b = sum over k of dcos_bk ŵ_k.
  void AddUpFeatureGradients(const std::vector<double>& gradients, const std::vector<double>& inverse_norms,
                             MatrixView<float> feature_gradients) const {
    for (int64_t b = 0; b < feature_gradients.rows; ++b) {
      std::vector<double> sum(static_cast<size_t>(options_.dim));
      for (int64_t k = 0; k < options_.shard.count; ++k) {
        const double gradient = gradients[b * options_.shard.count + k] * inverse_norms[k];
        for (int64_t i = 0; i < options_.dim; ++i) sum[i] += gradient * state_.weight().row(k)[i];
      }
      for (int64_t i = 0; i < options_.dim; ++i) feature_gradients.row(b)[i] = static_cast<float>(sum[i]);
    }
  }

  // dloss/dw_k = (dŵ - (dŵ · ŵ) ŵ) / ‖w‖ with dŵ = sum over b of dcos_bk x̂_b, so that dŵ · ŵ = sum dcos_bk cos_bk.
  std::vector<double> WeightGradient(int64_t k, MatrixView<const float> features, const std::vector<double>& gradients,
                                     const std::vector<double>& cosines, double inverse_norm) const {
    std::vector<double> gradient(static_cast<size_t>(options_.dim));
    double along_weight = 0;
    for (int64_t b = 0; b < features.rows; ++b) {
      const double dcos = gradients[b * options_.shard.count + k];
      along_weight += dcos * cosines[b * options_.shard.count + k];
      for (int64_t i = 0; i < options_.dim; ++i) gradient[i] += dcos * features.row(b)[i];
    }
    for (int64_t i = 0; i < options_.dim; ++i) {
      gradient[i] = (gradient[i] - along_weight * inverse_norm * state_.weight().row(k)[i]) * inverse_norm;
    }
    return gradient;
  }

  void UpdateRow(int64_t k, const std::vector<double>& gradient, const UpdateRule& rule) {
    const StateRow first = state_.StateOf(0, k);
    const StateRow second = state_.StateOf(1, k);
    const uint32_t noise = RowNoise(rule.noise, options_.shard.first + k);
    for (int64_t i = 0; i < options_.dim; ++i) {
      float& weight = state_.weight().row(k)[i];
      double m = Load(first, i);
      double v = Load(second, i);
      weight = static_cast<float>(Updated(rule, weight, gradient[i], m, v));
      const uint32_t element_noise = ElementNoise(noise, static_cast<uint32_t>(i));
      Store(m, element_noise & 0xFFFFU, first, i);
      Store(v, element_noise >> 16U, second, i);
    }
  }

  void Apply(const DecayMap& map, int64_t k, uint64_t noise) {
    const StateRow momentum = state_.StateOf(0, k);
    const uint32_t row_noise = RowNoise(noise, options_.shard.first + k);
    for (int64_t i = 0; i < options_.dim; ++i) {
      float& weight = state_.weight().row(k)[i];
      const double w = weight;
      const double m = Load(momentum, i);
      weight = static_cast<float>(map.weight_of_weight * w + map.weight_of_momentum * m);
      Store(map.momentum_of_weight * w + map.momentum_of_momentum * m,
            ElementNoise(row_noise, static_cast<uint32_t>(i)) & 0xFFFFU, momentum, i);
    }
  }

  static double Updated(const UpdateRule& rule, double weight, double gradient, double& first, double& second) {
    const Ops ops;
    if (rule.params.kind == OptimizerKind::kAdamW) {
      return AdamWUpdate(ops, AdamWConstants<Ops>(ops, rule), weight, gradient, first, second);
    }
    const SgdConstants<Ops> k(ops, rule);
    if (rule.params.momentum == 0) return SgdUpdate(ops, k, weight, gradient);
    if (rule.params.nesterov) return SgdMomentumUpdate<true>(ops, k, weight, gradient, first);
    return SgdMomentumUpdate<false>(ops, k, weight, gradient, first);
  }

  static double Load(const StateRow& row, int64_t i) {
    if (row.bfloat16 != nullptr) return FromBfloat16(row.bfloat16[i]);
    return row.float32 != nullptr ? row.float32[i] : 0;
  }

  static void Store(double value, uint32_t noise, const StateRow& row, int64_t i) {
    if (row.bfloat16 != nullptr) row.bfloat16[i] = RoundStochastically(static_cast<float>(value), noise);
    if (row.float32 != nullptr) row.float32[i] = static_cast<float>(value);
  }

  EngineOptions options_;
  ShardState state_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> MakeReferenceEngine(const EngineOptions& options) {
  if (options.precision != Precision::kFloat32) {
    return absl::UnimplementedError("the reference engine computes in float64 only: use precision FLOAT32");
  }
  SHARDMAX_ASSIGN_OR_RETURN(ShardState state, ShardState::Allocate(options.shard, options.dim, options.optimizer,
                                                                   options.sample_rate < 1, options.storage_folder));
  return std::make_unique<ReferenceEngine>(options, std::move(state));
}

}  // namespace shardmax
