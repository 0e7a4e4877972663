#include "worker/spec/json_text.h"

#include <google/protobuf/util/json_util.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "worker/base/status.h"
#include "worker/spec/field_rules.h"
#include "worker/spec/text.h"

namespace shardmax {
namespace {

constexpr size_t kQuotedJsonBytes = 200;

// Accepts any JSON and remembers where it stops being JSON. protobuf's own parser takes dialects (single quotes, names
// without quotes) and gives no position.
class SyntaxCheck : public nlohmann::json_sax<nlohmann::json> {
 public:
  const std::string& error() const { return error_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override { return true; }
  bool key(string_t&) override { return true; }
  bool end_object() override { return true; }
  bool start_array(size_t) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& e) override {
    error_ = e.what();
    // "[json.exception.parse_error.101] parse error at …": the tag says nothing to a user.
    if (const size_t tag = error_.find("] "); tag != std::string::npos) error_.erase(0, tag + 2);
    return false;
  }

 private:
  std::string error_;
};

// The part of `text` between the end of `before` and the start of `after`; none if either is not there, in that order.
std::optional<std::string> Between(const std::string& text, const std::string& before, const std::string& after) {
  const size_t start = text.find(before);
  if (start == std::string::npos) return std::nullopt;
  const size_t first = start + before.size();
  const size_t last = text.rfind(after);
  if (last == std::string::npos || last < first) return std::nullopt;
  return text.substr(first, last - first);
}

std::string TypeText(const std::string& type) {
  if (type == "TYPE_INT32" || type == "TYPE_UINT32") return "an integer of 32 bits";
  if (type == "TYPE_DOUBLE") return "a number";
  if (type == "TYPE_BOOL") return "true, false";
  const std::string name = type.substr(type.rfind('/') + 1);
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  const auto* choices = pool->FindEnumTypeByName(name);
  if (choices == nullptr) return "an object of " + name;
  return EnumeratorNames(*choices);
}

// protobuf's message in the form that Mistakes() uses. A message of a kind not known here passes as it is.
std::string Reworded(const std::string& message) {
  const std::string path = message.starts_with("(") ? message.substr(1, message.find(')') - 1) : "";
  const std::string dot = path.empty() ? "" : path + ".";
  if (auto field = Between(message, path.empty() ? "" : ") ", ": Cannot find field.")) {
    return fmt::format("{}{}: there is no such field", dot, Printable(*field, kQuotedJsonBytes));
  }
  if (auto field = Between(message, "is already set. Cannot set '", "' for type oneof")) {
    const std::string oneof = Between(message, "oneof field '", "' is already").value_or("_");
    return oneof.starts_with("_")
               ? fmt::format("{}{} is given twice", dot, *field)
               : fmt::format("{}{} is given twice, or beside another {}: exactly one is allowed", dot, *field, oneof);
  }
  if (auto value = Between(message, ": invalid value ", " for type ")) {
    return fmt::format("{} is {}: allowed is {}", path, Printable(*value, kQuotedJsonBytes),
                       TypeText(message.substr(message.rfind(" for type ") + 10)));
  }
  // ": what is wrong" is protobuf's form for the whole file.
  return Printable(message.starts_with(": ") ? message.substr(2) : message, kQuotedJsonBytes);
}

}  // namespace

absl::Status ParseJson(const std::string& text, shardmax::v1::JobSpec* spec) {
  SyntaxCheck syntax;
  if (!nlohmann::json::sax_parse(text, &syntax)) {
    return InvalidArgument("not JSON: {}", Printable(syntax.error(), kQuotedJsonBytes));
  }
  const auto status = google::protobuf::util::JsonStringToMessage(text, spec);
  if (!status.ok()) return InvalidArgument("{}", Reworded(std::string(status.message())));
  return absl::OkStatus();
}

}  // namespace shardmax
