#include "worker/head/neighbour_scan.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <vector>

#include "worker/base/bfloat16.h"
#include "worker/base/status.h"
#include "worker/base/thread_pool.h"
#include "worker/engine/cpu/matmul.h"
#include "worker/engine/cpu/tile_kernels.h"
#include "worker/engine/norm.h"
#include "worker/head/nearest_panel.h"
#include "worker/head/partial_exchange.h"

namespace shardmax {
namespace {

// Of a tile, both ways: its scores stay in the second-level cache.
constexpr int64_t kTileRows = 256;
constexpr int64_t kMostPanelRows = 16384;
constexpr int64_t kPanelBytes = int64_t{64} << 20;
constexpr int64_t kRoundBytes = int64_t{16} << 20;
constexpr int64_t kRowsRead = 64;  // At a time, by a thread.

int64_t Pieces(int64_t total, int64_t size) {
  return (total + size - 1) / size;
}

// Part `index` of those of `size` that `range` is cut into; may be empty.
Range PartOf(Range range, int64_t index, int64_t size) {
  const int64_t first = std::min(range.first + index * size, range.end());
  return {first, std::min(size, range.end() - first)};
}

class NeighbourScan {
 public:
  NeighbourScan(Communicator& comm, const Engine& engine, NeighbourGraph& graph, const NeighbourScanPlan& plan)
      : comm_(comm),
        engine_(engine),
        graph_(graph),
        plan_(plan),
        dim_(engine.options().dim),
        type_(OperandsFor(engine.options().precision)),
        pool_(engine.options().threads, engine.options().processors),
        statuses_(static_cast<size_t>(pool_.threads())) {
    shape_ = {.m = kTileRows,
              .n = kTileRows,
              .k = dim_,
              .lda = dim_,
              .ldb = dim_,
              .ldc = kTileRows,
              .transpose_b = true,
              .packed_b = true,
              .bfloat16 = type_ == OperandType::kBfloat16};
  }

  absl::Status Run();

 private:
  absl::Status Reserve();
  int64_t item_bytes() const { return type_ == OperandType::kBfloat16 ? 2 : 4; }
  int64_t round_rows() const { return plan_.block_rows * comm_.size(); }
  // Bytes of a tile of rows as operands.
  int64_t tile_bytes() const { return kTileRows * dim_ * item_bytes(); }
  // Calls fn(thread, i) for i in [0, count), each once; the first error of the lowest thread.
  template <typename Fn>
  absl::Status ForEach(int64_t count, const Fn& fn);
  // Writes the directions of this rank's `classes` as the wire has them; rows beyond are zero.
  absl::Status ReadDirections(Range classes, std::span<std::byte> to);
  // Turns rows of the wire into operands.
  void ToOperands(std::span<const std::byte> rows, std::byte* to) const;
  absl::Status FillPanel(Range classes);
  // What came in a round: which class stands where, and their rows packed.
  absl::Status PackRound(int64_t round);
  absl::Status ScoreTile(int thread, Range classes, int64_t tile);
  absl::Status TakePanel(Range classes);

