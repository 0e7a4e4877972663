// Ranks as threads that serve a pool; the test plays the server at the desk of rank 0.
#include "worker/control/pool_loop.h"

#include <atomic>
#include <optional>
#include <thread>

#include "tests/worker/job_fixture.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

// Stands for a signal that a test sends.
class Signal final : public JobRequests {
 public:
  uint32_t Take() override { return raised ? kRequestStop : 0; }
  std::atomic<bool> raised = false;
};

// A pool of `ranks` that runs until Leave(), on threads of its own.
class RunningPool {
 public:
  explicit RunningPool(
      int ranks, std::function<void()> after_turn = [] {})
      : signals_(ranks), statuses_(ranks), thread_([this, ranks, after_turn] {
          SpawnRanks(ranks, [&](Communicator& comm) {
            PoolHost host = {.job = {.backend = BackendChoice::kCpu, .threads = 1, .requests = signals_[comm.rank()]},
                             .desk = comm.rank() == 0 ? &desk_ : nullptr,
                             .after_turn = comm.rank() == 0 ? after_turn : [] {}};
            PoolLoop loop(comm,
                          {.pool = "a",
                           .idle_period = milliseconds(10),
                           .fence_period = milliseconds(0),
                           .folder_wait = milliseconds(300)},
                          host);
            statuses_[comm.rank()] = loop.Run();
          });
        }) {}

  ~RunningPool() {
    if (thread_.joinable()) Leave(0);
  }

  LinkDesk& desk() { return desk_; }
  Signal& signal(int rank) { return signals_[rank]; }

  // Tells `rank` to leave, and waits for all. What each rank returned.
  std::vector<absl::Status> Leave(int rank) {
    signals_[rank].raised = true;
    return Join();
  }

  std::vector<absl::Status> Join() {
    thread_.join();
    return statuses_;
  }

 private:
  LinkDesk desk_;
  std::vector<Signal> signals_;
  std::vector<absl::Status> statuses_;
  std::thread thread_;
};

class PoolLoopTest : public JobTest {
 protected:
  // The job of the fixture as an assignment, its folder named after the id.
  v1::ServerMessage Assignment(const std::string& id, const std::string& train = "", int attempt = 1) const {
    v1::ServerMessage message;
    v1::Assignment& assignment = *message.mutable_assignment();
    assignment.set_job(id);
    assignment.set_attempt(attempt);
    *assignment.mutable_spec() = Run(train).spec;
    assignment.set_folder(folder_.path(id));
    assignment.add_data_roots(folder_.path());
    return message;
  }

  template <typename Message>
  static void Name(Message& message, const std::string& id, int attempt = 1) {
    message.set_job(id);
    message.set_attempt(attempt);
  }

  // Reads what rank 0 says until it says how the job ended, and acknowledges that.
  v1::JobEnded AwaitEnd(LinkDesk& desk, std::vector<v1::PoolMessage>* said = nullptr) {
    const auto deadline = LinkDesk::Clock::now() + seconds(60);
    const std::atomic<bool> never = false;
    while (const auto message = desk.AwaitMessage(deadline, never)) {
      if (said != nullptr) said->push_back(*message);
      if (!message->has_ended()) continue;
      v1::ServerMessage ack;
      Name(*ack.mutable_ended_ack(), message->ended().job(), message->ended().attempt());
      desk.Handle(ack);
      return message->ended();
    }
    ADD_FAILURE() << "the job did not end";
    return {};
  }

  void AwaitStep(LinkDesk& desk, int step) {
    const auto deadline = LinkDesk::Clock::now() + seconds(60);
    const std::atomic<bool> never = false;
    while (const auto message = desk.AwaitMessage(deadline, never)) {
      if (message->has_progress() && message->progress().metrics().step() >= step) return;
    }
    ADD_FAILURE() << "step " << step << " did not come";
  }

  static constexpr char kEndless[] = "steps: 100000000 log_every_steps: 100000 checkpoint { every_steps: 100000000 }";
};

