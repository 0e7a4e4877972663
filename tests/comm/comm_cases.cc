#include "tests/comm/comm_cases.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <thread>

#include "worker/base/status.h"

namespace shardmax {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;

constexpr milliseconds kShort{300};
constexpr milliseconds kGrace{2000};  // For a loaded machine; the code needs far less.
constexpr int64_t kSizes[] = {0, 1, 3, 1000, 20011};

#define ASSERT_STATUS_OK(expr)                        \
  do {                                                \
    const absl::Status assert_status = (expr);        \
    ASSERT_TRUE(assert_status.ok()) << assert_status; \
  } while (false)

// Values whose sum depends on the order of addition.
std::vector<float> RandomFloats(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> exponent(-10, 10);
  std::vector<float> values(n);
  for (float& value : values) value = std::exp2(exponent(random)) * (random() % 2 == 0 ? 1.0F : -1.0F);
  return values;
}

// Element i of the sum over `ranks` of RandomFloats(n, seed + rank), in rank order.
std::vector<float> SumOfRandomFloats(int64_t n, uint32_t seed, int ranks) {
  std::vector<float> sum = RandomFloats(n, seed);
  for (int rank = 1; rank < ranks; ++rank) {
    const std::vector<float> part = RandomFloats(n, seed + rank);
    for (int64_t i = 0; i < n; ++i) sum[i] += part[i];
  }
  return sum;
}

// Position of the first element that differs in its bits, -1 if none.
int64_t FirstDifference(std::span<const float> a, std::span<const float> b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) return static_cast<int64_t>(i);
  }
  return -1;
}

void AllGatherPutsBlocksInRankOrder(Communicator& comm) {
  for (const int64_t n : kSizes) {
    SCOPED_TRACE(fmt::format("n = {}", n));
    std::vector<int32_t> mine(n);
    for (int64_t i = 0; i < n; ++i) mine[i] = static_cast<int32_t>(comm.rank() * 1000000 + i);
    std::vector<int32_t> all(n * comm.size(), -1);
    ASSERT_STATUS_OK(comm.AllGather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all))));
    for (int64_t i = 0; i < n * comm.size(); ++i) ASSERT_EQ(all[i], i / n * 1000000 + i % n) << "element " << i;
  }
}

void AllReduceAddsInRankOrder(Communicator& comm) {
  constexpr uint32_t kSeed = 7;
  for (const int64_t n : kSizes) {
    SCOPED_TRACE(fmt::format("seed = {}, n = {}", kSeed, n));
    std::vector<float> values = RandomFloats(n, kSeed + comm.rank());
    ASSERT_STATUS_OK(comm.AllReduceSum(values));
    // The same bits as a plain loop, so the same on all ranks and in every run.
    ASSERT_EQ(FirstDifference(values, SumOfRandomFloats(n, kSeed, comm.size())), -1);
  }
}

void ReduceScatterAddsInRankOrder(Communicator& comm) {
  constexpr uint32_t kSeed = 11;
  for (const int64_t n : kSizes) {
    SCOPED_TRACE(fmt::format("seed = {}, n = {}", kSeed, n));
    const std::vector<float> all = RandomFloats(n * comm.size(), kSeed + comm.rank());
    std::vector<float> mine(n, -1);
    ASSERT_STATUS_OK(comm.ReduceScatterSum(all, mine));
    const std::vector<float> sum = SumOfRandomFloats(n * comm.size(), kSeed, comm.size());
    ASSERT_EQ(FirstDifference(mine, std::span(sum).subspan(n * comm.rank(), n)), -1);
  }
}

void BroadcastCopiesFromAnyRoot(Communicator& comm) {
  for (int root = 0; root < comm.size(); ++root) {
    for (const int64_t n : kSizes) {
      SCOPED_TRACE(fmt::format("root = {}, n = {}", root, n));
      std::vector<int32_t> values(n, comm.rank() == root ? 100 + root : -1);
      ASSERT_STATUS_OK(comm.Broadcast(std::as_writable_bytes(std::span(values)), root));
      ASSERT_THAT(values, testing::Each(100 + root));
    }
  }
}

void BarrierWaitsForTheLastRank(Communicator& comm) {
  constexpr milliseconds kLate{100};
  const auto start = std::chrono::steady_clock::now();
  ASSERT_STATUS_OK(comm.Barrier());
  if (comm.rank() == comm.size() - 1) std::this_thread::sleep_for(kLate);
  ASSERT_STATUS_OK(comm.Barrier());
  EXPECT_GE(std::chrono::steady_clock::now() - start, kLate * 8 / 10);
}