  Communicator& comm_;
  const Engine& engine_;
  NeighbourGraph& graph_;
  const NeighbourScanPlan plan_;
  const int64_t dim_;
  const OperandType type_;
  ThreadPool pool_;
  std::vector<absl::Status> statuses_;
  MatMulShape shape_;
  std::vector<MatMul> products_;            // By thread.
  std::vector<AlignedBuffer<float>> read_;  // [kRowsRead, D] by thread
  std::vector<AlignedBuffer<float>> scores_;
  std::vector<Range> shards_;  // By rank.
  NearestPanel nearest_;
  AlignedBuffer<std::byte> panel_;  // Operands of this rank's panel.
  std::vector<std::byte> wire_;     // A tile of it as the wire has rows.
  std::vector<std::byte> block_;    // What this rank sends.
  PartialExchange exchange_;
  AlignedBuffer<std::byte> gathered_;  // Operands of a round.
  AlignedBuffer<std::byte> packed_;
  int64_t packed_bytes_ = 0;  // Of a tile.
  std::vector<int32_t> ids_;  // Of the gathered rows; -1: none.
};

absl::Status NeighbourScan::Reserve() {
  const int64_t panel_tiles = Pieces(plan_.panel_rows, kTileRows);
  const int64_t round_tiles = Pieces(round_rows(), kTileRows);
  for (int i = 0; i < pool_.threads(); ++i) {
    products_.emplace_back();
    SHARDMAX_ASSIGN_OR_RETURN(read_.emplace_back(), AlignedBuffer<float>::Allocate(kRowsRead * dim_));
    SHARDMAX_ASSIGN_OR_RETURN(scores_.emplace_back(), AlignedBuffer<float>::Allocate(kTileRows * kTileRows));
  }
  SHARDMAX_ASSIGN_OR_RETURN(const PackedLayout layout, products_[0].LayoutOfB(shape_));
  packed_bytes_ = Pieces(layout.bytes, 64) * 64;
  SHARDMAX_ASSIGN_OR_RETURN(packed_, AlignedBuffer<std::byte>::Allocate(round_tiles * packed_bytes_));
  SHARDMAX_ASSIGN_OR_RETURN(gathered_, AlignedBuffer<std::byte>::Allocate(round_tiles * tile_bytes()));
  SHARDMAX_ASSIGN_OR_RETURN(panel_, AlignedBuffer<std::byte>::Allocate(panel_tiles * tile_bytes()));
  SHARDMAX_ASSIGN_OR_RETURN(nearest_, NearestPanel::Make(panel_tiles * kTileRows, graph_.neighbours(), kTileRows));
  wire_.resize(static_cast<size_t>(kTileRows * plan_.row_bytes));
  ids_.resize(static_cast<size_t>(round_tiles * kTileRows));
  block_.resize(static_cast<size_t>(plan_.block_rows * plan_.row_bytes));
  return absl::OkStatus();
}

template <typename Fn>
absl::Status NeighbourScan::ForEach(int64_t count, const Fn& fn) {
  std::atomic<int64_t> next = 0;
  pool_.Run([&](int thread) {
    absl::Status& status = statuses_[static_cast<size_t>(thread)];
    status = absl::OkStatus();
    for (int64_t i = next++; i < count && status.ok(); i = next++) status = fn(thread, i);
  });
  for (const absl::Status& status : statuses_) SHARDMAX_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

absl::Status NeighbourScan::ReadDirections(Range classes, std::span<std::byte> to) {
  std::ranges::fill(to.subspan(static_cast<size_t>(classes.count * plan_.row_bytes)), std::byte{0});
  return ForEach(Pieces(classes.count, kRowsRead), [&](int thread, int64_t piece) -> absl::Status {
    const Range part = PartOf(classes, piece, kRowsRead);
    const MatrixView<float> rows = {read_[static_cast<size_t>(thread)].data(), part.count, dim_};
    SHARDMAX_RETURN_IF_ERROR(engine_.ReadRows("weight", part, rows));
    float inverse_norms[kRowsRead];
    InverseNorms(rows, inverse_norms);
    SHARDMAX_RETURN_IF_ERROR(
        CheckNorms(std::span<const float>(inverse_norms, static_cast<size_t>(part.count)), part.first));
    for (int64_t i = 0; i < part.count; ++i) {
      for (float& x : rows.row(i)) x *= inverse_norms[i];
    }
    std::byte* out = to.data() + (part.first - classes.first) * plan_.row_bytes;
    if (engine_.options().precision == Precision::kBfloat16) {
      ToBfloat16(rows.data, part.count * dim_, reinterpret_cast<uint16_t*>(out));
    } else {
      std::copy_n(rows.data, part.count * dim_, reinterpret_cast<float*>(out));
    }
    return absl::OkStatus();
  });
}

void NeighbourScan::ToOperands(std::span<const std::byte> rows, std::byte* to) const {
  if (type_ != OperandType::kRoundedToFloat32) {
    std::ranges::copy(rows, to);
    return;
  }
  const auto* from = reinterpret_cast<const uint16_t*>(rows.data());
  std::transform(from, from + rows.size() / sizeof(uint16_t), reinterpret_cast<float*>(to), FromBfloat16);
}

absl::Status NeighbourScan::FillPanel(Range classes) {
  nearest_.Clear();
  for (int64_t tile = 0; tile < Pieces(classes.count, kTileRows); ++tile) {
    SHARDMAX_RETURN_IF_ERROR(ReadDirections(PartOf(classes, tile, kTileRows), wire_));
    ToOperands(wire_, panel_.data() + tile * tile_bytes());
  }
  return absl::OkStatus();
}

absl::Status NeighbourScan::PackRound(int64_t round) {
  const auto blocks = exchange_.gathered<std::byte>();
  std::ranges::fill(ids_, -1);
  for (size_t rank = 0; rank < blocks.size(); ++rank) {
    const int64_t place = static_cast<int64_t>(rank) * plan_.block_rows;
    ToOperands(blocks[rank], gathered_.data() + place * dim_ * item_bytes());
    const Range classes = PartOf(shards_[rank], round, plan_.block_rows);
    std::iota(ids_.begin() + place, ids_.begin() + place + classes.count, static_cast<int32_t>(classes.first));
  }
  return ForEach(Pieces(round_rows(), kTileRows), [&](int thread, int64_t tile) {
    return products_[static_cast<size_t>(thread)].PackB(shape_, gathered_.data() + tile * tile_bytes(),
                                                        packed_.data() + tile * packed_bytes_);
  });
}

absl::Status NeighbourScan::ScoreTile(int thread, Range classes, int64_t tile) {
  const Range mine = PartOf(classes, tile, kTileRows);
  float* scores = scores_[static_cast<size_t>(thread)].data();
  for (int64_t other = 0; other < Pieces(round_rows(), kTileRows); ++other) {
    SHARDMAX_RETURN_IF_ERROR(products_[static_cast<size_t>(thread)].Run(
        shape_, panel_.data() + tile * tile_bytes(), packed_.data() + other * packed_bytes_, scores));
    const std::span<const int32_t> ids =
        std::span<const int32_t>(ids_).subspan(static_cast<size_t>(other * kTileRows), kTileRows);
    for (int64_t i = 0; i < mine.count; ++i) {
      nearest_.Add(tile * kTileRows + i, {scores + i * kTileRows, kTileRows}, ids,
                   static_cast<int32_t>(mine.first + i));
    }
  }
  return absl::OkStatus();
}

absl::Status NeighbourScan::TakePanel(Range classes) {
  return ForEach(classes.count, [&](int /*thread*/, int64_t i) {
    const std::span<int32_t> ids = graph_.rows().row(classes.first - graph_.shard().first + i);
    nearest_.Take(i, ids);
    return absl::OkStatus();
  });
}

absl::Status NeighbourScan::Run() {
  for (int rank = 0; rank < comm_.size(); ++rank) {
    SHARDMAX_ASSIGN_OR_RETURN(shards_.emplace_back(), ShardOfRank(graph_.num_classes(), rank, comm_.size()));
  }
  absl::Status status = Reserve();
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm_, status));
  for (int64_t panel = 0; panel < plan_.panels; ++panel) {
    const Range classes = PartOf(graph_.shard(), panel, plan_.panel_rows);
    if (status.ok()) status = FillPanel(classes);
    for (int64_t round = 0; round < plan_.rounds; ++round) {
      if (status.ok()) status = ReadDirections(PartOf(graph_.shard(), round, plan_.block_rows), block_);
      SHARDMAX_RETURN_IF_ERROR(exchange_.Exchange(comm_, status, block_));
      status = PackRound(round);
      if (!status.ok()) continue;
      status = ForEach(Pieces(classes.count, kTileRows),
                       [&](int thread, int64_t tile) { return ScoreTile(thread, classes, tile); });
    }
    if (status.ok()) status = TakePanel(classes);
  }
  return AgreeOk(comm_, status);
}

}  // namespace

