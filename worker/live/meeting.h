// What the ranks of a live job tell each other before a step, and what follows from it: pure, and alike on every rank.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "worker/base/shard_range.h"
#include "worker/comm/communicator.h"
#include "worker/comm/verdict.h"

namespace shardmax {

// The rank that trainer `trainer` of T speaks to, of N: floor(trainer N / T).
int RankOfTrainer(int trainer, int trainers, int ranks);
// The trainers of a rank, which may be none.
Range TrainersOfRank(int rank, int trainers, int ranks);

inline constexpr int32_t kNoLoad = -1;

// What one rank says of its trainers. Trivially copyable.
struct RankNotice {
  int32_t trainers = 0;           // That the rank has.
  int32_t connected = 0;          // Of those.
  int32_t brought = 0;            // Trainers that have sent the step that the head waits for.
  int32_t load = kNoLoad;         // The lowest checkpoint that any of them asks for.
  int32_t loads = 0;              // How many ask for that one.
  int32_t checkpoint = 0;         // 1: one of them asks for a checkpoint after the step, and waits for it.
  int32_t checkpoint_behind = 0;  // 1: for one that nobody waits for.
  int32_t lr_trainer = -1;        // The first that gives a learning rate; -1: none.
  uint32_t requests = 0;          // Bits of worker/job_events.h and kStillWriting.
  int32_t overdue = 0;            // 1: has waited long enough for the last step of a job that is to stop, or after it.
  int32_t unreceived = 0;         // After the last step: trainers that have not said that they have its answer.
  int64_t rows = 0;               // Of all its trainers.
  double lr = 0;
  // InvalidArgument: what is wrong with the step of one of them.
  Verdict<504> verdict;
  // An error of the rank that ends the job.
  Verdict<504> failure;
};

// What follows.
struct Meeting {
  bool step = false;       // Every trainer has brought the step, and nobody asks to load: it is to be made, or refused.
  int32_t load = kNoLoad;  // The checkpoint that some trainer asks for.
  bool load_agreed = false;  // All ask for it.
  absl::Status refusal;      // Of the step: what is wrong with it, on any rank.
  std::vector<int64_t> rank_rows;
  int64_t rows = 0;  // Their sum, 1 to max_rows where `step` and not refused.
  std::optional<double> lr;
  bool checkpoint = false;
  bool checkpoint_behind = false;
  bool all_connected = false;
  uint32_t requests = 0;  // Of all ranks.
  bool overdue = false;
  int32_t unreceived = 0;  // Of all ranks.
};

// The notices of all ranks, by rank. A load goes before a step; of several the lowest counts, so that trainers that
// have different checkpoints come together. InvalidArgument in `refusal`: of the lowest rank that has one; trainers
// that give different learning rates; no rows, or more than `max_rows`.
Meeting Conclude(std::span<const RankNotice> notices, int64_t max_rows);

// Tells the others what stands on this rank, and whether it can go on. Collective, one all-gather: `notices` are those
// of all ranks, or every rank returns the error of the lowest that has one.
absl::Status AgreeOnNotices(Communicator& comm, RankNotice mine, const absl::Status& failure,
                            std::vector<RankNotice>& notices);

}  // namespace shardmax
