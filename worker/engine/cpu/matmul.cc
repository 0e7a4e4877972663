#include "worker/engine/cpu/matmul.h"

#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>

#include "worker/base/status.h"

namespace shardmax {
namespace {

dnnl::memory::desc Operand(int64_t rows, int64_t cols, int64_t leading, bool transposed, dnnl::memory::data_type type) {
  const dnnl::memory::dims strides = transposed ? dnnl::memory::dims{1, leading} : dnnl::memory::dims{leading, 1};
  return {{rows, cols}, type, strides};
}

}  // namespace

struct MatMul::Plan {
  explicit Plan(const MatMulShape& shape) : engine(dnnl::engine::kind::cpu, 0), stream(engine) {
    const auto type =
        shape.precision == Precision::kFloat32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
    const auto a_desc = Operand(shape.m, shape.k, shape.lda, shape.transpose_a, type);
    const auto b_desc = Operand(shape.k, shape.n, shape.ldb, shape.transpose_b, type);
    const auto c_desc = Operand(shape.m, shape.n, shape.ldc, false, dnnl::memory::data_type::f32);
    dnnl::primitive_attr attributes;
    if (shape.accumulate) {
      dnnl::post_ops add_to_c;
      add_to_c.append_sum(1.0F);
      attributes.set_post_ops(add_to_c);
    }
    primitive = dnnl::matmul({dnnl::matmul::desc(a_desc, b_desc, c_desc), attributes, engine});
    a = dnnl::memory(a_desc, engine, nullptr);
    b = dnnl::memory(b_desc, engine, nullptr);
    c = dnnl::memory(c_desc, engine, nullptr);
  }

  dnnl::engine engine;
  dnnl::stream stream;
  dnnl::matmul primitive;
  dnnl::memory a, b, c;
};

MatMul::MatMul() = default;
MatMul::~MatMul() = default;
MatMul::MatMul(MatMul&&) noexcept = default;
MatMul& MatMul::operator=(MatMul&&) noexcept = default;

absl::Status MatMul::Run(const MatMulShape& shape, const void* a, const void* b, float* c) {
  try {
    // oneDNN would start OpenMP threads of its own under each of ours. The setting belongs to the calling thread.
    omp_set_num_threads(1);
    std::unique_ptr<Plan>& plan = plans_[shape];
    if (plan == nullptr) plan = std::make_unique<Plan>(shape);
    plan->a.set_data_handle(const_cast<void*>(a), plan->stream);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
    plan->b.set_data_handle(const_cast<void*>(b), plan->stream);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
    plan->c.set_data_handle(c, plan->stream);
    plan->primitive.execute(plan->stream,
                            {{DNNL_ARG_SRC, plan->a}, {DNNL_ARG_WEIGHTS, plan->b}, {DNNL_ARG_DST, plan->c}});
    plan->stream.wait();
  } catch (const dnnl::error& error) {
    plans_.erase(shape);
    return Error(absl::StatusCode::kInternal, "oneDNN matmul [{}, {}] x [{}, {}]: {}", shape.m, shape.k, shape.k,
                 shape.n, error.what());
  }
  return absl::OkStatus();
}

}  // namespace shardmax
