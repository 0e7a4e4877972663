// Live jobs on ranks-as-threads, with trainers that are threads too: no network, every number of ranks.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "tests/worker/job_fixture.h"
#include "worker/base/status.h"
#include "worker/live/desk.h"
#include "worker/live/wire.h"

namespace shardmax {

// A stream whose other end waits.
class WaitingLink final : public TrainerLink {
 public:
  void Send(SharedMessage message) override {
    std::lock_guard<std::mutex> lock(mutex_);
    inbox_.push_back(std::move(message));
    changed_.notify_all();
  }
  void Close(const absl::Status& status) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!closed_.has_value()) closed_ = status;
    changed_.notify_all();
  }

  // What the stream ended with instead.
  absl::StatusOr<SharedMessage> Receive() {
    std::unique_lock<std::mutex> lock(mutex_);
    const bool came =
        changed_.wait_for(lock, std::chrono::seconds(60), [&] { return !inbox_.empty() || closed_.has_value(); });
    if (!came) return absl::DeadlineExceededError("nothing came");
    if (inbox_.empty()) return closed_->ok() ? absl::OutOfRangeError("the end") : *closed_;
    SharedMessage message = inbox_.front();
    inbox_.pop_front();
    return message;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<SharedMessage> inbox_;
  std::optional<absl::Status> closed_;
};

// Speaks to the desk of its rank as a trainer does.
class Trainer {
 public:
  Trainer(LiveDesk& desk, int trainer) : desk_(desk) {
    v1::TrainerHello hello;
    hello.set_trainer(trainer);
    hello.set_says_received(true);
    // The job may not have begun.
    while (absl::IsFailedPrecondition(desk.Connect(hello, link_))) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    steps_done_ = Receive().welcome().steps_done();
  }
  ~Trainer() { desk_.Disconnect(link_); }
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  int32_t steps_done() const { return steps_done_; }

  v1::HeadMessage Step(int32_t step, const std::vector<float>& features, const std::vector<int32_t>& labels,
                       bool checkpoint = false) {
    v1::TrainerMessage message;
    v1::StepRequest& request = *message.mutable_step();
    request.set_step(step);
    request.set_rows(static_cast<int32_t>(labels.size()));
    request.set_type(v1::WIRE_FLOAT32);
    request.set_features(EncodeValues(features, v1::WIRE_FLOAT32));
    request.set_labels(std::string(reinterpret_cast<const char*>(labels.data()), 4 * labels.size()));
    request.set_checkpoint(checkpoint);
    EXPECT_TRUE(desk_.Handle(link_, message).ok());
    return Receive();
  }

  // Says that the answer to the last step is there; how the stream ends then.
  absl::Status SayReceived() {
    v1::TrainerMessage message;
    message.mutable_received();
    EXPECT_TRUE(desk_.Handle(link_, message).ok());
    return End();
  }

  v1::HeadMessage Load(int32_t step) {
    v1::TrainerMessage message;
    message.mutable_load()->set_step(step);
    EXPECT_TRUE(desk_.Handle(link_, message).ok());
    return Receive();
  }

  absl::Status End() { return link_->Receive().status(); }

 private:
  v1::HeadMessage Receive() {
    auto message = link_->Receive();
    EXPECT_TRUE(message.ok()) << message.status();
    return message.ok() ? **message : v1::HeadMessage();
  }

  LiveDesk& desk_;
  std::shared_ptr<WaitingLink> link_ = std::make_shared<WaitingLink>();
  int32_t steps_done_ = 0;
};

// Asks for what a test tells it to, once.
class AskedRequests final : public JobRequests {
 public:
  void Ask(uint32_t requests) { asked_ |= requests; }
  uint32_t Take() override { return asked_.exchange(0); }

 private:
  std::atomic<uint32_t> asked_ = 0;
};

class LiveJobTest : public JobTest {
 protected:
  static constexpr int kTrainers = 2, kSteps = 6;

  // Runs the job on `ranks` ranks, and `script(trainer, desk)` of each trainer on a thread. The last rank asks for what
  // asked_ is told.
  template <typename Script>
  std::vector<JobEnd> RunLive(int ranks, const JobRun& job, const Script& script) {
    std::vector<LiveDesk> desks(ranks);
    recorders_.assign(ranks, Recorder());
    std::vector<JobEnd> ends(ranks);
    std::vector<std::thread> trainers;
    for (int t = 0; t < kTrainers; ++t) {
      trainers.emplace_back([&, t] { script(t, desks[RankOfTrainer(t, kTrainers, ranks)]); });
    }
    SpawnRanks(ranks, [&](Communicator& comm) {
      const int rank = comm.rank();
      const JobHost host = {.backend = backend_,
                            .threads = 1,
                            .requests = rank == ranks - 1 ? asked_ : never_,
                            .observers = {&recorders_[rank]},
                            .live = &desks[rank],
                            .last_answer_wait = last_answer_wait_};
      ends[rank] = RunJob(comm, job, host);
    });
    for (std::thread& trainer : trainers) trainer.join();
    for (const JobEnd& end : ends) EXPECT_EQ(end.status, ends[0].status);
    return ends;
  }

  JobRun LiveRun(bool resume = false, const std::string& train = "") const {
    return Run(fmt::format("steps: {} batch_size: 12 live {{ trainers: {} }} optimizer {{ sgd {{ momentum: 0.9 }} }} "
                           "checkpoint {{ keep: 9 }} {}",
                           kSteps, kTrainers, train),
               resume);
  }

  // Rows [first, first + count) of the fixture's data, of the trainer in this step: their number changes.
  std::pair<std::vector<float>, std::vector<int32_t>> RowsOf(int trainer, int step) const {
    const int split = 2 * step;  // Trainer 0 brings 0, 2, 4, … 10 rows of 12.
    const int first = trainer == 0 ? 0 : split;
    const int end = trainer == 0 ? split : kRows;
    return {{features_.begin() + first * kDim, features_.begin() + end * kDim},
            {labels_.begin() + first, labels_.begin() + end}};
  }

  BackendChoice backend_ = BackendChoice::kReference;
  std::chrono::milliseconds last_answer_wait_{60'000};
  AskedRequests asked_, never_;  // Of the last rank, and of the others.
};

}  // namespace shardmax
