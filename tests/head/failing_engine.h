// An engine that fails on purpose.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "worker/base/status.h"
#include "worker/engine/engine.h"

namespace shardmax {

// Passes every call on to `inner`, which it borrows, unless told to fail.
class FailingEngine final : public Engine {
 public:
  explicit FailingEngine(Engine& inner) : inner_(inner) {}

  absl::Status score_status, backward_status, nearest_status, catch_up_status;
  std::function<void()> before_label_cosines, before_prepare, before_backward;  // Called first if it is set.
  std::optional<double> sum_exp_of_row_3;  // What Score reports for that row, in place of the truth.

  const EngineOptions& options() const override { return inner_.options(); }
  absl::Status ReadRows(const std::string& tensor, Range classes, MatrixView<float> rows) const override {
    return inner_.ReadRows(tensor, classes, rows);
  }
  absl::Status WriteRows(const std::string& tensor, Range classes, MatrixView<const float> rows) override {
    return inner_.WriteRows(tensor, classes, rows);
  }
  void BeginAt(int64_t steps_done) override { inner_.BeginAt(steps_done); }
  absl::Status CatchUp(std::span<const int32_t> local, SkippedSteps& skipped) override {
    SHARDMAX_RETURN_IF_ERROR(catch_up_status);
    return inner_.CatchUp(local, skipped);
  }
  void LabelCosines(const EngineBatch& batch, std::span<float> cosines) override {
    if (before_label_cosines) before_label_cosines();
    inner_.LabelCosines(batch, cosines);
  }
  void Prepare(const EngineBatch& batch) override {
    if (before_prepare) before_prepare();
    inner_.Prepare(batch);
  }
  absl::Status Score(const EngineBatch& batch, const ClassLogitScale& scale, std::span<const float> thresholds,
                     std::span<ShardPartial> partials) override {
    SHARDMAX_RETURN_IF_ERROR(score_status);
    SHARDMAX_RETURN_IF_ERROR(inner_.Score(batch, scale, thresholds, partials));
    if (sum_exp_of_row_3.has_value()) partials[3].sum_exp = *sum_exp_of_row_3;
    return absl::OkStatus();
  }
  absl::Status Backward(const EngineBatch& batch, const ClassLogitScale& scale, const RowGradients& rows,
                        const UpdateRule& rule, MatrixView<float> feature_gradients) override {
    if (before_backward) before_backward();
    SHARDMAX_RETURN_IF_ERROR(backward_status);
    return inner_.Backward(batch, scale, rows, rule, feature_gradients);
  }
  absl::Status NearestClasses(MatrixView<const float> features, std::span<float> cosines,
                              std::span<int32_t> classes) override {
    SHARDMAX_RETURN_IF_ERROR(nearest_status);
    return inner_.NearestClasses(features, cosines, classes);
  }

 private:
  Engine& inner_;
};

}  // namespace shardmax
