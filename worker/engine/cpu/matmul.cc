#include "worker/engine/cpu/matmul.h"

#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>
#include <utility>

#include "worker/base/status.h"
#include "worker/engine/cpu/tile_kernels.h"

namespace shardmax {
namespace {

using DataType = dnnl::memory::data_type;

DataType TypeOf(const MatMulShape& shape) {
  return shape.bfloat16 ? DataType::bf16 : DataType::f32;
}

dnnl::memory::desc Operand(int64_t rows, int64_t cols, int64_t leading, bool transposed, DataType type) {
  const dnnl::memory::dims strides = transposed ? dnnl::memory::dims{1, leading} : dnnl::memory::dims{leading, 1};
  return {{rows, cols}, type, strides};
}

dnnl::memory::desc StoredB(const MatMulShape& shape) {
  return Operand(shape.k, shape.n, shape.ldb, shape.transpose_b, TypeOf(shape));
}

// Whether `desc` is what PackPanels or PackBfloat16Panels write: column panels, nothing padded.
bool IsPanels(const dnnl::memory::desc& desc, const MatMulShape& shape) {
  const dnnl_memory_desc_t& d = desc.data;
  if (d.format_kind != dnnl_blocked) return false;
  if (d.padded_dims[0] != shape.k || d.padded_dims[1] != shape.n || shape.n % kPanelColumns != 0) return false;
  const dnnl_blocking_desc_t& blocking = d.format_desc.blocking;
  const int pairs = shape.bfloat16 ? 1 : 0;
  if (blocking.inner_nblks != 2 + pairs) return false;
  // [n / 64][k / r][r][64], or for bfloat16 [n / 64][k / 2r][r][64][2].
  if (blocking.inner_idxs[0] != 0 || blocking.inner_idxs[1] != 1 || blocking.inner_blks[1] != kPanelColumns) {
    return false;
  }
  if (pairs == 1 && (blocking.inner_idxs[2] != 0 || blocking.inner_blks[2] != 2)) return false;
  const int64_t block_rows = blocking.inner_blks[0] * (pairs + 1);
  return blocking.strides[0] == block_rows * kPanelColumns && blocking.strides[1] == shape.k * kPanelColumns;
}

absl::Status Refused(const MatMulShape& shape, const dnnl::error& error) {
  return Error(absl::StatusCode::kInternal, "oneDNN matmul [{}, {}] x [{}, {}]: {}", shape.m, shape.k, shape.k, shape.n,
               error.what());
}

bool HasBfloat16(dnnl::cpu_isa isa) {
  return isa == dnnl::cpu_isa::avx512_core_bf16 || isa == dnnl::cpu_isa::avx512_core_amx;
}

}  // namespace

OperandType OperandsFor(Precision precision) {
  if (precision == Precision::kFloat32) return OperandType::kFloat32;
  // oneDNN also computes bfloat16 on AVX-512 without the instruction, but slower than float32.
  return HasBfloat16(dnnl::get_effective_cpu_isa()) ? OperandType::kBfloat16 : OperandType::kRoundedToFloat32;
}

std::string ProductTarget() {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::sse41:
      return "SSE4.1 (no AVX2 here)";
    case dnnl::cpu_isa::avx:
      return "AVX (no AVX2 here)";
    case dnnl::cpu_isa::avx2:
    case dnnl::cpu_isa::avx2_vnni:
      return "AVX2 (no AVX-512 here)";
    case dnnl::cpu_isa::avx512_core:
    case dnnl::cpu_isa::avx512_core_vnni:
      return "AVX-512 (no bfloat16 instructions here)";
    case dnnl::cpu_isa::avx512_core_bf16:
      return "AVX-512 with bfloat16";
    case dnnl::cpu_isa::avx512_core_amx:
      return "AMX";
    default:
      return "the best of oneDNN for this processor";
  }
}

