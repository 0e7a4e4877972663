#include "worker/engine/cuda/shard_tensors.h"

#include <algorithm>

#include "worker/base/cuda_status.h"
#include "worker/base/status.h"

namespace shardmax::cuda {
namespace {

// Rows that one launch may have: its count is an int.
constexpr int64_t kMaxLaunchRows = int64_t{1} << 24;

}  // namespace

absl::StatusOr<ShardTensors> ShardTensors::Allocate(const EngineOptions& options, const DevicePlan& plan,
                                                    cudaStream_t stream) {
  ShardTensors shard;
  shard.index_ = TensorIndex(options.shard, options.dim, options.optimizer);
  shard.stride_ = plan.stride;
  const int64_t size = options.shard.count * plan.stride;
  for (const std::string& name : shard.index_.names()) {
    auto tensor = DeviceBuffer<float>::Allocate(size);
    if (!tensor.ok()) return Annotate(tensor.status(), shard.index_.Describe(name));
    SHARDMAX_CUDA(cudaMemsetAsync, tensor->data(), 0, static_cast<size_t>(size) * sizeof(float), stream);
    shard.tensors_.push_back(std::move(tensor).value());
  }
  const int64_t norms = plan.norm_bytes / static_cast<int64_t>(sizeof(float));
  SHARDMAX_ASSIGN_OR_RETURN(shard.inverse_norms_, DeviceBuffer<float>::Allocate(norms));
  SHARDMAX_CUDA(cudaMemsetAsync, shard.inverse_norms_.data(), 0, static_cast<size_t>(plan.norm_bytes), stream);
  if (plan.copy_bytes > 0) {
    SHARDMAX_ASSIGN_OR_RETURN(shard.bfloat16_, DeviceBuffer<__nv_bfloat16>::Allocate(size));
    SHARDMAX_CUDA(cudaMemsetAsync, shard.bfloat16_.data(), 0, static_cast<size_t>(plan.copy_bytes), stream);
  }
  return shard;
}

absl::Status ShardTensors::Read(const std::string& tensor, Range classes, MatrixView<float> rows,
                                cudaStream_t stream) const {
  SHARDMAX_ASSIGN_OR_RETURN(const int i, index_.Find(tensor, classes, rows.rows, rows.cols));
  if (classes.count == 0) return absl::OkStatus();
  const float* from = tensors_[i].data() + (classes.first - index_.shard().first) * stride_;
  SHARDMAX_CUDA(cudaMemcpy2DAsync, rows.data, rows.cols * sizeof(float), from, stride_ * sizeof(float),
                rows.cols * sizeof(float), static_cast<size_t>(rows.rows), cudaMemcpyDeviceToHost, stream);
  SHARDMAX_CUDA(cudaStreamSynchronize, stream);
  return absl::OkStatus();
}

absl::Status ShardTensors::Write(const std::string& tensor, Range classes, MatrixView<const float> rows,
                                 cudaStream_t stream) {
  SHARDMAX_ASSIGN_OR_RETURN(const int i, index_.Find(tensor, classes, rows.rows, rows.cols));
  if (classes.count == 0) return absl::OkStatus();
  const Range local = {classes.first - index_.shard().first, classes.count};
  float* to = tensors_[i].data() + local.first * stride_;
  SHARDMAX_CUDA(cudaMemcpy2DAsync, to, stride_ * sizeof(float), rows.data, rows.cols * sizeof(float),
                rows.cols * sizeof(float), static_cast<size_t>(rows.rows), cudaMemcpyHostToDevice, stream);
  if (i == 0) SHARDMAX_RETURN_IF_ERROR(Follow(local, stream));
  SHARDMAX_CUDA(cudaStreamSynchronize, stream);
  return absl::OkStatus();
}

absl::Status ShardTensors::Follow(Range local, cudaStream_t stream) {
  for (int64_t first = local.first; first < local.end(); first += kMaxLaunchRows) {
    const NormArgs args = {.weights = weights(first),
                           .stride = stride_,
                           .count = static_cast<int>(std::min(kMaxLaunchRows, local.end() - first)),
                           .inverse_norms = inverse_norms_.data() + first,
                           .bfloat16_weights = bfloat16_weights(first)};
    SHARDMAX_CUDA(LaunchNorms, args, stream);
  }
  return absl::OkStatus();
}

}  // namespace shardmax::cuda
