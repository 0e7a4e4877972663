// cuBLASLt, loaded when it is first called. Linked, its 92 KB of thread-local memory would be taken from every thread's
// stack: the HTTP server of the metrics, whose threads have 100 KB, could start none. And a worker on the CPU would
// wait for half a gigabyte of library.
#include <cublasLt.h>

#include "worker/base/shared_library.h"

namespace {

constexpr char kLibrary[] = SHARDMAX_CUBLASLT;
constexpr char kMissing[] = SHARDMAX_CUBLASLT " cannot be loaded";

}  // namespace

// NOLINTBEGIN(readability-identifier-naming): the names are NVIDIA's.
extern "C" {

const char* cublasLtGetStatusName(cublasStatus_t status) {
  SHARDMAX_FORWARD(kLibrary, cublasLtGetStatusName, kMissing, status);
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* lightHandle) {
  SHARDMAX_FORWARD(kLibrary, cublasLtCreate, CUBLAS_STATUS_NOT_INITIALIZED, lightHandle);
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t lightHandle) {
  SHARDMAX_FORWARD(kLibrary, cublasLtDestroy, CUBLAS_STATUS_NOT_INITIALIZED, lightHandle);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t computeDesc, const void* alpha,
                              const void* A, cublasLtMatrixLayout_t Adesc, const void* B, cublasLtMatrixLayout_t Bdesc,
                              const void* beta, const void* C, cublasLtMatrixLayout_t Cdesc, void* D,
                              cublasLtMatrixLayout_t Ddesc, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              size_t workspaceSizeInBytes, cudaStream_t stream) {
  SHARDMAX_FORWARD(kLibrary, cublasLtMatmul, CUBLAS_STATUS_NOT_INITIALIZED, lightHandle, computeDesc, alpha, A, Adesc,
                   B, Bdesc, beta, C, Cdesc, D, Ddesc, algo, workspace, workspaceSizeInBytes, stream);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t operationDesc,
                                              cublasLtMatrixLayout_t Adesc, cublasLtMatrixLayout_t Bdesc,
                                              cublasLtMatrixLayout_t Cdesc, cublasLtMatrixLayout_t Ddesc,
                                              cublasLtMatmulPreference_t preference, int requestedAlgoCount,
                                              cublasLtMatmulHeuristicResult_t heuristicResultsArray[],
                                              int* returnAlgoCount) {
  SHARDMAX_FORWARD(kLibrary, cublasLtMatmulAlgoGetHeuristic, CUBLAS_STATUS_NOT_INITIALIZED, lightHandle, operationDesc,
                   Adesc, Bdesc, Cdesc, Ddesc, preference, requestedAlgoCount, heuristicResultsArray, returnAlgoCount);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* matmulDesc, cublasComputeType_t computeType,
                                        cudaDataType_t scaleType) {
  SHARDMAX_FORWARD(kLibrary, cublasLtMatmulDescCreate, CUBLAS_STATUS_NOT_INITIALIZED, matmulDesc, computeType,
                   scaleType);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t matmulDesc) {
  SHARDMAX_FORWARD(kLibrary, cublasLtMatmulDescDestroy, CUBLAS_STATUS_NOT_INITIALIZED, matmulDesc);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t matmulDesc, cublasLtMatmulDescAttributes_t attr,
                                              const void* buf, size_t sizeInBytes) {
  SHARDMAX_FORWARD(kLibrary, cublasLtMatmulDescSetAttribute, CUBLAS_STATUS_NOT_INITIALIZED, matmulDesc, attr, buf,
                   sizeInBytes);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* pref) {
  SHARDMAX_FORWARD(kLibrary, cublasLtMatmulPreferenceCreate, CUBLAS_STATUS_NOT_INITIALIZED, pref);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t pref) {
  SHARDMAX_FORWARD(kLibrary, cublasLtMatmulPreferenceDestroy, CUBLAS_STATUS_NOT_INITIALIZED, pref);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t pref,
                                                    cublasLtMatmulPreferenceAttributes_t attr, const void* buf,
                                                    size_t sizeInBytes) {
  SHARDMAX_FORWARD(kLibrary, cublasLtMatmulPreferenceSetAttribute, CUBLAS_STATUS_NOT_INITIALIZED, pref, attr, buf,
                   sizeInBytes);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* matLayout, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
  SHARDMAX_FORWARD(kLibrary, cublasLtMatrixLayoutCreate, CUBLAS_STATUS_NOT_INITIALIZED, matLayout, type, rows, cols,
                   ld);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t matLayout) {
  SHARDMAX_FORWARD(kLibrary, cublasLtMatrixLayoutDestroy, CUBLAS_STATUS_NOT_INITIALIZED, matLayout);
}

}  // extern "C"
// NOLINTEND(readability-identifier-naming)