TEST_F(PoolLoopTest, RunsOneJobAfterAnotherAndLeavesInOrder) {
  RunningPool pool(3);
  for (const char* id : {"job-1", "job-2"}) {
    pool.desk().Handle(Assignment(id, "checkpoint { every_steps: 4 }"));
    std::vector<v1::PoolMessage> said;
    const v1::JobEnded ended = AwaitEnd(pool.desk(), &said);
    EXPECT_EQ(ended.outcome(), v1::JobEnded::OUTCOME_SUCCEEDED) << ended.reason();
    EXPECT_EQ(ended.job(), id);
    bool has_final_progress = false;
    bool has_last_line = false;
    bool has_checkpoint = false;
    for (const v1::PoolMessage& message : said) {
      has_final_progress |=
          message.has_progress() && message.progress().metrics().step() == 6 && message.progress().total_steps() == 6;
      has_last_line |= message.has_log() && message.log().text() == "succeeded";
      has_checkpoint |= message.has_checkpoint() && message.checkpoint().step() == 6;
    }
    EXPECT_TRUE(has_final_progress);
    EXPECT_TRUE(has_last_line);
    EXPECT_TRUE(has_checkpoint);
    EXPECT_TRUE(std::filesystem::exists(folder_.path(std::string(id) + "/checkpoints/step-00000006")));
  }
  for (const absl::Status& status : pool.Leave(2)) EXPECT_TRUE(status.ok()) << status;
}

TEST_F(PoolLoopTest, AJobsOwnFaultLeavesThePoolWhole) {
  RunningPool pool(2);
  v1::ServerMessage bad = Assignment("job-1");
  bad.mutable_assignment()->mutable_spec()->mutable_train()->mutable_dataset()->set_labels("none.npy");
  pool.desk().Handle(bad);
  const v1::JobEnded failed = AwaitEnd(pool.desk());
  EXPECT_EQ(failed.outcome(), v1::JobEnded::OUTCOME_JOB_FAILED);
  EXPECT_THAT(failed.reason(), HasSubstr("train.dataset.labels"));
  pool.desk().Handle(Assignment("job-2"));
  EXPECT_EQ(AwaitEnd(pool.desk()).outcome(), v1::JobEnded::OUTCOME_SUCCEEDED);
}

TEST_F(PoolLoopTest, MoreRanksThanClassesIsTheJobsFault) {
  RunningPool pool(7);
  pool.desk().Handle(Assignment("job-1"));
  EXPECT_EQ(AwaitEnd(pool.desk()).outcome(), v1::JobEnded::OUTCOME_JOB_FAILED);
}

TEST_F(PoolLoopTest, StopsOnRequestWithACheckpoint) {
  RunningPool pool(2);
  pool.desk().Handle(Assignment("job-1", kEndless));
  AwaitStep(pool.desk(), 1);
  v1::ServerMessage stop;
  Name(*stop.mutable_stop(), "job-1");
  pool.desk().Handle(stop);
  EXPECT_EQ(AwaitEnd(pool.desk()).outcome(), v1::JobEnded::OUTCOME_STOPPED);
  EXPECT_FALSE(std::filesystem::is_empty(folder_.path("job-1/checkpoints")));
}

TEST_F(PoolLoopTest, WritesACheckpointOnRequestAndGoesOn) {
  RunningPool pool(2);
  pool.desk().Handle(Assignment("job-1", kEndless));
  AwaitStep(pool.desk(), 1);
  v1::ServerMessage request;
  Name(*request.mutable_checkpoint(), "job-1");
  pool.desk().Handle(request);
  const std::atomic<bool> never = false;
  int checkpoint_step = 0;
  while (checkpoint_step == 0) {
    const auto message = pool.desk().AwaitMessage(LinkDesk::Clock::now() + seconds(60), never);
    ASSERT_TRUE(message.has_value());
    if (message->has_checkpoint()) checkpoint_step = message->checkpoint().step();
  }
  AwaitStep(pool.desk(), checkpoint_step + 1);
}

