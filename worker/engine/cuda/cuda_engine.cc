#include "worker/engine/cuda/cuda_engine.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "worker/base/cuda_status.h"
#include "worker/base/status.h"
#include "worker/engine/cuda/batch_buffers.h"
#include "worker/engine/cuda/cuda_phases.h"
#include "worker/engine/cuda/device.h"
#include "worker/engine/cuda/device_plan.h"
#include "worker/engine/cuda/gemm.h"
#include "worker/engine/cuda/kernels.h"
#include "worker/engine/cuda/shard_tensors.h"
#include "worker/engine/cuda/tile_work.h"
#include "worker/engine/norm.h"

namespace shardmax {
namespace cuda {
namespace {

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
  DevicePhases* device() override { return phases_.get(); }

 private:
  CudaEngine(const EngineOptions& options, int device, int64_t l2_bytes, Gemm gemm)
      : options_(options), device_(device), l2_bytes_(l2_bytes), gemm_(std::move(gemm)) {}

  absl::Status Allocate();
  // Brings a batch to the device, unless it is there.
  absl::Status Upload(const EngineBatch& batch);
  absl::Status UploadFeatures(MatrixView<const float> features);
  absl::Status ComputeLabelCosines(const EngineBatch& batch, std::span<float> cosines);
  // Brings *batch_.host_step to the device.
  absl::Status UploadStep();
  // Enqueues the way back of what the device found out about the weights, for CheckWeights() after a wait.
  absl::Status EnqueueVerdict();
  absl::Status CheckWeights() const;

  int64_t stride() const { return batch_.plan.stride; }
  bool is_bfloat16() const { return options_.precision == Precision::kBfloat16; }

