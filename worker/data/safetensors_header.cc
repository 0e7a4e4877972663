#include "worker/data/safetensors_header.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_join.h"
#include "worker/base/status.h"
#include "worker/data/quote.h"

namespace shardmax {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxDimensions = 32;

// Bytes of one value; none for an unknown dtype.
std::optional<uint64_t> BytesOfDtype(std::string_view dtype) {
  struct Entry {
    std::string_view name;
    uint64_t bytes;
  };
  static constexpr Entry kEntries[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
                                       {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
                                       {"U32", 4},  {"F32", 4}, {"F64", 8}, {"I64", 8},     {"U64", 8}};
  for (const Entry& entry : kEntries) {
    if (entry.name == dtype) return entry.bytes;
  }
  return std::nullopt;
}

// Takes the parser's events and keeps only what the format allows, so that a hostile header can neither nest deeply nor
// build a tree.
class HeaderHandler : public nlohmann::json_sax<Json> {
 public:
  absl::Status TakeStatus() { return std::move(status_); }
  SafetensorsTensors TakeTensors() { return std::move(tensors_); }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool /*value*/) override { return Unexpected("a boolean"); }
  bool number_integer(int64_t /*value*/) override { return Unexpected("a negative number"); }
  bool number_float(double /*value*/, const std::string& /*text*/) override {
    return Unexpected("a number that is not a whole one below 2^64");
  }
  bool binary(Json::binary_t& /*value*/) override { return Unexpected("binary data"); }

  bool number_unsigned(uint64_t value) override {
    if (place_ != Place::kNumbers) return Unexpected("a number");
    if (numbers_->size() == kMaxDimensions) return Fail(InvalidArgument("header: {} has too many values", Where()));
    numbers_->push_back(value);
    return true;
  }

  bool string(std::string& value) override {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kTensor || field_ != "dtype") return Unexpected("a string");
    dtype_ = std::move(value);
    return true;
  }

  bool start_object(size_t /*size*/) override {
    switch (place_) {
      case Place::kBegin:
        place_ = Place::kTop;
        return true;
      case Place::kTop:
        place_ = name_ == "__metadata__" ? Place::kMetadata : Place::kTensor;
        keys_.clear();
        dtype_.clear();
        shape_.clear();
        offsets_.clear();
        return true;
      default:
        return Unexpected("an object");
    }
  }

  bool key(std::string& value) override {
    if (place_ == Place::kTop) {
      name_ = value;
      field_.clear();
      return names_.insert(std::move(value)).second || Fail(InvalidArgument("header has {} twice", Quoted(name_)));
    }
    field_ = value;
    if (place_ == Place::kTensor && value != "dtype" && value != "shape" && value != "data_offsets") {
      return Fail(InvalidArgument("header: {} is an unknown key", Where()));
    }
    return keys_.insert(std::move(value)).second || Fail(InvalidArgument("header has {} twice", Where()));
  }

