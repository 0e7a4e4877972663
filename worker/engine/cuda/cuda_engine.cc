#include "worker/engine/cuda/cuda_engine.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "worker/base/cuda_status.h"
#include "worker/base/status.h"
#include "worker/engine/cuda/batch_buffers.h"
#include "worker/engine/cuda/device.h"
#include "worker/engine/cuda/device_plan.h"
#include "worker/engine/cuda/gemm.h"
#include "worker/engine/cuda/kernels.h"
#include "worker/engine/cuda/shard_tensors.h"
#include "worker/engine/norm.h"

namespace shardmax {
namespace cuda {
namespace {

constexpr int kNoBadClass = std::numeric_limits<int>::max();

// What the device answers beside the rows.
struct Verdict {
  DeviceBuffer<int> bad_class;  // The lowest class of the shard whose weights are not finite.
  PinnedBuffer<int> host_bad_class;
};

constexpr char kNoSampling[] =
    "train.sampling is given: the cuda engine trains on all classes in every step; leave it out, or use --backend=cpu";

class CudaEngine final : public Engine {
 public:
  static absl::StatusOr<std::unique_ptr<CudaEngine>> Make(const EngineOptions& options, int device);
  // Buffers must be freed with their device current.
  ~CudaEngine() override { cudaSetDevice(device_); }

  const EngineOptions& options() const override { return options_; }
  absl::Status ReadRows(const std::string& tensor, Range classes, MatrixView<float> rows) const override {
    SHARDMAX_CUDA(cudaSetDevice, device_);
    return shard_.Read(tensor, classes, rows, compute_.get());
  }
  absl::Status WriteRows(const std::string& tensor, Range classes, MatrixView<const float> rows) override {
    SHARDMAX_CUDA(cudaSetDevice, device_);
    return shard_.Write(tensor, classes, rows, compute_.get());
  }
  void BeginAt(int64_t /*steps_done*/) override {}
  absl::Status CatchUp(std::span<const int32_t> /*local*/, SkippedSteps& /*skipped*/) override {
    return absl::UnimplementedError(kNoSampling);
  }
  void LabelCosines(const EngineBatch& batch, std::span<float> cosines) override;
  absl::Status Score(const EngineBatch& batch, const ClassLogitScale& scale, std::span<const float> thresholds,
                     std::span<ShardPartial> partials) override;
  absl::Status Backward(const EngineBatch& batch, const ClassLogitScale& scale, const RowGradients& rows,
                        const UpdateRule& rule, MatrixView<float> feature_gradients) override;
  absl::Status NearestClasses(MatrixView<const float> features, std::span<float> cosines,
                              std::span<int32_t> classes) override;

 private:
  CudaEngine(const EngineOptions& options, int device, int64_t l2_bytes, Gemm gemm)
      : options_(options), device_(device), l2_bytes_(l2_bytes), gemm_(std::move(gemm)) {}

  absl::Status Prepare();
  // Brings a batch to the device, unless it is there.
  absl::Status Upload(const EngineBatch& batch);
  absl::Status UploadFeatures(MatrixView<const float> features);
  absl::Status ComputeLabelCosines(const EngineBatch& batch, std::span<float> cosines);
  // Calls fn(tile) for each tile of the shard, its products enqueued.
  template <typename Fn>
  absl::Status ForEachTile(int64_t rows, const Fn& fn);
  // Enqueues one tile of the backward pass after its products.
  absl::Status EnqueueBackward(const Tile& tile, const ClassLogitScale& scale, const UpdateRule& rule,
                               bool with_feature_gradients);
  absl::Status EnqueueUpdate(const Tile& tile, const UpdateRule& rule);
  absl::Status ResetVerdict();
  absl::Status EnqueueVerdict();
  absl::Status CheckVerdict() const;

  int64_t stride() const { return batch_.plan.stride; }
  bool is_bfloat16() const { return options_.precision == Precision::kBfloat16; }
  const void* feature_operand() const {
    if (is_bfloat16()) return batch_.bfloat16_features.data();
    return batch_.features.data();
  }
  const void* gradient_operand() const {
    if (is_bfloat16()) return batch_.bfloat16_gradients.data();
    return batch_.products.data();
  }

