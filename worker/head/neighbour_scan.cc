#include "worker/head/neighbour_scan.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <vector>

#include "worker/base/bfloat16.h"
#include "worker/base/status.h"
#include "worker/base/thread_pool.h"
#include "worker/engine/cpu/tile_kernels.h"
#include "worker/engine/norm.h"
#include "worker/head/direction_tiles.h"
#include "worker/head/nearest_sets.h"
#include "worker/head/pair_finder.h"
#include "worker/head/partial_exchange.h"

namespace shardmax {
namespace {

// Two tiles and their products stay in the second-level cache.
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
        rounded_(engine.options().precision == Precision::kBfloat16),
        product_(TileProduct(plan.tile_rows, dim_, OperandsFor(Precision::kBfloat16) == OperandType::kBfloat16)),
        pool_(engine.options().threads, engine.options().processors),
        statuses_(static_cast<size_t>(pool_.threads())) {}

  absl::Status Run();

 private:
  struct Floors {
    std::vector<float> rows, columns;
  };

  absl::Status Reserve();
  // Calls fn(thread, i) for i in [0, count), each once; the first error of the lowest thread.
  template <typename Fn>
  absl::Status ForEach(int64_t count, const Fn& fn);
  // Directions of classes of this rank, rounded if need be. By one thread.
  absl::Status ReadDirections(Range classes, MatrixView<float> to) const;
  absl::Status ReadWire(Range classes);
  // Fills tiles with classes of this rank.
  absl::Status ReadTiles(Range classes, DirectionTiles& tiles);
  // What came from other ranks in a round.
  absl::Status TakeRound(int64_t round);
  // Tile `i` of the panel against all of the block.
  absl::Status ScoreTile(int thread, int64_t i);
  absl::Status ScorePanel();
  absl::Status ScoreOwn(Range panel);
  // Every rank takes part in each exchange, whatever it has met.
  absl::Status ScoreOthers();