TEST_F(PoolLoopTest, ASignalToAnyRankInterruptsWithACheckpointAndEndsThePool) {
  RunningPool pool(3);
  pool.desk().Handle(Assignment("job-1", kEndless));
  AwaitStep(pool.desk(), 1);
  pool.signal(1).raised = true;
  const v1::JobEnded interrupted = AwaitEnd(pool.desk());
  EXPECT_EQ(interrupted.outcome(), v1::JobEnded::OUTCOME_INTERRUPTED);
  EXPECT_TRUE(interrupted.leaving());
  for (const absl::Status& status : pool.Join()) EXPECT_TRUE(status.ok()) << status;
  EXPECT_FALSE(std::filesystem::is_empty(folder_.path("job-1/checkpoints")));
}

TEST_F(PoolLoopTest, AnAbandonedJobEndsWithoutACheckpoint) {
  RunningPool pool(2);
  pool.desk().Handle(Assignment("job-1", kEndless));
  AwaitStep(pool.desk(), 1);
  v1::ServerMessage abandon;
  Name(*abandon.mutable_abandon(), "job-1");
  pool.desk().Handle(abandon);
  EXPECT_EQ(AwaitEnd(pool.desk()).outcome(), v1::JobEnded::OUTCOME_SUPERSEDED);
  EXPECT_FALSE(std::filesystem::exists(folder_.path("job-1/checkpoints")));
}

TEST_F(PoolLoopTest, ANewerAttemptStopsTheOneThatIsCutOff) {
  RunningPool pool(2);
  pool.desk().Handle(Assignment("job-1", kEndless));
  AwaitStep(pool.desk(), 1);
  ASSERT_TRUE(AttemptFence(folder_.path("job-1"), 2).Announce().ok());
  const v1::JobEnded ended = AwaitEnd(pool.desk());
  EXPECT_EQ(ended.outcome(), v1::JobEnded::OUTCOME_SUPERSEDED);
  EXPECT_FALSE(std::filesystem::exists(folder_.path("job-1/checkpoints")));
}

TEST_F(PoolLoopTest, ANewAttemptWaitsForTheOlderToLeaveTheFolder) {
  std::filesystem::create_directory(folder_.path("job-1"));
  auto older = FolderLock::Take(folder_.path("job-1"), 0, "older");
  ASSERT_TRUE(older.ok());
  RunningPool pool(2);
  pool.desk().Handle(Assignment("job-1", "", 2));
  while (!AttemptFence(folder_.path("job-1"), 1).Check().ok() == false) std::this_thread::sleep_for(milliseconds(1));
  older = absl::CancelledError("");
  EXPECT_EQ(AwaitEnd(pool.desk()).outcome(), v1::JobEnded::OUTCOME_SUCCEEDED);
}

TEST_F(PoolLoopTest, AFolderThatIsNotLeftIsThePoolsFault) {
  std::filesystem::create_directory(folder_.path("job-1"));
  const auto older = FolderLock::Take(folder_.path("job-1"), 0, "older");
  ASSERT_TRUE(older.ok());
  RunningPool pool(2);
  pool.desk().Handle(Assignment("job-1", "", 2));
  const v1::JobEnded ended = AwaitEnd(pool.desk());
  EXPECT_EQ(ended.outcome(), v1::JobEnded::OUTCOME_POOL_FAILED);
  EXPECT_THAT(ended.reason(), HasSubstr("in use by"));
}

TEST_F(PoolLoopTest, ALaterAttemptGoesOnWhereTheEarlierStopped) {
  RunningPool pool(2);
  pool.desk().Handle(Assignment("job-1", "steps: 3"));
  EXPECT_EQ(AwaitEnd(pool.desk()).outcome(), v1::JobEnded::OUTCOME_SUCCEEDED);
  pool.desk().Handle(Assignment("job-1", "steps: 6", 2));
  EXPECT_EQ(AwaitEnd(pool.desk()).outcome(), v1::JobEnded::OUTCOME_SUCCEEDED);
  const std::string metrics = TempFolder::ReadAll(folder_.path("job-1/metrics.jsonl"));
  EXPECT_EQ(std::count(metrics.begin(), metrics.end(), '\n'), 6);
}

