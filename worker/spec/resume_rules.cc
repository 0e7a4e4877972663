#include "worker/spec/resume_rules.h"

#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <array>

#include "worker/spec/mistake_list.h"

namespace shardmax {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::OneofDescriptor;

constexpr std::array<std::string_view, 9> kFree = {
    "train.epochs",          "train.steps",   "train.checkpoint",         "train.validation",
    "train.log_every_steps", "train.cosines", "train.cosines_memory_mib", "train.live.trainers",
    "train.storage"};

std::string Shown(const Message& message, const FieldDescriptor& field) {
  const auto& get = *message.GetReflection();
  std::string text;
  if (!field.is_repeated()) {
    if (!get.HasField(message, &field)) return "not set";
    google::protobuf::TextFormat::PrintFieldValueToString(message, &field, -1, &text);
    return text;
  }
  for (int i = 0; i < get.FieldSize(message, &field); ++i) {
    std::string element;
    google::protobuf::TextFormat::PrintFieldValueToString(message, &field, i, &element);
    text += (i == 0 ? "" : ", ") + element;
  }
  return "[" + text + "]";
}

const FieldDescriptor* Chosen(const Message& message, const OneofDescriptor& oneof) {
  return message.GetReflection()->GetOneofFieldDescriptor(message, &oneof);
}

void Compare(const Message& before, const Message& now, const std::string& path, MistakeList& changes) {
  const Descriptor& type = *now.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string field_path = path + "." + field.name();
    if (std::find(kFree.begin(), kFree.end(), field_path) != kFree.end()) continue;
    if (const OneofDescriptor* oneof = field.real_containing_oneof(); oneof != nullptr) {
      const FieldDescriptor* was = Chosen(before, *oneof);
      const FieldDescriptor* is = Chosen(now, *oneof);
      if (was != is) {
        // Told once, at the field that is there now.
        if (is == &field) changes.Add("{} was {}, is {}", path, was == nullptr ? "not set" : was->name(), is->name());
        continue;
      }
      if (is != &field) continue;
    }
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Compare(before.GetReflection()->GetMessage(before, &field), now.GetReflection()->GetMessage(now, &field),
              field_path, changes);
      continue;
    }
    const std::string was = Shown(before, field);
    const std::string is = Shown(now, field);
    if (was != is) changes.Add("{} was {}, is {}", field_path, was, is);
  }
}

}  // namespace

std::vector<std::string> ChangesOfTheJob(const v1::Train& before, const v1::Train& now) {
  MistakeList changes;
  v1::Train before_or_now = before;
  // Without sampling, recall was measured never too.
  if (!before.sampling().has_recall_every_steps() && now.sampling().has_recall_every_steps()) {
    before_or_now.mutable_sampling()->set_recall_every_steps(0);
  }
  // Of a live job it is a limit, which changes no step.
  if (before.has_live() && now.has_live()) before_or_now.set_batch_size(now.batch_size());
  Compare(before_or_now, now, "train", changes);
  return changes.Take();
}

std::vector<std::string> ChangesOfTheLength(const v1::Train& now, int64_t steps_before, int64_t steps_now) {
  MistakeList changes;
  const v1::Schedule& schedule = now.schedule();
  if (steps_now != steps_before && (schedule.has_cosine() || schedule.has_polynomial())) {
    changes.Add("train.{} was {} steps, is {}: the learning rate of every step depends on it (train.schedule.{})",
                now.has_steps() ? "steps" : "epochs", steps_before, steps_now,
                schedule.has_cosine() ? "cosine" : "polynomial");
  }
  return changes.Take();
}

}  // namespace shardmax
