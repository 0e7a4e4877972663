#include "worker/data/data_root.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_join.h"
#include "worker/base/status.h"
#include "worker/data/quote.h"

namespace shardmax {
namespace {

namespace fs = std::filesystem;

absl::StatusOr<std::string> CanonicalFolder(const std::string& what, const std::string& path) {
  std::error_code error;
  const fs::path canonical = fs::canonical(path, error);
  if (error) return ErrnoError(error.value(), fmt::format("{} {}", what, path));
  if (!fs::is_directory(canonical, error)) return InvalidArgument("{} {} is not a folder", what, path);
  return canonical.string();
}

bool IsInside(const fs::path& folder, const fs::path& path) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

}  // namespace

DataRoots::DataRoots(std::vector<std::string> roots, std::string base_folder)
    : roots_(std::move(roots)), base_folder_(std::move(base_folder)) {}

absl::StatusOr<DataRoots> DataRoots::Make(const std::vector<std::string>& roots, const std::string& base_folder) {
  std::vector<std::string> canonical_roots;
  for (const std::string& root : roots) {
    SHARDMAX_ASSIGN_OR_RETURN(canonical_roots.emplace_back(), CanonicalFolder("data root", root));
  }
  std::string base;
  if (roots.empty()) {
    SHARDMAX_ASSIGN_OR_RETURN(base, CanonicalFolder("folder of the job file", base_folder));
  }
  return DataRoots(std::move(canonical_roots), std::move(base));
}

bool DataRoots::Allowed(const std::string& canonical) const {
  return roots_.empty() ||
         std::any_of(roots_.begin(), roots_.end(), [&](const std::string& root) { return IsInside(root, canonical); });
}

absl::StatusOr<std::string> DataRoots::Resolve(const std::string& field, const std::string& path) const {
  if (path.empty()) return InvalidArgument("{} is empty, a path is needed", field);
  if (path.find('\0') != std::string::npos) return InvalidArgument("{} holds a zero byte: {}", field, Quoted(path));

  std::vector<std::string> folders = roots_;
  if (fs::path(path).is_absolute()) {
    folders = {"/"};
  } else if (roots_.empty()) {
    folders = {base_folder_, "."};
  }
  bool all_outside = true;
  for (const std::string& folder : folders) {
    std::error_code error;
    // Weakly: what does not exist still has a place, inside or outside.
    const fs::path candidate = fs::weakly_canonical(fs::absolute(fs::path(folder) / path, error), error);
    if (error) return ErrnoError(error.value(), fmt::format("{}: {}", field, path));
    if (!Allowed(candidate.string())) continue;
    all_outside = false;
    if (fs::exists(candidate, error)) return candidate.string();
    if (error) return ErrnoError(error.value(), fmt::format("{}: {}", field, path));
  }
  if (all_outside) {
    return InvalidArgument("{}: {} is outside the data roots ({})", field, path, absl::StrJoin(roots_, ", "));
  }
  if (fs::path(path).is_absolute()) return Error(absl::StatusCode::kNotFound, "{}: {}: no such file", field, path);
  return Error(absl::StatusCode::kNotFound, "{}: {}: no such file in {}", field, path,
               roots_.empty() ? base_folder_ + " or the current folder" : absl::StrJoin(roots_, ", "));
}

}  // namespace shardmax
