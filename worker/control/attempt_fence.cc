#include "worker/control/attempt_fence.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>

#include "worker/base/status.h"

namespace shardmax {
namespace {

// The number in the file; none if there is none.
std::optional<int32_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  file >> text;
  int32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

absl::Status Replaced(int32_t attempt, int32_t newer, const std::string& folder) {
  return Error(absl::StatusCode::kAborted, "attempt {} has taken over {} from attempt {}", newer, folder, attempt);
}

absl::Status WriteAndSync(const std::string& path, const std::string& text) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return ErrnoError(errno, path);
  absl::Status status;
  if (write(file, text.data(), text.size()) != static_cast<ssize_t>(text.size()) || fsync(file) != 0) {
    status = ErrnoError(errno, path);
  }
  close(file);
  return status;
}

}  // namespace

absl::Status AttemptFence::Announce() const {
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (error) return ErrnoError(error.value(), fmt::format("{}: cannot make the job's folder", folder_));
  if (const auto number = ReadNumber(path()); number.has_value() && *number > attempt_) {
    return Replaced(attempt_, *number, folder_);
  }
  const std::string temporary = fmt::format("{}.{}.tmp", path(), attempt_);
  SHARDMAX_RETURN_IF_ERROR(WriteAndSync(temporary, fmt::format("{}\n", attempt_)));
  if (std::rename(temporary.c_str(), path().c_str()) != 0) return ErrnoError(errno, path());
  return absl::OkStatus();
}

absl::Status AttemptFence::Check() const {
  if (const auto number = ReadNumber(path()); number.has_value()) {
    return *number > attempt_ ? Replaced(attempt_, *number, folder_) : absl::OkStatus();
  }
  if (access(path().c_str(), F_OK) != 0 && errno == ENOENT) {
    return Error(absl::StatusCode::kAborted, "{} is gone: the job was deleted", path());
  }
  return absl::OkStatus();
}

}  // namespace shardmax
