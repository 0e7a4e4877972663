// The comments of job.proto and the table of docs/job-spec.md say what the validator and the resolver do.
#include <google/protobuf/descriptor.pb.h>

#include <fstream>
#include <map>
#include <sstream>

#include "tests/spec/sample_specs.h"
#include "worker/spec/field_rules.h"
#include "worker/spec/presets.h"

namespace shardmax {
namespace {

using google::protobuf::FieldDescriptor;
using testing::HasSubstr;
namespace v1 = shardmax::v1;

// The words of `text` with one space between them.
std::string OnOneLine(const std::string& text) {
  std::istringstream words(text);
  std::string line;
  for (std::string word; words >> word;) line += (line.empty() ? "" : " ") + word;
  return line;
}

// The comments of job.proto, each as one line, by "Loss.scale".
std::map<std::string, std::string> ProtoComments() {
  google::protobuf::FileDescriptorSet set;
  std::ifstream stream(SHARDMAX_JOB_PROTO_COMMENTS, std::ios::binary);
  EXPECT_TRUE(set.ParseFromIstream(&stream));
  EXPECT_EQ(set.file_size(), 1);
  const google::protobuf::FileDescriptorProto& file = set.file(0);
  std::map<std::string, std::string> comments;
  for (const auto& location : file.source_code_info().location()) {
    // A field is "message_type[i].field[k]".
    const auto& path = location.path();
    if (path.size() != 4 || path[0] != file.kMessageTypeFieldNumber) continue;
    const auto& type = file.message_type(path[1]);
    if (path[2] != type.kFieldFieldNumber) continue;
    const std::string text = location.leading_comments() + location.trailing_comments();
    comments[type.name() + "." + type.field(path[3]).name()] = OnOneLine(text);
  }
  return comments;
}

const FieldDescriptor& FieldOf(const FieldRule& rule) {
  const auto* field =
      google::protobuf::DescriptorPool::generated_pool()->FindFieldByName(std::string("shardmax.v1.") + rule.field);
  EXPECT_NE(field, nullptr) << rule.field;
  return *field;
}

std::string DefaultText(const FieldRule& rule) {
  const FieldDescriptor& field = FieldOf(rule);
  if (field.is_repeated()) {
    std::string texts;
    for (const double value : rule.default_list) texts += (texts.empty() ? "" : ", ") + NumberText(value);
    return texts;
  }
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_BOOL) return rule.default_value != 0 ? "true" : "false";
  if (const auto* choices = field.enum_type())
    return choices->FindValueByNumber(static_cast<int>(rule.default_value))->name();
  return NumberText(rule.default_value);
}

std::string Capitalised(std::string text) {
  text[0] = static_cast<char>(std::toupper(text[0]));
  return text;
}

TEST(ProtoComments, StateTheRangeAndTheDefaultOfEachField) {
  const auto comments = ProtoComments();
  for (const FieldRule& rule : FieldRules()) {
    SCOPED_TRACE(rule.field);
    ASSERT_TRUE(comments.contains(rule.field));
    const std::string& comment = comments.at(rule.field);
    if (rule.content == Content::kNumber) {
      EXPECT_THAT(comment,
                  testing::AnyOf(HasSubstr(rule.range.ToString()), HasSubstr(Capitalised(rule.range.ToString()))));
    }
    if (rule.content == Content::kName) {
      EXPECT_THAT(comment, HasSubstr(AllowedText(rule, FieldOf(rule))));
    }
    switch (rule.when_absent) {
      case WhenAbsent::kMistake:
        EXPECT_THAT(comment, HasSubstr("Required."));
        break;
      case WhenAbsent::kDefault:
        EXPECT_THAT(comment, testing::AnyOf(HasSubstr("Default: " + DefaultText(rule) + "."),
                                            HasSubstr("Default: " + DefaultText(rule) + " (")));
        break;
      case WhenAbsent::kPreset:
        EXPECT_THAT(comment, HasSubstr("Preset: "));
        break;
      case WhenAbsent::kNothing:
        break;
    }
  }
}

std::string Document() {
  std::ifstream file(SHARDMAX_JOB_SPEC_DOCUMENT);
  EXPECT_TRUE(file.is_open());
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// The table rows "| `train.loss.scale` | … |" of the document, each split at its bars, by the last part of the path
// with its message: "Loss.scale".
std::map<std::string, std::vector<std::string>> DocumentedFields(const std::string& document) {
  std::map<std::string, std::vector<std::string>> rows;
  std::istringstream lines(document);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("## Presets")) break;
    if (!line.starts_with("| `")) continue;
    std::vector<std::string> cells;
    std::istringstream parts(line.substr(2));
    for (std::string cell; std::getline(parts, cell, '|');) cells.push_back(OnOneLine(cell));
    const google::protobuf::Descriptor* type = v1::JobSpec::descriptor();
    const FieldDescriptor* field = nullptr;
    std::istringstream path(cells[0].substr(1, cells[0].size() - 2));
    for (std::string part; type != nullptr && std::getline(path, part, '.'); type = field->message_type()) {
      field = type->FindFieldByName(part);
      if (field == nullptr) {
        ADD_FAILURE() << cells[0] << " is not a field";
        break;
      }
    }
    if (field != nullptr) rows[field->containing_type()->name() + "." + field->name()] = cells;
  }
  return rows;
}

