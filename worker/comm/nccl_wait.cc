#include "worker/comm/nccl_wait.h"

#include <cuda_runtime.h>

#include <string>

#include "worker/base/cuda_status.h"
#include "worker/base/status.h"
#include "worker/comm/pacer.h"

namespace shardmax {
namespace {

// Collectives are short.
constexpr std::chrono::microseconds kBusy(200);

}  // namespace

absl::Status NcclError(const char* call, ncclResult_t code, ncclComm_t comm) {
  std::string text = ncclGetErrorString(code);
  if (const char* last = comm != nullptr ? ncclGetLastError(comm) : nullptr; last != nullptr && *last != '\0') {
    text += fmt::format(" ({})", last);
  }
  const bool is_peer = code == ncclRemoteError || code == ncclSystemError;
  return Error(is_peer ? absl::StatusCode::kUnavailable : absl::StatusCode::kInternal, "{}: {}", call, text);
}

absl::Status NcclWait::Late() const {
  return Error(absl::StatusCode::kDeadlineExceeded, "NCCL did not finish within {} ms", timeout_.count());
}

absl::Status NcclWait::ForCall(const char* call, ncclResult_t result, ncclComm_t comm) const {
  internal::Pacer pacer(kBusy);
  while (result == ncclInProgress) {
    if (is_late()) return Late();
    if (const ncclResult_t asked = ncclCommGetAsyncError(comm, &result); asked != ncclSuccess) {
      return NcclError("ncclCommGetAsyncError", asked, comm);
    }
    if (result == ncclInProgress) pacer.Pause();
  }
  return result == ncclSuccess ? absl::OkStatus() : NcclError(call, result, comm);
}

absl::Status NcclWait::ForEvent(DeviceEvent event, ncclComm_t comm) const {
  for (internal::Pacer pacer(kBusy);; pacer.Pause()) {
    const cudaError_t state = cudaEventQuery(event);
    if (state == cudaSuccess) return absl::OkStatus();
    if (state != cudaErrorNotReady) return cuda::StatusOf(state, "cudaEventQuery");
    ncclResult_t error = ncclSuccess;
    if (const ncclResult_t asked = ncclCommGetAsyncError(comm, &error); asked != ncclSuccess) error = asked;
    if (error != ncclSuccess && error != ncclInProgress) return NcclError("asynchronous error", error, comm);
    if (is_late()) return Late();
  }
}

}  // namespace shardmax