  Communicator& comm_;
  const Engine& engine_;
  NeighbourGraph& graph_;
  const NeighbourScanPlan plan_;
  const int64_t dim_;
  const bool rounded_;
  const MatMulShape product_;
  ThreadPool pool_;
  absl::Status status_;  // What this rank has met, for the next exchange.
  std::vector<absl::Status> statuses_;
  std::vector<PairFinder> finders_;         // By thread,
  std::vector<Floors> floors_;              // as these
  std::vector<AlignedBuffer<float>> read_;  // [kRowsRead, D] and these.
  std::vector<Range> shards_;               // By rank.
  NearestSets nearest_;                     // Of this rank's classes.
  DirectionTiles panel_;
  DirectionTiles block_;
  int64_t panel_tile_ = 0;  // The first of the panel, of those of the shard.
  int64_t block_tile_ = 0;  // The same of the block; -1: of other ranks.
  std::vector<std::byte> wire_;
  PartialExchange exchange_;
};

absl::Status NeighbourScan::Reserve() {
  const auto tile_rows = static_cast<size_t>(plan_.tile_rows);
  for (int i = 0; i < pool_.threads(); ++i) {
    SHARDMAX_ASSIGN_OR_RETURN(finders_.emplace_back(), PairFinder::Make(product_));
    SHARDMAX_ASSIGN_OR_RETURN(read_.emplace_back(), AlignedBuffer<float>::Allocate(kRowsRead * dim_));
    floors_.push_back({std::vector<float>(tile_rows), std::vector<float>(tile_rows)});
  }
  const int64_t block_rows = std::max(plan_.own_rows, plan_.block_rows * (comm_.size() - 1));
  SHARDMAX_ASSIGN_OR_RETURN(panel_, DirectionTiles::Make(product_, plan_.panel_rows, DirectionTiles::Side::kFirst));
  SHARDMAX_ASSIGN_OR_RETURN(block_, DirectionTiles::Make(product_, block_rows, DirectionTiles::Side::kSecond));
  SHARDMAX_ASSIGN_OR_RETURN(nearest_, NearestSets::Make(graph_.rows(), plan_.tile_rows));
  wire_.resize(static_cast<size_t>(plan_.rounds > 0 ? plan_.block_rows * plan_.row_bytes : 0));
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

absl::Status NeighbourScan::ReadDirections(Range classes, MatrixView<float> to) const {
  float inverse_norms[kRowsRead];
  for (int64_t piece = 0; piece < Pieces(classes.count, kRowsRead); ++piece) {
    const Range part = PartOf(classes, piece, kRowsRead);
    const MatrixView<float> rows = to.slice(part.first - classes.first, part.count);
    SHARDMAX_RETURN_IF_ERROR(engine_.ReadRows("weight", part, rows));
    InverseNorms(rows, inverse_norms);
    SHARDMAX_RETURN_IF_ERROR(
        CheckNorms(std::span<const float>(inverse_norms, static_cast<size_t>(part.count)), part.first));
    for (int64_t i = 0; i < part.count; ++i) {
      for (float& x : rows.row(i)) x *= inverse_norms[i];
    }
    if (rounded_) RoundToBfloat16(rows.data, part.count * dim_, rows.data);
  }
  return absl::OkStatus();
}

absl::Status NeighbourScan::ReadWire(Range classes) {
  std::ranges::fill(wire_, std::byte{0});
  return ForEach(Pieces(classes.count, kRowsRead), [&](int thread, int64_t piece) -> absl::Status {
    const Range part = PartOf(classes, piece, kRowsRead);
    float* rows = read_[static_cast<size_t>(thread)].data();
    SHARDMAX_RETURN_IF_ERROR(ReadDirections(part, {rows, part.count, dim_}));
    std::byte* out = wire_.data() + (part.first - classes.first) * plan_.row_bytes;
    if (rounded_) {
      ToBfloat16(rows, part.count * dim_, reinterpret_cast<uint16_t*>(out));
    } else {
      std::memcpy(out, rows, static_cast<size_t>(part.count * plan_.row_bytes));
    }
    return absl::OkStatus();
  });
}

absl::Status NeighbourScan::ReadTiles(Range classes, DirectionTiles& tiles) {
  tiles.Resize(classes.count);
  tiles.SetClasses(0, classes.count, static_cast<int32_t>(classes.first));
  return ForEach(tiles.tiles(), [&](int thread, int64_t tile) -> absl::Status {
    const Range part = PartOf(classes, tile, plan_.tile_rows);
    SHARDMAX_RETURN_IF_ERROR(ReadDirections(part, {tiles.row(tile * plan_.tile_rows), part.count, dim_}));
    return tiles.Prepare(tile, finders_[static_cast<size_t>(thread)].multiply());
  });
}

absl::Status NeighbourScan::TakeRound(int64_t round) {
  const auto blocks = exchange_.gathered<std::byte>();
  block_tile_ = -1;
  block_.Resize(plan_.block_rows * (comm_.size() - 1));
  int64_t place = 0;
  for (int rank = 0; rank < comm_.size(); ++rank) {
    if (rank == comm_.rank()) continue;
    const Range classes = PartOf(shards_[static_cast<size_t>(rank)], round, plan_.block_rows);
    const std::byte* rows = blocks[static_cast<size_t>(rank)].data();
    if (rounded_) {
      const auto* from = reinterpret_cast<const uint16_t*>(rows);
      std::transform(from, from + classes.count * dim_, block_.row(place), FromBfloat16);
    } else {
      std::memcpy(block_.row(place), rows, static_cast<size_t>(classes.count * plan_.row_bytes));
    }
    block_.SetClasses(place, classes.count, static_cast<int32_t>(classes.first));
    place += plan_.block_rows;
  }
  return ForEach(block_.tiles(), [&](int thread, int64_t tile) {
    return block_.Prepare(tile, finders_[static_cast<size_t>(thread)].multiply());
  });
}

absl::Status NeighbourScan::ScoreTile(int thread, int64_t i) {
  const DirectionTiles::Tile a = panel_.tile(i);
  Floors& floors = floors_[static_cast<size_t>(thread)];
  const bool own = block_tile_ >= 0;
  const int64_t first_class = graph_.shard().first;
  // A floor that nothing reaches: the lists of other ranks' classes are theirs.
  if (!own) std::ranges::fill(floors.columns, std::numeric_limits<float>::infinity());
  for (int64_t j = own ? std::max<int64_t>(panel_tile_ + i - block_tile_, 0) : 0; j < block_.tiles(); ++j) {
    const DirectionTiles::Tile b = block_.tile(j);
    nearest_.Floors(panel_tile_ + i, floors.rows.data());
    if (own) nearest_.Floors(block_tile_ + j, floors.columns.data());
    SHARDMAX_ASSIGN_OR_RETURN(const auto pairs,
                              finders_[static_cast<size_t>(thread)].Find(a, b, floors.rows, floors.columns, own));
    {
      const auto lock = nearest_.Lock(panel_tile_ + i);
      for (const PairFinder::Pair& pair : pairs) {
        nearest_.Offer(a.ids[static_cast<size_t>(pair.row)] - first_class, pair.cosine,
                       b.ids[static_cast<size_t>(pair.column)]);
      }
    }
    if (!own) continue;
    const auto lock = nearest_.Lock(block_tile_ + j);
    for (const PairFinder::Pair& pair : pairs) {
      nearest_.Offer(b.ids[static_cast<size_t>(pair.column)] - first_class, pair.cosine,
                     a.ids[static_cast<size_t>(pair.row)]);
    }
  }
  return absl::OkStatus();
}

absl::Status NeighbourScan::ScorePanel() {
  return ForEach(panel_.tiles(), [&](int thread, int64_t tile) { return ScoreTile(thread, tile); });
}

absl::Status NeighbourScan::ScoreOwn(Range panel) {
  SHARDMAX_RETURN_IF_ERROR(ReadTiles(panel, panel_));
  const Range later = {panel.first, graph_.shard().end() - panel.first};
  panel_tile_ = (panel.first - graph_.shard().first) / plan_.tile_rows;
  for (int64_t part = 0; part < Pieces(later.count, plan_.own_rows); ++part) {
    const Range classes = PartOf(later, part, plan_.own_rows);
    block_tile_ = (classes.first - graph_.shard().first) / plan_.tile_rows;
    SHARDMAX_RETURN_IF_ERROR(ReadTiles(classes, block_));
    SHARDMAX_RETURN_IF_ERROR(ScorePanel());
  }
  return absl::OkStatus();
}

absl::Status NeighbourScan::ScoreOthers() {
  for (int64_t round = 0; round < plan_.rounds; ++round) {
    if (status_.ok()) status_ = ReadWire(PartOf(graph_.shard(), round, plan_.block_rows));
    SHARDMAX_RETURN_IF_ERROR(exchange_.Exchange(comm_, status_, wire_));
    status_ = TakeRound(round);
    if (status_.ok()) status_ = ScorePanel();
  }
  return absl::OkStatus();
}

absl::Status NeighbourScan::Run() {
  for (int rank = 0; rank < comm_.size(); ++rank) {
    SHARDMAX_ASSIGN_OR_RETURN(shards_.emplace_back(), ShardOfRank(graph_.num_classes(), rank, comm_.size()));
  }
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm_, Reserve()));
  for (int64_t panel = 0; panel < plan_.panels; ++panel) {
    if (status_.ok()) status_ = ScoreOwn(PartOf(graph_.shard(), panel, plan_.panel_rows));
    SHARDMAX_RETURN_IF_ERROR(ScoreOthers());
  }
  if (status_.ok()) {
    status_ = ForEach(graph_.shard().count, [&](int /*thread*/, int64_t row) {
      nearest_.Sort(row);
      return absl::OkStatus();
    });
  }
  return AgreeOk(comm_, status_);
}

}  // namespace