NeighbourScanPlan NeighbourScanPlan::Of(int64_t num_classes, int64_t dim, int ranks, int64_t neighbours,
                                        Precision precision, const NeighbourScanLimits& limits) {
  const int64_t largest_shard = BalancedPart(num_classes, 0, ranks).count;
  const int64_t operand_bytes = dim * static_cast<int64_t>(sizeof(float));
  const int64_t row_bytes = std::max(operand_bytes, NearestPanel::RowBytes(neighbours, kTileRows));
  NeighbourScanPlan plan;
  plan.row_bytes = dim * (precision == Precision::kBfloat16 ? 2 : 4);
  plan.panel_rows = std::clamp(kPanelBytes / row_bytes / kTileRows * kTileRows, kTileRows, kMostPanelRows);
  plan.block_rows = std::max<int64_t>(kRoundBytes / operand_bytes / ranks, 1);
  if (limits.panel_rows > 0) plan.panel_rows = limits.panel_rows;
  if (limits.block_rows > 0) plan.block_rows = limits.block_rows;
  plan.panel_rows = std::min(plan.panel_rows, largest_shard);
  plan.block_rows = std::min(plan.block_rows, largest_shard);
  plan.panels = Pieces(largest_shard, plan.panel_rows);
  plan.rounds = Pieces(largest_shard, plan.block_rows);
  return plan;
}

absl::Status BuildNeighbourGraph(Communicator& comm, const Engine& engine, NeighbourGraph& graph,
                                 const NeighbourScanLimits& limits) {
  const NeighbourScanPlan plan = NeighbourScanPlan::Of(graph.num_classes(), engine.options().dim, comm.size(),
                                                       graph.neighbours(), engine.options().precision, limits);
  SHARDMAX_RETURN_IF_ERROR(NeighbourScan(comm, engine, graph, plan).Run());
  graph.SetBuilt(true);
  return absl::OkStatus();
}

}  // namespace shardmax
