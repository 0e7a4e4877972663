#include "worker/eval/tile_product.h"

#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>
#include <utility>

#include "worker/base/status.h"

namespace shardmax {
namespace {

using Tag = dnnl::memory::format_tag;
using Type = dnnl::memory::data_type;

Type TypeOf(Precision precision) {
  return precision == Precision::kFloat32 ? Type::f32 : Type::bf16;
}

absl::Status Refused(const TileShape& shape, const dnnl::error& error) {
  return Error(absl::StatusCode::kInternal, "oneDNN matmul [{}, {}] x [{}, {}]: {}", shape.probes, shape.dim, shape.dim,
               shape.gallery, error.what());
}

}  // namespace

struct TileProduct::Plan {
  explicit Plan(const TileShape& tile)
      : shape(tile),
        engine(dnnl::engine::kind::cpu, 0),
        stream(engine),
        product(dnnl::matmul::desc({{tile.probes, tile.dim}, TypeOf(tile.precision), Tag::ab},
                                   {{tile.dim, tile.gallery}, TypeOf(tile.precision), Tag::any},
                                   {{tile.probes, tile.gallery}, Type::f32, Tag::ab}),
                engine),
        matmul(product),
        probes(product.src_desc(), engine, nullptr),
        rows({{tile.dim, tile.gallery}, TypeOf(tile.precision), Tag::ba}, engine, nullptr),
        packed(product.weights_desc(), engine, nullptr),
        scores(product.dst_desc(), engine, nullptr),
        reorder(rows, packed) {}

  TileShape shape;
  dnnl::engine engine;
  dnnl::stream stream;
  dnnl::matmul::primitive_desc product;
  dnnl::matmul matmul;
  dnnl::memory probes, rows, packed, scores;
  dnnl::reorder reorder;
};

TileProduct::TileProduct(std::unique_ptr<Plan> plan) : plan_(std::move(plan)) {}
TileProduct::~TileProduct() = default;
TileProduct::TileProduct(TileProduct&&) noexcept = default;
TileProduct& TileProduct::operator=(TileProduct&&) noexcept = default;

absl::StatusOr<TileProduct> TileProduct::Make(const TileShape& shape) {
  try {
    return TileProduct(std::make_unique<Plan>(shape));
  } catch (const dnnl::error& error) {
    return Refused(shape, error);
  }
}

const TileShape& TileProduct::shape() const {
  return plan_->shape;
}

int64_t TileProduct::packed_bytes() const {
  return static_cast<int64_t>(plan_->packed.get_desc().get_size());
}

absl::Status TileProduct::Pack(const void* rows, std::byte* packed) {
  try {
    // oneDNN would start OpenMP threads of its own under each of ours. The setting belongs to the calling thread.
    omp_set_num_threads(1);
    plan_->rows.set_data_handle(const_cast<void*>(rows),
                                plan_->stream);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
    plan_->packed.set_data_handle(packed, plan_->stream);
    plan_->reorder.execute(plan_->stream, plan_->rows, plan_->packed);
    plan_->stream.wait();
  } catch (const dnnl::error& error) {
    return Refused(plan_->shape, error);
  }
  return absl::OkStatus();
}

absl::Status TileProduct::Run(const void* probes, const std::byte* packed, float* scores) {
  try {
    omp_set_num_threads(1);
    plan_->probes.set_data_handle(const_cast<void*>(probes), plan_->stream);       // NOLINT
    plan_->packed.set_data_handle(const_cast<std::byte*>(packed), plan_->stream);  // NOLINT
    plan_->scores.set_data_handle(scores, plan_->stream);
    plan_->matmul.execute(
        plan_->stream,
        {{DNNL_ARG_SRC, plan_->probes}, {DNNL_ARG_WEIGHTS, plan_->packed}, {DNNL_ARG_DST, plan_->scores}});
    plan_->stream.wait();
  } catch (const dnnl::error& error) {
    return Refused(plan_->shape, error);
  }
  return absl::OkStatus();
}

}  // namespace shardmax
