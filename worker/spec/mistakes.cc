#include <google/protobuf/message.h>

#include <algorithm>

#include "worker/base/status.h"
#include "worker/spec/contradictions.h"
#include "worker/spec/field_rules.h"
#include "worker/spec/job_spec.h"
#include "worker/spec/mistake_list.h"
#include "worker/spec/text.h"

namespace shardmax {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
namespace v1 = shardmax::v1;

constexpr size_t kMaxPathBytes = 4096;
constexpr size_t kQuotedValueBytes = 80;

bool IsPath(const std::string& path) {
  return !path.empty() && path.size() <= kMaxPathBytes && path.find('\0') == std::string::npos &&
         Utf8PrefixLength(path) == path.size();
}

// One value of a field: the field itself, or element `index` of a repeated one.
struct Value {
  const Message& message;
  const FieldDescriptor& field;
  int index = -1;

  double number() const {
    const auto& get = *message.GetReflection();
    const bool one = index < 0;
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return one ? get.GetInt32(message, &field) : get.GetRepeatedInt32(message, &field, index);
      case FieldDescriptor::CPPTYPE_UINT32:
        return get.GetUInt32(message, &field);
      default:
        return one ? get.GetDouble(message, &field) : get.GetRepeatedDouble(message, &field, index);
    }
  }
  std::string text() const { return message.GetReflection()->GetString(message, &field); }
  bool is_enumerator() const {
    if (field.enum_type() == nullptr) return true;  // A bool.
    const int number = message.GetReflection()->GetEnumValue(message, &field);
    return field.enum_type()->FindValueByNumber(number) != nullptr;
  }
};

bool IsAllowed(const FieldRule& rule, const Value& value) {
  switch (rule.content) {
    case Content::kNumber:
      return rule.range.Contains(value.number());
    case Content::kChoice:
      return value.is_enumerator();
    case Content::kName:
      return IsName(value.text());
    case Content::kPath:
      return IsPath(value.text());
  }
  return false;
}

std::string Shown(const FieldRule& rule, const Value& value) {
  switch (rule.content) {
    case Content::kNumber:
      return NumberText(value.number());
    case Content::kChoice:
      return fmt::format("{}", value.message.GetReflection()->GetEnumValue(value.message, &value.field));
    case Content::kName:
    case Content::kPath:
      return fmt::format("\"{}\" ({} bytes)", Printable(value.text(), kQuotedValueBytes), value.text().size());
  }
  return "";
}

void CheckScalar(const Message& message, const FieldDescriptor& field, const std::string& path, MistakeList& mistakes) {
  const FieldRule& rule = RuleOf(field);
  const auto& reflection = *message.GetReflection();
  const std::string allowed = AllowedText(rule, field);
  auto check = [&](const Value& value, const std::string& value_path) {
    if (!IsAllowed(rule, value)) mistakes.Add("{} is {}: allowed is {}", value_path, Shown(rule, value), allowed);
  };
  const int size = field.is_repeated() ? reflection.FieldSize(message, &field) : 0;
  const bool present = field.is_repeated() ? size > 0 : reflection.HasField(message, &field);
  if (!present) {
    if (rule.when_absent == WhenAbsent::kMistake) mistakes.Add("{} is missing: allowed is {}", path, allowed);
    return;
  }
  if (!field.is_repeated()) return check({message, field}, path);
  const size_t first = mistakes.size();
  for (int i = 0; i < size; ++i) check({message, field, i}, fmt::format("{}[{}]", path, i));
  mistakes.Shorten(first, path);
}

// Each field of `message` by itself, and of the messages in it, in the order of job.proto.
void CheckFields(const Message& message, const std::string& path, MistakeList& mistakes) {
  const auto& reflection = *message.GetReflection();
  const auto& unknown = reflection.GetUnknownFields(message);
  if (!unknown.empty()) {
    mistakes.Add("{}: field number {} is not known to this version", path.empty() ? "job" : path,
                 unknown.field(0).number());
  }
  const Descriptor& type = *message.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string field_path = path.empty() ? field.name() : path + "." + field.name();
    if (field.cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      CheckScalar(message, field, field_path, mistakes);
    } else if (reflection.HasField(message, &field)) {
      CheckFields(reflection.GetMessage(message, &field), field_path, mistakes);
    }
  }
}

}  // namespace

std::vector<std::string> Mistakes(const v1::JobSpec& spec) {
  MistakeList mistakes;
  CheckFields(spec, "", mistakes);
  CheckContradictions(spec, mistakes);
  return mistakes.Take();
}

}  // namespace shardmax
