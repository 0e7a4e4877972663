// cuBLASLt: column-major products, by oneDNN on the calling thread.
#include <omp.h>

#include <atomic>
#include <cstring>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <vector>

#include "cublasLt.h"
#include "cuda_bf16.h"
#include "tests/cuda_on_host/control.h"
#include "tests/cuda_on_host/device_memory.h"
#include "tests/cuda_on_host/report.h"
#include "tests/cuda_on_host/stream.h"

struct cublasLtContext {};
struct cublasLtMatmulDescOpaque {
  cublasOperation_t transpose_a = CUBLAS_OP_N;
  cublasOperation_t transpose_b = CUBLAS_OP_N;
};
struct cublasLtMatrixLayoutOpaque {
  cudaDataType_t type;
  uint64_t rows;
  uint64_t cols;
  int64_t ld;
};
struct cublasLtMatmulPreferenceOpaque {
  uint64_t workspace_bytes = 0;
};

namespace cuda_on_host {
namespace {

using Layout = cublasLtMatrixLayoutOpaque;

std::atomic<int64_t> product_flops{0};

size_t ElementBytes(cudaDataType_t type) {
  return type == CUDA_R_32F ? 4 : 2;
}

bool IsPossible(const Layout& layout) {
  return layout.rows >= 1 && layout.cols >= 1 && layout.ld >= static_cast<int64_t>(layout.rows);
}

// op(A) is [m, k] and op(B) is [k, n].
bool Fit(const cublasLtMatmulDescOpaque& desc, const Layout& a, const Layout& b, const Layout& c) {
  const bool ta = desc.transpose_a == CUBLAS_OP_T;
  const bool tb = desc.transpose_b == CUBLAS_OP_T;
  return IsPossible(a) && IsPossible(b) && IsPossible(c) && (ta ? a.cols : a.rows) == c.rows &&
         (tb ? b.rows : b.cols) == c.cols && (ta ? a.rows : a.cols) == (tb ? b.cols : b.rows) && a.type == b.type &&
         c.type == CUDA_R_32F;
}

void CheckMatrix(const void* data, const Layout& layout, const char* name) {
  const size_t elements = static_cast<size_t>(layout.ld) * (layout.cols - 1) + layout.rows;
  CheckDeviceRange(data, elements * ElementBytes(layout.type), std::string("cublasLtMatmul, matrix ") + name);
  if (reinterpret_cast<uintptr_t>(data) % 16 != 0) Report("cublasLtMatmul: a matrix is not aligned to 16 bytes");
  // Kernels of tensor cores load 16 bytes at a time: cuBLAS says to keep leading dimensions to multiples of that.
  if (layout.type == CUDA_R_16BF && layout.ld % 8 != 0) {
    Report(std::string("cublasLtMatmul: the leading dimension of bfloat16 matrix ") + name +
           " is no multiple of 8: slow on a GPU");
  }
}

// The matrix as float32, in `room` unless it is float32 already.
const float* AsFloats(const void* data, const Layout& layout, std::vector<float>& room) {
  if (layout.type == CUDA_R_32F) return static_cast<const float*>(data);
  const auto* values = static_cast<const __nv_bfloat16*>(data);
  room.assign(static_cast<size_t>(layout.ld) * layout.cols, 0);
  for (uint64_t j = 0; j < layout.cols; ++j) {
    for (uint64_t i = 0; i < layout.rows; ++i) room[j * layout.ld + i] = __bfloat162float(values[j * layout.ld + i]);
  }
  return room.data();
}

struct Product {
  cublasLtMatmulDescOpaque desc;
  float alpha, beta;
  const void* a;
  const void* b;
  float* d;
  Layout a_layout, b_layout, d_layout;

  void Run() const {
    CheckMatrix(a, a_layout, "A");
    CheckMatrix(b, b_layout, "B");
    CheckMatrix(d, d_layout, "D");
    std::vector<float> a_room, b_room;
    const float* a_data = AsFloats(a, a_layout, a_room);
    const float* b_data = AsFloats(b, b_layout, b_room);
    omp_set_num_threads(1);
    // A column-major matrix is the row-major one of its transpose: D^T = op(B)^T op(A)^T.
    const bool ta = desc.transpose_a == CUBLAS_OP_T;
    const bool tb = desc.transpose_b == CUBLAS_OP_T;
    const auto k = static_cast<int64_t>(ta ? a_layout.rows : a_layout.cols);
    const dnnl::status status = dnnl::sgemm(tb ? 'T' : 'N', ta ? 'T' : 'N', static_cast<int64_t>(d_layout.cols),
                                            static_cast<int64_t>(d_layout.rows), k, alpha, b_data, b_layout.ld, a_data,
                                            a_layout.ld, beta, d, d_layout.ld);
    if (status != dnnl::status::success) Report("cublasLtMatmul: oneDNN failed");
    product_flops += 2 * static_cast<int64_t>(d_layout.rows * d_layout.cols) * k;
  }
};

}  // namespace

int64_t ProductFlops() {
  return product_flops;
}

}  // namespace cuda_on_host

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  if (cuda_on_host::DriverError() != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute, cudaDataType_t scale) {
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  *desc = new cublasLtMatmulDescOpaque;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  delete desc;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  if (bytes != sizeof(cublasOperation_t)) return CUBLAS_STATUS_INVALID_VALUE;
  auto& operation = attribute == CUBLASLT_MATMUL_DESC_TRANSA ? desc->transpose_a : desc->transpose_b;
  std::memcpy(&operation, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType_t type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
  *layout = new cublasLtMatrixLayoutOpaque{type, rows, cols, ld};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = new cublasLtMatmulPreferenceOpaque;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t /*attribute*/,
                                                    const void* value, size_t bytes) {
  if (bytes != sizeof(preference->workspace_bytes)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&preference->workspace_bytes, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t /*handle*/, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t /*preference*/, int wanted,
                                              cublasLtMatmulHeuristicResult_t* results, int* found) {
  *found = 0;
  if (wanted < 1 || !cuda_on_host::Fit(*desc, *a, *b, *d) || c->rows != d->rows || c->cols != d->cols) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  *found = 1;
  results[0] = {};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t /*handle*/, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t /*c_layout*/, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* /*algo*/, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  if (c != d || !cuda_on_host::Fit(*desc, *a_layout, *b_layout, *d_layout)) return CUBLAS_STATUS_INVALID_VALUE;
  if (workspace_bytes > 0) cuda_on_host::CheckDeviceRange(workspace, workspace_bytes, "cublasLtMatmul, workspace");
  const cuda_on_host::Product product = {*desc,
                                         *static_cast<const float*>(alpha),
                                         *static_cast<const float*>(beta),
                                         a,
                                         b,
                                         static_cast<float*>(d),
                                         *a_layout,
                                         *b_layout,
                                         *d_layout};
  cuda_on_host::EnqueueNow(stream, [product] { product.Run(); });
  return CUBLAS_STATUS_SUCCESS;
}
const char* cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    default:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
}
