// The desk between the streams of a rank's trainers and the thread that trains.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardmax/v1/head.pb.h"
#include "worker/live/live_observer.h"
#include "worker/live/meeting.h"
#include "worker/live/trainer_step.h"

namespace shardmax {

using SharedMessage = std::shared_ptr<const shardmax::v1::HeadMessage>;

// A trainer's stream. Any thread calls; must not block, and is called by no thread that holds a lock of the desk. May
// be called after the stream has ended.
class TrainerLink {
 public:
  virtual ~TrainerLink() = default;
  virtual void Send(SharedMessage message) = 0;
  // Ends the stream when what was sent before is on its way. Again: no effect.
  virtual void Close(const absl::Status& status) = 0;
};
using SharedLink = std::shared_ptr<TrainerLink>;

struct LiveJob {
  std::string id;    // On the server; the name where there is none.
  std::string name;  // Of the spec.
  int32_t attempt = 0;
  StepShape shape;
  int trainers = 0;  // T
  int32_t total_steps = 0;
  int rank = 0;
  int ranks = 1;
};

// Keeps what the trainers of this rank have sent until the ranks make the step, and what was answered until the next:
// head.proto says how trainers and head speak. Thread-safe; knows no network. Without a job it refuses everybody.
//
// A step that a trainer has sent is dropped when its stream ends before the ranks have agreed on it; between Offer()
// and the call that ends the offer it is not.
class LiveDesk {
 public:
  using Clock = std::chrono::steady_clock;

  // `observer` may be null.
  explicit LiveDesk(LiveObserver* observer = nullptr) : observer_(observer) {}

  // HOST:PORT of the data plane of each rank, to tell trainers. Before the first job.
  void SetEndpoints(std::vector<std::string> endpoints);
  LiveObserver* observer() const { return observer_; }

  // For streams.

  absl::StatusOr<shardmax::v1::HeadDescription> Describe() const;
  // The largest message of a trainer of the job that runs; or of a hello.
  size_t MaxMessageBytes() const;
  // Seats the trainer and sends its welcome. Another stream of the trainer is closed with ALREADY_EXISTS. Not OK:
  // FailedPrecondition or InvalidArgument as of head.proto; close the stream with it.
  absl::Status Connect(const shardmax::v1::TrainerHello& hello, const SharedLink& link);
  // A message after the hello. Not OK: close the stream with it.
  absl::Status Handle(const SharedLink& link, const shardmax::v1::TrainerMessage& message);
  // The stream has ended, for whatever reason.
  void Disconnect(const SharedLink& link);

  // A live job is being prepared: until Open or Close trainers hear UNAVAILABLE, come again, rather than that there is
  // none.
  void Expect();

  // For the thread that trains. A job: Open, then rounds of Offer and one of Take and Answer, Refuse, AnswerLoad,
  // RefuseLoad, Withdraw; after the last step AwaitReceived; then Close.

  void Open(LiveJob job, int64_t steps_done);
  // What Describe says is there to load.
  void SetCheckpoints(std::vector<int32_t> steps);
  // Ends every stream and forgets the job.
  void Close(const absl::Status& status);

  // Waits until the trainers of this rank have all brought the step, or all ask to load one checkpoint; or until
  // `deadline`. Does not wait where the rank has no trainers.
  void Await(Clock::time_point deadline);
  // What stands on the desk. What was brought stays until the offer ends.
  RankNotice Offer();
  // The ranks do not make the step now. `load`: the checkpoint that some trainer of any rank asks for; steps, and
  // requests for others, are refused with ABORTED as long as there is one.
  void Withdraw(int32_t load);
  // What is wrong with the step that was offered: every trainer may send it again.
  void Refuse(const absl::Status& status);
  // The steps of this rank's trainers, in their order.
  std::vector<std::shared_ptr<const TrainerStep>> Take() const;
  // The step is made; an answer for each trainer of Take(). `last`: no other follows.
  void Answer(const std::vector<SharedMessage>& answers, bool last = false);
  // After the last step: waits until those trainers of this rank that announced it have said that they have the answer,
  // or until `deadline`. How many have not. Those who lost it get it again meanwhile.
  int AwaitReceived(Clock::time_point deadline);
  // The head is at the checkpoint after `step` steps, as all trainers asked; or it cannot be.
  void AnswerLoad(int32_t step);
  void RefuseLoad(const absl::Status& status);

 private:
  struct Seat {
    SharedLink link;                          // Null: nobody is there.
    std::shared_ptr<const TrainerStep> step;  // Brought, and not made.
    bool awaits = false;                      // `link` is owed an answer to `step`.
    int32_t load = kNoLoad;                   // Asked for by `link`.
    // The step that was made last, and what it was answered.
    int32_t made_step = -1;
    std::string made_fingerprint;
    SharedMessage answer;
    bool says_received = false;  // As its last hello announced.
    bool received = false;       // Of the last answer of the job.
  };
  // What is to be sent once the lock is released.
  struct Post {
    SharedLink link;
    SharedMessage message;
    absl::Status close;
  };
  using Posts = std::vector<Post>;

  void Deliver(const Posts& posts) const;
  absl::Status NoJob() const;
  Seat* SeatOf(const SharedLink& link);
  shardmax::v1::HeadDescription DescribeLocked() const;
  absl::Status CheckHello(const shardmax::v1::TrainerHello& hello) const;
  void PutStep(Seat& seat, std::shared_ptr<const TrainerStep> step, Posts& posts);
  // Whether a step that came while the seat has one is that one, sent again on a new stream.
  void PutStepAgain(Seat& seat, const TrainerStep& step, Posts& posts);
  void PutLoad(Seat& seat, int32_t step, Posts& posts);
  absl::Status PutReceived(Seat& seat, Posts& posts);
  void Leave(Seat& seat);
  void RefuseSeat(const Seat& seat, int32_t step, const absl::Status& status, int32_t steps_done, Posts& posts) const;
  void RefuseForLoad(const Seat& seat, int32_t step, int32_t load, Posts& posts) const;
  // Drops the step of a trainer that has gone or asks to load, and refuses what does not go with the lowest load.
  void Settle(Posts& posts);
  int32_t LowestLoad() const;
  // Whether the ranks need not wait for this one.
  bool Ready() const;
  void CountTrainers() const;

  LiveObserver* const observer_;

  mutable std::mutex mutex_;
  std::vector<std::string> endpoints_;
  std::condition_variable changed_;
  std::optional<LiveJob> job_;
  bool expected_ = false;
  Range trainers_;           // Of this rank.
  std::vector<Seat> seats_;  // Of those.
  int32_t steps_done_ = 0;
  std::vector<int32_t> checkpoints_;
  int32_t other_load_ = kNoLoad;  // The load that the ranks' last meeting knew of.
  bool offered_ = false;
  bool ended_ = false;  // The last step is answered.
};

}  // namespace shardmax
