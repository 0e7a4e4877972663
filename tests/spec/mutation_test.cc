// Specs as damaged files give them: nothing may crash or print, and what is found valid must be usable.
#include <google/protobuf/util/message_differencer.h>

#include <random>

#include "tests/spec/sample_specs.h"

namespace shardmax {
namespace {

using google::protobuf::util::MessageDifferencer;
namespace v1 = shardmax::v1;

constexpr int kRounds = 20000;

// A valid job that uses most fields.
v1::JobSpec Seed() {
  return Resolved(MinimalWith(R"(train {
      steps: 500 loss { preset: SV_AM_SOFTMAX } optimizer { sgd { momentum: 0.9 nesterov: true } }
      schedule { warmup_steps: 10 step { milestones: [100, 200] } } validation { features: "a" labels: "b" } })"));
}

// One to four random edits: a byte replaced, inserted, removed, a digit or sign changed, a run copied elsewhere, or the
// text cut.
std::string Mutated(std::string text, std::mt19937& random) {
  const auto below = [&](size_t n) { return n == 0 ? 0 : random() % n; };
  const std::string common = "0123456789.-{}[]:,\"\\ \n#e_aN";
  const auto byte = [&] { return below(4) == 0 ? static_cast<char>(below(256)) : common[below(common.size())]; };
  for (size_t edits = 1 + below(4); edits > 0; --edits) {
    const size_t at = below(text.size());
    switch (below(12)) {
      case 0:
        text.resize(at);
        break;
      case 1:
      case 2:
        text.insert(at, text.substr(below(text.size()), below(40)));
        break;
      case 3:
      case 4:
        text.erase(at, 1 + below(3));
        break;
      case 5:
        text.insert(at, 1, byte());
        break;
      case 6:
      case 7:
      case 8:
        if (const size_t digit = text.find_first_of("0123456789", at); digit != std::string::npos) {
          text.replace(digit, below(2), 1, "-.0123456789"[below(12)]);
        }
        break;
      default:
        if (!text.empty()) text[at] = byte();
    }
  }
  return text;
}

struct Counts {
  int parsed = 0;
  int valid = 0;
};

void CheckOne(const std::string& text, SpecFormat format, Counts& counts) {
  const auto spec = ParseJobSpec(text, format, "job");
  if (!spec.ok()) {
    ASSERT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << text;
    ASSERT_THAT(Message(spec.status()), testing::StartsWith("job: ")) << text;
    return;
  }
  ++counts.parsed;
  const auto mistakes = Mistakes(*spec);
  const auto resolved = ResolveJobSpec(*spec);
  ASSERT_EQ(mistakes.empty(), resolved.ok()) << text << "\n" << resolved.status();
  if (!resolved.ok()) return;
  ++counts.valid;
  for (const v1::JobSpec& written : {*spec, *resolved}) {
    const auto again = ParseJobSpec(JobSpecToJson(written), SpecFormat::kJson, "job");
    ASSERT_TRUE(again.ok()) << text << "\n" << again.status();
    ASSERT_TRUE(MessageDifferencer::Equals(*again, written)) << text << "\n" << JobSpecToJson(written);
  }
}

void CheckMutations(const std::string& text, SpecFormat format, uint32_t seed) {
  std::mt19937 random(seed);
  Counts counts;
  testing::internal::CaptureStderr();
  for (int round = 0; round < kRounds && !testing::Test::HasFatalFailure(); ++round) {
    SCOPED_TRACE(fmt::format("seed {}, round {}", seed, round));
    CheckOne(Mutated(text, random), format, counts);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  // The edits must neither all miss nor all destroy.
  EXPECT_GT(counts.valid, kRounds / 100);
  EXPECT_GT(counts.parsed - counts.valid, kRounds / 100);
  EXPECT_LT(counts.parsed, kRounds);
}

TEST(DamagedSpec, TextprotoIsRefusedOrResolves) {
  std::string text;
  google::protobuf::TextFormat::PrintToString(Seed(), &text);
  CheckMutations(text, SpecFormat::kTextproto, 20240501);
}

TEST(DamagedSpec, JsonIsRefusedOrResolves) {
  CheckMutations(JobSpecToJson(Seed()), SpecFormat::kJson, 20240502);
}

}  // namespace
}  // namespace shardmax
