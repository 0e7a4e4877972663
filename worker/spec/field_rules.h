// One table of what each scalar field of a job may hold and what it holds when left out. The validator and the
// resolver both read it, and tests hold the comments of job.proto and the table of docs/job-spec.md to it.
#pragma once

#include <google/protobuf/descriptor.h>

#include <optional>
#include <span>
#include <string>

namespace shardmax {

// Numbers between two bounds, each belonging to the range unless it is open. NaN is in no range.
struct NumberRange {
  double low = 0;
  double high = 0;
  bool low_open = false;
  bool high_open = false;

  bool Contains(double value) const;
  // "1 to 65536", "greater than 0, at most 1", "0 to less than 1".
  std::string ToString() const;
};

enum class Content {
  kNumber,  // In `range`.
  kChoice,  // An enumerator or a bool: its type says what is allowed.
  kName,    // Of a job or a pool.
  kPath,    // A file or folder.
};

enum class WhenAbsent {
  kMistake,  // The field is required.
  kDefault,  // Takes `default_value`, or `default_list` if it is a list.
  kPreset,   // Takes what loss.preset says.
  kNothing,  // Stays absent: a member of a oneof, or what need not be there.
};

struct FieldRule {
  const char* field;  // "Loss.scale": the message and the field in package shardmax.v1.
  Content content;
  WhenAbsent when_absent;
  NumberRange range = {};
  double default_value = 0;  // Of an enum its number, of a bool 0 or 1.
  std::span<const double> default_list = {};
};

// Every scalar field that a job can have.
std::span<const FieldRule> FieldRules();

// The rule of `field`. Aborts, naming the field, if the table has none: a new field must get its row first.
const FieldRule& RuleOf(const google::protobuf::FieldDescriptor& field);

// What `field` may hold, to follow "allowed is ". Requires that rule is the rule of field.
std::string AllowedText(const FieldRule& rule, const google::protobuf::FieldDescriptor& field);

// "A, B, C".
std::string EnumeratorNames(const google::protobuf::EnumDescriptor& type);

// "0.1", "1e-8", "2^31 - 1", "pi": a number as messages and documents write it.
std::string NumberText(double value);

}  // namespace shardmax
