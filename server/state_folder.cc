#include "server/state_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <system_error>
#include <utility>

#include "rpc/listen_address.h"
#include "worker/base/status.h"
#include "worker/data/file.h"

namespace shardmax {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kDeletedPrefix = ".deleted-";

absl::Status MakeFolder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  return error ? ErrnoError(error.value(), path) : absl::OkStatus();
}

// Others see the old content or the new.
absl::Status Replace(const std::string& path, const std::string& text) {
  const std::string temporary = path + ".tmp";
  SHARDMAX_ASSIGN_OR_RETURN(File file, File::Create(temporary));
  SHARDMAX_RETURN_IF_ERROR(file.Append(std::as_bytes(std::span(text))));
  SHARDMAX_RETURN_IF_ERROR(file.SyncAndClose());
  std::error_code error;
  fs::rename(temporary, path, error);
  return error ? ErrnoError(error.value(), path) : absl::OkStatus();
}

absl::StatusOr<int> Lock(const std::string& path) {
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) return ErrnoError(errno, path);
  if (flock(file, LOCK_EX | LOCK_NB) == 0) return file;
  const int reason = errno;
  close(file);
  if (reason != EWOULDBLOCK) return ErrnoError(reason, path);
  return Error(absl::StatusCode::kFailedPrecondition,
               "{}: another shardmax-server uses this state folder: end it, or give --state_dir another folder", path);
}

void RemoveLeftovers(const std::string& jobs) {
  std::error_code error;
  std::vector<std::string> leftovers;
  for (fs::directory_iterator entry(jobs, error); !error && entry != fs::directory_iterator(); entry.increment(error)) {
    if (entry->path().filename().string().starts_with(kDeletedPrefix)) leftovers.push_back(entry->path().string());
  }
  for (const std::string& leftover : leftovers) RemoveFolder(leftover);
}

}  // namespace

absl::StatusOr<std::unique_ptr<StateFolder>> StateFolder::Take(const std::string& path) {
  SHARDMAX_RETURN_IF_ERROR(MakeFolder(path));
  std::error_code error;
  const std::string canonical = fs::canonical(path, error).string();
  if (error) return ErrnoError(error.value(), path);
  SHARDMAX_ASSIGN_OR_RETURN(const int lock, Lock(canonical + "/lock"));
  std::unique_ptr<StateFolder> folder(new StateFolder(canonical, lock));
  SHARDMAX_RETURN_IF_ERROR(MakeFolder(folder->jobs()));
  SHARDMAX_RETURN_IF_ERROR(MakeFolder(canonical + "/prometheus"));
  RemoveLeftovers(folder->jobs());
  return folder;
}

StateFolder::~StateFolder() {
  close(lock_);
}

absl::Status StateFolder::WriteServerJson(const std::string& listen, const std::string& metrics) const {
  nlohmann::ordered_json json;
  json["listen"] = listen;
  json["metrics"] = metrics;
  json["pid"] = getpid();
  return Replace(path_ + "/server.json", json.dump() + "\n");
}

absl::Status StateFolder::WriteTargets(const std::string& metrics, const std::vector<v1::Pool>& pools) const {
  auto targets = nlohmann::ordered_json::array();
  targets.push_back({{"targets", {metrics}}, {"labels", {{"component", "server"}}}});
  for (const v1::Pool& pool : pools) {
    for (const v1::RankEndpoint& endpoint : pool.endpoints()) {
      targets.push_back(
          {{"targets", {ListenAddress{endpoint.host(), endpoint.metrics_port()}.Text()}},
           {"labels", {{"component", "worker"}, {"pool", pool.name()}, {"rank", std::to_string(endpoint.rank())}}}});
    }
  }
  return Replace(path_ + "/prometheus/targets.json", targets.dump(2) + "\n");
}

std::string SetJobFolderAside(const std::string& folder) {
  const fs::path from = folder;
  const fs::path to = from.parent_path() / (std::string(kDeletedPrefix) + from.filename().string());
  std::error_code error;
  fs::rename(from, to, error);
  return error ? "" : to.string();
}

void RemoveFolder(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
}

}  // namespace shardmax
