#include "worker/live/trainer_step.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "worker/base/matrix_view.h"
#include "worker/base/status.h"
#include "worker/data/checksum.h"
#include "worker/data/row_check.h"
#include "worker/live/wire.h"

namespace shardmax {
namespace {

constexpr double kMaxRate = 1e6;

std::string FingerprintOf(const v1::StepRequest& request) {
  struct {
    int32_t rows;
    int32_t type;
    double lr;
    int32_t has_lr;
    int32_t checkpoints;
  } const head = {request.rows(), request.type(), request.lr(), request.has_lr() ? 1 : 0,
                  (request.checkpoint() ? 1 : 0) | (request.checkpoint_behind() ? 2 : 0)};
  static_assert(sizeof(head) == 24, "no byte of it is padding");
  Checksum checksum;
  checksum.Update(std::as_bytes(std::span(&head, 1)));
  checksum.Update(std::as_bytes(std::span(request.features())));
  checksum.Update(std::as_bytes(std::span(request.labels())));
  return checksum.Text();
}

absl::Status CheckShape(const v1::StepRequest& request, const StepShape& shape) {
  const size_t value_bytes = WireBytes(request.type());
  if (value_bytes == 0) {
    return InvalidArgument("type is {}: allowed is WIRE_FLOAT32, WIRE_FLOAT16, WIRE_BFLOAT16",
                           static_cast<int>(request.type()));
  }
  const int64_t rows = request.rows();
  if (rows < 0 || rows > shape.max_rows) {
    return InvalidArgument("rows is {}: allowed is 0 to train.batch_size, which is {}", rows, shape.max_rows);
  }
  const size_t features = static_cast<size_t>(rows * shape.dim) * value_bytes;
  if (request.features().size() != features) {
    return InvalidArgument("features has {} bytes: {} rows of width {} in {} bytes a value are {}",
                           request.features().size(), rows, shape.dim, value_bytes, features);
  }
  if (request.labels().size() != static_cast<size_t>(rows) * sizeof(int32_t)) {
    return InvalidArgument("labels has {} bytes: {} rows of int32 are {}", request.labels().size(), rows,
                           rows * static_cast<int64_t>(sizeof(int32_t)));
  }
  if (request.has_lr() && !(request.lr() >= 0 && request.lr() <= kMaxRate)) {
    return InvalidArgument("lr is {}: allowed is 0 to {}", request.lr(), kMaxRate);
  }
  return absl::OkStatus();
}

absl::Status ReadRows(const v1::StepRequest& request, const StepShape& shape, TrainerStep& step) {
  SHARDMAX_RETURN_IF_ERROR(CheckShape(request, shape));
  step.labels.resize(static_cast<size_t>(request.rows()));
  if (!step.labels.empty()) std::memcpy(step.labels.data(), request.labels().data(), request.labels().size());
  step.features.resize(static_cast<size_t>(request.rows() * shape.dim));
  DecodeValues(request.features(), request.type(), step.features);
  const MatrixView<float> features = {step.features.data(), request.rows(), shape.dim};
  for (int64_t row = 0; row < features.rows; ++row) {
    const int32_t label = step.labels[row];
    if (label < -1 || label >= shape.num_classes) {
      return InvalidArgument("labels row {} is {}: allowed is -1 (ignored) or a class in [0, {})", row, label,
                             shape.num_classes);
    }
    if (label == -1) {
      std::ranges::fill(features.row(row), 0.0F);
    } else if (const absl::Status status = CheckDirection(features.row(row)); !status.ok()) {
      return Annotate(status, fmt::format("features row {}", row));
    }
  }
  step.rows = request.rows();
  return absl::OkStatus();
}

}  // namespace

TrainerStep ReadTrainerStep(int trainer, const v1::StepRequest& request, const StepShape& shape) {
  TrainerStep step = {.trainer = trainer, .step = request.step(), .type = request.type()};
  step.fingerprint = FingerprintOf(request);
  if (request.has_lr()) step.lr = request.lr();
  step.checkpoint = request.checkpoint();
  step.checkpoint_behind = request.checkpoint_behind();
  step.status = Annotate(ReadRows(request, shape, step), fmt::format("trainer {}", trainer));
  if (!step.status.ok()) {
    step.features.clear();
    step.labels.clear();
  }
  return step;
}

}  // namespace shardmax
