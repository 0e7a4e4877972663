#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "client/cli/json.h"
#include "client/cli/options.h"
#include "client/cli/session.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ParsedCommand Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "shardmax");
  return ParseCommandLine(static_cast<int>(arguments.size()), arguments.data());
}

class CommandTest : public ::testing::Test {
 protected:
  void SetUp() override { ::unsetenv("SHARDMAX_SERVER"); }
  void TearDown() override { ::unsetenv("SHARDMAX_SERVER"); }
};

TEST_F(CommandTest, TheServerIsThatOfTheOptionThenOfTheEnvironmentThenTheDefault) {
  EXPECT_EQ(Parse({"list"}).options.server, "127.0.0.1:7700");
  ::setenv("SHARDMAX_SERVER", "head:1", 1);
  EXPECT_EQ(Parse({"list"}).options.server, "head:1");
  EXPECT_EQ(Parse({"list", "--server=other:2"}).options.server, "other:2");
  ::setenv("SHARDMAX_SERVER", "", 1);
  EXPECT_EQ(Parse({"list"}).options.server, "127.0.0.1:7700");
}

TEST_F(CommandTest, OptionsReachTheVerb) {
  const ParsedCommand list = Parse({"list", "--state=running", "--state", "PENDING", "--pool=a", "--json"});
  EXPECT_TRUE(list.run) << list.text;
  EXPECT_EQ(list.options.verb, Verb::kList);
  EXPECT_THAT(list.options.states, ElementsAre(v1::RUNNING, v1::PENDING));
  EXPECT_EQ(list.options.pool, "a");
  EXPECT_TRUE(list.options.json);
  const ParsedCommand submit = Parse({"submit", "--wait", "job.textproto", "--timeout_s=3"});
  EXPECT_TRUE(submit.options.wait);
  EXPECT_EQ(submit.options.file, "job.textproto");
  EXPECT_EQ(submit.options.timeout_s, 3);
}

TEST_F(CommandTest, WrongUsageIsExitCodeTwoWithTheReason) {
  const auto expect = [](const std::vector<const char*>& arguments, const std::string& reason) {
    const ParsedCommand parsed = Parse(arguments);
    EXPECT_FALSE(parsed.run);
    EXPECT_EQ(parsed.exit_code, 2);
    EXPECT_THAT(parsed.text, HasSubstr(reason));
  };
  expect({}, "subcommand is required");
  expect({"frobnicate"}, "unknown verb \"frobnicate\"");
  expect({"status"}, "JOB is required");
  expect({"status", "a", "b"}, "b");
  expect({"list", "--state=foo"}, "\"foo\" is none of PENDING, RUNNING");
  expect({"list", "--limit=0"}, "--limit");
  expect({"export", "a"}, "--output is required");
  expect({"list", "--timeout_s=0"}, "--timeout_s");
}

TEST_F(CommandTest, HelpAndVersionSucceed) {
  for (const char* flag : {"--help", "--version"}) {
    const ParsedCommand parsed = Parse({flag});
    EXPECT_FALSE(parsed.run);
    EXPECT_EQ(parsed.exit_code, 0);
    EXPECT_THAT(parsed.text, HasSubstr("shardmax"));
  }
  EXPECT_THAT(Parse({"submit", "--help"}).text, HasSubstr("--token_file"));
}

TEST(ExitCodeTest, ErrorsOfCallsHaveTheCodesOfTheContract) {
  EXPECT_EQ(ExitCodeOf(absl::UnavailableError("")), 3);
  EXPECT_EQ(ExitCodeOf(absl::DeadlineExceededError("")), 3);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("")), 2);
  EXPECT_EQ(ExitCodeOf(absl::NotFoundError("")), 2);
  EXPECT_EQ(ExitCodeOf(absl::UnauthenticatedError("")), 2);
  EXPECT_EQ(ExitCodeOf(absl::PermissionDeniedError("")), 2);
  EXPECT_EQ(ExitCodeOf(absl::InternalError("")), 1);
  EXPECT_EQ(ExitCodeOf(absl::DataLossError("")), 1);
  EXPECT_EQ(ExitCodeOf(v1::SUCCEEDED), 0);
  EXPECT_EQ(ExitCodeOf(v1::FAILED), 1);
  EXPECT_EQ(ExitCodeOf(v1::STOPPED), 4);
}

TEST(ErrorTextTest, SaysWhatToDoNextAndHarmsNoTerminal) {
  CliOptions options;
  options.job = "glyphs";
  EXPECT_THAT(ErrorText(absl::NotFoundError("no job \"glyphs\" \x1b"), options),
              ::testing::AllOf(HasSubstr("\\x1b"), HasSubstr("shardmax list")));
  EXPECT_THAT(ErrorText(absl::UnavailableError("no answer from the server at x:1: Connection refused"), options),
              HasSubstr("Start one with: shardmax-server"));
  EXPECT_THAT(ErrorText(absl::UnauthenticatedError("no token"), options), HasSubstr("--token_file"));
  EXPECT_EQ(ErrorText(absl::InvalidArgumentError("a\nb"), options), "shardmax: a\n  b\n");
}

TEST(JsonTest, IsOneLineWithProtoNamesAndDefaults) {
  v1::Job job;
  job.set_id("glyphs-1");
  job.set_state(v1::PENDING);
  job.mutable_submitted()->set_seconds(1'000'000'000);
  const std::string line = JsonLine(job);
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
  EXPECT_EQ(line.back(), '\n');
  EXPECT_THAT(line, HasSubstr("\"state\":\"PENDING\""));
  EXPECT_THAT(line, HasSubstr("\"checkpoint_step\":0"));
  EXPECT_THAT(line, HasSubstr("\"submitted\":\"2001-09-09T01:46:40Z\""));
}

}  // namespace
}  // namespace shardmax
