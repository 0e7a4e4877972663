#include "worker/spec/job_spec.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "worker/base/status.h"
#include "worker/spec/json_text.h"
#include "worker/spec/text.h"

namespace shardmax {
namespace {

namespace v1 = shardmax::v1;

constexpr size_t kMaxBytes = 1 << 20;
constexpr size_t kMaxErrors = 10;
constexpr size_t kQuotedLineBytes = 200;

// Keeps what would otherwise be printed: the first errors, one a line, each with its position.
class ErrorLines : public google::protobuf::io::ErrorCollector {
 public:
  explicit ErrorLines(const std::string& text) : text_(text) {}

  void AddError(int line, int column, const std::string& message) override {
    if (++count_ > kMaxErrors) return;
    if (!lines_.empty()) lines_ += "\n";
    if (line >= 0) lines_ += PositionOf(text_, OffsetOf(line, column, message)) + ": ";
    lines_ += Printable(message, kQuotedLineBytes);
  }
  const std::string& lines() const { return lines_; }

 private:
  // Of the thing that is wrong. The parser notices an unknown name only when it is past it, often on the next line.
  size_t OffsetOf(int line, int column, const std::string& message) const {
    size_t start = 0;
    for (; line > 0; --line) start = text_.find('\n', start) + 1;
    const size_t noticed = std::min(start + static_cast<size_t>(column), text_.size());
    for (const std::string before : {"has no field named \"", "Unknown enumeration value of \""}) {
      const size_t at = message.find(before);
      if (at == std::string::npos) continue;
      const size_t first = at + before.size();
      const size_t offset = text_.rfind(message.substr(first, message.find('"', first) - first), noticed);
      return offset == std::string::npos ? noticed : offset;
    }
    return noticed;
  }

  const std::string& text_;
  size_t count_ = 0;
  std::string lines_;
};

absl::Status CheckText(const std::string& text) {
  if (text.size() > kMaxBytes) {
    return InvalidArgument("has {} bytes: a job spec has at most {}", text.size(), kMaxBytes);
  }
  const auto is_space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  if (std::all_of(text.begin(), text.end(), is_space)) {
    return InvalidArgument("is empty: a job spec has at least `name`, and `train` or `evaluate`");
  }
  const auto is_control = [&](char c) { return static_cast<unsigned char>(c) < 0x20 && !is_space(c); };
  const auto control = std::find_if(text.begin(), text.end(), is_control);
  const size_t bad = std::min(Utf8PrefixLength(text), static_cast<size_t>(control - text.begin()));
  if (bad < text.size()) {
    return InvalidArgument("{}: is not UTF-8 text (byte 0x{:02x})", PositionOf(text, bad),
                           static_cast<unsigned char>(text[bad]));
  }
  return absl::OkStatus();
}

absl::Status ParseTextproto(const std::string& text, v1::JobSpec* spec) {
  ErrorLines errors(text);
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  if (!parser.ParseFromString(text, spec)) return InvalidArgument("{}", errors.lines());
  return absl::OkStatus();
}

}  // namespace

SpecFormat SpecFormatOf(const std::string& path) {
  return path.ends_with(".json") ? SpecFormat::kJson : SpecFormat::kTextproto;
}

absl::StatusOr<v1::JobSpec> ParseJobSpec(const std::string& text, SpecFormat format, const std::string& name) {
  absl::Status status = CheckText(text);
  v1::JobSpec spec;
  if (status.ok()) status = format == SpecFormat::kJson ? ParseJson(text, &spec) : ParseTextproto(text, &spec);
  SHARDMAX_RETURN_IF_ERROR(Annotate(status, name));
  return spec;
}

std::string JobSpecToJson(const v1::JobSpec& spec) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(spec, &json, options);
  if (!status.ok()) {
    fmt::print(stderr, "JobSpecToJson: {}\n", status.ToString());
    std::abort();
  }
  return json;
}

}  // namespace shardmax