  bool start_array(size_t /*size*/) override {
    if (place_ != Place::kTensor || field_ == "dtype") return Unexpected("an array");
    numbers_ = field_ == "shape" ? &shape_ : &offsets_;
    place_ = Place::kNumbers;
    return true;
  }

  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor) {
      if (absl::Status status = AddTensor(); !status.ok()) {
        return Fail(Annotate(status, fmt::format("tensor {}", Quoted(name_))));
      }
    }
    place_ = Place::kTop;
    return true;
  }

  bool parse_error(size_t position, const std::string& /*token*/, const Json::exception& /*error*/) override {
    return Fail(InvalidArgument("header is not JSON: syntax error at its byte {}", position));
  }

 private:
  enum class Place { kBegin, kTop, kMetadata, kTensor, kNumbers };

  bool Fail(absl::Status status) {
    status_ = std::move(status);
    return false;
  }

  std::string Where() const {
    if (place_ == Place::kBegin) return "the top level";
    return field_.empty() ? Quoted(name_) : fmt::format("{} of {}", Quoted(field_), Quoted(name_));
  }

  bool Unexpected(const char* what) { return Fail(InvalidArgument("header: {} holds {}", Where(), what)); }

  absl::Status AddTensor() {
    for (const char* field : {"dtype", "shape", "data_offsets"}) {
      if (!keys_.contains(field)) return InvalidArgument("has no {}", Quoted(field));
    }
    const std::optional<uint64_t> item_bytes = BytesOfDtype(dtype_);
    if (!item_bytes) return InvalidArgument("has the unknown dtype {}", Quoted(dtype_));
    uint64_t bytes = *item_bytes;
    for (uint64_t dimension : shape_) {
      if (dimension > INT64_MAX || __builtin_mul_overflow(bytes, dimension, &bytes)) {
        return InvalidArgument("shape [{}] of {} is larger than any file", absl::StrJoin(shape_, ", "), dtype_);
      }
    }
    if (offsets_.size() != 2) return InvalidArgument("data_offsets has {} values, not 2", offsets_.size());
    if (offsets_[0] > offsets_[1] || offsets_[1] > INT64_MAX) {
      return InvalidArgument("data_offsets [{}] is not a range", absl::StrJoin(offsets_, ", "));
    }
    if (offsets_[1] - offsets_[0] != bytes) {
      return InvalidArgument("data_offsets [{}] hold {} bytes, shape [{}] of {} needs {}",
                             absl::StrJoin(offsets_, ", "), offsets_[1] - offsets_[0], absl::StrJoin(shape_, ", "),
                             dtype_, bytes);
    }
    tensors_[name_] = {
        dtype_, {shape_.begin(), shape_.end()}, static_cast<int64_t>(offsets_[0]), static_cast<int64_t>(bytes)};
    return absl::OkStatus();
  }

  absl::Status status_;
  SafetensorsTensors tensors_;
  std::set<std::string> names_;

  Place place_ = Place::kBegin;
  std::string name_;   // The key at the top level that the parser is in.
  std::string field_;  // The key below it.
  std::set<std::string> keys_;
  std::string dtype_;
  std::vector<uint64_t> shape_;
  std::vector<uint64_t> offsets_;
  std::vector<uint64_t>* numbers_ = nullptr;
};

// Together the tensors must be the data, without gap or overlap.
absl::Status CheckTiling(const SafetensorsTensors& tensors, int64_t data_bytes) {
  std::vector<std::pair<int64_t, const SafetensorsTensors::value_type*>> by_offset;
  for (const auto& item : tensors) by_offset.emplace_back(item.second.offset, &item);
  std::sort(by_offset.begin(), by_offset.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first, a.second->second.bytes) < std::pair(b.first, b.second->second.bytes);
  });
  int64_t end = 0;
  for (const auto& [offset, item] : by_offset) {
    const auto& [name, tensor] = *item;
    if (offset != end) {
      return InvalidArgument("tensor {} begins at byte {} of the data, {} the end of the one before it, {}",
                             Quoted(name), offset, offset < end ? "before" : "after", end);
    }
    if (tensor.bytes > data_bytes - end) {
      return InvalidArgument("truncated: tensor {} needs {} bytes of data from byte {} on, the file has {}",
                             Quoted(name), tensor.bytes, offset, data_bytes);
    }
    end += tensor.bytes;
  }
  if (end != data_bytes) return InvalidArgument("has {} bytes of data, its tensors need {}", data_bytes, end);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SafetensorsTensors> ParseSafetensorsHeader(std::string_view json, int64_t data_bytes) {
  HeaderHandler handler;
  if (!Json::sax_parse(json.begin(), json.end(), &handler)) return handler.TakeStatus();
  SafetensorsTensors tensors = handler.TakeTensors();
  SHARDMAX_RETURN_IF_ERROR(CheckTiling(tensors, data_bytes));
  return tensors;
}

std::string Describe(const SafetensorsTensor& tensor) {
  return fmt::format("{} [{}]", tensor.dtype, absl::StrJoin(tensor.shape, ", "));
}

}  // namespace shardmax
