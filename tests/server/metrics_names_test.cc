// What the server exposes is what docs/metrics.md says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "tests/server/server_fixture.h"

namespace shardmax {
namespace {

struct Metric {
  std::string type;
  std::set<std::string> labels;

  bool operator==(const Metric&) const = default;
};

void PrintTo(const Metric& metric, std::ostream* out) {
  *out << metric.type << "{";
  for (const std::string& label : metric.labels) *out << label << " ";
  *out << "}";
}

std::set<std::string> QuotedIn(const std::string& cell) {
  static const std::regex code("`([^`]*)`");
  std::set<std::string> words;
  for (std::sregex_iterator word(cell.begin(), cell.end(), code), end; word != end; ++word) words.insert((*word)[1]);
  return words;
}

// The rows of the section "## Server".
std::map<std::string, Metric> Documented() {
  const std::string text = TempFolder::ReadAll(SHARDMAX_METRICS_DOCUMENT);
  const size_t begin = text.find("## Server");
  std::istringstream lines(text.substr(begin, text.find("\n## ", begin + 1) - begin));
  static const std::regex row(R"(\| (`.*`) \| (\w+) \| (.*?) ?\| .* \|)");
  std::map<std::string, Metric> metrics;
  for (std::string line; std::getline(lines, line);) {
    std::smatch cells;
    if (!std::regex_match(line, cells, row)) continue;
    for (const std::string& name : QuotedIn(cells[1])) metrics[name] = {cells[2], QuotedIn(cells[3])};
  }
  return metrics;
}

std::map<std::string, Metric> Exposed(const std::string& page) {
  static const std::regex type(R"(# TYPE (shardmax_\w+) (\w+))");
  static const std::regex series(R"((shardmax_\w+?)(_bucket|_sum|_count)?(\{(.*)\})? \S+)");
  static const std::regex label(R"re((\w+)="[^"]*")re");
  std::map<std::string, Metric> metrics;
  std::istringstream lines(page);
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    std::smatch match;
    if (std::regex_match(line, match, type)) metrics[match[1]].type = match[2];
    if (!std::regex_match(line, match, series)) continue;
    const std::string labels = match[4];
    for (std::sregex_iterator at(labels.begin(), labels.end(), label), end; at != end; ++at) {
      if ((*at)[1] != "le") metrics[match[1]].labels.insert((*at)[1]);
    }
  }
  return metrics;
}

using MetricsNamesTest = ServerFixture;

TEST_F(MetricsNamesTest, EveryMetricIsDocumentedWithItsTypeAndLabelsAndNoOther) {
  StartServer();
  // A series of each metric with labels.
  const std::string id = Submit(Spec("a")).id();
  auto pool = NewPool("p", "s");
  ASSERT_TRUE(pool->AwaitAssignment().has_value());
  Log(id);
  ASSERT_TRUE(Eventually([&] { return Metrics().find("shardmax_pool_silence_seconds{") != std::string::npos; }));
  const auto documented = Documented();
  EXPECT_GT(documented.size(), 10u);
  EXPECT_EQ(Exposed(Metrics()), documented);
}

TEST_F(MetricsNamesTest, NumbersFollowWhatHappens) {
  StartServer();
  const std::string id = Submit(Spec("a")).id();
  Submit(Spec("b"));
  EXPECT_TRUE(Eventually([&] { return Metric("shardmax_jobs{state=\"pending\"}") == 2; }));
  auto pool = NewPool("p", "s", 3);
  ASSERT_TRUE(pool->AwaitAssignment().has_value());
  EXPECT_TRUE(Eventually([&] { return Metric("shardmax_pool_ranks{state=\"busy\"}") == 3; }));
  EXPECT_TRUE(Eventually([&] { return Metric("shardmax_jobs{state=\"running\"}") == 1; }));
  EXPECT_EQ(Metric("shardmax_job_queue_wait_seconds_count"), 1);
  pool->SendEnded(id, 1, v1::JobEnded::OUTCOME_SUCCEEDED);
  AwaitState(id, v1::SUCCEEDED);
  EXPECT_EQ(Metric("shardmax_jobs_submitted_total"), 2);
  EXPECT_EQ(Metric("shardmax_jobs_finished_total{state=\"succeeded\"}"), 1);
  EXPECT_EQ(Metric("shardmax_rpcs_total{code=\"OK\",method=\"JobService/SubmitJob\"}"), 2);
  EXPECT_EQ(Metric("shardmax_rpc_seconds_count{method=\"JobService/SubmitJob\"}"), 2);
  EXPECT_GT(Metric("shardmax_resident_memory_bytes"), 1e6);
  pool->SendGoodbye("bye");
  EXPECT_TRUE(Eventually([&] { return Metric("shardmax_pool_silence_seconds{pool=\"p\"}") == -1; }))
      << "a pool that left";
}

}  // namespace
}  // namespace shardmax
