#include "worker/engine/cuda/cuda_phases.h"

#include <algorithm>
#include <vector>

#include "worker/base/cuda_status.h"
#include "worker/base/status.h"
#include "worker/engine/cuda/device_plan.h"

namespace shardmax::cuda {
namespace {

double SecondsBetween(const Event& from, const Event& to) {
  float milliseconds = 0;
  return cudaEventElapsedTime(&milliseconds, from.get(), to.get()) == cudaSuccess ? milliseconds * 1e-3 : 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaPhases>> CudaPhases::Make(const EngineOptions& options, int device, int64_t l2_bytes,
                                                             TileWork& work, BatchBuffers& batch) {
  std::unique_ptr<CudaPhases> phases(new CudaPhases(options, device, l2_bytes, work, batch));
  SHARDMAX_RETURN_IF_ERROR(phases->Prepare());
  return phases;
}

absl::Status CudaPhases::Prepare() {
  SHARDMAX_ASSIGN_OR_RETURN(wire_, Stream::Make());
  for (Event* event :
       {&gather_began_, &gathered_, &label_began_, &labels_done_, &cosines_summed_, &score_began_, &scored_,
        &partials_gathered_, &outcome_there_, &backward_[0].begin, &backward_[0].end, &backward_[1].begin,
        &backward_[1].end, &feature_gradients_done_, &scatter_began_, &gradients_home_}) {
    SHARDMAX_ASSIGN_OR_RETURN(*event, Event::Make(cudaEventDefault));
  }
  const int64_t rows = std::max<int64_t>(1, options_.batch_rows);
  return exchange_.Reserve(rows, (rows + options_.ranks - 1) / options_.ranks, options_.dim, options_.ranks, compute(),
                           wire_.get());
}

absl::Status CudaPhases::Reserve(const DeviceStepShape& shape) {
  SHARDMAX_CUDA(cudaSetDevice, device_);
  SHARDMAX_RETURN_IF_ERROR(batch_.Reserve(options_, shape.rows(), l2_bytes_, compute()));
  return exchange_.Reserve(shape.rows(), shape.block_rows(), options_.dim, shape.ranks(), compute(), wire_.get());
}

DeviceRows CudaPhases::Begin(const DeviceStepShape& shape, const LossParams& loss, const UpdateRule& rule) {
  ++step_;
  backward().recorded = false;
  shape_ = shape;
  rule_ = rule;
  block_ = SizesOfBlocks(shape.rows(), shape.block_rows(), options_.dim);
  *batch_.host_step.data() = {.loss = loss, .scale = ScaleOf(loss), .rule = rule};
  int32_t* first_rows = exchange_.host_first_rows.data();
  for (const Range& rows : shape.rows_of_rank) *first_rows++ = static_cast<int32_t>(rows.first);
  *first_rows = static_cast<int32_t>(shape.rows());
  std::byte* block = exchange_.host_row_block.data();
  auto* features = reinterpret_cast<float*>(block + DeviceHeader::kBytes);
  return {.header = block,
          .features = features,
          .labels = reinterpret_cast<int32_t*>(features + shape.block_rows() * options_.dim),
          .inverse_norms = exchange_.host_inverse_norms.data()};
}

DeviceBlocks CudaPhases::row_blocks() const {
  return {exchange_.row_blocks.data(), static_cast<size_t>(block_.row_bytes)};
}

DeviceBlocks CudaPhases::partial_blocks() const {
  return {exchange_.partial_blocks.data(), static_cast<size_t>(block_.partial_bytes)};
}

absl::Status CudaPhases::Follow(cudaStream_t from, const Event& event, cudaStream_t to) {
  SHARDMAX_CUDA(cudaEventRecord, event.get(), from);
  SHARDMAX_CUDA(cudaStreamWaitEvent, to, event.get(), 0);
  return absl::OkStatus();
}

absl::Status CudaPhases::SendRows() {
  SHARDMAX_CUDA(cudaSetDevice, device_);
  SHARDMAX_CUDA(cudaEventRecord, gather_began_.get(), wire_.get());
  SHARDMAX_CUDA(cudaMemcpyAsync, exchange_.first_rows.data(), exchange_.host_first_rows.data(),
                (static_cast<size_t>(shape_.ranks()) + 1) * sizeof(int32_t), cudaMemcpyHostToDevice, wire_.get());
  SHARDMAX_CUDA(cudaMemcpyAsync, exchange_.inverse_norms.data(), exchange_.host_inverse_norms.data(),
                static_cast<size_t>(shape_.block_rows()) * sizeof(float), cudaMemcpyHostToDevice, wire_.get());
  SHARDMAX_CUDA(cudaMemcpyAsync, MyBlock(row_blocks()), exchange_.host_row_block.data(), row_blocks().block_bytes,
                cudaMemcpyHostToDevice, wire_.get());
  return absl::OkStatus();
}

absl::Status CudaPhases::LabelCosines() {
  SHARDMAX_CUDA(cudaSetDevice, device_);
  SHARDMAX_CUDA(cudaMemcpyAsync, batch_.step.data(), batch_.host_step.data(), sizeof(StepState), cudaMemcpyHostToDevice,
                compute());
  SHARDMAX_RETURN_IF_ERROR(Follow(wire_.get(), gathered_, compute()));
  SHARDMAX_CUDA(cudaEventRecord, label_began_.get(), compute());
  const UnpackArgs args = {.blocks = exchange_.row_blocks.data(),
                           .block_bytes = block_.row_bytes,
                           .parts = parts(),
                           .rows = static_cast<int>(rows()),
                           .dim = options_.dim,
                           .stride = batch_.plan.stride,
                           .features = batch_.features.data(),
                           .bfloat16_features = batch_.bfloat16_features.data(),
                           .labels = batch_.labels.data(),
                           .step = batch_.step.data()};
  SHARDMAX_CUDA(LaunchUnpack, args, compute());
  SHARDMAX_RETURN_IF_ERROR(work_.LabelCosines(rows()));
  return Follow(compute(), labels_done_, wire_.get());
}

GraphKey CudaPhases::KeyOf(GraphPhase phase) const {
  GraphKey key = {.phase = phase, .rows = rows()};
  if (phase == GraphPhase::kScore) {
    key.block_place = MyBlock(partial_blocks()) - exchange_.partial_blocks.data();
  } else {
    key.with_feature_gradients = shape_.want_feature_gradients;
    key.optimizer = rule_.params.kind;
    key.has_momentum = rule_.params.momentum != 0;
    key.is_nesterov = rule_.params.nesterov;
  }
  return key;
}

absl::Status CudaPhases::Score() {
  SHARDMAX_CUDA(cudaSetDevice, device_);
  SHARDMAX_RETURN_IF_ERROR(Follow(wire_.get(), cosines_summed_, compute()));
  SHARDMAX_CUDA(cudaEventRecord, score_began_.get(), compute());
  const auto enqueue = [&]() -> absl::Status {
    const TargetArgs args = {.labels = batch_.labels.data(),
                             .cosines = batch_.label_cosines.data(),
                             .rows = static_cast<int>(rows()),
                             .targets = exchange_.targets.data(),
                             .thresholds = numbers().thresholds,
                             .step = batch_.step.data()};
    SHARDMAX_CUDA(LaunchTargets, args, compute());
    std::byte* block = MyBlock(partial_blocks());
    return work_.Score(rows(), reinterpret_cast<ShardPartial*>(block + DeviceHeader::kBytes),
                       reinterpret_cast<int32_t*>(block + DeviceHeader::kStatusBytes));
  };
  return graphs_.Run(KeyOf(GraphPhase::kScore), generation(), compute(), enqueue);
}

absl::Status CudaPhases::SendPartials(std::span<const std::byte> status) {
  SHARDMAX_CUDA(cudaSetDevice, device_);
  SHARDMAX_RETURN_IF_ERROR(Follow(compute(), scored_, wire_.get()));
  std::copy(status.begin(), status.end(), exchange_.host_partial_status.data());
  SHARDMAX_CUDA(cudaMemcpyAsync, MyBlock(partial_blocks()), exchange_.host_partial_status.data(), status.size(),
                cudaMemcpyHostToDevice, wire_.get());
  return absl::OkStatus();
}

absl::Status CudaPhases::EnqueueOutcomes() {
  const auto count = static_cast<int>(rows());
  const LossArgs losses = {.blocks = exchange_.partial_blocks.data(),
                           .block_bytes = block_.partial_bytes,
                           .ranks = shape_.ranks(),
                           .rows = count,
                           .labels = batch_.labels.data(),
                           .targets = exchange_.targets.data(),
                           .losses = exchange_.losses.data(),
                           .support_vectors = exchange_.support_vectors.data(),
                           .step = batch_.step.data()};
  SHARDMAX_CUDA(LaunchLosses, losses, compute());
  const KeepArgs keep = {.labels = batch_.labels.data(),
                         .losses = exchange_.losses.data(),
                         .rows = count,
                         .step = batch_.step.data(),
                         .kept = exchange_.kept.data()};
  SHARDMAX_CUDA(LaunchKeep, keep, compute());
  const FinishArgs finish = {.rows = count,
                             .labels = batch_.labels.data(),
                             .cosines = batch_.label_cosines.data(),
                             .targets = exchange_.targets.data(),
                             .losses = exchange_.losses.data(),
                             .support_vectors = exchange_.support_vectors.data(),
                             .kept = exchange_.kept.data(),
                             .step = batch_.step.data(),
                             .shifts = numbers().shifts,
                             .row_scales = numbers().row_scales,
                             .label_gradients = numbers().label_gradients,
                             .results = exchange_.results.data()};
  SHARDMAX_CUDA(LaunchFinish, finish, compute());
  return absl::OkStatus();
}

absl::Status CudaPhases::Outcomes() {
  SHARDMAX_CUDA(cudaSetDevice, device_);
  SHARDMAX_RETURN_IF_ERROR(Follow(wire_.get(), partials_gathered_, compute()));
  SHARDMAX_RETURN_IF_ERROR(EnqueueOutcomes());
  SHARDMAX_CUDA(cudaMemcpyAsync, exchange_.host_results.data(), exchange_.results.data(), sizeof(StepResults),
                cudaMemcpyDeviceToHost, compute());
  const auto bring_headers = [&](const PinnedBuffer<std::byte>& to, const DeviceBlocks& blocks) -> absl::Status {
    SHARDMAX_CUDA(cudaMemcpy2DAsync, to.data(), DeviceHeader::kBytes, blocks.data, blocks.block_bytes,
                  DeviceHeader::kBytes, static_cast<size_t>(shape_.ranks()), cudaMemcpyDeviceToHost, compute());
    return absl::OkStatus();
  };
  SHARDMAX_RETURN_IF_ERROR(bring_headers(exchange_.host_row_headers, row_blocks()));
  SHARDMAX_RETURN_IF_ERROR(bring_headers(exchange_.host_partial_headers, partial_blocks()));
  SHARDMAX_CUDA(cudaEventRecord, outcome_there_.get(), compute());
  return absl::OkStatus();
}

absl::Status CudaPhases::Backward() {
  SHARDMAX_CUDA(cudaSetDevice, device_);
  SHARDMAX_CUDA(cudaEventRecord, backward().begin.get(), compute());
  SHARDMAX_RETURN_IF_ERROR(graphs_.Run(KeyOf(GraphPhase::kBackward), generation(), compute(), [&] {
    return work_.Backward(rows(), rule_.params, shape_.want_feature_gradients);
  }));
  SHARDMAX_CUDA(cudaEventRecord, feature_gradients_done_.get(), compute());
  SHARDMAX_RETURN_IF_ERROR(work_.UpdateLastTile(rows(), rule_.params));
  SHARDMAX_CUDA(cudaEventRecord, backward().end.get(), compute());
  backward().recorded = true;
  return absl::OkStatus();
}

absl::Status CudaPhases::SendGradients(float mark) {
  SHARDMAX_CUDA(cudaSetDevice, device_);
  // Where Backward() has failed that event is an old one; the host must not be told before the outcome is there.
  SHARDMAX_CUDA(cudaStreamWaitEvent, wire_.get(), outcome_there_.get(), 0);
  SHARDMAX_CUDA(cudaStreamWaitEvent, wire_.get(), feature_gradients_done_.get(), 0);
  SHARDMAX_CUDA(cudaEventRecord, scatter_began_.get(), wire_.get());
  const PackArgs args = {.gradients = batch_.feature_gradients.data(),
                         .stride = batch_.plan.stride,
                         .dim = options_.dim,
                         .parts = parts(),
                         .mark = mark,
                         .blocks = exchange_.gradient_blocks.data()};
  SHARDMAX_CUDA(LaunchPack, args, wire_.get());
  return absl::OkStatus();
}

absl::Status CudaPhases::ReceiveGradients() {
  SHARDMAX_CUDA(cudaSetDevice, device_);
  float* block = exchange_.gradient_blocks.data() + shape_.rank * block_.gradient_floats;
  const Range mine = shape_.mine();
  if (mine.count > 0) {
    const JacobianArgs args = {.gradients = block,
                               .dim = options_.dim,
                               .features = batch_.features.data() + mine.first * batch_.plan.stride,
                               .stride = batch_.plan.stride,
                               .inverse_norms = exchange_.inverse_norms.data(),
                               .count = static_cast<int>(mine.count)};
    SHARDMAX_CUDA(LaunchJacobian, args, wire_.get());
  }
  SHARDMAX_CUDA(cudaMemcpyAsync, exchange_.host_gradients.data(), block,
                static_cast<size_t>(block_.gradient_floats) * sizeof(float), cudaMemcpyDeviceToHost, wire_.get());
  SHARDMAX_CUDA(cudaEventRecord, gradients_home_.get(), wire_.get());
  return absl::OkStatus();
}

DeviceEvent CudaPhases::outcome_event() const {
  return shape_.want_feature_gradients ? gradients_home_.get() : outcome_there_.get();
}

absl::Status CudaPhases::AwaitOutcome() {
  SHARDMAX_CUDA(cudaEventSynchronize, outcome_event());
  return absl::OkStatus();
}

DeviceOutcome CudaPhases::outcome() const {
  const StepResults& results = *exchange_.host_results.data();
  DeviceOutcome outcome = {.go = results.go != 0,
                           .loss = results.loss,
                           .mean_label_cosine = results.mean_label_cosine,
                           .counted_rows = results.counted_rows,
                           .support_vectors = results.support_vectors,
                           .row_headers = exchange_.host_row_headers.data(),
                           .partial_headers = exchange_.host_partial_headers.data()};
  if (shape_.want_feature_gradients) {
    outcome.feature_gradients = exchange_.host_gradients.data();
    outcome.failed_ranks = exchange_.host_gradients.data()[block_.gradient_floats - 1];
  }
  return outcome;
}

DeviceSeconds CudaPhases::seconds() {
  DeviceSeconds seconds = {.gather = SecondsBetween(gather_began_, gathered_),
                           .label = SecondsBetween(label_began_, score_began_),
                           .score = SecondsBetween(score_began_, scored_),
                           .normalise = SecondsBetween(scored_, outcome_there_)};
  if (shape_.want_feature_gradients) {
    seconds.backward = SecondsBetween(backward().begin, feature_gradients_done_);
    seconds.scatter = SecondsBetween(scatter_began_, gradients_home_);
  } else if (const BackwardEvents& before = backward_[(step_ + 1) % 2]; before.recorded) {
    seconds.backward = SecondsBetween(before.begin, before.end);
  }
  return seconds;
}

absl::Status CudaPhases::ReadLabels(std::span<int32_t> labels, std::span<float> cosines) {
  SHARDMAX_CUDA(cudaSetDevice, device_);
  SHARDMAX_CUDA(cudaMemcpyAsync, labels.data(), batch_.labels.data(), labels.size_bytes(), cudaMemcpyDeviceToHost,
                compute());
  SHARDMAX_CUDA(cudaMemcpyAsync, cosines.data(), batch_.label_cosines.data(), cosines.size_bytes(),
                cudaMemcpyDeviceToHost, compute());
  SHARDMAX_CUDA(cudaStreamSynchronize, compute());
  return absl::OkStatus();
}

absl::Status CudaPhases::ReadPartials(int rank, std::span<ShardPartial> partials) {
  SHARDMAX_CUDA(cudaSetDevice, device_);
  const std::byte* block = partial_blocks().data + static_cast<size_t>(rank) * partial_blocks().block_bytes;
  SHARDMAX_CUDA(cudaMemcpyAsync, partials.data(), block + DeviceHeader::kBytes, partials.size_bytes(),
                cudaMemcpyDeviceToHost, compute());
  SHARDMAX_CUDA(cudaStreamSynchronize, compute());
  return absl::OkStatus();
}

}  // namespace shardmax::cuda
