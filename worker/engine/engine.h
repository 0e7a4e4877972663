// What one rank can do with its shard of the class weights: the computing half of a training step.
//
// An engine knows nothing of other ranks. The head (worker/head) calls the phases of docs/architecture.md#one-step
// in order and moves their results between ranks. Shapes: B rows of the global batch, D feature width, C_r classes of
// the shard. All views are row-major, dense, in host memory, and stay the caller's.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/base/matrix_view.h"
#include "worker/base/shard_range.h"
#include "worker/loss/class_logit.h"
#include "worker/loss/normalizer.h"
#include "worker/optim/skipped_steps.h"
#include "worker/optim/update_rule.h"

namespace shardmax {

enum class Precision {
  kFloat32,
  kBfloat16,  // The operands of products are rounded to bfloat16; sums, weights and optimizer state are float32.
};

// Where the cosines of a step are between Score and Backward. A kept matrix has C_r rows of B values, B rounded up.
enum class CosineStorage {
  kRecompute,    // Nowhere: one more product in Backward.
  kKeepInt16,    // Rounded to steps of 1/32767, masks exactly: about 1e-4 relative error in gradients.
  kKeepFloat32,  // As they are.
};

struct EngineOptions {
  Range shard;      // Global class ids of the shard, count >= 1.
  int64_t dim = 0;  // D
  OptimizerParams optimizer;
  Precision precision = Precision::kFloat32;
  int threads = 1;
  std::vector<int> processors;  // As many as threads: thread i is bound to processors[i]. Else none is bound.
  CosineStorage cosines = CosineStorage::kRecompute;
  int64_t batch_rows = 256;  // The usual B: tiles, and a device's buffers, are made for it. Any other works.
  double sample_rate = 1;    // Below 1: steps have active classes, about so many of all. See EngineBatch::active.
  int64_t tile_classes = 0;  // Of a tile of the CPU engine; 0: what fits the caches. Rounding depends on it.
  // If given, weights and optimizer state are in files of this folder, which is there, mapped into memory; other ranks
  // may use it too. The files have no name any more once the engine is made, and go with it.
  std::string storage_folder;
  int ranks = 1;  // N: a device's buffers of the exchange are made for it. Any other works.
};

// The rows of a step, equal on every rank.
struct EngineBatch {
  MatrixView<const float> features;  // x̂ [B, D]: rows of length 1, or 0 where ignored
  std::span<const int32_t> labels;   // [B], global class ids or -1 for ignored rows
  // If given, the classes of the shard that take part (ascending, from 0 of the shard), its labels among them; the
  // others are neither scored nor touched. Must have been caught up, see CatchUp. Else all take part.
  std::optional<std::span<const int32_t>> active = std::nullopt;
};

// What the gradient of each row needs, [B] each. Ignored and dropped rows have row_scale and label_gradient 0.
struct RowGradients {
  std::span<const float> thresholds;       // f
  std::span<const float> shifts;           // about the log of the normaliser
  std::span<const float> row_scales;       // weight of the row in the loss times e^(shift - log normaliser)
  std::span<const float> label_gradients;  // dloss / dcos_y
};

class DevicePhases;  // device_phases.h

// One shard, its optimizer state, and the work on them. Not thread-safe; has threads of its own.
//
// A step calls LabelCosines, Prepare (or not), Score and Backward, in this order, with one batch, which does not change
// between them: an engine may keep what it made of it. A step may end early.
//
// Errors: the phases return Internal for a failed library call, ResourceExhausted without memory. Score and
// NearestClasses return FailedPrecondition, naming the class, where a weight is not finite. Weights change in Backward
// alone. A class whose weights have no direction (see norm.h) has cosine 0 with everything, and its gradient is 0.
class Engine {
 public:
  virtual ~Engine() = default;

  virtual const EngineOptions& options() const = 0;

  // Rows `classes` (global ids, inside the shard) of "weight" or a tensor of options().optimizer.StateNames(),
  // float32 [n, D].
  virtual absl::Status ReadRows(const std::string& tensor, Range classes, MatrixView<float> rows) const = 0;
  virtual absl::Status WriteRows(const std::string& tensor, Range classes, MatrixView<const float> rows) = 0;

  // Of sampled heads (options().sample_rate below 1). BeginAt: every class is as after `steps_done` steps, as it is
  // when a checkpoint was loaded; 0 when the engine is made. CatchUp: brings weights and optimizer state of the classes
  // `local` (as EngineBatch::active) to skipped.now() steps, by the steps without a gradient since the last that they
  // took part in. Before each step for its active classes, and for all before they are read from outside.
  // Unimplemented: an engine that cannot.
  virtual void BeginAt(int64_t steps_done) = 0;
  virtual absl::Status CatchUp(std::span<const int32_t> local, SkippedSteps& skipped) = 0;

  // cosines[b] = cos(x̂_b, w_label) where this shard owns the label, else 0. Summed in float64. NaN
  // where the weights are not finite. An engine that could not compute them says so in Score, its cosines are 0 then.
  virtual void LabelCosines(const EngineBatch& batch, std::span<float> cosines) = 0;

  // What of Score needs no thresholds, for the time that the ranks exchange label cosines. An error shows in the
  // next Score, which must be of the same batch.
  virtual void Prepare(const EngineBatch& /*batch*/) {}

  // For each row, the partial normaliser over the shard's classes other than its label. `thresholds` [B] is f.
  virtual absl::Status Score(const EngineBatch& batch, const ClassLogitScale& scale, std::span<const float> thresholds,
                             std::span<ShardPartial> partials) = 0;

  // Updates the weights with the gradient of the loss, and adds up the gradient of the features: feature_gradients
  // [B, D] becomes this shard's part of dloss/dx̂ at the weights before the update. A view without data skips that
  // product (frozen features).
  virtual absl::Status Backward(const EngineBatch& batch, const ClassLogitScale& scale, const RowGradients& rows,
                                const UpdateRule& rule, MatrixView<float> feature_gradients) = 0;

  // The nearest class centre of the shard for each row: its cosine and global id, ties to the lower id.
  virtual absl::Status NearestClasses(MatrixView<const float> features, std::span<float> cosines,
                                      std::span<int32_t> classes) = 0;

  // The phases as work on a device, for a head that exchanges between devices; null where the host's memory is all.
  virtual DevicePhases* device() { return nullptr; }
};

}  // namespace shardmax