void StatsCountCallsAndBytes(Communicator& comm) {
  const int n = comm.size();
  std::vector<float> short_block(5);
  std::vector<float> long_block(5 * n);
  for (int repeat = 0; repeat < 2; ++repeat) {
    ASSERT_STATUS_OK(
        comm.AllGather(std::as_bytes(std::span(short_block)), std::as_writable_bytes(std::span(long_block))));
    ASSERT_STATUS_OK(comm.ReduceScatterSum(long_block, short_block));
  }
  ASSERT_STATUS_OK(comm.AllReduceSum(short_block));
  ASSERT_STATUS_OK(comm.Broadcast(std::as_writable_bytes(std::span(long_block)), 0));
  ASSERT_STATUS_OK(comm.Barrier());
  const CommStats& stats = comm.stats();
  EXPECT_EQ(stats.all_gather.calls, 2);
  EXPECT_EQ(stats.all_gather.bytes, 2 * 20);
  EXPECT_EQ(stats.reduce_scatter.calls, 2);
  EXPECT_EQ(stats.reduce_scatter.bytes, 2 * 20 * n);
  EXPECT_EQ(stats.all_reduce.calls, 1);
  EXPECT_EQ(stats.all_reduce.bytes, 20);
  EXPECT_EQ(stats.broadcast.calls, 1);
  EXPECT_EQ(stats.broadcast.bytes, 20 * n);
  EXPECT_EQ(stats.barrier.calls, 1);
  EXPECT_EQ(stats.barrier.bytes, 0);
  EXPECT_EQ(stats.Total().calls, 7);
  EXPECT_EQ(stats.Total().bytes, 60 + 60 * n);
  EXPECT_GT(stats.Total().seconds, 0);
  EXPECT_GT(stats.all_gather.seconds, 0);
}

void AgreeOkIsOkWhenAllRanksAre(Communicator& comm) {
  EXPECT_TRUE(AgreeOk(comm, absl::OkStatus()).ok());
}

void AgreeOkGivesTheErrorOfTheOneRankThatFailed(Communicator& comm) {
  const int failing = comm.size() - 1;
  const absl::Status status =
      AgreeOk(comm, comm.rank() == failing ? InvalidArgument("row 7 is not finite") : absl::OkStatus());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Message(status), fmt::format("rank {}: row 7 is not finite", failing));
  EXPECT_TRUE(comm.Barrier().ok()) << "a disagreement does not break the communicator";
}

void AgreeOkGivesTheErrorOfTheLowestRankThatFailed(Communicator& comm) {
  const int first_failing = comm.size() > 1 ? 1 : 0;
  const absl::Status mine = comm.rank() < first_failing
                                ? absl::OkStatus()
                                : Error(absl::StatusCode::kDataLoss, "{} from {}", std::string(2000, 'x'), comm.rank());
  const absl::Status status = AgreeOk(comm, mine);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  // The middle of a long message is cut, its end stays.
  EXPECT_EQ(Message(status),
            fmt::format("rank {0}: {1}...{2} from {0}", first_failing, std::string(500, 'x'), std::string(490, 'x')));
}

void BroadcastStringCopiesAnyLength(Communicator& comm) {
  const int root = comm.size() - 1;
  for (const std::string& sent : {std::string(), std::string("a\0b", 3), std::string(100000, 'z')}) {
    const auto received = BroadcastString(comm, comm.rank() == root ? sent : "ignored", root);
    ASSERT_TRUE(received.ok()) << received.status();
    EXPECT_EQ(*received, sent);
  }
}

void BroadcastStatusCopiesCodeAndWholeMessage(Communicator& comm) {
  const int root = comm.size() - 1;
  for (const absl::Status& sent : {absl::OkStatus(), absl::DataLossError(std::string(5000, 'm')),
                                   absl::UnauthenticatedError("the last of the codes")}) {
    EXPECT_EQ(BroadcastStatus(comm, comm.rank() == root ? sent : absl::InternalError("ignored"), root), sent);
  }
}

void ALateRankMakesAllMissTheDeadline(Communicator& comm) {
  if (comm.size() == 1) return;
  const int late = comm.size() - 1;
  ASSERT_STATUS_OK(comm.Barrier());
  const auto start = std::chrono::steady_clock::now();
  if (comm.rank() == late) std::this_thread::sleep_for(2 * kShort);
  float value = 1;
  const absl::Status status = comm.AllReduceSum(std::span(&value, 1));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_EQ(Message(status), fmt::format("AllReduceSum: no call within 300 ms from rank {}", late));
  EXPECT_LT(std::chrono::steady_clock::now() - start, 2 * kShort + kGrace);
  EXPECT_EQ(comm.Barrier(), status) << "the communicator stays broken";
  EXPECT_EQ(comm.stats().all_reduce.calls, 0);
}

