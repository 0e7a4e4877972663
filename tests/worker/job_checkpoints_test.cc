// Checkpoints that are written while training goes on.
#include "worker/job_checkpoints.h"

#include <chrono>
#include <functional>
#include <thread>

#include "tests/data/file_size_limit.h"
#include "tests/worker/job_fixture.h"
#include "worker/base/status.h"
#include "worker/engine/make_engine.h"
#include "worker/snapshot_memory.h"

namespace shardmax {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class GuardedRequests final : public JobRequests {
 public:
  uint32_t Take() override { return 0; }
  absl::Status MayWrite() override { return may_write; }

  absl::Status may_write;
};

// Two ranks, each with an engine whose weights are all of one value.
class JobCheckpointsTest : public JobTest {
 protected:
  struct Rank {
    Communicator& comm;
    Engine& engine;
    JobCheckpoints& checkpoints;
    GuardedRequests& requests;
  };

  void OnRanks(const std::function<absl::Status(Rank)>& program, int64_t min_snapshot_bytes = 0) {
    const JobRun job = Run("num_classes: 300 checkpoint { keep: 9 } optimizer { sgd { momentum: 0.9 } }");
    recorders_.assign(2, Recorder());
    const auto plan = MakeTrainingPlan(job.spec.train(), 3);
    ASSERT_TRUE(plan.ok()) << plan.status();
    const JobFolder folder(job.output_folder);
    ASSERT_TRUE(folder.Make().ok());
    const auto log = folder.OpenLog({});
    ASSERT_TRUE(log.ok()) << log.status();
    SpawnRanks(2, [&](Communicator& comm) -> absl::Status {
      EngineOptions options = {.shard = BalancedPart(300, comm.rank(), 2), .dim = kDim, .optimizer = plan->optimizer};
      SHARDMAX_ASSIGN_OR_RETURN(const EngineChoice made, MakeEngine(EngineKind::kCpu, options));
      GuardedRequests requests;
      const LoopContext context = {.comm = comm,
                                   .engine = *made.engine,
                                   .train = job.spec.train(),
                                   .plan = *plan,
                                   .checkpoints_folder = folder.checkpoints_folder(),
                                   .metrics = nullptr,
                                   .log = comm.rank() == 0 ? log->get() : nullptr,
                                   .requests = requests,
                                   .observers = {&recorders_[static_cast<size_t>(comm.rank())]},
                                   .min_snapshot_bytes = min_snapshot_bytes};
      JobCheckpoints checkpoints(context);
      return program({comm, *made.engine, checkpoints, requests});
    });
  }

  static absl::Status SetWeights(Engine& engine, float value) {
    const Range shard = engine.options().shard;
    const std::vector<float> rows(static_cast<size_t>(shard.count * kDim), value);
    return engine.WriteRows("weight", shard, {rows.data(), shard.count, kDim});
  }

  // Steps until no rank writes any more.
  static absl::Status StepUntilWritten(Rank rank) {
    while (true) {
      std::vector<float> writing = {rank.checkpoints.requests() == 0 ? 0.0F : 1.0F};
      SHARDMAX_RETURN_IF_ERROR(rank.comm.AllReduceSum(writing));
      SHARDMAX_RETURN_IF_ERROR(rank.checkpoints.AfterStep(writing[0] > 0 ? kStillWriting : 0));
      if (writing[0] == 0) return absl::OkStatus();
      std::this_thread::yield();
    }
  }

