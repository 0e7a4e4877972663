#include "worker/eval/pair_scan.h"

#include <algorithm>
#include <atomic>

#include "worker/base/shard_range.h"
#include "worker/base/status.h"
#include "worker/eval/exchange.h"

namespace shardmax {
namespace {

// A tile's scores stay in the second-level cache.
constexpr int64_t kTileRows = 256;
// A round is about as many pairs as a core scores in a second, and each of its two panels has at most so many bytes.
constexpr int64_t kPanelRows = 8192;
constexpr int64_t kPanelBytes = int64_t{64} << 20;

int64_t Tiles(int64_t rows) {
  return (rows + kTileRows - 1) / kTileRows;
}

int64_t Rounds(int64_t tiles, int64_t panel_tiles) {
  return (tiles + panel_tiles - 1) / panel_tiles;
}

// Part `round` of `range`, which may be empty.
Range PartOf(Range range, int64_t round, int64_t size) {
  const int64_t first = std::min(range.first + round * size, range.end());
  return {first, std::min(size, range.end() - first)};
}

// The positions of a tile.
Range RowsOf(int64_t tile, const RowList& list) {
  return {tile * kTileRows, std::min(kTileRows, list.size() - tile * kTileRows)};
}

}  // namespace

absl::StatusOr<PairScan> PairScan::Make(const EvaluationContext& context, const Options& options) {
  PairScan scan(context, options);
  const int64_t dim = options.probes.embeddings->dim();
  const TileShape shape = {kTileRows, kTileRows, dim, options.precision};
  scan.probe_tiles_ = Tiles(options.probes.size());
  scan.gallery_tiles_ = Tiles(options.gallery.size());
  const int64_t tile_bytes = kTileRows * dim * shape.item_bytes();
  scan.panel_tiles_ = std::clamp<int64_t>(kPanelBytes / tile_bytes, 1, kPanelRows / kTileRows);
  scan.panel_tiles_ = std::min(scan.panel_tiles_, std::max(scan.probe_tiles_, scan.gallery_tiles_));
  scan.pool_ = std::make_unique<ThreadPool>(context.threads, context.processors);
  for (int thread = 0; thread < context.threads; ++thread) {
    SHARDMAX_ASSIGN_OR_RETURN(TileProduct product, TileProduct::Make(shape));
    scan.products_.push_back(std::move(product));
    SHARDMAX_ASSIGN_OR_RETURN(scan.scores_.emplace_back(), AlignedBuffer<float>::Allocate(kTileRows * kTileRows));
  }
  for (const int64_t packed_bytes : {int64_t{0}, scan.products_[0].packed_bytes()}) {
    SHARDMAX_ASSIGN_OR_RETURN(RowPanel panel, RowPanel::Make(shape, scan.panel_tiles_, kTileRows, packed_bytes));
    scan.panels_.push_back(std::move(panel));
  }
  return scan;
}

int64_t PairScan::pairs() const {
  const int64_t probes = options_.probes.size();
  return options_.same_rows ? probes * (probes - 1) / 2 : probes * options_.gallery.size();
}

bool PairScan::Meets(int64_t probe_tile, int64_t gallery_tile) const {
  if (options_.wants && !options_.wants(RowsOf(probe_tile, options_.probes), RowsOf(gallery_tile, options_.gallery))) {
    return false;
  }
  if (!options_.same_rows) return true;
  // Each tile meets itself and the half of the others that follow it in a circle, so that all have equal work.
  const int64_t tiles = probe_tiles_;
  const int64_t distance = (gallery_tile - probe_tile + tiles) % tiles;
  return 2 * distance < tiles || (2 * distance == tiles && probe_tile < gallery_tile);
}

absl::StatusOr<bool> PairScan::Run(PairVisitor& visitor) {
  Communicator& comm = context_->comm;
  const Range mine = BalancedPart(probe_tiles_, comm.rank(), comm.size());
  // Equal on all ranks: the first has the largest part.
  const int64_t probe_rounds = Rounds(BalancedPart(probe_tiles_, 0, comm.size()).count, panel_tiles_);
  const int64_t gallery_rounds = Rounds(gallery_tiles_, panel_tiles_);
  const double pairs_a_round = static_cast<double>(pairs()) / static_cast<double>(probe_rounds * gallery_rounds);
  if (options_.tells_progress) context_->host.OnProgress(0, pairs());
  for (int64_t i = 0; i < probe_rounds; ++i) {
    const Range probe_tiles = PartOf(mine, i, panel_tiles_);
    const int64_t first_probe = std::min(probe_tiles.first * kTileRows, options_.probes.size());
    const Range probes = {first_probe, std::min(probe_tiles.end() * kTileRows, options_.probes.size()) - first_probe};
    absl::Status status = panels_[0].Fill(*pool_, products_, options_.probes, probe_tiles);
    if (status.ok()) status = visitor.BeginProbes(probes);
    for (int64_t j = 0; j < gallery_rounds; ++j) {
      if (status.ok()) status = ScoreRound(visitor, probe_tiles, PartOf({0, gallery_tiles_}, j, panel_tiles_));
      if (status.ok() && j + 1 == gallery_rounds) status = visitor.EndProbes(probes);
      SHARDMAX_ASSIGN_OR_RETURN(const bool stop, AnyRank(comm, status, context_->host.StopRequested()));
      const int64_t done = i * gallery_rounds + j + 1;
      const bool last = done == probe_rounds * gallery_rounds;
      if (stop && !last) return false;
      if (!options_.tells_progress) continue;
      context_->host.OnProgress(last ? pairs() : static_cast<int64_t>(pairs_a_round * static_cast<double>(done)),
                                pairs());
    }
  }
  return true;
}

absl::Status PairScan::ScoreRound(PairVisitor& visitor, Range probe_tiles, Range gallery_tiles) {
  if (probe_tiles.count == 0) return absl::OkStatus();
  SHARDMAX_RETURN_IF_ERROR(panels_[1].Fill(*pool_, products_, options_.gallery, gallery_tiles));
  std::vector<absl::Status> statuses(products_.size());
  std::atomic<int64_t> next = 0;
  pool_->Run([&](int thread) {
    for (int64_t i = next++; i < probe_tiles.count; i = next++) {
      for (int64_t j = 0; j < gallery_tiles.count && statuses[thread].ok(); ++j) {
        if (!Meets(probe_tiles.first + i, gallery_tiles.first + j)) continue;
        statuses[thread] = ScoreTile(visitor, thread, probe_tiles.first + i, panels_[0].tile(i),
                                     gallery_tiles.first + j, panels_[1].tile(j));
      }
    }
  });
  for (const absl::Status& status : statuses) SHARDMAX_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

absl::Status PairScan::ScoreTile(PairVisitor& visitor, int thread, int64_t probe_tile, const std::byte* probes,
                                 int64_t gallery_tile, const std::byte* gallery) {
  float* scores = scores_[thread].data();
  SHARDMAX_RETURN_IF_ERROR(products_[thread].Run(probes, gallery, scores));
  const int64_t first_gallery = gallery_tile * kTileRows;
  const int64_t end_gallery = std::min(first_gallery + kTileRows, options_.gallery.size());
  for (int64_t i = 0; i < kTileRows && probe_tile * kTileRows + i < options_.probes.size(); ++i) {
    const int64_t probe = probe_tile * kTileRows + i;
    const bool diagonal = options_.same_rows && probe_tile == gallery_tile;
    const int64_t first = diagonal ? probe + 1 : first_gallery;
    if (first >= end_gallery) continue;
    const float* row = scores + i * kTileRows + (first - first_gallery);
    visitor.Visit(thread, probe, first, {row, static_cast<size_t>(end_gallery - first)});
  }
  return absl::OkStatus();
}

}  // namespace shardmax
