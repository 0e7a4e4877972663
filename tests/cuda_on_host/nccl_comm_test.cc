// Collectives over NCCL on the stand-in: the contract of every communicator, a whole step, and what fails.
#include "worker/comm/nccl_comm.h"

#include <gmock/gmock.h>

#include <chrono>
#include <set>
#include <thread>

#include "tests/comm/comm_cases.h"
#include "tests/cuda_on_host/control.h"
#include "tests/cuda_on_host/on_cuda.h"
#include "tests/support/compare.h"
#include "tests/support/sanitizers.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/device_buffer.h"
#include "worker/base/status.h"
#include "worker/comm/device_collectives.h"

namespace shardmax {
namespace {

using cuda_on_host::SetMachine;
using cuda_on_host::SetNcclFault;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using testing::HasSubstr;

// Cases whose calls fit each other on all ranks. What fails has tests of its own below: NCCL does not say who.
std::vector<CommCase> CasesWithoutFailures() {
  const std::set<std::string> failing = {"ALateRankMakesAllMissTheDeadline",
                                         "ALostRankIsNamedAtOnce",
                                         "AMistakeOfOneRankReachesTheOthersAtOnce",
                                         "RefusesARootThatIsNoRank",
                                         "RefusesBlocksThatDoNotFill",
                                         "CallsOfDifferentOperationsAreRefusedOnAllRanks",
                                         "CallsOfDifferentSizesAreRefusedOnAllRanks"};
  std::vector<CommCase> cases;
  for (const CommCase& c : CommCases()) {
    if (!failing.contains(c.name)) cases.push_back(c);
  }
  return cases;
}

class NcclComm : public testing::TestWithParam<std::tuple<CommCase, int>> {
 protected:
  void TearDown() override { SetMachine({}); }
};

TEST_P(NcclComm, Keeps) {
  const auto& [c, size] = GetParam();
  for (const auto timing : {cuda_on_host::Timing::kAtOnce, cuda_on_host::Timing::kLate}) {
    SetMachine({.timing = timing});
    SpawnRanks(size, [&c = c](ThreadCommunicator& bootstrap) -> absl::Status {
      SHARDMAX_ASSIGN_OR_RETURN(const auto comm, MakeNcclComm(bootstrap, bootstrap.rank(), c.timeout));
      c.run(*comm);
      return absl::OkStatus();
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Contract, NcclComm,
                         testing::Combine(testing::ValuesIn(CasesWithoutFailures()), testing::Values(1, 2, 3)),
                         [](const auto& info) {
                           return std::get<0>(info.param).name + "On" + std::to_string(std::get<1>(info.param));
                         });

constexpr int kRanks = 3;
#if defined(SHARDMAX_ASAN) || defined(SHARDMAX_TSAN)
constexpr milliseconds kTimeout{10'000};
#else
constexpr milliseconds kTimeout{2000};
#endif
// Of the roll call that follows.
constexpr milliseconds kBootstrapTimeout = 2 * kTimeout;

// A stream, an event, and ten floats of a device.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    EXPECT_EQ(cudaSetDevice(device), cudaSuccess);
    auto stream = cuda::Stream::Make();
    auto event = cuda::Event::Make();
    auto buffer = cuda::DeviceBuffer<float>::Allocate(10);
    EXPECT_TRUE(stream.ok() && event.ok() && buffer.ok());
    stream_ = *std::move(stream);
    event_ = *std::move(event);
    buffer_ = *std::move(buffer);
  }
  float* data() const { return buffer_.data(); }
  cudaStream_t stream() const { return stream_.get(); }
  void Write(const std::vector<float>& values) {
    values_ = values;  // Until the copy is made.
    cudaMemcpyAsync(data(), values_.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice, stream());
  }
  // After all that `comm` was given.
  std::vector<float> Read(DeviceCollectives& comm, size_t count) {
    std::vector<float> values(count);
    cudaMemcpyAsync(values.data(), data(), count * sizeof(float), cudaMemcpyDeviceToHost, stream());
    cudaEventRecord(event_.get(), stream());
    const absl::Status arrived = comm.Await(event_.get());
    EXPECT_TRUE(arrived.ok()) << arrived;
    return values;
  }

 private:
  cuda::Stream stream_;
  cuda::Event event_;
  cuda::DeviceBuffer<float> buffer_;
  std::vector<float> values_;
};

TEST(NcclBetweenDevices, EnqueuesCollectivesInPlaceAndCountsThem) {
  for (const auto timing : {cuda_on_host::Timing::kAtOnce, cuda_on_host::Timing::kLate}) {
    SetMachine({.timing = timing});
    SpawnRanks(kRanks, [](ThreadCommunicator& bootstrap) -> absl::Status {
      const auto mine = static_cast<float>(bootstrap.rank());
      SHARDMAX_ASSIGN_OR_RETURN(const auto comm, MakeNcclComm(bootstrap, bootstrap.rank(), std::chrono::seconds(60)));
      DeviceCollectives& device = *comm->device();
      OnDevice memory(bootstrap.rank());

      memory.Write({mine, mine, mine, mine, mine, mine});
      auto* blocks = reinterpret_cast<std::byte*>(memory.data());
      SHARDMAX_RETURN_IF_ERROR(device.AllGather(blocks, 2 * sizeof(float), memory.stream()));
      EXPECT_THAT(memory.Read(device, 6), testing::ElementsAre(0, 0, 1, 1, 2, 2));

      memory.Write({mine, 10 * mine});
      SHARDMAX_RETURN_IF_ERROR(device.AllReduceSum(memory.data(), 2, memory.stream()));
      EXPECT_THAT(memory.Read(device, 2), testing::ElementsAre(3, 30));

      memory.Write({mine, mine, 10 * mine, 10 * mine, 100 * mine, 100 * mine});
      SHARDMAX_RETURN_IF_ERROR(device.ReduceScatterSum(memory.data(), 2, memory.stream()));
      const float sum = std::vector<float>{3, 30, 300}[static_cast<size_t>(bootstrap.rank())];
      const std::vector<float> scattered = memory.Read(device, 6);
      EXPECT_EQ(scattered[2 * static_cast<size_t>(bootstrap.rank())], sum);
      EXPECT_EQ(scattered[2 * static_cast<size_t>(bootstrap.rank()) + 1], sum);

      EXPECT_EQ(comm->stats().all_gather.bytes, 8);
      EXPECT_EQ(comm->stats().all_reduce.bytes, 8);
      EXPECT_EQ(comm->stats().reduce_scatter.bytes, 24);
      EXPECT_EQ(comm->stats().Total().calls, 3);
      return absl::OkStatus();
    });
  }
  SetMachine({});
}

TEST(NcclBetweenDevices, BrokenByOneRankTellsTheOthersItsReason) {
  SetMachine({});
  SpawnRanks(kRanks, [](ThreadCommunicator& bootstrap) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const auto comm, MakeNcclComm(bootstrap, bootstrap.rank(), kTimeout));
    DeviceCollectives& device = *comm->device();
    OnDevice memory(bootstrap.rank());
    absl::Status status;
    if (bootstrap.rank() == 1) {
      status = device.Break(absl::InternalError("a launch failed"));
    } else {
      SHARDMAX_RETURN_IF_ERROR(device.AllReduceSum(memory.data(), 1, memory.stream()));
      cuda::Event event = *cuda::Event::Make();
      EXPECT_EQ(cudaEventRecord(event.get(), memory.stream()), cudaSuccess);
      status = device.Await(event.get());
      EXPECT_THAT(Message(status), HasSubstr("AllReduceSum on rank"));
    }
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    EXPECT_THAT(Message(status), HasSubstr("rank 1: a launch failed"));
    EXPECT_EQ(device.AllReduceSum(memory.data(), 1, memory.stream()), status) << "it stays broken";
    return absl::OkStatus();
  });
}

// A machine that is busy.
constexpr milliseconds kGrace{20'000};

struct RankEnd {
  absl::Status status;
  absl::Status next;
  steady_clock::duration took{};
};

// Runs a step of the head on three ranks over NCCL and the CUDA engine; before(comm, rank) may spoil it.
template <typename Before>
std::vector<RankEnd> RunStep(const Before& before) {
  const HeadProblem problem = MakeHeadProblem(1, 10, 4, 9);
  HeadRunOptions options;
  options.factory = OnCuda(options).factory;
  std::vector<RankEnd> ends(kRanks);
  SpawnRanks(kRanks,
             [&](ThreadCommunicator& bootstrap) -> absl::Status {
               const int rank = bootstrap.rank();
               SHARDMAX_ASSIGN_OR_RETURN(const auto comm, MakeNcclComm(bootstrap, rank, kTimeout));
               SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, rank, kRanks, options));
               ShardedHead head(*comm, *engine, problem.classes);
               const auto start = steady_clock::now();
               if (!before(bootstrap, rank)) return absl::OkStatus();
               ends[rank].status = head.Step(InputOfRank(problem, rank, kRanks, options)).status();
               ends[rank].took = steady_clock::now() - start;
               ends[rank].next = head.Step(InputOfRank(problem, rank, kRanks, options)).status();
               return absl::OkStatus();
             },
             {.timeout = kBootstrapTimeout});
  return ends;
}

class NcclFaults : public testing::Test {
 protected:
  void SetUp() override { SetMachine({}); }
  void TearDown() override { SetNcclFault({}); }
};

void ExpectEnded(const RankEnd& end) {
  EXPECT_FALSE(end.status.ok());
  EXPECT_LT(end.took, kTimeout + kBootstrapTimeout + kGrace);
  EXPECT_EQ(end.next, end.status) << "a broken communicator stays broken";
}

TEST_F(NcclFaults, NoneLeavesTheStepAsItIs) {
  for (const RankEnd& end : RunStep([](ThreadCommunicator&, int) { return true; })) {
    EXPECT_TRUE(end.status.ok()) << end.status;
  }
}

TEST_F(NcclFaults, ARankThatDiesIsNamedOnTheOthers) {
  const auto ends = RunStep([](ThreadCommunicator&, int rank) { return rank != 1; });
  for (const int rank : {0, 2}) {
    ExpectEnded(ends[rank]);
    EXPECT_EQ(ends[rank].status.code(), absl::StatusCode::kUnavailable) << ends[rank].status;
    EXPECT_THAT(Message(ends[rank].status),
                HasSubstr(fmt::format("AllGather on rank {}: NCCL did not finish within {} ms: AllGather: lost rank 1",
                                      rank, kTimeout.count())));
  }
}

TEST_F(NcclFaults, ARankThatIsLateBeyondTheDeadlineIsNamedOnTheOthers) {
  const auto ends = RunStep([](ThreadCommunicator&, int rank) {
    if (rank == 1) std::this_thread::sleep_for(kTimeout + kBootstrapTimeout + milliseconds(600));
    return true;
  });
  for (const int rank : {0, 2}) {
    ExpectEnded(ends[rank]);
    EXPECT_EQ(ends[rank].status.code(), absl::StatusCode::kDeadlineExceeded) << ends[rank].status;
    EXPECT_THAT(Message(ends[rank].status),
                HasSubstr(fmt::format("NCCL did not finish within {} ms: AllGather: no call within {} ms from rank 1",
                                      kTimeout.count(), kBootstrapTimeout.count())));
  }
  ExpectEnded(ends[1]);
}

// The gather, the label cosines, the normaliser, and the feature gradients.
class NcclFaultsOfCollective : public NcclFaults, public testing::WithParamInterface<int> {};

TEST_P(NcclFaultsOfCollective, AnAsynchronousErrorEndsEveryRankAndNamesTheOneThatHadIt) {
  SetNcclFault({.rank = 1, .collective = GetParam()});
  const auto ends = RunStep([](ThreadCommunicator&, int) { return true; });
  for (const RankEnd& end : ends) {
    ExpectEnded(end);
    EXPECT_EQ(end.status.code(), absl::StatusCode::kUnavailable) << end.status;
    EXPECT_THAT(Message(end.status), HasSubstr("rank 1: NCCL: remote process exited or there was a network error"));
  }
}

INSTANTIATE_TEST_SUITE_P(Calls, NcclFaultsOfCollective, testing::Values(1, 2, 3, 4));

TEST_F(NcclFaults, ARankWithoutADeviceFailsAllBeforeAnyWaits) {
  SetMachine({.devices = 2});
  SpawnRanks(kRanks, [&](ThreadCommunicator& bootstrap) {
    const auto start = steady_clock::now();
    const auto comm = MakeNcclComm(bootstrap, bootstrap.rank(), std::chrono::seconds(60));
    EXPECT_THAT(Message(comm.status()), HasSubstr("rank 2: cudaSetDevice: cudaErrorInvalidDevice"));
    EXPECT_LT(steady_clock::now() - start, kGrace);
  });
}

TEST(CudaStep, OverNcclAgreesWithTheReference) {
  SetMachine({.l2_bytes = 100'000, .timing = cuda_on_host::Timing::kSometimes, .seed = 3});
  const HeadProblem problem = MakeHeadProblem(3, 31, 20, 397);
  HeadRunOptions options = {.loss = {.m3 = 0.35}};
  const HeadOutcome expected = RunHead(problem, options);
  options.factory = OnCuda(options).factory;
  std::vector<float> gradients(31 * 20);
  SpawnRanks(kRanks, [&](ThreadCommunicator& bootstrap) -> absl::Status {
    const int rank = bootstrap.rank();
    SHARDMAX_ASSIGN_OR_RETURN(const auto comm, MakeNcclComm(bootstrap, rank, std::chrono::seconds(60)));
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, rank, kRanks, options));
    ShardedHead head(*comm, *engine, problem.classes);
    SHARDMAX_ASSIGN_OR_RETURN(const StepResult result, head.Step(InputOfRank(problem, rank, kRanks, options)));
    EXPECT_NEAR(result.loss, expected.loss(), 1e-5 * expected.loss());
    const int64_t first = BalancedPart(31, rank, kRanks).first;
    std::copy_n(result.feature_gradients.data, result.feature_gradients.rows * 20, gradients.begin() + first * 20);
    return absl::OkStatus();
  });
  EXPECT_TRUE(MatricesAgree(gradients, expected.feature_gradients, 20, {1e-5}));
  SetMachine({});
}

}  // namespace
}  // namespace shardmax
