// CUDA's and cuBLASLt's codes as statuses: the one place that converts them.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "worker/base/status.h"

namespace shardmax::cuda {

// OK, or `call` with CUDA's name and text for `code`: ResourceExhausted without memory, FailedPrecondition without a
// driver or device, else Internal. An error of a kernel shows in a later call: then the call that it names is not the
// one that failed.
inline absl::Status StatusOf(cudaError_t code, const char* call) {
  if (code == cudaSuccess) return absl::OkStatus();
  absl::StatusCode status = absl::StatusCode::kInternal;
  if (code == cudaErrorMemoryAllocation) status = absl::StatusCode::kResourceExhausted;
  if (code == cudaErrorInsufficientDriver || code == cudaErrorNoDevice) status = absl::StatusCode::kFailedPrecondition;
  return Error(status, "{}: {} ({})", call, cudaGetErrorName(code), cudaGetErrorString(code));
}

inline absl::Status StatusOf(cublasStatus_t code, const char* call) {
  if (code == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return Error(absl::StatusCode::kInternal, "{}: {}", call, cublasLtGetStatusName(code));
}

}  // namespace shardmax::cuda

// Calls `function` of CUDA or cuBLASLt; returns from the enclosing function if it fails.
#define SHARDMAX_CUDA(function, ...) \
  SHARDMAX_RETURN_IF_ERROR(shardmax::cuda::StatusOf(function(__VA_ARGS__), #function))
