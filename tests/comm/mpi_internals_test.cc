#include <gmock/gmock.h>
#include <mpi.h>

#include <chrono>
#include <memory>
#include <thread>

#include "tests/support/mpi_main.h"
#include "worker/base/status.h"
#include "worker/comm/mpi_roll_call.h"
#include "worker/comm/mpi_util.h"
#include "worker/comm/pacer.h"

namespace shardmax::internal {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

TEST(ByteBlock, CountsBytesUpToTheLimitOfMpi) {
  const auto block = ByteBlock::Make(2147483647, 0);
  ASSERT_TRUE(block.ok());
  EXPECT_EQ(block->count(), 2147483647);
  EXPECT_EQ(block->type(), MPI_BYTE);
}

TEST(ByteBlock, IsOneElementOfTheWholeLengthBeyondThat) {
  for (const int64_t bytes : {int64_t{1} << 31, (int64_t{5} << 30) + 7}) {
    const auto block = ByteBlock::Make(bytes, 0);
    ASSERT_TRUE(block.ok()) << block.status();
    EXPECT_EQ(block->count(), 1);
    MPI_Count size = 0;
    MPI_Count low = 0;
    MPI_Count extent = 0;
    ASSERT_EQ(MPI_Type_size_x(block->type(), &size), MPI_SUCCESS);
    ASSERT_EQ(MPI_Type_get_extent_x(block->type(), &low, &extent), MPI_SUCCESS);
    EXPECT_EQ(size, bytes);
    EXPECT_EQ(low, 0);
    EXPECT_EQ(extent, bytes);
  }
}

TEST(MpiStatus, SaysWhatMpiSaysWithTheCallAndTheRank) {
  EXPECT_TRUE(MpiStatus(MPI_SUCCESS, "MPI_Test", 3).ok());
  const absl::Status status = MpiStatus(MPI_ERR_TRUNCATE, "MPI_Test", 3);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(status), HasSubstr("rank 3: MPI_Test failed with code 15: MPI_ERR_TRUNCATE"));
  EXPECT_EQ(MpiStatus(MPI_ERR_NO_MEM, "MPI_Test", 3).code(), absl::StatusCode::kResourceExhausted);
}

TEST(Pacer, KeepsTheCoreFirstAndThenSleeps) {
  Pacer busy(std::chrono::seconds(10));
  for (int i = 0; i < 100; ++i) busy.Pause();
  EXPECT_LT(busy.waited(), std::chrono::seconds(5));

  Pacer sleepy(std::chrono::nanoseconds(0));
  int pauses = 0;
  for (; sleepy.waited() < milliseconds(100); ++pauses) sleepy.Pause();
  EXPECT_LT(pauses, 1000) << "a pause grows with the time waited";
}

// A roll call of all ranks on a communicator of its own.
class RollCallOfAll : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(MPI_Comm_dup(MPI_COMM_WORLD, &comm_), MPI_SUCCESS);
    roll_ = std::make_unique<MpiRollCall>(comm_, TestSession().rank(), TestSession().size(), milliseconds(200));
    ASSERT_TRUE(roll_->Listen().ok());
  }
  void TearDown() override {
    MPI_Barrier(MPI_COMM_WORLD);
    roll_->Cancel();
    MPI_Comm_free(&comm_);
  }

  static std::chrono::steady_clock::time_point Soon() {
    return std::chrono::steady_clock::now() + std::chrono::seconds(20);
  }

  MPI_Comm comm_ = MPI_COMM_NULL;
  std::unique_ptr<MpiRollCall> roll_;
};

constexpr Call kGather = {.operation = Operation::kAllGather, .bytes = 4};

TEST_F(RollCallOfAll, NamesTheRankThatFallsSilentWhileDataMoves) {
  const int silent = TestSession().size() - 1;
  ASSERT_TRUE(roll_->Await(kGather, Soon()).ok());
  if (TestSession().rank() == silent) return;
  if (TestSession().rank() > 0) {
    while (!roll_->PeerStalls()) ASSERT_TRUE(roll_->Poll().ok());
  }
  const absl::Status status = roll_->Stall(kGather);
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Message(status), fmt::format("AllGather: the data of this call or the one before did not come within 200 "
                                         "ms; no answer from rank {}",
                                         silent));
}

TEST_F(RollCallOfAll, ARankThatIsOneCallAheadAnswersAPeerThatStalls) {
  ASSERT_TRUE(roll_->Await(kGather, Soon()).ok());
  const absl::Status status = TestSession().rank() == 0 ? roll_->Stall(kGather) : roll_->Await(kGather, Soon());
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(Message(status), HasSubstr("every rank still answers"));
}

}  // namespace
}  // namespace shardmax::internal
