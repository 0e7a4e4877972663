#include "worker/data/npy_header.h"

#include <string>

#include "worker/base/status.h"
#include "worker/data/quote.h"

namespace shardmax {
namespace {

struct TypeEntry {
  NpyType dtype;
  std::string_view descr;
  std::string_view name;
  int64_t bytes;
};

constexpr TypeEntry kTypes[] = {{NpyType::kFloat32, "<f4", "float32", 4},
                                {NpyType::kFloat16, "<f2", "float16", 2},
                                {NpyType::kInt32, "<i4", "int32", 4},
                                {NpyType::kInt64, "<i8", "int64", 8}};

const TypeEntry& EntryOf(NpyType dtype) {
  for (const TypeEntry& entry : kTypes) {
    if (entry.dtype == dtype) return entry;
  }
  return kTypes[0];
}

class DictParser {
 public:
  explicit DictParser(std::string_view text) : rest_(text) {}

  absl::StatusOr<NpyHeader> Parse() {
    if (!Take('{')) return Expected("{");
    while (!Take('}')) {
      SHARDMAX_RETURN_IF_ERROR(ParseItem());
      if (Take(',')) continue;
      if (!Take('}')) return Expected(", or }");
      break;
    }
    SkipSpace();
    if (!rest_.empty()) return Expected("the end of the header");
    if (!have_descr_) return InvalidArgument("header has no key 'descr'");
    if (!have_order_) return InvalidArgument("header has no key 'fortran_order'");
    if (!have_shape_) return InvalidArgument("header has no key 'shape'");
    return header_;
  }

 private:
  void SkipSpace() {
    const size_t first = rest_.find_first_not_of(" \t\r\n");
    rest_.remove_prefix(first == std::string_view::npos ? rest_.size() : first);
  }

  bool Take(char c) {
    SkipSpace();
    if (!rest_.starts_with(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }

  absl::Status Expected(const char* what) const {
    return InvalidArgument("header is not the dict that numpy writes: expected {} at {}", what, Quoted(rest_));
  }

  absl::StatusOr<std::string_view> ParseString() {
    SkipSpace();
    const char quote = rest_.empty() ? '\0' : rest_.front();
    if (quote != '\'' && quote != '"') return Expected("a string");
    const size_t end = rest_.find(quote, 1);
    if (end == std::string_view::npos) return Expected("a string that ends");
    const std::string_view content = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 1);
    return content;
  }

  absl::Status ParseItem() {
    SHARDMAX_ASSIGN_OR_RETURN(const std::string_view key, ParseString());
    if (!Take(':')) return Expected(":");
    bool* have = key == "descr"           ? &have_descr_
                 : key == "fortran_order" ? &have_order_
                 : key == "shape"         ? &have_shape_
                                          : nullptr;
    if (have == nullptr) return InvalidArgument("header has the unknown key {}", Quoted(key));
    if (*have) return InvalidArgument("header has the key {} twice", Quoted(key));
    *have = true;
    if (have == &have_descr_) return ParseDescr();
    return have == &have_order_ ? ParseOrder() : ParseShape();
  }

  absl::Status ParseDescr() {
    SHARDMAX_ASSIGN_OR_RETURN(const std::string_view descr, ParseString());
    for (const TypeEntry& entry : kTypes) {
      if (entry.descr != descr) continue;
      header_.dtype = entry.dtype;
      return absl::OkStatus();
    }
    if (descr.starts_with('>')) {
      return InvalidArgument("dtype {} is big-endian: save it as little-endian float32, float16, int32 or int64",
                             Quoted(descr));
    }
    return InvalidArgument(
        "dtype {} is not supported: allowed are float32 (<f4), float16 (<f2), int32 (<i4) and int64 (<i8)",
        Quoted(descr));
  }

  absl::Status ParseOrder() {
    SkipSpace();
    if (rest_.starts_with("False")) {
      rest_.remove_prefix(5);
      return absl::OkStatus();
    }
    if (rest_.starts_with("True")) {
      return InvalidArgument("is in Fortran order: save it in C order (numpy.ascontiguousarray)");
    }
    return Expected("True or False");
  }

  absl::Status ParseShape() {
    if (!Take('(')) return Expected("(");
    int ndim = 0;
    bool comma = true;
    while (!Take(')')) {
      if (!comma) return Expected(", or )");
      SHARDMAX_ASSIGN_OR_RETURN(const int64_t dimension, ParseDimension());
      if (ndim < 2) header_.shape[ndim] = dimension;
      ++ndim;
      comma = Take(',');
    }
    // Without a comma, (5) is a number in Python, not a tuple.
    if (ndim == 1 && !comma) return InvalidArgument("header is not the dict that numpy writes: 'shape' is not a tuple");
    if (ndim != 1 && ndim != 2) return InvalidArgument("has {} dimensions: allowed are 1 and 2", ndim);
    header_.ndim = ndim;
    return absl::OkStatus();
  }

  absl::StatusOr<int64_t> ParseDimension() {
    SkipSpace();
    int64_t value = 0;
    size_t digits = 0;
    for (; digits < rest_.size() && rest_[digits] >= '0' && rest_[digits] <= '9'; ++digits) {
      if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, rest_[digits] - '0', &value)) {
        return InvalidArgument("a dimension of 'shape' is larger than 2^63 - 1");
      }
    }
    if (digits == 0) return Expected("a dimension, 0 or more");
    rest_.remove_prefix(digits);
    if (rest_.starts_with('L')) rest_.remove_prefix(1);
    return value;
  }

  std::string_view rest_;
  NpyHeader header_;
  bool have_descr_ = false;
  bool have_order_ = false;
  bool have_shape_ = false;
};

}  // namespace

std::string_view NpyTypeName(NpyType dtype) {
  return EntryOf(dtype).name;
}

int64_t NpyItemBytes(NpyType dtype) {
  return EntryOf(dtype).bytes;
}

absl::StatusOr<NpyHeader> ParseNpyHeader(std::string_view text) {
  return DictParser(text).Parse();
}

}  // namespace shardmax
