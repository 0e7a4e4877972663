#include <google/protobuf/message.h>

#include <span>

#include "absl/strings/str_join.h"
#include "worker/base/status.h"
#include "worker/spec/field_rules.h"
#include "worker/spec/job_spec.h"
#include "worker/spec/presets.h"

namespace shardmax {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
namespace v1 = shardmax::v1;

// Makes every message that steers training present, so that FillDefaults finds its fields.
void AddMessages(v1::Train& train) {
  v1::Loss& loss = *train.mutable_loss();
  loss.mutable_margin();
  loss.mutable_support_vector();
  loss.mutable_focal();
  loss.mutable_hard_mining();
  v1::Optimizer& optimizer = *train.mutable_optimizer();
  if (optimizer.kind_case() == v1::Optimizer::KIND_NOT_SET) optimizer.mutable_sgd();
  v1::Schedule& schedule = *train.mutable_schedule();
  if (schedule.curve_case() == v1::Schedule::CURVE_NOT_SET) schedule.mutable_constant();
  train.mutable_checkpoint();
  train.mutable_init();
}

void FillPreset(const PresetValues& preset, v1::Loss& loss) {
  v1::Margin& margin = *loss.mutable_margin();
  if (!loss.has_scale()) loss.set_scale(preset.scale);
  if (!margin.has_m1()) margin.set_m1(preset.m1);
  if (!margin.has_m2()) margin.set_m2(preset.m2);
  if (!margin.has_m3()) margin.set_m3(preset.m3);
  if (!loss.support_vector().has_t()) loss.mutable_support_vector()->set_t(preset.t);
  if (!loss.focal().has_gamma()) loss.mutable_focal()->set_gamma(preset.gamma);
  if (!loss.hard_mining().has_keep()) loss.mutable_hard_mining()->set_keep(preset.keep);
}

void FillList(Message& message, const FieldDescriptor& field, std::span<const double> values) {
  const auto& add = *message.GetReflection();
  for (const double value : values) {
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_INT32) {
      add.AddInt32(&message, &field, static_cast<int32_t>(value));
    } else {
      add.AddDouble(&message, &field, value);
    }
  }
}

void SetNumber(Message& message, const FieldDescriptor& field, double value) {
  const auto& set = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return set.SetInt32(&message, &field, static_cast<int32_t>(value));
    case FieldDescriptor::CPPTYPE_UINT32:
      return set.SetUInt32(&message, &field, static_cast<uint32_t>(value));
    case FieldDescriptor::CPPTYPE_BOOL:
      return set.SetBool(&message, &field, value != 0);
    case FieldDescriptor::CPPTYPE_ENUM:
      return set.SetEnumValue(&message, &field, static_cast<int>(value));
    default:
      return set.SetDouble(&message, &field, value);
  }
}

// Every absent scalar field of `message` that has a default, and those of the messages present in it.
void FillDefaults(Message& message) {
  const auto& reflection = *message.GetReflection();
  const auto& type = *message.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const bool is_message = field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    if (field.is_repeated()) {
      if (reflection.FieldSize(message, &field) == 0) FillList(message, field, RuleOf(field).default_list);
      continue;
    }
    if (reflection.HasField(message, &field) != is_message) continue;
    if (is_message) {
      FillDefaults(*reflection.MutableMessage(&message, &field));
    } else if (const FieldRule& rule = RuleOf(field); rule.when_absent == WhenAbsent::kDefault) {
      SetNumber(message, field, rule.default_value);
    }
  }
}

// Removes the defaults of fields that another field makes meaningless.
void ClearReplaced(v1::JobSpec& spec) {
  if (spec.train().init().has_weights()) spec.mutable_train()->mutable_init()->clear_stddev();
  if (spec.evaluate().verification().has_pairs()) {
    v1::Verification& verification = *spec.mutable_evaluate()->mutable_verification();
    verification.clear_num_pairs();
    verification.clear_seed();
  }
}

}  // namespace

absl::StatusOr<v1::JobSpec> ResolveJobSpec(const v1::JobSpec& spec) {
  const std::vector<std::string> mistakes = Mistakes(spec);
  if (!mistakes.empty()) return InvalidArgument("{}", absl::StrJoin(mistakes, "\n"));
  v1::JobSpec resolved = spec;
  if (resolved.has_train()) {
    v1::Train& train = *resolved.mutable_train();
    AddMessages(train);
    // A valid spec names an enumerator.
    FillPreset(*ValuesOfPreset(train.loss().preset()), *train.mutable_loss());
  }
  FillDefaults(resolved);
  ClearReplaced(resolved);
  return resolved;
}

}  // namespace shardmax
