// Scores every probe against every gallery row, tile by tile, on all ranks and their threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/base/thread_pool.h"
#include "worker/comm/communicator.h"
#include "worker/eval/evaluation.h"
#include "worker/eval/row_panel.h"

namespace shardmax {

// Takes scores as they come.
class PairVisitor {
 public:
  virtual ~PairVisitor() = default;

  // The scores of probe `probe` with the gallery rows from `first_gallery` on, both as positions in their lists. Called
  // by thread `thread`; at any time by one thread for a probe, and for rising `first_gallery`.
  virtual void Visit(int thread, int64_t probe, int64_t first_gallery, std::span<const float> scores) = 0;

  // The probes [first, end) are next, and were last, on this rank. No Visit runs.
  virtual absl::Status BeginProbes(Range /*probes*/) { return absl::OkStatus(); }
  virtual absl::Status EndProbes(Range /*probes*/) { return absl::OkStatus(); }
};

// Each rank takes contiguous tiles of probes and meets the whole gallery with them. The tiles lie at fixed places of
// the lists, so that neither the number of ranks nor that of threads changes a bit of any score.
class PairScan {
 public:
  struct Options {
    RowList probes;
    RowList gallery;
    // Both lists are the same: each pair of two different rows is visited once, in either role.
    bool same_rows = false;
    Precision precision = Precision::kFloat32;
    // Whether any pair of these probes with these gallery rows, as positions, is wanted; all if empty.
    std::function<bool(Range probes, Range gallery)> wants = {};
    bool tells_progress = true;
  };

  // `context` and what the lists borrow outlive the scan. ResourceExhausted or Internal: no memory, oneDNN refused. Not
  // collective.
  static absl::StatusOr<PairScan> Make(const EvaluationContext& context, const Options& options);

  // Visits all pairs. False if a rank asked to stop: then some are missing. Collective: returns alike on all ranks.
  absl::StatusOr<bool> Run(PairVisitor& visitor);

  int threads() const { return pool_->threads(); }
  // Of all ranks, and the floating-point operations that their scores take.
  int64_t pairs() const;
  double flops() const {
    return 2 * static_cast<double>(pairs()) * static_cast<double>(options_.probes.embeddings->dim());
  }

 private:
  PairScan(const EvaluationContext& context, const Options& options) : context_(&context), options_(options) {}

  // Whether the pairs of these two tiles are visited when the probes are those of `probe_tile`.
  bool Meets(int64_t probe_tile, int64_t gallery_tile) const;
  absl::Status ScoreRound(PairVisitor& visitor, Range probe_tiles, Range gallery_tiles);
  absl::Status ScoreTile(PairVisitor& visitor, int thread, int64_t probe_tile, const std::byte* probes,
                         int64_t gallery_tile, const std::byte* gallery);

  const EvaluationContext* context_;
  Options options_;
  int64_t probe_tiles_ = 0;
  int64_t gallery_tiles_ = 0;
  int64_t panel_tiles_ = 0;  // Of one round, on either side.
  std::unique_ptr<ThreadPool> pool_;
  std::vector<TileProduct> products_;         // One for each thread.
  std::vector<AlignedBuffer<float>> scores_;  // A tile for each thread.
  std::vector<RowPanel> panels_;              // Of the probes, and of the gallery.
};

}  // namespace shardmax