  void ExpectWeights(int32_t step, float value) {
    const auto reader = CheckpointReader::Open(folder_.path(fmt::format("out/checkpoints/step-{:08}", step)));
    ASSERT_TRUE(reader.ok()) << reader.status();
    std::vector<float> rows(300 * kDim);
    ASSERT_TRUE(reader->Read("weight", {0, 300}, {rows.data(), 300, kDim}).ok());
    EXPECT_THAT(rows, testing::Each(value));
    for (int index = 0; index < 2; ++index) EXPECT_TRUE(reader->VerifyFile(index).ok());
  }
};

TEST_F(JobCheckpointsTest, TrainingGoesOnWhileOneIsWritten) {
  OnRanks([&](Rank rank) -> absl::Status {
    SHARDMAX_RETURN_IF_ERROR(SetWeights(rank.engine, 7));
    SHARDMAX_RETURN_IF_ERROR(rank.checkpoints.WriteBehind(7));
    SHARDMAX_RETURN_IF_ERROR(SetWeights(rank.engine, 8));
    // Some rank is not done, says the step: nothing is published, and no rank waits.
    SHARDMAX_RETURN_IF_ERROR(rank.checkpoints.AfterStep(kStillWriting));
    EXPECT_EQ(rank.checkpoints.newest_step(), 0);
    SHARDMAX_RETURN_IF_ERROR(StepUntilWritten(rank));
    EXPECT_EQ(rank.checkpoints.newest_step(), 7);
    return rank.checkpoints.Write(8);
  });
  ExpectWeights(7, 7);
  ExpectWeights(8, 8);
  EXPECT_THAT(CheckpointNames(), ElementsAre("step-00000007", "step-00000008"));
  for (const Recorder& recorder : recorders_) {
    EXPECT_THAT(recorder.checkpoints, ElementsAre(7, 8));
    EXPECT_EQ(recorder.checkpoint_bytes, 300 * kDim * 8);
  }
  EXPECT_THAT(Log(), HasSubstr("step 7: took a snapshot for a checkpoint in "));
  EXPECT_THAT(Log(), HasSubstr("step 7: wrote a checkpoint behind the training in "));
  EXPECT_THAT(Log(), HasSubstr("step 8: wrote a checkpoint in "));
}

TEST_F(JobCheckpointsTest, TheNextWaitsForTheOneBefore) {
  OnRanks([&](Rank rank) -> absl::Status {
    for (const int step : {1, 2, 3}) {
      SHARDMAX_RETURN_IF_ERROR(SetWeights(rank.engine, static_cast<float>(step)));
      SHARDMAX_RETURN_IF_ERROR(rank.checkpoints.WriteBehind(step));
      EXPECT_EQ(rank.checkpoints.newest_step(), step - 1);
    }
    return rank.checkpoints.Finish();
  });
  for (const int step : {1, 2, 3}) ExpectWeights(step, static_cast<float>(step));
}

TEST_F(JobCheckpointsTest, ItsErrorIsThatOfAllRanksAndTheOneBeforeStays) {
  OnRanks([&](Rank rank) -> absl::Status {
    SHARDMAX_RETURN_IF_ERROR(SetWeights(rank.engine, 1));
    SHARDMAX_RETURN_IF_ERROR(rank.checkpoints.Write(1));
    SHARDMAX_RETURN_IF_ERROR(rank.comm.Barrier());
    std::optional<FileSizeLimit> limit;
    if (rank.comm.rank() == 0) limit.emplace(1000);
    SHARDMAX_RETURN_IF_ERROR(rank.comm.Barrier());
    SHARDMAX_RETURN_IF_ERROR(rank.checkpoints.WriteBehind(2));
    EXPECT_THAT(Message(StepUntilWritten(rank)),
                HasSubstr("rank 0: " + folder_.path("out/checkpoints/.tmp-step-00000002/classes-00000000-00000149")));
    EXPECT_EQ(rank.checkpoints.newest_step(), 1);
    return rank.comm.Barrier();
  });
  EXPECT_THAT(CheckpointNames(), ElementsAre("step-00000001"));
  ExpectWeights(1, 1);
}

TEST_F(JobCheckpointsTest, OfAJobThatIsAnothersNowIsNotPublished) {
  OnRanks([&](Rank rank) -> absl::Status {
    SHARDMAX_RETURN_IF_ERROR(rank.checkpoints.WriteBehind(1));
    if (rank.comm.rank() == 1) rank.requests.may_write = absl::AbortedError("taken away");
    EXPECT_EQ(Message(rank.checkpoints.Finish()), "rank 1: taken away");
    return absl::OkStatus();
  });
  EXPECT_THAT(CheckpointNames(), Not(testing::Contains("step-00000001")));
}

TEST_F(JobCheckpointsTest, IsGivenUpWithTheJob) {
  OnRanks([&](Rank rank) { return rank.checkpoints.WriteBehind(1); });
  EXPECT_THAT(CheckpointNames(), Not(testing::Contains("step-00000001")));
  // What it left is removed by the next.
  OnRanks([&](Rank rank) { return rank.checkpoints.Write(2); });
  EXPECT_THAT(CheckpointNames(), ElementsAre("step-00000002"));
}

TEST_F(JobCheckpointsTest, ASmallShardIsWrittenAtOnce) {
  OnRanks(
      [&](Rank rank) -> absl::Status {
        SHARDMAX_RETURN_IF_ERROR(rank.checkpoints.WriteBehind(1));
        EXPECT_EQ(rank.checkpoints.requests(), 0U);
        EXPECT_EQ(rank.checkpoints.newest_step(), 1);
        return absl::OkStatus();
      },
      150 * kDim * 8 + 1);
  EXPECT_THAT(Log(), HasSubstr("step 1: wrote a checkpoint in "));
}

TEST(AgreeOnSnapshotRoom, AddsUpWhatTheRanksOfThisMachineNeed) {
  constexpr int64_t kNone = int64_t{1} << 50;
  SpawnRanks(2, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const SnapshotRoom room, AgreeOnSnapshotRoom(comm, comm.rank() == 0 ? kNone : 1));
    EXPECT_FALSE(room.suffices());
    EXPECT_EQ(room.needed_bytes, kNone + 1);
    EXPECT_GT(room.free_bytes, 0);
    return absl::OkStatus();
  });
}

}  // namespace
}  // namespace shardmax
