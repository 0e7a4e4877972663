// Live jobs on ranks-as-threads, with trainers that are threads too: no network, every number of ranks.
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
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

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

  struct Outcome {
    std::vector<double> losses;    // By step, as trainer 0 was told.
    std::vector<float> gradients;  // Of all rows, of all steps and trainers in turn.
  };

  // Runs the job on `ranks` ranks, and `script(trainer, desk)` of each trainer on a thread.
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
      const JobHost host = {.backend = BackendChoice::kReference,
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

  JobRun LiveRun(bool resume = false) const {
    return Run(fmt::format("steps: {} batch_size: 12 live {{ trainers: {} }} optimizer {{ sgd {{ momentum: 0.9 }} }} "
                           "checkpoint {{ keep: 9 }}",
                           kSteps, kTrainers),
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

  std::chrono::milliseconds last_answer_wait_{60'000};
  AskedRequests asked_, never_;  // Of the last rank, and of the others.

  Outcome Train(int ranks) {
    Outcome outcome;
    std::vector<std::vector<float>> gradients(kTrainers * kSteps);
    const auto ends = RunLive(ranks, LiveRun(), [&](int t, LiveDesk& desk) {
      Trainer trainer(desk, t);
      for (int step = 0; step < kSteps; ++step) {
        const auto [features, labels] = RowsOf(t, step);
        const v1::HeadMessage message = trainer.Step(step, features, labels);
        ASSERT_TRUE(message.has_step()) << message.ShortDebugString();
        EXPECT_EQ(message.step().global_rows(), kRows);
        EXPECT_EQ(message.step().last(), step + 1 == kSteps);
        if (t == 0) outcome.losses.push_back(message.step().loss());
        std::vector<float>& mine = gradients[step * kTrainers + t];
        mine.resize(features.size());
        ASSERT_EQ(message.step().feature_gradients().size(), 4 * mine.size());
        DecodeValues(message.step().feature_gradients(), v1::WIRE_FLOAT32, mine);
      }
      EXPECT_EQ(trainer.SayReceived(), absl::OutOfRangeError("the end"));
    });
    EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
    for (const auto& each : gradients) {
      outcome.gradients.insert(outcome.gradients.end(), each.begin(), each.end());
    }
    std::filesystem::remove_all(folder_.path("out"));
    return outcome;
  }
};

TEST_F(LiveJobTest, DoesNotDependOnTheNumberOfRanks) {
  const Outcome alone = Train(1);
  ASSERT_EQ(alone.losses.size(), static_cast<size_t>(kSteps));
  EXPECT_LT(alone.losses.back(), alone.losses.front());
  for (const int ranks : {2, 3}) {
    SCOPED_TRACE(ranks);
    const Outcome outcome = Train(ranks);
    ASSERT_EQ(outcome.losses.size(), alone.losses.size());
    for (int step = 0; step < kSteps; ++step) EXPECT_NEAR(outcome.losses[step], alone.losses[step], 1e-5);
    ASSERT_EQ(outcome.gradients.size(), alone.gradients.size());
    for (size_t i = 0; i < alone.gradients.size(); ++i) EXPECT_NEAR(outcome.gradients[i], alone.gradients[i], 1e-5);
  }
}

TEST_F(LiveJobTest, GoesBackAndRepeatsItselfBitForBit) {
  const auto ends = RunLive(3, LiveRun(), [&](int t, LiveDesk& desk) {
    Trainer trainer(desk, t);
    std::vector<std::string> answers;
    const auto step = [&](int number) {
      const auto [features, labels] = RowsOf(t, number);
      const v1::HeadMessage message = trainer.Step(number, features, labels, /*checkpoint=*/number == 1);
      EXPECT_TRUE(message.has_step()) << message.ShortDebugString();
      return message.step().feature_gradients();
    };
    for (int number = 0; number < 4; ++number) answers.push_back(step(number));
    EXPECT_EQ(trainer.Load(2).load().step(), 2);
    EXPECT_EQ(desk.Describe()->steps_done(), 2);
    for (int number = 2; number < 4; ++number) EXPECT_EQ(step(number), answers[number]);
    const v1::Refusal refusal = trainer.Load(3).refusal();
    EXPECT_EQ(refusal.code(), static_cast<int>(absl::StatusCode::kNotFound));
    EXPECT_EQ(refusal.steps_done(), 4);
    EXPECT_EQ(trainer.Load(0).load().step(), 0);
    for (int number = 0; number < kSteps; ++number) {
      const std::string answer = step(number);
      if (number < 4) {
        EXPECT_EQ(answer, answers[number]);
      }
    }
    trainer.SayReceived().IgnoreError();
  });
  EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
  EXPECT_THAT(CheckpointNames(), ElementsAre("step-00000002", "step-00000006"));
  const std::string metrics = TempFolder::ReadAll(folder_.path("out/metrics.jsonl"));
  EXPECT_EQ(std::ranges::count(metrics, '\n'), kSteps);
}

TEST_F(LiveJobTest, StopsWithACheckpointWhileATrainerIsAway) {
  const auto ends = RunLive(2, LiveRun(), [&](int t, LiveDesk& desk) {
    Trainer trainer(desk, t);
    const auto [features, labels] = RowsOf(t, 1);
    EXPECT_TRUE(trainer.Step(0, features, labels).has_step());
    if (t == 1) asked_.Ask(kRequestStop);
  });
  EXPECT_EQ(ends[0].exit_code, kExitStopped) << ends[0].status;
  EXPECT_THAT(CheckpointNames(), ElementsAre("step-00000001"));
}

TEST_F(LiveJobTest, TellsConnectedTrainersThatTheirStepIsTheLast) {
  const auto ends = RunLive(2, LiveRun(), [&](int t, LiveDesk& desk) {
    Trainer trainer(desk, t);
    const auto [features, labels] = RowsOf(t, 1);
    EXPECT_FALSE(trainer.Step(0, features, labels).step().last());
    if (t == 1) asked_.Ask(kRequestStop);
    if (t == 1) std::this_thread::sleep_for(std::chrono::milliseconds(400));  // The ranks meet once without it.
    const v1::StepReply reply = trainer.Step(1, features, labels).step();
    EXPECT_TRUE(reply.last());
    EXPECT_EQ(reply.checkpoint_step(), 2);
    EXPECT_EQ(trainer.SayReceived(), absl::OutOfRangeError("the end"));
  });
  EXPECT_EQ(ends[0].exit_code, kExitStopped) << ends[0].status;
  EXPECT_THAT(CheckpointNames(), ElementsAre("step-00000002"));
}

TEST_F(LiveJobTest, GivesTheLastAnswerToATrainerThatLostIt) {
  for (const int ranks : {1, 2, 3}) {
    SCOPED_TRACE(ranks);
    const auto ends = RunLive(ranks, LiveRun(), [&](int t, LiveDesk& desk) {
      std::string lost;
      const auto [features, labels] = RowsOf(t, 3);
      {
        Trainer trainer(desk, t);
        for (int step = 0; step < kSteps; ++step) {
          lost = trainer.Step(step, features, labels).SerializeAsString();
        }
        if (t == 0) EXPECT_EQ(trainer.SayReceived(), absl::OutOfRangeError("the end"));
      }
      if (t == 0) return;
      Trainer again(desk, t);
      EXPECT_EQ(again.steps_done(), kSteps);
      const v1::HeadMessage answer = again.Step(kSteps - 1, features, labels);
      EXPECT_TRUE(answer.step().last());
      EXPECT_EQ(answer.SerializeAsString(), lost);
      EXPECT_EQ(again.Load(0).refusal().message(), "the job has made its last step");
      EXPECT_EQ(again.SayReceived(), absl::OutOfRangeError("the end"));
    });
    EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
    std::filesystem::remove_all(folder_.path("out"));
  }
}

TEST_F(LiveJobTest, EndsAtLastWithoutATrainerThatNeverSaysThatItHasTheAnswer) {
  last_answer_wait_ = std::chrono::milliseconds(50);
  const auto ends = RunLive(2, LiveRun(), [&](int t, LiveDesk& desk) {
    Trainer trainer(desk, t);
    const auto [features, labels] = RowsOf(t, 3);
    for (int step = 0; step < kSteps; ++step) EXPECT_TRUE(trainer.Step(step, features, labels).has_step());
    EXPECT_EQ(trainer.End(), absl::OutOfRangeError("the end"));
  });
  EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
  EXPECT_THAT(Log(), HasSubstr("2 trainers have not said that they have the answer to the last step"));
}

TEST_F(LiveJobTest, DoesNotWaitForALastAnswerWhenItIsToStop) {
  const auto ends = RunLive(2, LiveRun(), [&](int t, LiveDesk& desk) {
    Trainer trainer(desk, t);
    const auto [features, labels] = RowsOf(t, 3);
    for (int step = 0; step < kSteps; ++step) EXPECT_TRUE(trainer.Step(step, features, labels).has_step());
    if (t == 1) asked_.Ask(kRequestStop);
    EXPECT_EQ(trainer.End(), absl::OutOfRangeError("the end"));
  });
  EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
}

TEST_F(LiveJobTest, EndsWithoutACheckpointWhenItIsTakenAway) {
  const auto ends = RunLive(2, LiveRun(), [&](int t, LiveDesk& desk) {
    if (t == 0) return;
    Trainer trainer(desk, t);
    asked_.Ask(kRequestAbandon);
    EXPECT_TRUE(absl::IsUnavailable(trainer.End()));
  });
  EXPECT_TRUE(absl::IsAborted(ends[0].status)) << ends[0].status;
  EXPECT_TRUE(CheckpointNames().empty());
}

TEST_F(LiveJobTest, NeedsAWorkerThatServesTrainers) {
  const std::vector<JobEnd> ends = RunOn(1, LiveRun());
  EXPECT_EQ(ends[0].exit_code, kExitInvalidUse);
  EXPECT_THAT(Message(ends[0].status), HasSubstr("train.live: this worker serves no trainers"));
}

}  // namespace
}  // namespace shardmax
