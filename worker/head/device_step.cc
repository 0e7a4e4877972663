#include "worker/head/device_step.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "worker/base/shard_range.h"
#include "worker/base/status.h"
#include "worker/comm/verdict.h"
#include "worker/engine/norm.h"
#include "worker/head/gather_block.h"
#include "worker/head/row_outcomes.h"

namespace shardmax {
namespace {

// The status that begins a block.
struct BlockStatus {
  StepVerdict verdict;
  uint32_t requests = 0;
};
static_assert(sizeof(BlockStatus) == DeviceHeader::kStatusBytes && offsetof(BlockStatus, verdict) == 0 &&
                  offsetof(StepVerdict, code) == 0,
              "kernels look at the code");

BlockStatus StatusOfRank(const std::byte* headers, int rank) {
  BlockStatus status;
  std::memcpy(&status, headers + static_cast<size_t>(rank) * DeviceHeader::kBytes, sizeof(status));
  return status;
}

int32_t BadClassOfRank(const std::byte* headers, int rank) {
  int32_t global_class = -1;
  std::memcpy(&global_class, headers + static_cast<size_t>(rank) * DeviceHeader::kBytes + DeviceHeader::kStatusBytes,
              sizeof(global_class));
  return global_class;
}

}  // namespace

std::unique_ptr<DeviceStep> DeviceStep::Make(Communicator& comm, Engine& engine, int64_t num_classes) {
  if (engine.device() == nullptr || (comm.size() > 1 && comm.device() == nullptr)) return nullptr;
  return std::unique_ptr<DeviceStep>(new DeviceStep(comm, *engine.device(), engine.options(), num_classes));
}

DeviceStep::DeviceStep(Communicator& comm, DevicePhases& device, const EngineOptions& options, int64_t num_classes)
    : comm_(comm),
      wire_(comm.size() > 1 ? comm.device() : nullptr),
      device_(device),
      dim_(options.dim),
      num_classes_(num_classes) {
  // What the engine has made buffers for; equal on every rank, so that all agree on when there is more to make.
  reserved_rows_ = options.ranks == comm.size() ? options.batch_rows : 0;
  reserved_block_rows_ = BalancedPart(reserved_rows_, 0, comm.size()).count;
}

absl::Status DeviceStep::OrBreak(const absl::Status& status) {
  return status.ok() || wire_ == nullptr ? status : wire_->Break(status);
}

absl::Status DeviceStep::AllGather(const DeviceBlocks& blocks) {
  if (wire_ == nullptr) return absl::OkStatus();
  return wire_->AllGather(blocks.data, blocks.block_bytes, device_.wire());
}

// A rank that cannot make room could not tell the others in the gather.
absl::Status DeviceStep::Reserve(const DeviceStepShape& shape) {
  if (shape.rows() <= reserved_rows_ && shape.block_rows() <= reserved_block_rows_) return absl::OkStatus();
  const absl::Status reserved = AgreeOk(comm_, device_.Reserve(shape));
  reserved_rows_ = reserved.ok() ? std::max(reserved_rows_, shape.rows()) : 0;
  reserved_block_rows_ = reserved.ok() ? std::max(reserved_block_rows_, shape.block_rows()) : 0;
  return reserved;
}

absl::Status DeviceStep::FillRows(const StepInput& input, const DeviceRows& rows) const {
  SHARDMAX_RETURN_IF_ERROR(update_status_);
  SHARDMAX_RETURN_IF_ERROR(input.status);
  if (input.features.cols != dim_) {
    return InvalidArgument("features have width {}, the head has dim {}", input.features.cols, dim_);
  }
  const int64_t count = rows_of_rank_[static_cast<size_t>(comm_.rank())].count;
  SHARDMAX_RETURN_IF_ERROR(
      NormaliseRows(num_classes_, count, input.features, input.labels,
                    {.features = rows.features, .labels = rows.labels, .inverse_norms = rows.inverse_norms}));
  for (int64_t i = 0; i < count; ++i) {
    if (input.labels[i] < 0) std::fill_n(rows.features + i * dim_, dim_, 0.0F);
  }
  return absl::OkStatus();
}

absl::Status DeviceStep::EnqueueScores() {
  absl::Status scored = device_.LabelCosines();
  if (wire_ != nullptr) {
    const auto rows = static_cast<size_t>(rows_of_rank_.back().end());
    SHARDMAX_RETURN_IF_ERROR(wire_->AllReduceSum(device_.label_cosines(), rows, device_.wire()));
  }
  if (scored.ok()) scored = device_.Score();
  const BlockStatus status = {.verdict = StepVerdict::Of(scored)};
  SHARDMAX_RETURN_IF_ERROR(OrBreak(device_.SendPartials(std::as_bytes(std::span(&status, 1)))));
  SHARDMAX_RETURN_IF_ERROR(AllGather(device_.partial_blocks()));
  return OrBreak(device_.Outcomes());
}

absl::Status DeviceStep::EnqueueBackward(bool want_feature_gradients) {
  updated_ = device_.Backward();
  // A rank that returned here would leave the others alone with their next collective.
  update_status_ = Annotate(updated_, "in the backward phase of the step before");
  if (!want_feature_gradients) return absl::OkStatus();
  SHARDMAX_RETURN_IF_ERROR(OrBreak(device_.SendGradients(updated_.ok() ? 0 : 1)));
  if (wire_ != nullptr) {
    SHARDMAX_RETURN_IF_ERROR(
        wire_->ReduceScatterSum(device_.gradient_blocks(), device_.gradient_block_floats(), device_.wire()));
  }
  return OrBreak(device_.ReceiveGradients());
}

absl::Status DeviceStep::Enqueue(const DeviceStepShape& shape, const StepInput& input) {
  const DeviceRows rows = device_.Begin(shape, input.loss, input.rule);
  const absl::Status filled = FillRows(input, rows);
  const BlockStatus status = {.verdict = StepVerdict::Of(filled), .requests = input.requests};
  std::memcpy(rows.header, &status, sizeof(status));
  SHARDMAX_RETURN_IF_ERROR(OrBreak(device_.SendRows()));
  SHARDMAX_RETURN_IF_ERROR(AllGather(device_.row_blocks()));
  SHARDMAX_RETURN_IF_ERROR(EnqueueScores());
  return EnqueueBackward(shape.want_feature_gradients);
}

absl::StatusOr<StepResult> DeviceStep::Run(const StepInput& input) {
  // Equal on every rank, so an error is too.
  SHARDMAX_RETURN_IF_ERROR(PartsOfBatch(input.global_rows, input.rank_rows, comm_.size(), rows_of_rank_));
  const DeviceStepShape shape = {
      .rows_of_rank = rows_of_rank_, .rank = comm_.rank(), .want_feature_gradients = input.want_feature_gradients};
  SHARDMAX_RETURN_IF_ERROR(Reserve(shape));
  SHARDMAX_RETURN_IF_ERROR(Enqueue(shape, input));
  SHARDMAX_RETURN_IF_ERROR(wire_ != nullptr ? wire_->Await(device_.outcome_event()) : device_.AwaitOutcome());
  const DeviceOutcome outcome = device_.outcome();
  if (!outcome.go) return Diagnose(shape, input.loss);
  if (outcome.failed_ranks != 0) {
    SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm_, updated_));
    return Error(absl::StatusCode::kInternal, "the update failed on a rank that does not say so");
  }
  return Result(shape, outcome);
}

