#include "worker/checkpoint/folders.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <functional>
#include <system_error>

#include "worker/base/status.h"
#include "worker/data/file.h"

namespace shardmax {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTemporaryPrefix = ".tmp-";
constexpr std::string_view kSetAsidePrefix = ".old-";
constexpr std::string_view kGonePrefix = ".gone-";

absl::StatusOr<std::vector<std::string>> ListNames(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  if (error == std::errc::no_such_file_or_directory) return names;
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error) return ErrnoError(error.value(), folder);
  return names;
}

absl::Status Rename(const std::string& from, const std::string& to) {
  std::error_code error;
  fs::rename(from, to, error);
  return error ? ErrnoError(error.value(), fmt::format("renaming {} to {}", from, to)) : absl::OkStatus();
}

bool Exists(const std::string& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

// The name of the checkpoint when `name` is `prefix` and one, else empty.
std::string CheckpointAfter(std::string_view prefix, const std::string& name) {
  if (!name.starts_with(prefix)) return "";
  const std::string rest = name.substr(prefix.size());
  return StepOfFolderName(rest) ? rest : "";
}

bool IsRubbish(const std::string& folder, const std::string& name) {
  if (!CheckpointAfter(kTemporaryPrefix, name).empty() || !CheckpointAfter(kGonePrefix, name).empty()) return true;
  const std::string checkpoint = CheckpointAfter(kSetAsidePrefix, name);
  return !checkpoint.empty() && Exists(folder + "/" + checkpoint);
}

}  // namespace

std::string StepFolderName(int32_t step) {
  return fmt::format("step-{:08}", step);
}

std::string TemporaryFolderName(int32_t step) {
  return fmt::format("{}{}", kTemporaryPrefix, StepFolderName(step));
}

std::optional<int32_t> StepOfFolderName(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int32_t step = -1;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), step);
  if (step < 0 || StepFolderName(step) != name) return std::nullopt;
  return step;
}

absl::StatusOr<std::vector<int32_t>> ListSteps(const std::string& checkpoints_dir) {
  SHARDMAX_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListNames(checkpoints_dir));
  std::vector<int32_t> steps;
  for (const std::string& name : names) {
    if (const std::optional<int32_t> step = StepOfFolderName(name)) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end(), std::greater<>());
  return steps;
}

absl::Status RestoreSetAside(const std::string& checkpoints_dir) {
  SHARDMAX_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListNames(checkpoints_dir));
  for (const std::string& name : names) {
    const std::string final_name = CheckpointAfter(kSetAsidePrefix, name);
    if (final_name.empty() || Exists(checkpoints_dir + "/" + final_name)) continue;
    SHARDMAX_RETURN_IF_ERROR(Rename(checkpoints_dir + "/" + name, checkpoints_dir + "/" + final_name));
  }
  return absl::OkStatus();
}

absl::Status PublishFolder(const std::string& checkpoints_dir, const std::string& from, int32_t step) {
  const std::string to = checkpoints_dir + "/" + StepFolderName(step);
  const std::string aside = fmt::format("{}/{}{}", checkpoints_dir, kSetAsidePrefix, StepFolderName(step));
  const bool replaces = Exists(to);
  if (replaces) {
    std::error_code error;
    fs::remove_all(aside, error);
    if (error) return ErrnoError(error.value(), aside);
    SHARDMAX_RETURN_IF_ERROR(Rename(to, aside));
  }
  if (absl::Status status = Rename(from, to); !status.ok()) {
    // If this fails too, RestoreSetAside of the next run does it.
    if (replaces) Rename(aside, to).IgnoreError();
    return status;
  }
  return SyncFolder(checkpoints_dir);
}

void RemoveOldest(const std::string& checkpoints_dir, int32_t newest, int keep) {
  const absl::StatusOr<std::vector<int32_t>> steps = ListSteps(checkpoints_dir);
  if (!steps.ok()) return;
  int kept = 0;
  for (int32_t step : *steps) {
    if (step > newest || kept++ < keep) continue;
    // Renamed first: half a checkpoint must never carry the name of one.
    const std::string gone = fmt::format("{}/{}{}", checkpoints_dir, kGonePrefix, StepFolderName(step));
    Rename(checkpoints_dir + "/" + StepFolderName(step), gone).IgnoreError();
  }
  const absl::StatusOr<std::vector<std::string>> names = ListNames(checkpoints_dir);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    std::error_code ignored;
    if (IsRubbish(checkpoints_dir, name)) fs::remove_all(checkpoints_dir + "/" + name, ignored);
  }
}

}  // namespace shardmax