  const EngineOptions options_;
  const int device_;
  const int64_t l2_bytes_;
  // All work but the copies of Backward, which overlap with the update.
  Stream compute_;
  Stream copy_;
  Event feature_gradients_are_done_;
  Gemm gemm_;
  ShardTensors shard_;
  BatchBuffers batch_;
  std::unique_ptr<TileWork> work_;
  std::unique_ptr<CudaPhases> phases_;
  const float* uploaded_features_ = nullptr;  // Whose batch is on the device.
  absl::Status label_status_;                 // Of LabelCosines, which cannot return it.
};

absl::StatusOr<std::unique_ptr<CudaEngine>> CudaEngine::Make(const EngineOptions& options, int device) {
  SHARDMAX_ASSIGN_OR_RETURN(const DeviceInfo info, UseDevice(device));
  SHARDMAX_RETURN_IF_ERROR(CheckFits(options, info));
  SHARDMAX_ASSIGN_OR_RETURN(Gemm gemm, Gemm::Make(options.precision));
  std::unique_ptr<CudaEngine> engine(new CudaEngine(options, device, info.l2_bytes, std::move(gemm)));
  SHARDMAX_RETURN_IF_ERROR(engine->Allocate());
  return engine;
}

absl::Status CudaEngine::Allocate() {
  SHARDMAX_ASSIGN_OR_RETURN(compute_, Stream::Make());
  SHARDMAX_ASSIGN_OR_RETURN(copy_, Stream::Make());
  SHARDMAX_ASSIGN_OR_RETURN(feature_gradients_are_done_, Event::Make());
  const int64_t plan_rows = std::max<int64_t>(1, options_.batch_rows);
  const DevicePlan plan = PlanDevice(options_, plan_rows, l2_bytes_);
  SHARDMAX_ASSIGN_OR_RETURN(shard_, ShardTensors::Allocate(options_, plan, compute_.get()));
  SHARDMAX_RETURN_IF_ERROR(batch_.Reserve(options_, plan_rows, l2_bytes_, compute_.get()));
  work_ = std::make_unique<TileWork>(options_, gemm_, shard_, batch_, compute_.get());
  SHARDMAX_ASSIGN_OR_RETURN(phases_, CudaPhases::Make(options_, device_, l2_bytes_, *work_, batch_));
  return absl::OkStatus();
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
  SHARDMAX_RETURN_IF_ERROR(work_->LabelCosines(batch.features.rows));
  SHARDMAX_CUDA(cudaMemcpyAsync, batch_.host_label_cosines.data(), batch_.label_cosines.data(), cosines.size_bytes(),
                cudaMemcpyDeviceToHost, compute_.get());
  SHARDMAX_CUDA(cudaStreamSynchronize, compute_.get());
  std::copy_n(batch_.host_label_cosines.data(), cosines.size(), cosines.begin());
  return absl::OkStatus();
}

absl::Status CudaEngine::UploadStep() {
  SHARDMAX_CUDA(cudaMemcpyAsync, batch_.step.data(), batch_.host_step.data(), sizeof(StepState), cudaMemcpyHostToDevice,
                compute_.get());
  return absl::OkStatus();
}

absl::Status CudaEngine::EnqueueVerdict() {
  SHARDMAX_CUDA(cudaMemcpyAsync, batch_.host_step.data(), batch_.step.data(), sizeof(StepState), cudaMemcpyDeviceToHost,
                compute_.get());
  return absl::OkStatus();
}

absl::Status CudaEngine::CheckWeights() const {
  const int bad_class = batch_.host_step.data()->bad_class;
  return bad_class == kNoBadClass ? absl::OkStatus() : WeightsNotFinite(options_.shard.first + bad_class);
}

absl::Status CudaEngine::Score(const EngineBatch& batch, const ClassLogitScale& scale,
                               std::span<const float> thresholds, std::span<ShardPartial> partials) {
  SHARDMAX_RETURN_IF_ERROR(std::exchange(label_status_, absl::OkStatus()));
  SHARDMAX_CUDA(cudaSetDevice, device_);
  SHARDMAX_RETURN_IF_ERROR(Upload(batch));
  *batch_.host_step.data() = {.scale = scale};
  SHARDMAX_RETURN_IF_ERROR(UploadStep());
  const int64_t rows = batch.features.rows;
  std::copy(thresholds.begin(), thresholds.end(), batch_.host_row_numbers.data());
  SHARDMAX_CUDA(cudaMemcpyAsync, RowNumbers::In(batch_.row_numbers.data(), rows).thresholds,
                batch_.host_row_numbers.data(), thresholds.size_bytes(), cudaMemcpyHostToDevice, compute_.get());
  SHARDMAX_RETURN_IF_ERROR(work_->Score(rows, batch_.merged.data(), nullptr));
  SHARDMAX_CUDA(cudaMemcpyAsync, batch_.host_merged.data(), batch_.merged.data(), partials.size_bytes(),
                cudaMemcpyDeviceToHost, compute_.get());
  SHARDMAX_RETURN_IF_ERROR(EnqueueVerdict());
  SHARDMAX_CUDA(cudaStreamSynchronize, compute_.get());
  std::copy_n(batch_.host_merged.data(), partials.size(), partials.begin());
  return CheckWeights();
}

absl::Status CudaEngine::Backward(const EngineBatch& batch, const ClassLogitScale& scale, const RowGradients& rows,
                                  const UpdateRule& rule, MatrixView<float> feature_gradients) {
  SHARDMAX_CUDA(cudaSetDevice, device_);
  SHARDMAX_RETURN_IF_ERROR(Upload(batch));
  *batch_.host_step.data() = {.scale = scale, .rule = rule};
  SHARDMAX_RETURN_IF_ERROR(UploadStep());
  const int64_t count = batch.features.rows;
  const RowNumbers numbers = RowNumbers::In(batch_.host_row_numbers.data(), count);
  std::copy(rows.thresholds.begin(), rows.thresholds.end(), numbers.thresholds);
  std::copy(rows.shifts.begin(), rows.shifts.end(), numbers.shifts);
  std::copy(rows.row_scales.begin(), rows.row_scales.end(), numbers.row_scales);
  std::copy(rows.label_gradients.begin(), rows.label_gradients.end(), numbers.label_gradients);
  SHARDMAX_CUDA(cudaMemcpyAsync, batch_.row_numbers.data(), batch_.host_row_numbers.data(), 4 * count * sizeof(float),
                cudaMemcpyHostToDevice, compute_.get());
  const bool with_feature_gradients = feature_gradients.data != nullptr;
  SHARDMAX_RETURN_IF_ERROR(work_->Backward(count, rule.params, with_feature_gradients));
  SHARDMAX_CUDA(cudaEventRecord, feature_gradients_are_done_.get(), compute_.get());
  SHARDMAX_RETURN_IF_ERROR(work_->UpdateLastTile(count, rule.params));
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
  *batch_.host_step.data() = {};
  SHARDMAX_RETURN_IF_ERROR(UploadStep());
  SHARDMAX_RETURN_IF_ERROR(work_->NearestClasses(features.rows));
  SHARDMAX_CUDA(cudaMemcpyAsync, batch_.host_nearest.data(), batch_.nearest.data(),
                static_cast<size_t>(features.rows) * sizeof(NearestClass), cudaMemcpyDeviceToHost, compute_.get());
  SHARDMAX_RETURN_IF_ERROR(EnqueueVerdict());
  SHARDMAX_CUDA(cudaStreamSynchronize, compute_.get());
  SHARDMAX_RETURN_IF_ERROR(CheckWeights());
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
  if (!options.storage_folder.empty()) {
    return absl::UnimplementedError(
        "train.storage is MMAP: the cuda engine has weights in device memory; use MEMORY, or --backend=cpu");
  }
  if (options.optimizer.state_type == StateType::kBfloat16) {
    return absl::UnimplementedError(
        "train.optimizer.state is BFLOAT16: the cuda engine holds optimizer state in float32; use FLOAT32, or "
        "--backend=cpu");
  }
  SHARDMAX_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, cuda::CudaEngine::Make(options, device));
  return engine;
}

}  // namespace shardmax
