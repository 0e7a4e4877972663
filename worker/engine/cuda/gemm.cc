#include "worker/engine/cuda/gemm.h"

#include <utility>

#include "worker/base/cuda_status.h"
#include "worker/base/status.h"
#include "worker/engine/cuda/limits.h"

namespace shardmax::cuda {

// cuBLASLt's matrices are column-major, which is the row-major one of the transpose: it is asked for c^T = b^T a^T.
struct Gemm::Plan {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t first = nullptr;   // b^T
  cublasLtMatrixLayout_t second = nullptr;  // a^T
  cublasLtMatrixLayout_t result = nullptr;  // c^T
  cublasLtMatmulAlgo_t algorithm;
  float beta = 0;

  Plan() = default;
  ~Plan() {
    if (product != nullptr) cublasLtMatmulDescDestroy(product);
    for (const cublasLtMatrixLayout_t layout : {first, second, result}) {
      if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
    }
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
};

absl::StatusOr<Gemm> Gemm::Make(Precision precision) {
  Gemm gemm;
  gemm.precision_ = precision;
  SHARDMAX_CUDA(cublasLtCreate, &gemm.handle_);
  SHARDMAX_ASSIGN_OR_RETURN(gemm.workspace_, DeviceBuffer<char>::Allocate(kGemmWorkspaceBytes));
  return gemm;
}

Gemm::Gemm(Gemm&& other) noexcept
    : precision_(other.precision_),
      handle_(std::exchange(other.handle_, nullptr)),
      workspace_(std::move(other.workspace_)),
      plans_(std::move(other.plans_)) {}

Gemm::~Gemm() {
  plans_.clear();
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

absl::StatusOr<Gemm::Plan*> Gemm::PlanOf(const GemmShape& shape) {
  std::unique_ptr<Plan>& kept = plans_[shape];
  if (kept != nullptr) return kept.get();
  auto plan = std::make_unique<Plan>();
  plan->beta = shape.accumulate ? 1 : 0;
  SHARDMAX_CUDA(cublasLtMatmulDescCreate, &plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  const cublasOperation_t transpose_first = shape.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t transpose_second = shape.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  SHARDMAX_CUDA(cublasLtMatmulDescSetAttribute, plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &transpose_first,
                sizeof(transpose_first));
  SHARDMAX_CUDA(cublasLtMatmulDescSetAttribute, plan->product, CUBLASLT_MATMUL_DESC_TRANSB, &transpose_second,
                sizeof(transpose_second));
  const cudaDataType_t type = precision_ == Precision::kFloat32 ? CUDA_R_32F : CUDA_R_16BF;
  const auto layout = [](cublasLtMatrixLayout_t& made, cudaDataType_t of, int64_t rows, int64_t cols, int64_t leading) {
    return cublasLtMatrixLayoutCreate(&made, of, static_cast<uint64_t>(cols), static_cast<uint64_t>(rows), leading);
  };
  SHARDMAX_CUDA(layout, plan->first, type, shape.transpose_b ? shape.n : shape.k, shape.transpose_b ? shape.k : shape.n,
                shape.ldb);
  SHARDMAX_CUDA(layout, plan->second, type, shape.transpose_a ? shape.k : shape.m,
                shape.transpose_a ? shape.m : shape.k, shape.lda);
  SHARDMAX_CUDA(layout, plan->result, CUDA_R_32F, shape.m, shape.n, shape.ldc);

  cublasLtMatmulPreference_t preference = nullptr;
  SHARDMAX_CUDA(cublasLtMatmulPreferenceCreate, &preference);
  const std::unique_ptr<std::remove_pointer_t<cublasLtMatmulPreference_t>, decltype(&cublasLtMatmulPreferenceDestroy)>
      owner(preference, cublasLtMatmulPreferenceDestroy);
  const auto workspace_bytes = static_cast<uint64_t>(kGemmWorkspaceBytes);
  SHARDMAX_CUDA(cublasLtMatmulPreferenceSetAttribute, preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                &workspace_bytes, sizeof(workspace_bytes));
  cublasLtMatmulHeuristicResult_t found = {};
  int count = 0;
  SHARDMAX_CUDA(cublasLtMatmulAlgoGetHeuristic, handle_, plan->product, plan->first, plan->second, plan->result,
                plan->result, preference, 1, &found, &count);
  if (count == 0) {
    return Error(absl::StatusCode::kInternal, "cuBLASLt has no algorithm for [{}, {}] x [{}, {}]", shape.m, shape.k,
                 shape.k, shape.n);
  }
  plan->algorithm = found.algo;
  kept = std::move(plan);
  return kept.get();
}

absl::Status Gemm::Run(const GemmShape& shape, const void* a, const void* b, float* c, cudaStream_t stream) {
  SHARDMAX_ASSIGN_OR_RETURN(const Plan* plan, PlanOf(shape));
  const float one = 1;
  SHARDMAX_CUDA(cublasLtMatmul, handle_, plan->product, &one, b, plan->first, a, plan->second, &plan->beta, c,
                plan->result, c, plan->result, &plan->algorithm, workspace_.data(),
                static_cast<size_t>(kGemmWorkspaceBytes), stream);
  return absl::OkStatus();
}

}  // namespace shardmax::cuda