TEST(JobSpecDocument, HasARowForEachField) {
  const auto rows = DocumentedFields(Document());
  for (const FieldRule& rule : FieldRules()) {
    SCOPED_TRACE(rule.field);
    ASSERT_TRUE(rows.contains(rule.field));
    const auto& cells = rows.at(rule.field);  // Path, type, default, allowed, meaning.
    ASSERT_EQ(cells.size(), 5u);
    const FieldDescriptor& field = FieldOf(rule);
    EXPECT_EQ(cells[1], field.enum_type() != nullptr
                            ? field.enum_type()->name()
                            : std::string(field.type_name()) + (field.is_repeated() ? " list" : ""));
    const std::map<WhenAbsent, std::string> absent = {{WhenAbsent::kMistake, "required"},
                                                      {WhenAbsent::kDefault, DefaultText(rule)},
                                                      {WhenAbsent::kPreset, "preset"},
                                                      {WhenAbsent::kNothing, "none"}};
    EXPECT_EQ(cells[2], absent.at(rule.when_absent));
    if (rule.content == Content::kPath) {
      EXPECT_EQ(cells[3], "path");
    } else if (field.enum_type() == v1::Preset_descriptor()) {
      EXPECT_EQ(cells[3], "a name of the table below");
    } else {
      EXPECT_THAT(cells[3], testing::StartsWith(AllowedText(rule, field)));
    }
  }
}

TEST(JobSpecDocument, HasARowForEachPreset) {
  const std::string document = Document();
  for (int i = 0; i < v1::Preset_descriptor()->value_count(); ++i) {
    const auto& preset = *v1::Preset_descriptor()->value(i);
    const PresetValues values = *ValuesOfPreset(static_cast<v1::Preset>(preset.number()));
    EXPECT_THAT(document,
                HasSubstr(fmt::format("\n| `{}` | {} | {} | {} | {} | {} | {} | {} |\n", preset.name(), values.scale,
                                      values.m1, values.m2, values.m3, values.t, values.gamma, values.keep)));
  }
}

TEST(JobSpecDocument, HasAnExampleThatResolves) {
  const std::string document = Document();
  const std::string fence = "```textproto\n";
  size_t examples = 0;
  for (size_t at = document.find(fence); at != std::string::npos; at = document.find(fence, at + 1)) {
    const size_t first = at + fence.size();
    const auto spec = ParseJobSpec(document.substr(first, document.find("```", first) - first), SpecFormat::kTextproto,
                                   "docs/job-spec.md");
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_TRUE(ResolveJobSpec(*spec).ok()) << ResolveJobSpec(*spec).status();
    ++examples;
  }
  EXPECT_EQ(examples, 4u);
}

}  // namespace
}  // namespace shardmax
