#include "worker/base/available_memory.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <functional>
#include <optional>
#include <sstream>

namespace shardmax {
namespace {

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// The number behind `key` at the begin of a line, in the file's own unit.
std::optional<int64_t> NumberOf(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string word;
    int64_t number = 0;
    if (words >> word >> number && word == key) return number;
  }
  return std::nullopt;
}

// "max" is none.
std::optional<int64_t> WholeNumber(const std::string& text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() ? std::optional(number) : std::nullopt;
}

// The control group of this process, "/a/b"; empty if it is the root, or in none of version 2.
std::string ControlGroup(const std::string& root) {
  std::ifstream file(root + "/proc/self/cgroup");
  const std::string version_2 = "0::";
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(version_2) && line != version_2 + "/") return line.substr(version_2.size());
  }
  return "";
}

// What the limit of one group leaves; pages of files that were not used lately make room.
std::optional<int64_t> LeftInGroup(const std::string& folder) {
  const std::optional<int64_t> limit = WholeNumber(FirstLine(folder + "/memory.max"));
  const std::optional<int64_t> used = WholeNumber(FirstLine(folder + "/memory.current"));
  if (!limit.has_value() || !used.has_value()) return std::nullopt;
  return *limit - *used + NumberOf(folder + "/memory.stat", "inactive_file").value_or(0);
}

}  // namespace

int64_t AvailableMemoryBytes(const std::string& root) {
  constexpr int64_t kKibibyte = 1024;
  int64_t bytes = NumberOf(root + "/proc/meminfo", "MemAvailable:").value_or(0) * kKibibyte;
  // Every group that this one is in may have a limit, and what a container sees as the root too.
  std::string group = ControlGroup(root);
  while (true) {
    const std::optional<int64_t> left = LeftInGroup(root + "/sys/fs/cgroup" + group);
    if (left.has_value()) bytes = std::min(bytes, *left);
    if (group.empty()) break;
    group = group.substr(0, group.rfind('/'));
  }
  return std::max<int64_t>(bytes, 0);
}

uint64_t MachineId() {
  const std::string boot = FirstLine("/proc/sys/kernel/random/boot_id");
  return boot.empty() ? 0 : std::hash<std::string>()(boot);
}

}  // namespace shardmax
