// Who asks something of a running job, and who hears of its progress.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "shardmax/v1/checkpoint.pb.h"
#include "worker/comm/communicator.h"
#include "worker/head/sharded_head.h"

namespace shardmax {

// Bits of StepInput::requests.
inline constexpr uint32_t kRequestStop = 1;        // Stop after this step, with a checkpoint.
inline constexpr uint32_t kRequestCheckpoint = 2;  // Write a checkpoint after this step, and go on.
inline constexpr uint32_t kRequestAbandon = 4;     // End after this step and write nothing: the job is another's now.

// Where the requests of one rank come from. A job asks once a step, on every rank; a bit of any rank counts for all.
class JobRequests {
 public:
  virtual ~JobRequests() = default;

  // The bits asked for since the last call. Does not block.
  virtual uint32_t Take() = 0;

  // Whether the job's folder is still this run's to write: asked on every rank before each checkpoint. An error of any
  // rank ends the job without one.
  virtual absl::Status MayWrite() { return absl::OkStatus(); }
};

// What a step took, beside what it found.
struct StepCost {
  int64_t global_rows = 0;  // Of its batch.
  double seconds = 0;       // Wall time on this rank, from reading the rows on.
  PhaseSeconds phases;      // Of this rank.
  // What the step's collectives went through: the communicator of the job, or one between devices that lives as long
  // as the job.
  const Communicator* comm = nullptr;
};

// Hears of a job, on the thread that runs it, between collectives: must return soon.
class JobObserver {
 public:
  virtual ~JobObserver() = default;

  // The weights are there, after `first_step` steps of `total_steps`. On every rank.
  virtual void OnStart(int64_t first_step, int64_t total_steps) = 0;

  // The weights are those after `step` steps again, at the trainers' wish. On every rank.
  virtual void OnGoBack(int64_t /*step*/) {}

  // A step is done. On every rank, for every step, logged or not: `metrics` are those of metrics.jsonl
  // (samples_per_second since the last line of it, and validation_top1 where there is one).
  virtual void OnStep(const shardmax::v1::StepMetrics& metrics, const StepCost& cost) = 0;

  // A step failed, with the status of ShardedHead::Step: the job ends. On every rank.
  virtual void OnStepFailed(const absl::Status& /*status*/) {}

  // The checkpoint after `step` steps is on the disk. On every rank; `seconds` are of this rank, `bytes` of all tensors
  // of all ranks.
  virtual void OnCheckpoint(int64_t step, double seconds, int64_t bytes) = 0;

  // An evaluation has scored `done` of `total` pairs, those of all ranks. On every rank.
  virtual void OnPairs(int64_t /*done*/, int64_t /*total*/) {}
};

}  // namespace shardmax
