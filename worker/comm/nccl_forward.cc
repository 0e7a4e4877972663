// NCCL, loaded when it is first called: see worker/engine/cuda/cublaslt_forward.cc for the reason.
#include <nccl.h>

#include "worker/base/shared_library.h"

namespace {

constexpr char kLibrary[] = SHARDMAX_NCCL;
constexpr char kMissing[] = SHARDMAX_NCCL " cannot be loaded";

}  // namespace

// NOLINTBEGIN(readability-identifier-naming): the names are NVIDIA's.
extern "C" {

ncclResult_t ncclGetUniqueId(ncclUniqueId* uniqueId) {
  SHARDMAX_FORWARD(kLibrary, ncclGetUniqueId, ncclSystemError, uniqueId);
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int nranks, ncclUniqueId commId, int rank, ncclConfig_t* config) {
  SHARDMAX_FORWARD(kLibrary, ncclCommInitRankConfig, ncclSystemError, comm, nranks, commId, rank, config);
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  SHARDMAX_FORWARD(kLibrary, ncclCommFinalize, ncclSystemError, comm);
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  SHARDMAX_FORWARD(kLibrary, ncclCommDestroy, ncclSystemError, comm);
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  SHARDMAX_FORWARD(kLibrary, ncclCommAbort, ncclSystemError, comm);
}

const char* ncclGetErrorString(ncclResult_t result) {
  SHARDMAX_FORWARD(kLibrary, ncclGetErrorString, kMissing, result);
}

const char* ncclGetLastError(ncclComm_t comm) {
  SHARDMAX_FORWARD(kLibrary, ncclGetLastError, kMissing, comm);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* asyncError) {
  SHARDMAX_FORWARD(kLibrary, ncclCommGetAsyncError, ncclSystemError, comm, asyncError);
}

ncclResult_t ncclAllReduce(const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  SHARDMAX_FORWARD(kLibrary, ncclAllReduce, ncclSystemError, sendbuff, recvbuff, count, datatype, op, comm, stream);
}

ncclResult_t ncclBroadcast(const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  SHARDMAX_FORWARD(kLibrary, ncclBroadcast, ncclSystemError, sendbuff, recvbuff, count, datatype, root, comm, stream);
}

ncclResult_t ncclReduceScatter(const void* sendbuff, void* recvbuff, size_t recvcount, ncclDataType_t datatype,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  SHARDMAX_FORWARD(kLibrary, ncclReduceScatter, ncclSystemError, sendbuff, recvbuff, recvcount, datatype, op, comm,
                   stream);
}

ncclResult_t ncclAllGather(const void* sendbuff, void* recvbuff, size_t sendcount, ncclDataType_t datatype,
                           ncclComm_t comm, cudaStream_t stream) {
  SHARDMAX_FORWARD(kLibrary, ncclAllGather, ncclSystemError, sendbuff, recvbuff, sendcount, datatype, comm, stream);
}

}  // extern "C"
// NOLINTEND(readability-identifier-naming)