struct MatMul::Plan {
  explicit Plan(const MatMulShape& shape) : engine(dnnl::engine::kind::cpu, 0), stream(engine) {
    const auto a_desc = Operand(shape.m, shape.k, shape.lda, shape.transpose_a, TypeOf(shape));
    const auto stored = StoredB(shape);
    const auto any = dnnl::memory::desc({shape.k, shape.n}, TypeOf(shape), dnnl::memory::format_tag::any);
    const auto c_desc = Operand(shape.m, shape.n, shape.ldc, false, DataType::f32);
    dnnl::primitive_attr attributes;
    if (shape.accumulate) {
      dnnl::post_ops add_to_c;
      add_to_c.append_sum(1.0F);
      attributes.set_post_ops(add_to_c);
    }
    const dnnl::matmul::primitive_desc product({a_desc, shape.packed_b ? any : stored, c_desc}, attributes, engine);
    primitive = dnnl::matmul(product);
    a = dnnl::memory(a_desc, engine, nullptr);
    b = dnnl::memory(product.weights_desc(), engine, nullptr);
    c = dnnl::memory(c_desc, engine, nullptr);
    stored_b = dnnl::memory(stored, engine, nullptr);
    layout.bytes = static_cast<int64_t>(product.weights_desc().get_size());
    if (product.weights_desc() == stored) {
      layout.kind = PackedLayout::Kind::kAsStored;
    } else {
      layout.kind = IsPanels(product.weights_desc(), shape) ? PackedLayout::Kind::kPanels : PackedLayout::Kind::kOther;
    }
  }

  dnnl::engine engine;
  dnnl::stream stream;
  dnnl::matmul primitive;
  dnnl::memory a, b, c;
  dnnl::memory stored_b;
  dnnl::reorder packer;  // Of stored_b into b; made when it is first used.
  PackedLayout layout;
};

MatMul::MatMul() = default;
MatMul::~MatMul() = default;
MatMul::MatMul(MatMul&&) noexcept = default;
MatMul& MatMul::operator=(MatMul&&) noexcept = default;

absl::StatusOr<MatMul::Plan*> MatMul::PlanOf(const MatMulShape& shape) {
  // oneDNN would start OpenMP threads of its own under each of ours. The setting belongs to the calling thread.
  omp_set_num_threads(1);
  const auto found = plans_.find(shape);
  if (found != plans_.end()) return found->second.get();
  try {
    auto plan = std::make_unique<Plan>(shape);
    return plans_.emplace(shape, std::move(plan)).first->second.get();
  } catch (const dnnl::error& error) {
    return Refused(shape, error);
  }
}

absl::Status MatMul::Run(const MatMulShape& shape, const void* a, const void* b, float* c) {
  SHARDMAX_ASSIGN_OR_RETURN(Plan * plan, PlanOf(shape));
  try {
    plan->a.set_data_handle(const_cast<void*>(a), plan->stream);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
    plan->b.set_data_handle(const_cast<void*>(b), plan->stream);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
    plan->c.set_data_handle(c, plan->stream);
    // The C++ call would make a table of arguments on the heap each time.
    const dnnl_exec_arg_t arguments[] = {
        {DNNL_ARG_SRC, plan->a.get()}, {DNNL_ARG_WEIGHTS, plan->b.get()}, {DNNL_ARG_DST, plan->c.get()}};
    dnnl::error::wrap_c_api(dnnl_primitive_execute(plan->primitive.get(), plan->stream.get(), 3, arguments),
                            "the product did not run");
    plan->stream.wait();
  } catch (const dnnl::error& error) {
    plans_.erase(shape);
    return Refused(shape, error);
  }
  return absl::OkStatus();
}

absl::StatusOr<PackedLayout> MatMul::LayoutOfB(const MatMulShape& shape) {
  SHARDMAX_ASSIGN_OR_RETURN(const Plan* plan, PlanOf(shape));
  return plan->layout;
}

absl::Status MatMul::PackB(const MatMulShape& shape, const void* b, void* packed) {
  SHARDMAX_ASSIGN_OR_RETURN(Plan * plan, PlanOf(shape));
  try {
    if (!plan->packer) plan->packer = dnnl::reorder(plan->stored_b, plan->b);
    plan->stored_b.set_data_handle(const_cast<void*>(b),
                                   plan->stream);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
    plan->b.set_data_handle(packed, plan->stream);
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, plan->stored_b.get()}, {DNNL_ARG_TO, plan->b.get()}};
    dnnl::error::wrap_c_api(dnnl_primitive_execute(plan->packer.get(), plan->stream.get(), 2, arguments),
                            "packing did not run");
    plan->stream.wait();
  } catch (const dnnl::error& error) {
    return Refused(shape, error);
  }
  return absl::OkStatus();
}

}  // namespace shardmax
