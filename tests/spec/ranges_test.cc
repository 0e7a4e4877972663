// The allowed range of every number in a job spec, written out a second time: independently of the validator's table.
#include <google/protobuf/message.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <set>

#include "tests/spec/sample_specs.h"
#include "worker/spec/field_rules.h"

namespace shardmax {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kMaxInt = 2147483647;
constexpr double kTiny = std::numeric_limits<double>::denorm_min();

struct Bounds {
  const char* field;    // As in job.proto.
  const char* path;     // In messages.
  const char* snippet;  // Textproto with @ for the value.
  double lowest;        // Smallest value that is allowed, and the largest.
  double highest;
  const char* allowed;  // In messages.
};

void PrintTo(const Bounds& bounds, std::ostream* out) {
  *out << bounds.path;
}

double Below(double x) {
  return std::nextafter(x, -kInf);
}

#define EVALUATE(protocol) "evaluate { embeddings: 'e' identities: 'i' " protocol " }"

const Bounds kBounds[] = {
    {"JobSpec.priority", "priority", "priority: @", -1000, 1000, "-1000 to 1000"},
    {"JobSpec.min_ranks", "min_ranks", "train { num_classes: 2147483647 } min_ranks: @", 1, kMaxInt, "1 to 2^31 - 1"},
    {"JobSpec.max_ranks", "max_ranks", "max_ranks: @", 1, kMaxInt, "1 to 2^31 - 1"},
    {"JobSpec.max_restarts", "max_restarts", "max_restarts: @", 0, 1000, "0 to 1000"},
    {"Train.num_classes", "train.num_classes", "train { num_classes: @ }", 2, kMaxInt, "2 to 2^31 - 1"},
    {"Train.dim", "train.dim", "train { dim: @ }", 1, 65536, "1 to 65536"},
    {"Train.batch_size", "train.batch_size", "train { batch_size: @ }", 1, 1048576, "1 to 1048576"},
    {"Train.epochs", "train.epochs", "train { epochs: @ }", 1, kMaxInt, "1 to 2^31 - 1"},
    {"Train.steps", "train.steps", "train { steps: @ }", 1, kMaxInt, "1 to 2^31 - 1"},
    {"Train.log_every_steps", "train.log_every_steps", "train { log_every_steps: @ }", 1, kMaxInt, "1 to 2^31 - 1"},
    {"Live.trainers", "train.live.trainers", "train { steps: 9 live { trainers: @ } }", 1, 4096, "1 to 4096"},
    {"Train.cosines_memory_mib", "train.cosines_memory_mib", "train { cosines_memory_mib: @ }", 0, kMaxInt,
     "0 to 2^31 - 1"},
    {"RandomSampling.rate", "train.sampling.random.rate", "train { sampling { random { rate: @ } } }", kTiny, 1,
     "greater than 0, at most 1"},
    {"NearestSampling.rate", "train.sampling.nearest.rate", "train { sampling { nearest { rate: @ } } }", kTiny, 1,
     "greater than 0, at most 1"},
    {"NearestSampling.neighbours", "train.sampling.nearest.neighbours",
     "train { sampling { nearest { rate: 1 neighbours: @ } } }", 1, 1024, "1 to 1024"},
    {"NearestSampling.rebuild_every_steps", "train.sampling.nearest.rebuild_every_steps",
     "train { sampling { nearest { rate: 1 rebuild_every_steps: @ } } }", 1, kMaxInt, "1 to 2^31 - 1"},
    {"Sampling.recall_every_steps", "train.sampling.recall_every_steps",
     "train { sampling { random { rate: 1 } recall_every_steps: @ } }", 0, kMaxInt, "0 to 2^31 - 1"},
    {"Loss.scale", "train.loss.scale", "train { loss { scale: @ } }", kTiny, 1e4, "greater than 0, at most 10000"},
    {"Loss.warmup_steps", "train.loss.warmup_steps", "train { loss { warmup_steps: @ } }", 0, kMaxInt, "0 to 2^31 - 1"},
    {"Margin.m1", "train.loss.margin.m1", "train { loss { margin { m1: @ } } }", 1, 16, "1 to 16"},
    {"Margin.m2", "train.loss.margin.m2", "train { loss { margin { m2: @ } } }", 0, std::numbers::pi, "0 to pi"},
    {"Margin.m3", "train.loss.margin.m3", "train { loss { margin { m3: @ } } }", 0, 2, "0 to 2"},
    {"SupportVector.t", "train.loss.support_vector.t", "train { loss { support_vector { t: @ } } }", 1, 100,
     "1 to 100"},
    {"Focal.gamma", "train.loss.focal.gamma", "train { loss { focal { gamma: @ } } }", 0, 16, "0 to 16"},
    {"HardMining.keep", "train.loss.hard_mining.keep", "train { loss { hard_mining { keep: @ } } }", kTiny, 1,
     "greater than 0, at most 1"},
    {"Sgd.momentum", "train.optimizer.sgd.momentum", "train { optimizer { sgd { momentum: @ } } }", 0, Below(1),
     "0 to less than 1"},
    {"Sgd.weight_decay", "train.optimizer.sgd.weight_decay", "train { optimizer { sgd { weight_decay: @ } } }", 0, 1,
     "0 to 1"},
    {"AdamW.beta1", "train.optimizer.adamw.beta1", "train { optimizer { adamw { beta1: @ } } }", 0, Below(1),
     "0 to less than 1"},
    {"AdamW.beta2", "train.optimizer.adamw.beta2", "train { optimizer { adamw { beta2: @ } } }", 0, Below(1),
     "0 to less than 1"},
    {"AdamW.eps", "train.optimizer.adamw.eps", "train { optimizer { adamw { eps: @ } } }", 1e-37, 1, "1e-37 to 1"},
    {"AdamW.weight_decay", "train.optimizer.adamw.weight_decay", "train { optimizer { adamw { weight_decay: @ } } }", 0,
     1, "0 to 1"},
    {"Schedule.base_lr", "train.schedule.base_lr", "train { schedule { base_lr: @ } }", kTiny, 1e6,
     "greater than 0, at most 1000000"},
    {"Schedule.warmup_steps", "train.schedule.warmup_steps", "train { schedule { warmup_steps: @ } }", 0, kMaxInt,
     "0 to 2^31 - 1"},
    {"Cosine.end_lr", "train.schedule.cosine.end_lr", "train { schedule { base_lr: 1000000 cosine { end_lr: @ } } }", 0,
     1e6, "0 to 1000000"},
    {"StepDecay.milestones", "train.schedule.step.milestones[0]", "train { schedule { step { milestones: @ } } }", 0,
     kMaxInt, "0 to 2^31 - 1"},
    {"StepDecay.gamma", "train.schedule.step.gamma", "train { schedule { step { milestones: 1 gamma: @ } } }", kTiny, 1,
     "greater than 0, at most 1"},
    {"Polynomial.power", "train.schedule.polynomial.power", "train { schedule { polynomial { power: @ } } }", kTiny, 16,
     "greater than 0, at most 16"},
    {"Polynomial.end_lr", "train.schedule.polynomial.end_lr",
     "train { schedule { base_lr: 1000000 polynomial { end_lr: @ } } }", 0, 1e6, "0 to 1000000"},
    {"Checkpoint.every_steps", "train.checkpoint.every_steps", "train { checkpoint { every_steps: @ } }", 0, kMaxInt,
     "0 to 2^31 - 1"},
    {"Checkpoint.keep", "train.checkpoint.keep", "train { checkpoint { keep: @ } }", 1, kMaxInt, "1 to 2^31 - 1"},
    {"Init.seed", "train.init.seed", "train { init { seed: @ } }", 0, 4294967295, "0 to 2^32 - 1"},
    {"Init.stddev", "train.init.stddev", "train { init { stddev: @ } }", kTiny, 1e3, "greater than 0, at most 1000"},
    {"Verification.num_pairs", "evaluate.verification.num_pairs", EVALUATE("verification { num_pairs: @ }"), 2, kMaxInt,
     "2 to 2^31 - 1"},
    {"Verification.seed", "evaluate.verification.seed", EVALUATE("verification { seed: @ }"), 0, 4294967295,
     "0 to 2^32 - 1"},
    {"Verification.folds", "evaluate.verification.folds", EVALUATE("verification { folds: @ }"), 2, 1000, "2 to 1000"},
    {"Identification.probe_identities", "evaluate.identification.probe_identities",
     EVALUATE("identification { probe_identities: @ }"), 1, kMaxInt, "1 to 2^31 - 1"},
    {"Identification.seed", "evaluate.identification.seed", EVALUATE("identification { distractors: 'd' seed: @ }"), 0,
     4294967295, "0 to 2^32 - 1"},
    {"Identification.distractor_counts", "evaluate.identification.distractor_counts[0]",
     EVALUATE("identification { distractors: 'd' distractor_counts: @ }"), 1, kMaxInt, "1 to 2^31 - 1"},
    {"Identification.max_rank", "evaluate.identification.max_rank",
     EVALUATE("identification { distractors: 'd' max_rank: @ }"), 1, 10000, "1 to 10000"},
    {"Identification.fars", "evaluate.identification.fars[0]", EVALUATE("identification { distractors: 'd' fars: @ }"),
     kTiny, 1, "greater than 0, at most 1"},
    {"AllPairs.fprs", "evaluate.all_pairs.fprs[0]", EVALUATE("all_pairs { fprs: @ }"), kTiny, 1,
     "greater than 0, at most 1"},
    {"Verification.fars", "evaluate.verification.fars[0]", EVALUATE("verification { fars: @ }"), kTiny, 1,
     "greater than 0, at most 1"},
};

const google::protobuf::FieldDescriptor& FieldOf(const Bounds& bounds) {
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  const auto* field = pool->FindFieldByName(std::string("shardmax.v1.") + bounds.field);
  EXPECT_NE(field, nullptr) << bounds.field;
  return *field;
}

std::string With(const Bounds& bounds, const std::string& value) {
  std::string snippet = bounds.snippet;
  return snippet.replace(snippet.find('@'), 1, value);
}

// Exact, so that parsing gives the same number.
std::string Exactly(double value) {
  return fmt::format("{}", value);
}

class RangeTest : public testing::TestWithParam<Bounds> {
 protected:
  bool is_double() const { return FieldOf(GetParam()).cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_DOUBLE; }
  bool is_unsigned() const {
    return FieldOf(GetParam()).cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_UINT32;
  }
  double min_of_type() const { return is_double() ? -kInf : is_unsigned() ? 0 : -2147483648.0; }
  double max_of_type() const { return is_double() ? kInf : is_unsigned() ? 4294967295 : kMaxInt; }
  double next(double value, double towards) const {
    return is_double() ? std::nextafter(value, towards) : value + (towards > 0 ? 1 : -1);
  }
  void ExpectRefused(const std::string& value, const std::string& shown) {
    EXPECT_THAT(Mistakes(MinimalWith(With(GetParam(), value))),
                ElementsAre(fmt::format("{} is {}: allowed is {}", GetParam().path, shown, GetParam().allowed)));
  }
};

TEST_P(RangeTest, TakesBothEnds) {
  for (double value : {GetParam().lowest, GetParam().highest}) {
    EXPECT_THAT(Mistakes(MinimalWith(With(GetParam(), Exactly(value)))), IsEmpty()) << value;
  }
}

TEST_P(RangeTest, RefusesTheFirstValueBeyondEitherEndAndWhatIsNotFinite) {
  if (GetParam().lowest > min_of_type()) {
    const double below = next(GetParam().lowest, -kInf);
    ExpectRefused(Exactly(below), NumberText(below));
  }
  if (GetParam().highest < max_of_type()) {
    const double above = next(GetParam().highest, kInf);
    ExpectRefused(Exactly(above), NumberText(above));
  }
  if (!is_double()) return;
  ExpectRefused("nan", "nan");
  ExpectRefused("inf", "inf");
  ExpectRefused("-inf", "-inf");
  ExpectRefused("1e400", "inf");
}

TEST_P(RangeTest, BothEndsComeBackFromJson) {
  for (double value : {GetParam().lowest, GetParam().highest}) {
    const auto resolved = Resolved(MinimalWith(With(GetParam(), Exactly(value))));
    const auto again = ParseJobSpec(JobSpecToJson(resolved), SpecFormat::kJson, "job.json");
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->SerializeAsString(), resolved.SerializeAsString()) << value;
  }
}

INSTANTIATE_TEST_SUITE_P(Fields, RangeTest, testing::ValuesIn(kBounds), [](const auto& info) {
  std::string name = info.param.field;
  name[name.find('.')] = '_';
  return name;
});

TEST(Ranges, CoverEveryNumberOfAJob) {
  std::set<std::string> tested;
  for (const Bounds& bounds : kBounds) tested.insert(bounds.field);
  for (const FieldRule& rule : FieldRules()) {
    EXPECT_EQ(tested.contains(rule.field), rule.content == Content::kNumber) << rule.field;
  }
}

}  // namespace
}  // namespace shardmax