  const EngineOptions options_;
  const int device_;
  const int64_t l2_bytes_;
  // All work but the copies of Backward, which overlap with products.
  Stream compute_;
  Stream copy_;
  Event rows_are_there_;
  Event feature_gradients_are_done_;
  Gemm gemm_;
  ShardTensors shard_;
  BatchBuffers batch_;
  Verdict verdict_;
  const float* uploaded_features_ = nullptr;  // Whose batch is on the device.
  absl::Status label_status_;                 // Of LabelCosines, which cannot return it.
};

absl::StatusOr<std::unique_ptr<CudaEngine>> CudaEngine::Make(const EngineOptions& options, int device) {
  SHARDMAX_ASSIGN_OR_RETURN(const DeviceInfo info, UseDevice(device));
  SHARDMAX_RETURN_IF_ERROR(CheckFits(options, info));
  SHARDMAX_ASSIGN_OR_RETURN(Gemm gemm, Gemm::Make(options.precision));
  std::unique_ptr<CudaEngine> engine(new CudaEngine(options, device, info.l2_bytes, std::move(gemm)));
  SHARDMAX_RETURN_IF_ERROR(engine->Prepare());
  return engine;
}

absl::Status CudaEngine::Prepare() {
  SHARDMAX_ASSIGN_OR_RETURN(compute_, Stream::Make());
  SHARDMAX_ASSIGN_OR_RETURN(copy_, Stream::Make());
  SHARDMAX_ASSIGN_OR_RETURN(rows_are_there_, Event::Make());
  SHARDMAX_ASSIGN_OR_RETURN(feature_gradients_are_done_, Event::Make());
  SHARDMAX_ASSIGN_OR_RETURN(verdict_.bad_class, DeviceBuffer<int>::Allocate(1));
  SHARDMAX_ASSIGN_OR_RETURN(verdict_.host_bad_class, PinnedBuffer<int>::Allocate(1));
  const DevicePlan plan = PlanDevice(options_, std::max<int64_t>(1, options_.batch_rows), l2_bytes_);
  SHARDMAX_ASSIGN_OR_RETURN(shard_, ShardTensors::Allocate(options_, plan, compute_.get()));
  return batch_.Reserve(options_, options_.batch_rows, l2_bytes_, compute_.get());
}

absl::Status CudaEngine::UploadFeatures(MatrixView<const float> features) {
  uploaded_features_ = nullptr;
  SHARDMAX_RETURN_IF_ERROR(batch_.Reserve(options_, features.rows, l2_bytes_, compute_.get()));
  SHARDMAX_CUDA(cudaMemcpy2DAsync, batch_.features.data(), stride() * sizeof(float), features.data,
                features.cols * sizeof(float), features.cols * sizeof(float), static_cast<size_t>(features.rows),
                cudaMemcpyHostToDevice, compute_.get());
  if (is_bfloat16()) {
    SHARDMAX_CUDA(LaunchToBfloat16, batch_.features.data(), batch_.bfloat16_features.data(), features.rows * stride(),
                  compute_.get());
  }
  return absl::OkStatus();
}

absl::Status CudaEngine::Upload(const EngineBatch& batch) {
  if (uploaded_features_ == batch.features.data) return absl::OkStatus();
  SHARDMAX_RETURN_IF_ERROR(UploadFeatures(batch.features));
  SHARDMAX_CUDA(cudaMemcpyAsync, batch_.labels.data(), batch.labels.data(), batch.labels.size_bytes(),
                cudaMemcpyHostToDevice, compute_.get());
  uploaded_features_ = batch.features.data;
  return absl::OkStatus();
}

void CudaEngine::LabelCosines(const EngineBatch& batch, std::span<float> cosines) {
  uploaded_features_ = nullptr;  // A step begins: the same memory may hold another batch.
  label_status_ = ComputeLabelCosines(batch, cosines);
  if (!label_status_.ok()) std::fill(cosines.begin(), cosines.end(), 0.0F);
}

absl::Status CudaEngine::ComputeLabelCosines(const EngineBatch& batch, std::span<float> cosines) {
  SHARDMAX_CUDA(cudaSetDevice, device_);
  SHARDMAX_RETURN_IF_ERROR(Upload(batch));
  const LabelArgs args = {.features = batch_.features.data(),
                          .weights = shard_.weights(0),
                          .stride = stride(),
                          .rows = static_cast<int>(batch.features.rows),
                          .first_class = static_cast<int>(options_.shard.first),
                          .classes = static_cast<int>(options_.shard.count),
                          .labels = batch_.labels.data(),
                          .cosines = batch_.label_cosines.data()};
  SHARDMAX_CUDA(LaunchLabelCosines, args, compute_.get());
  SHARDMAX_CUDA(cudaMemcpyAsync, batch_.host_label_cosines.data(), batch_.label_cosines.data(), cosines.size_bytes(),
                cudaMemcpyDeviceToHost, compute_.get());
  SHARDMAX_CUDA(cudaStreamSynchronize, compute_.get());
  std::copy_n(batch_.host_label_cosines.data(), cosines.size(), cosines.begin());
  return absl::OkStatus();
}

template <typename Fn>
absl::Status CudaEngine::ForEachTile(int64_t rows, const Fn& fn) {
  const int64_t tile_classes = batch_.plan.tile_classes;
  for (int64_t first = 0; first < options_.shard.count; first += tile_classes) {
    const int64_t count = std::min(tile_classes, options_.shard.count - first);
    const GemmShape shape = {.m = rows,
                             .n = count,
                             .k = stride(),
                             .lda = stride(),
                             .ldb = stride(),
                             .ldc = tile_classes,
                             .transpose_b = true};
    SHARDMAX_RETURN_IF_ERROR(
        gemm_.Run(shape, feature_operand(), shard_.operand(first), batch_.products.data(), compute_.get()));
    SHARDMAX_RETURN_IF_ERROR(fn(Tile{.products = batch_.products.data(),
                                     .stride = tile_classes,
                                     .rows = static_cast<int>(rows),
                                     .count = static_cast<int>(count),
                                     .first = static_cast<int>(first),
                                     .first_global_class = static_cast<int>(options_.shard.first + first),
                                     .inverse_norms = shard_.inverse_norms(),
                                     .labels = batch_.labels.data()}));
  }
  return absl::OkStatus();
}

absl::Status CudaEngine::ResetVerdict() {
  *verdict_.host_bad_class.data() = kNoBadClass;
  SHARDMAX_CUDA(cudaMemcpyAsync, verdict_.bad_class.data(), verdict_.host_bad_class.data(), sizeof(int),
                cudaMemcpyHostToDevice, compute_.get());
  return absl::OkStatus();
}

absl::Status CudaEngine::EnqueueVerdict() {
  SHARDMAX_CUDA(cudaMemcpyAsync, verdict_.host_bad_class.data(), verdict_.bad_class.data(), sizeof(int),
                cudaMemcpyDeviceToHost, compute_.get());
  return absl::OkStatus();
}

absl::Status CudaEngine::CheckVerdict() const {
  const int bad_class = *verdict_.host_bad_class.data();
  if (bad_class == kNoBadClass) return absl::OkStatus();
  const float not_finite = std::numeric_limits<float>::quiet_NaN();
  return CheckNorms<float>({&not_finite, 1}, options_.shard.first + bad_class);
}

absl::Status CudaEngine::Score(const EngineBatch& batch, const ClassLogitScale& scale,
                               std::span<const float> thresholds, std::span<ShardPartial> partials) {
  SHARDMAX_RETURN_IF_ERROR(std::exchange(label_status_, absl::OkStatus()));
  SHARDMAX_CUDA(cudaSetDevice, device_);
  SHARDMAX_RETURN_IF_ERROR(Upload(batch));
  SHARDMAX_RETURN_IF_ERROR(ResetVerdict());
  const int64_t rows = batch.features.rows;
  const RowNumbers numbers = RowNumbers::In(batch_.row_numbers.data(), rows);
  std::copy(thresholds.begin(), thresholds.end(), batch_.host_row_numbers.data());
  SHARDMAX_CUDA(cudaMemcpyAsync, numbers.thresholds, batch_.host_row_numbers.data(), thresholds.size_bytes(),
                cudaMemcpyHostToDevice, compute_.get());
  SHARDMAX_RETURN_IF_ERROR(ForEachTile(rows, [&](const Tile& tile) -> absl::Status {
    const ScoreArgs args = {.tile = tile,
                            .scale = scale,
                            .thresholds = numbers.thresholds,
                            .partials = batch_.partials.data(),
                            .is_first = tile.first == 0,
                            .bad_class = verdict_.bad_class.data()};
    SHARDMAX_CUDA(LaunchScore, args, compute_.get());
    return absl::OkStatus();
  }));
  SHARDMAX_CUDA(LaunchMerge, batch_.partials.data(),
                ScoreSlots(std::min(batch_.plan.tile_classes, options_.shard.count)), static_cast<int>(rows),
                batch_.merged.data(), compute_.get());
  SHARDMAX_CUDA(cudaMemcpyAsync, batch_.host_merged.data(), batch_.merged.data(), partials.size_bytes(),
                cudaMemcpyDeviceToHost, compute_.get());
  SHARDMAX_RETURN_IF_ERROR(EnqueueVerdict());
  SHARDMAX_CUDA(cudaStreamSynchronize, compute_.get());
  std::copy_n(batch_.host_merged.data(), partials.size(), partials.begin());
  return CheckVerdict();
}

absl::Status CudaEngine::EnqueueUpdate(const Tile& tile, const UpdateRule& rule) {
  const UpdateArgs args = {.gradients = batch_.weight_gradients.data(),
                           .weights = shard_.weights(tile.first),
                           .first_state = shard_.state(0, tile.first),
                           .second_state = shard_.state(1, tile.first),
                           .stride = stride(),
                           .count = tile.count,
                           .inverse_norms = shard_.inverse_norms() + tile.first,
                           .bfloat16_weights = shard_.bfloat16_weights(tile.first),
                           .rule = rule};
  SHARDMAX_CUDA(LaunchUpdate, args, compute_.get());
  return absl::OkStatus();
}

absl::Status CudaEngine::EnqueueBackward(const Tile& tile, const ClassLogitScale& scale, const UpdateRule& rule,
                                         bool with_feature_gradients) {
  const RowNumbers numbers = RowNumbers::In(batch_.row_numbers.data(), tile.rows);
  const GradientArgs args = {.tile = tile,
                             .scale = scale,
                             .thresholds = numbers.thresholds,
                             .shifts = numbers.shifts,
                             .row_scales = numbers.row_scales,
                             .label_gradients = numbers.label_gradients,
                             .bfloat16_gradients = batch_.bfloat16_gradients.data()};
  SHARDMAX_CUDA(LaunchGradients, args, compute_.get());
  if (with_feature_gradients) {
    // Before the update: it is the gradient at the weights as they were.
    const GemmShape shape = {.m = tile.rows,
                             .n = stride(),
                             .k = tile.count,
                             .lda = tile.stride,
                             .ldb = stride(),
                             .ldc = stride(),
                             .accumulate = tile.first > 0};
    SHARDMAX_RETURN_IF_ERROR(gemm_.Run(shape, gradient_operand(), shard_.operand(tile.first),
                                       batch_.feature_gradients.data(), compute_.get()));
    SHARDMAX_CUDA(cudaEventRecord, feature_gradients_are_done_.get(), compute_.get());
  }
  const GemmShape shape = {.m = tile.count,
                           .n = stride(),
                           .k = tile.rows,
                           .lda = tile.stride,
                           .ldb = stride(),
                           .ldc = stride(),
                           .transpose_a = true};
  SHARDMAX_RETURN_IF_ERROR(
      gemm_.Run(shape, gradient_operand(), feature_operand(), batch_.weight_gradients.data(), compute_.get()));
  return EnqueueUpdate(tile, rule);
}

absl::Status CudaEngine::Backward(const EngineBatch& batch, const ClassLogitScale& scale, const RowGradients& rows,
                                  const UpdateRule& rule, MatrixView<float> feature_gradients) {
  SHARDMAX_CUDA(cudaSetDevice, device_);
  SHARDMAX_RETURN_IF_ERROR(Upload(batch));
  const int64_t count = batch.features.rows;
  const RowNumbers numbers = RowNumbers::In(batch_.host_row_numbers.data(), count);
  std::copy(rows.thresholds.begin(), rows.thresholds.end(), numbers.thresholds);
  std::copy(rows.shifts.begin(), rows.shifts.end(), numbers.shifts);
  std::copy(rows.row_scales.begin(), rows.row_scales.end(), numbers.row_scales);
  std::copy(rows.label_gradients.begin(), rows.label_gradients.end(), numbers.label_gradients);
  // The first products need none of it.
  SHARDMAX_CUDA(cudaMemcpyAsync, batch_.row_numbers.data(), batch_.host_row_numbers.data(), 4 * count * sizeof(float),
                cudaMemcpyHostToDevice, copy_.get());
  SHARDMAX_CUDA(cudaEventRecord, rows_are_there_.get(), copy_.get());
  const bool with_feature_gradients = feature_gradients.data != nullptr;
  SHARDMAX_RETURN_IF_ERROR(ForEachTile(count, [&](const Tile& tile) -> absl::Status {
    if (tile.first == 0) SHARDMAX_CUDA(cudaStreamWaitEvent, compute_.get(), rows_are_there_.get(), 0);
    return EnqueueBackward(tile, scale, rule, with_feature_gradients);
  }));
  if (!with_feature_gradients) return absl::OkStatus();
  // While the last tile's weights are updated.
  SHARDMAX_CUDA(cudaStreamWaitEvent, copy_.get(), feature_gradients_are_done_.get(), 0);
  SHARDMAX_CUDA(cudaMemcpy2DAsync, feature_gradients.data, feature_gradients.cols * sizeof(float),
                batch_.feature_gradients.data(), stride() * sizeof(float), feature_gradients.cols * sizeof(float),
                static_cast<size_t>(count), cudaMemcpyDeviceToHost, copy_.get());
  SHARDMAX_CUDA(cudaStreamSynchronize, copy_.get());
  return absl::OkStatus();
}

absl::Status CudaEngine::NearestClasses(MatrixView<const float> features, std::span<float> cosines,
                                        std::span<int32_t> classes) {
  SHARDMAX_CUDA(cudaSetDevice, device_);
  SHARDMAX_RETURN_IF_ERROR(UploadFeatures(features));
  SHARDMAX_RETURN_IF_ERROR(ResetVerdict());
  SHARDMAX_RETURN_IF_ERROR(ForEachTile(features.rows, [&](const Tile& tile) -> absl::Status {
    const NearestArgs args = {.tile = tile,
                              .nearest = batch_.nearest.data(),
                              .is_first = tile.first == 0,
                              .bad_class = verdict_.bad_class.data()};
    SHARDMAX_CUDA(LaunchNearest, args, compute_.get());
    return absl::OkStatus();
  }));
  SHARDMAX_CUDA(cudaMemcpyAsync, batch_.host_nearest.data(), batch_.nearest.data(),
                static_cast<size_t>(features.rows) * sizeof(NearestClass), cudaMemcpyDeviceToHost, compute_.get());
  SHARDMAX_RETURN_IF_ERROR(EnqueueVerdict());
  SHARDMAX_CUDA(cudaStreamSynchronize, compute_.get());
  SHARDMAX_RETURN_IF_ERROR(CheckVerdict());
  for (int64_t b = 0; b < features.rows; ++b) {
    cosines[b] = batch_.host_nearest.data()[b].cosine;
    classes[b] = batch_.host_nearest.data()[b].global_class;
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace cuda

absl::StatusOr<std::unique_ptr<Engine>> MakeCudaEngine(const EngineOptions& options, int device) {
  if (options.sample_rate < 1) return absl::UnimplementedError(cuda::kNoSampling);
  if (options.optimizer.state_type == StateType::kBfloat16) {
    return absl::UnimplementedError(
        "train.optimizer.state is BFLOAT16: the cuda engine holds optimizer state in float32; use FLOAT32, or "
        "--backend=cpu");
  }
  SHARDMAX_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, cuda::CudaEngine::Make(options, device));
  return engine;
}

}  // namespace shardmax
