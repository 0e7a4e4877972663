#include "worker/spec/field_rules.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <limits>
#include <numbers>

#include "shardmax/v1/job.pb.h"

namespace shardmax {
namespace {

constexpr double kMaxInt = std::numeric_limits<int32_t>::max();
constexpr double kMaxUint = std::numeric_limits<uint32_t>::max();

constexpr NumberRange kCount = {1, kMaxInt};
constexpr NumberRange kCountOrZero = {0, kMaxInt};
constexpr NumberRange kUnit = {0, 1};

constexpr NumberRange AboveZeroTo(double high) {
  return {.low = 0, .high = high, .low_open = true};
}
constexpr NumberRange ZeroToBelow(double high) {
  return {.low = 0, .high = high, .high_open = true};
}

constexpr FieldRule Required(const char* field, NumberRange range) {
  return {field, Content::kNumber, WhenAbsent::kMistake, range};
}
constexpr FieldRule Default(const char* field, NumberRange range, double value) {
  return {field, Content::kNumber, WhenAbsent::kDefault, range, value};
}
constexpr FieldRule OfPreset(const char* field, NumberRange range) {
  return {field, Content::kNumber, WhenAbsent::kPreset, range};
}
constexpr FieldRule Optional(const char* field, NumberRange range) {
  return {field, Content::kNumber, WhenAbsent::kNothing, range};
}
constexpr FieldRule Choice(const char* field, int value) {
  return {field, Content::kChoice, WhenAbsent::kDefault, {}, static_cast<double>(value)};
}
constexpr FieldRule Path(const char* field, WhenAbsent when_absent) {
  return {field, Content::kPath, when_absent};
}

constexpr FieldRule DefaultList(const char* field, NumberRange range, std::span<const double> values) {
  return {field, Content::kNumber, WhenAbsent::kDefault, range, 0, values};
}

constexpr double kMaxRate = 1e6;
constexpr double kGallerySizes[] = {10, 100, 1000, 10000, 100000, 1000000};
constexpr double kAcceptRates[] = {1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9};

constexpr FieldRule kRules[] = {
    {"JobSpec.name", Content::kName, WhenAbsent::kMistake},
    Default("JobSpec.priority", {-1000, 1000}, 0),
    {"JobSpec.pool", Content::kName, WhenAbsent::kNothing},
    Default("JobSpec.min_ranks", kCount, 1),
    Optional("JobSpec.max_ranks", kCount),
    Default("JobSpec.max_restarts", {0, 1000}, 3),
    Required("Train.num_classes", {2, kMaxInt}),
    Required("Train.dim", {1, 65536}),
    Required("Train.batch_size", {1, 1048576}),
    Optional("Train.epochs", kCount),
    Optional("Train.steps", kCount),
    Choice("Train.precision", v1::FLOAT32),
    Default("Train.log_every_steps", kCount, 1),
    Choice("Train.cosines", v1::AUTO),
    Default("Train.cosines_memory_mib", kCountOrZero, 128),
    Choice("Train.storage", v1::MEMORY),
    Required("RandomSampling.rate", AboveZeroTo(1)),
    Required("NearestSampling.rate", AboveZeroTo(1)),
    Default("NearestSampling.neighbours", {1, 1024}, 64),
    Default("NearestSampling.rebuild_every_steps", kCount, 2000),
    Default("Sampling.recall_every_steps", kCountOrZero, 0),
    Path("Dataset.features", WhenAbsent::kMistake),
    Path("Dataset.labels", WhenAbsent::kMistake),
    Choice("Dataset.shuffle", false),
    Required("Live.trainers", {1, 4096}),
    Path("Validation.features", WhenAbsent::kMistake),
    Path("Validation.labels", WhenAbsent::kMistake),
    Choice("Loss.preset", v1::SOFTMAX),
    OfPreset("Loss.scale", AboveZeroTo(1e4)),
    Choice("Loss.extension", v1::MONOTONE),
    Default("Loss.warmup_steps", kCountOrZero, 0),
    OfPreset("Margin.m1", {1, 16}),
    OfPreset("Margin.m2", {0, std::numbers::pi}),
    OfPreset("Margin.m3", {0, 2}),
    OfPreset("SupportVector.t", {1, 100}),
    OfPreset("Focal.gamma", {0, 16}),
    OfPreset("HardMining.keep", AboveZeroTo(1)),
    Choice("Optimizer.state", v1::FLOAT32),
    Default("Sgd.momentum", ZeroToBelow(1), 0),
    Default("Sgd.weight_decay", kUnit, 0),
    Choice("Sgd.nesterov", false),
    Default("AdamW.beta1", ZeroToBelow(1), 0.9),
    Default("AdamW.beta2", ZeroToBelow(1), 0.999),
    Default("AdamW.eps", {1e-37, 1}, 1e-8),
    Default("AdamW.weight_decay", kUnit, 0.01),
    Default("Schedule.base_lr", AboveZeroTo(kMaxRate), 0.1),
    Default("Schedule.warmup_steps", kCountOrZero, 0),
    Default("Cosine.end_lr", {0, kMaxRate}, 0),
    Required("StepDecay.milestones", kCountOrZero),
    Default("StepDecay.gamma", AboveZeroTo(1), 0.1),
    Default("Polynomial.power", AboveZeroTo(16), 1),
    Default("Polynomial.end_lr", {0, kMaxRate}, 0),
    Default("Checkpoint.every_steps", kCountOrZero, 1000),
    Default("Checkpoint.keep", kCount, 3),
    Default("Init.seed", {0, kMaxUint}, 1),
    Default("Init.stddev", AboveZeroTo(1e3), 0.01),
    Path("Init.weights", WhenAbsent::kNothing),
    Path("Evaluate.embeddings", WhenAbsent::kMistake),
    Path("Evaluate.identities", WhenAbsent::kMistake),
    Path("Verification.pairs", WhenAbsent::kNothing),
    Default("Verification.num_pairs", {2, kMaxInt}, 6000),
    Default("Verification.seed", {0, kMaxUint}, 1),
    Default("Verification.folds", {2, 1000}, 10),
    DefaultList("Verification.fars", AboveZeroTo(1), kAcceptRates),
    Path("Identification.distractors", WhenAbsent::kNothing),
    Optional("Identification.probe_identities", kCount),
    Default("Identification.seed", {0, kMaxUint}, 1),
    DefaultList("Identification.distractor_counts", kCount, kGallerySizes),
    Default("Identification.max_rank", {1, 10000}, 100),
    DefaultList("Identification.fars", AboveZeroTo(1), kAcceptRates),
    Choice("Identification.precision", v1::FLOAT32),
    Path("AllPairs.gallery_embeddings", WhenAbsent::kNothing),
    Path("AllPairs.gallery_identities", WhenAbsent::kNothing),
    DefaultList("AllPairs.fprs", AboveZeroTo(1), kAcceptRates),
    Choice("AllPairs.precision", v1::FLOAT32),
};

}  // namespace

bool NumberRange::Contains(double value) const {
  const bool above = low_open ? value > low : value >= low;
  const bool below = high_open ? value < high : value <= high;
  return above && below;
}

std::string NumberRange::ToString() const {
  if (low_open)
    return fmt::format("greater than {}, {} {}", NumberText(low), high_open ? "less than" : "at most",
                       NumberText(high));
  return fmt::format("{} to {}{}", NumberText(low), high_open ? "less than " : "", NumberText(high));
}

std::span<const FieldRule> FieldRules() {
  return kRules;
}

const FieldRule& RuleOf(const google::protobuf::FieldDescriptor& field) {
  const std::string key = field.containing_type()->name() + "." + field.name();
  for (const FieldRule& rule : kRules) {
    if (key == rule.field) return rule;
  }
  fmt::print(stderr, "job.proto's {} has no row in field_rules.cc\n", key);
  std::abort();
}

std::string AllowedText(const FieldRule& rule, const google::protobuf::FieldDescriptor& field) {
  switch (rule.content) {
    case Content::kNumber:
      return rule.range.ToString();
    case Content::kChoice:
      return field.enum_type() == nullptr ? "true, false" : EnumeratorNames(*field.enum_type());
    case Content::kName:
      return "1 to 64 characters of [A-Za-z0-9._-], starting with a letter or digit";
    case Content::kPath:
      return "a path of 1 to 4096 bytes of UTF-8 without NUL";
  }
  return "";
}

std::string EnumeratorNames(const google::protobuf::EnumDescriptor& type) {
  std::string names;
  for (int i = 0; i < type.value_count(); ++i) {
    names += (i == 0 ? "" : ", ") + type.value(i)->name();
  }
  return names;
}

std::string NumberText(double value) {
  if (value == kMaxInt) return "2^31 - 1";
  if (value == kMaxUint) return "2^32 - 1";
  if (value == std::numbers::pi) return "pi";
  std::string text = fmt::format("{}", value);
  if (const size_t zero = text.find("e-0"); zero != std::string::npos) text.erase(zero + 2, 1);
  return text;
}

}  // namespace shardmax
