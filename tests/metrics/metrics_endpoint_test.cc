#include "worker/metrics/metrics_endpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <string>

#include "worker/base/status.h"

namespace shardmax {
namespace {

using ::testing::HasSubstr;

TEST(MetricsEndpoint, TakesAnyPortForBaseZero) {
  const auto first = MetricsEndpoint::Start("127.0.0.1", 0, 3, {});
  const auto second = MetricsEndpoint::Start("127.0.0.1", 0, 3, {});
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_GT((*first)->port(), 0);
  EXPECT_NE((*first)->port(), (*second)->port());
}

TEST(MetricsEndpoint, AddsTheRankToTheBaseAndSaysWhenThatIsTaken) {
  const auto first = MetricsEndpoint::Start("127.0.0.1", 0, 0, {});
  ASSERT_TRUE(first.ok());
  const int port = (*first)->port();
  const auto second = MetricsEndpoint::Start("127.0.0.1", port - 2, 2, {});
  EXPECT_TRUE(absl::IsUnavailable(second.status()));
  EXPECT_THAT(Message(second.status()), HasSubstr(fmt::format("port {}: another process has it", port)));
}

TEST(MetricsEndpoint, WithoutABaseATakenDefaultIsNoError) {
  const auto first = MetricsEndpoint::Start("127.0.0.1", std::nullopt, 0, {});
  const auto second = MetricsEndpoint::Start("127.0.0.1", std::nullopt, 0, {});
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_NE((*second)->port(), kDefaultMetricsPortBase);
}

TEST(MetricsEndpoint, RefusesPortsBeyondTheLast) {
  const auto endpoint = MetricsEndpoint::Start("127.0.0.1", 65535, 1, {});
  EXPECT_TRUE(absl::IsInvalidArgument(endpoint.status()));
  EXPECT_THAT(Message(endpoint.status()), HasSubstr("rank 1 would need port 65536"));
}

TEST(MetricsHost, IsThatOfThisMachineUnlessTheServerIsElsewhere) {
  std::array<char, 256> name = {};
  ASSERT_EQ(gethostname(name.data(), name.size() - 1), 0);
  EXPECT_EQ(MetricsHost("", ""), "127.0.0.1");
  EXPECT_EQ(MetricsHost("", "127.0.0.1:7700"), "127.0.0.1");
  EXPECT_EQ(MetricsHost("", "localhost:7700"), "127.0.0.1");
  EXPECT_EQ(MetricsHost("", "[::1]:7700"), "127.0.0.1");
  EXPECT_EQ(MetricsHost("", "head.cluster:7700"), name.data());
  EXPECT_EQ(MetricsHost("node-3", "127.0.0.1:7700"), "node-3");
}

}  // namespace
}  // namespace shardmax
