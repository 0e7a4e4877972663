// Which classes of a shard take part in a step of a sampled head.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/base/shard_range.h"
#include "worker/head/neighbour_graph.h"
#include "worker/head/neighbour_lists.h"
#include "worker/optim/skipped_steps.h"

namespace shardmax {

// How the classes of a step are drawn, and what those that were left out before have missed. Equal on every rank, but
// for the rows of the graph.
struct StepSampling {
  double rate = 1;  // In (0, 1]: the chance of each class. Those of the batch's labels always take part.
  uint32_t seed = 0;
  int64_t step = 0;                 // From 0.
  SkippedSteps* skipped = nullptr;  // Of the job; moved to `step` by the head.
  const NeighbourGraph* neighbours =
      nullptr;                  // If given and built, neighbours of the labels come before drawn classes.
  bool measure_recall = false;  // Of support vectors: one more pass over all classes, see StepResult.
};

// The labels of the global batch and others, which do not depend on the number of ranks:
//   drawn at random   each with the chance `rate`: a function of seed, step and its global id.
//   nearest           L distinct labels leave room for rate (C - L) others, the number that is drawn at random in the
//                     mean. The first neighbour of each label takes part, labels ascending, then the second of each,
//                     and so on until there is no room. What room is left is drawn at random from the rest, in the
//                     mean.
class ActiveClasses {
 public:
  // Drawn at random.
  void Choose(const StepSampling& sampling, Range shard, std::span<const int32_t> labels);
  // Nearest. `lists` are of the labels.
  void ChooseNearest(const StepSampling& sampling, Range shard, int64_t num_classes, const NeighbourLists& lists);

  // Ascending ids in the shard, from 0.
  std::span<const int32_t> local() const { return local_; }

 private:
  // Keeps `global_class_id`, if it is new, for the shard and for Unmark; whether it is new.
  bool Mark(int32_t global_class_id, Range shard);
  // Sets local_ to `certain_` (ascending, may repeat) and the others of the shard that are drawn.
  void Draw(const StepSampling& sampling, double chance, Range shard);

  std::vector<int32_t> certain_;  // Of the shard.
  std::vector<int32_t> local_;
  std::vector<uint64_t> marks_;  // A bit for each of the C classes, all clear between steps.
  std::vector<int32_t> marked_;
};

// Whether `global_class_id` is drawn with the chance sampling.rate, label or not.
bool IsDrawn(const StepSampling& sampling, int64_t global_class_id);

}  // namespace shardmax