void ALostRankIsNamedAtOnce(Communicator& comm) {
  if (comm.size() == 1) return;
  ASSERT_STATUS_OK(comm.Barrier());
  if (comm.rank() == 0) return;
  const auto start = std::chrono::steady_clock::now();
  const absl::Status status = comm.Barrier();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(Message(status), "Barrier: lost rank 0");
  EXPECT_LT(std::chrono::steady_clock::now() - start, kGrace);
}

void ARankMayLeaveAfterItsLastCall(Communicator& comm) {
  // Its own part is done: the others, slower, must not take it for lost.
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::vector<float> values(2000, 1);
    ASSERT_STATUS_OK(comm.AllReduceSum(values));
    ASSERT_THAT(values, testing::Each(comm.size()));
  }
}

void AMistakeOfOneRankReachesTheOthersAtOnce(Communicator& comm) {
  ASSERT_STATUS_OK(comm.Barrier());
  const int mistaken = comm.size() - 1;
  const auto start = std::chrono::steady_clock::now();
  const std::vector<float> all(3 * comm.size());
  std::vector<float> mine(comm.rank() == mistaken ? 2 : 3);
  const absl::Status status = comm.ReduceScatterSum(all, mine);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(Message(status), fmt::format("ReduceScatterSum on rank {}: `all` has {} floats, must have {} x 2", mistaken,
                                         3 * comm.size(), comm.size()));
  EXPECT_LT(std::chrono::steady_clock::now() - start, kGrace);
}

void RefusesARootThatIsNoRank(Communicator& comm) {
  std::vector<std::byte> bytes(1);
  const absl::Status status = comm.Broadcast(bytes, comm.size());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status), HasSubstr(fmt::format("root is {}, must be 0 to {}", comm.size(), comm.size() - 1)));
}

void RefusesBlocksThatDoNotFill(Communicator& comm) {
  std::vector<std::byte> all(4 * comm.size());
  const absl::Status status = comm.AllGather(std::span(all).first(3), all);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status),
              HasSubstr(fmt::format("`all` has {} bytes, must have {} x 3", 4 * comm.size(), comm.size())));
}

void CallsOfDifferentOperationsAreRefusedOnAllRanks(Communicator& comm) {
  if (comm.size() == 1) return;
  float value = 0;
  const absl::Status status = comm.rank() == 1 ? comm.Barrier() : comm.AllReduceSum(std::span(&value, 1));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(Message(status),
              AllOf(HasSubstr("rank 0 calls AllReduceSum of 4 bytes"), HasSubstr("rank 1 calls Barrier of 0 bytes")));
}

void CallsOfDifferentSizesAreRefusedOnAllRanks(Communicator& comm) {
  if (comm.size() == 1) return;
  std::vector<float> values(comm.rank() == 1 ? 6 : 5);
  const absl::Status status = comm.AllReduceSum(values);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(Message(status),
              HasSubstr("AllReduceSum of 20 bytes, root 0, but rank 1 calls AllReduceSum of 24 bytes"));
}

}  // namespace

std::vector<CommCase> CommCases() {
#define CASE(function) \
  { .name = #function, .run = (function) }
  return {
      CASE(AllGatherPutsBlocksInRankOrder),
      CASE(AllReduceAddsInRankOrder),
      CASE(ReduceScatterAddsInRankOrder),
      CASE(BroadcastCopiesFromAnyRoot),
      CASE(BarrierWaitsForTheLastRank),
      CASE(StatsCountCallsAndBytes),
      CASE(AgreeOkIsOkWhenAllRanksAre),
      CASE(AgreeOkGivesTheErrorOfTheOneRankThatFailed),
      CASE(AgreeOkGivesTheErrorOfTheLowestRankThatFailed),
      CASE(BroadcastStringCopiesAnyLength),
      CASE(BroadcastStatusCopiesCodeAndWholeMessage),
      {.name = "ALateRankMakesAllMissTheDeadline", .run = ALateRankMakesAllMissTheDeadline, .timeout = kShort},
      CASE(ALostRankIsNamedAtOnce),
      CASE(ARankMayLeaveAfterItsLastCall),
      CASE(AMistakeOfOneRankReachesTheOthersAtOnce),
      CASE(RefusesARootThatIsNoRank),
      CASE(RefusesBlocksThatDoNotFill),
      CASE(CallsOfDifferentOperationsAreRefusedOnAllRanks),
      CASE(CallsOfDifferentSizesAreRefusedOnAllRanks),
  };
#undef CASE
}

}  // namespace shardmax