NeighbourScanPlan NeighbourScanPlan::Of(int64_t num_classes, int64_t dim, int ranks, Precision precision,
                                        const NeighbourScanLimits& limits) {
  const int64_t largest_shard = BalancedPart(num_classes, 0, ranks).count;
  const int64_t row_bytes = dim * static_cast<int64_t>(sizeof(float));
  NeighbourScanPlan plan;
  plan.row_bytes = precision == Precision::kBfloat16 ? row_bytes / 2 : row_bytes;
  plan.tile_rows = limits.tile_rows > 0 ? limits.tile_rows : kTileRows;
  const auto whole_tiles = [&](int64_t rows) {
    return std::max<int64_t>(std::min(rows, largest_shard + plan.tile_rows - 1) / plan.tile_rows, 1) * plan.tile_rows;
  };
  // In bfloat16 too, half as much.
  plan.panel_rows = whole_tiles(std::min(kPanelBytes / (row_bytes + row_bytes / 2), kMostPanelRows));
  plan.own_rows = whole_tiles(kRoundBytes / row_bytes);
  plan.block_rows = std::max<int64_t>(kRoundBytes / row_bytes / ranks, 1);
  if (limits.panel_rows > 0) plan.panel_rows = whole_tiles(limits.panel_rows);
  if (limits.block_rows > 0) {
    plan.block_rows = limits.block_rows;
    plan.own_rows = whole_tiles(limits.block_rows);
  }
  plan.block_rows = std::min(plan.block_rows, largest_shard);
  plan.panels = Pieces(largest_shard, plan.panel_rows);
  plan.rounds = ranks > 1 ? Pieces(largest_shard, plan.block_rows) : 0;
  return plan;
}

absl::Status BuildNeighbourGraph(Communicator& comm, const Engine& engine, NeighbourGraph& graph,
                                 const NeighbourScanLimits& limits) {
  const NeighbourScanPlan plan =
      NeighbourScanPlan::Of(graph.num_classes(), engine.options().dim, comm.size(), engine.options().precision, limits);
  graph.SetBuilt(false);
  SHARDMAX_RETURN_IF_ERROR(NeighbourScan(comm, engine, graph, plan).Run());
  graph.SetBuilt(true);
  return absl::OkStatus();
}

}  // namespace shardmax
