// Errors as values: macros to pass them on, and constructors that format their message.
//
// Messages say which field, file, row, rank or peer is wrong and what to do. Exceptions stop at third-party edges.
#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns from the enclosing function when `expr` (an absl::Status) is not OK.
#define SHARDMAX_RETURN_IF_ERROR(expr)                                  \
  do {                                                                  \
    if (absl::Status shardmax_status = (expr); !shardmax_status.ok()) { \
      return shardmax_status;                                           \
    }                                                                   \
  } while (false)

// `SHARDMAX_ASSIGN_OR_RETURN(auto x, F());` declares x from an absl::StatusOr, or returns its error. Two statements:
// use it inside braces only.
#define SHARDMAX_ASSIGN_OR_RETURN(lhs, expr) \
  SHARDMAX_ASSIGN_OR_RETURN_IMPL(SHARDMAX_CONCAT(shardmax_or_, __LINE__), lhs, expr)
#define SHARDMAX_CONCAT(a, b) SHARDMAX_CONCAT_IMPL(a, b)
#define SHARDMAX_CONCAT_IMPL(a, b) a##b
#define SHARDMAX_ASSIGN_OR_RETURN_IMPL(result, lhs, expr) \
  auto result = (expr);                                   \
  if (!result.ok()) {                                     \
    return std::move(result).status();                    \
  }                                                       \
  lhs = std::move(result).value()

namespace shardmax {

// A status of `code` with a formatted message. `Error(absl::StatusCode::kNotFound, "{}: no such file", path)`.
template <typename... Args>
absl::Status Error(absl::StatusCode code, fmt::format_string<Args...> format, Args&&... args) {
  return absl::Status(code, fmt::format(format, std::forward<Args>(args)...));
}

// What the caller passed is wrong in itself: a spec, a file's content, a shape.
template <typename... Args>
absl::Status InvalidArgument(fmt::format_string<Args...> format, Args&&... args) {
  return Error(absl::StatusCode::kInvalidArgument, format, std::forward<Args>(args)...);
}

// A status for a failed system call: the message, then what errno says.
absl::Status ErrnoError(int error_number, const std::string& what);

// The same error with `context` and ": " before its message; OK stays OK.
absl::Status Annotate(const absl::Status& status, const std::string& context);

// The message as a std::string (absl's string_view is not std's in this build).
std::string Message(const absl::Status& status);

}  // namespace shardmax