TEST_F(PoolLoopTest, ARefusedPoolEndsAlikeOnAllRanks) {
  RunningPool pool(3);
  pool.desk().Fail(absl::UnauthenticatedError("no token"));
  for (const absl::Status& status : pool.Join()) {
    EXPECT_TRUE(absl::IsUnauthenticated(status));
    EXPECT_THAT(Message(status), HasSubstr("no token"));
  }
}

TEST_F(PoolLoopTest, ALostRankIsToldToTheServerAsThePoolsFault) {
  // Rank 1 goes as soon as the job runs.
  LinkDesk desk;
  Signal never_raised;
  std::thread ranks([&] {
    SpawnRanks(2, [&](ThreadCommunicator& comm) {
      class Leaver final : public JobObserver {
       public:
        explicit Leaver(ThreadCommunicator& comm) : comm_(comm) {}
        void OnStart(int64_t /*first_step*/, int64_t /*total_steps*/) override {}
        void OnStep(const v1::StepMetrics& metrics, const StepCost& /*cost*/) override {
          if (comm_.rank() == 1 && metrics.step() == 3) comm_.Abort();
        }
        void OnCheckpoint(int64_t /*step*/, double /*seconds*/, int64_t /*bytes*/) override {}

       private:
        ThreadCommunicator& comm_;
      };
      Leaver leaver(comm);
      PoolLoop loop(
          comm, {.pool = "a", .idle_period = milliseconds(10)},
          {.job = {.backend = BackendChoice::kCpu, .threads = 1, .requests = never_raised, .observers = {&leaver}},
           .desk = comm.rank() == 0 ? &desk : nullptr});
      EXPECT_FALSE(loop.Run().ok());
    });
  });
  desk.Handle(Assignment("job-1", kEndless));
  const v1::JobEnded ended = AwaitEnd(desk);
  ranks.join();
  EXPECT_EQ(ended.outcome(), v1::JobEnded::OUTCOME_POOL_FAILED);
  EXPECT_THAT(ended.reason(), HasSubstr("rank 1"));
}

TEST_F(PoolLoopTest, ASignalDuringTheLastStepLetsTheJobSucceedAndSaysThatThePoolLeaves) {
  class RaiseAtTheEnd final : public JobObserver {
   public:
    explicit RaiseAtTheEnd(Signal& signal) : signal_(signal) {}
    void OnStart(int64_t /*first_step*/, int64_t /*total_steps*/) override {}
    void OnStep(const v1::StepMetrics& metrics, const StepCost& /*cost*/) override {
      if (metrics.step() == 6) signal_.raised = true;
    }
    void OnCheckpoint(int64_t /*step*/, double /*seconds*/, int64_t /*bytes*/) override {}

   private:
    Signal& signal_;
  };
  LinkDesk desk;
  Signal signal;
  desk.Handle(Assignment("job-1"));
  SpawnRanks(1, [&](Communicator& comm) {
    RaiseAtTheEnd observer(signal);
    PoolLoop loop(comm, {.pool = "a", .idle_period = milliseconds(10)},
                  {.job = {.backend = BackendChoice::kCpu, .threads = 1, .requests = signal, .observers = {&observer}},
                   .desk = &desk});
    return loop.Run();
  });
  const v1::JobEnded ended = AwaitEnd(desk);
  EXPECT_EQ(ended.outcome(), v1::JobEnded::OUTCOME_SUCCEEDED) << ended.reason();
  EXPECT_TRUE(ended.leaving());
}

TEST_F(PoolLoopTest, AnIdlePoolKeepsMeetingWithoutAnEnd) {
  std::atomic<int> turns = 0;
  RunningPool pool(2, [&] { ++turns; });
  const auto deadline = LinkDesk::Clock::now() + seconds(60);
  while (turns < 20 && LinkDesk::Clock::now() < deadline) std::this_thread::sleep_for(milliseconds(5));
  EXPECT_GE(turns, 20);
  for (const absl::Status& status : pool.Leave(1)) EXPECT_TRUE(status.ok()) << status;
}

}  // namespace
}  // namespace shardmax
