#include "worker/comm/mpi_comm.h"

#include <gmock/gmock.h>

#include "tests/comm/comm_cases.h"
#include "tests/support/mpi_main.h"

namespace shardmax {
namespace {

class MpiComm : public testing::TestWithParam<CommCase> {};

TEST_P(MpiComm, Keeps) {
  const auto comm = TestSession().NewCommunicator(GetParam().timeout);
  ASSERT_TRUE(comm.ok()) << comm.status();
  EXPECT_EQ((*comm)->size(), TestSession().size());
  EXPECT_EQ((*comm)->rank(), TestSession().rank());
  GetParam().run(**comm);
}

INSTANTIATE_TEST_SUITE_P(Contract, MpiComm, testing::ValuesIn(CommCases()),
                         [](const auto& info) { return info.param.name; });

TEST(MpiSession, IsOnePerProcess) {
  const auto second = MpiSession::Start(nullptr, nullptr);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(MpiSession, MakesCommunicatorsThatDoNotDisturbEachOther) {
  const auto a = TestSession().NewCommunicator(std::chrono::seconds(30));
  const auto b = TestSession().NewCommunicator(std::chrono::seconds(30));
  ASSERT_TRUE(a.ok() && b.ok());
  const int size = TestSession().size();
  for (int i = 0; i < 10; ++i) {
    float x = 1;
    float y = 2;
    ASSERT_TRUE((*a)->AllReduceSum(std::span(&x, 1)).ok());
    ASSERT_TRUE((*b)->AllReduceSum(std::span(&y, 1)).ok());
    EXPECT_EQ(x, size);
    EXPECT_EQ(y, 2 * size);
  }
}

}  // namespace
}  // namespace shardmax