StepResult DeviceStep::Result(const DeviceStepShape& shape, const DeviceOutcome& outcome) const {
  StepResult result = {.loss = outcome.loss,
                       .label_cosine = outcome.mean_label_cosine,
                       .support_vector_ratio = SupportVectorRatio(outcome.support_vectors, outcome.counted_rows,
                                                                  static_cast<double>(num_classes_)),
                       .counted_rows = outcome.counted_rows};
  for (int rank = 0; rank < shape.ranks(); ++rank) {
    result.requests |= StatusOfRank(outcome.row_headers, rank).requests;
  }
  if (shape.want_feature_gradients) result.feature_gradients = {outcome.feature_gradients, shape.mine().count, dim_};
  const DeviceSeconds seconds = device_.seconds();
  result.phase_seconds = {.gather = seconds.gather,
                          .label = seconds.label,
                          .score = seconds.score,
                          .normalise = seconds.normalise,
                          .backward = seconds.backward,
                          .scatter = seconds.scatter};
  return result;
}

// Every rank has the same blocks, so all come to the same end. In the order in which a step on the host finds it.
absl::Status DeviceStep::Diagnose(const DeviceStepShape& shape, const LossParams& loss) {
  const DeviceOutcome outcome = device_.outcome();
  for (const std::byte* headers : {outcome.row_headers, outcome.partial_headers}) {
    for (int rank = 0; rank < shape.ranks(); ++rank) {
      SHARDMAX_RETURN_IF_ERROR(StatusOfRank(headers, rank).verdict.From(rank));
    }
  }
  const auto rows = static_cast<size_t>(shape.rows());
  std::vector<int32_t> labels(rows);
  std::vector<float> cosines(rows);
  SHARDMAX_RETURN_IF_ERROR(OrBreak(device_.ReadLabels(labels, cosines)));
  RowOutcomes outcomes;
  SHARDMAX_RETURN_IF_ERROR(outcomes.SetLabelCosines(loss, labels, cosines));
  for (int rank = 0; rank < shape.ranks(); ++rank) {
    const int32_t bad_class = BadClassOfRank(outcome.partial_headers, rank);
    if (bad_class >= 0) return Annotate(WeightsNotFinite(bad_class), fmt::format("rank {}", rank));
  }
  std::vector<std::vector<ShardPartial>> partials(static_cast<size_t>(shape.ranks()), std::vector<ShardPartial>(rows));
  std::vector<std::span<const ShardPartial>> views;
  for (int rank = 0; rank < shape.ranks(); ++rank) {
    std::vector<ShardPartial>& of_rank = partials[static_cast<size_t>(rank)];
    SHARDMAX_RETURN_IF_ERROR(OrBreak(device_.ReadPartials(rank, of_rank)));
    views.emplace_back(of_rank);
  }
  SHARDMAX_RETURN_IF_ERROR(outcomes.SetPartials(loss, views));
  return Error(absl::StatusCode::kInternal, "the device stopped a step in which the host finds nothing wrong");
}

}  // namespace shardmax
