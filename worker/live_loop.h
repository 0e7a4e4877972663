// The steps of a training job whose rows come from trainers.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/head/sharded_head.h"
#include "worker/live/desk.h"
#include "worker/live/meeting.h"
#include "worker/step_recorder.h"

namespace shardmax {

// What a live job needs beside LoopContext. Borrows; all outlive the loop.
struct LiveLoopOptions {
  Communicator& meeting_comm;  // Between hosts; ranks wait in it for trainers. May be that of the steps.
  LiveDesk& desk;
  LiveJob job;
  // Fills the engine with the checkpoint after so many steps; 0: the initial weights. Collective. NotFound: there is
  // none, and nothing has changed. After any other error the engine is not to be used.
  std::function<absl::Status(int32_t steps)> load;
  // How often ranks whose trainers are not ready look what the others do, and what is asked of the job.
  std::chrono::milliseconds period{250};
  // How long a job that is to stop waits for its connected trainers, so that they get the answer that says so.
  std::chrono::milliseconds stop_grace{2'000};
  // How long the job goes on after its last step for trainers that have not said that they have the answer.
  std::chrono::milliseconds last_answer_wait;
};

// Ranks meet when the trainers of each have brought the step, or a period has passed: one small all-gather, which
// agrees on everything that could fail, so that a step that begins is made. A rank that waits sleeps.
class LiveLoop {
 public:
  LiveLoop(const LoopContext& context, LiveLoopOptions options);

  // As TrainingLoop::Run. The desk is open for the time of it.
  absl::StatusOr<LoopEnd> Run(int64_t first_step);

 private:
  using Clock = std::chrono::steady_clock;
  using Steps = std::vector<std::shared_ptr<const TrainerStep>>;

  absl::StatusOr<LoopEnd> RunSteps();
  absl::StatusOr<Meeting> Meet();
  // What the meeting wants other than a step.
  absl::Status Load(int32_t step);
  absl::Status WriteCheckpoint(bool at_once);
  // Publishes a checkpoint that was written behind, once all ranks have said in the meeting that it is. Collective.
  absl::Status PublishWritten(const Meeting& meeting);
  // Makes the step and answers it, and what follows a step.
  absl::Status Step(const Meeting& meeting);
  absl::StatusOr<StepResult> Make(const Steps& steps, const Meeting& meeting, double lr);
  StepInput Gather(const Steps& steps, const Meeting& meeting);
  // After the last step: until every trainer has its answer, or has had the time for it, or is not to be waited for.
  absl::Status AwaitLastAnswers();
  // Says how the job ended to the trainers.
  void CloseDesk(const absl::StatusOr<LoopEnd>& end);
  void ListCheckpoints();

  const LoopContext context_;
  const LiveLoopOptions options_;
  ShardedHead head_;
  StepRecorder recorder_;
  int64_t steps_done_ = 0;
  bool told_last_ = false;       // The answer to the last step is out.
  uint32_t requests_ = 0;        // Agreed on, and not yet done.
  Clock::time_point stop_from_;  // When the wish to stop was heard.
  Clock::time_point wait_from_;
  std::vector<RankNotice> notices_;
  std::vector<float> features_;  // [rows of this rank, D]
  std::vector<int32_t> labels_;
};

}  // namespace shardmax
