#include "worker/job_file.h"

#include <filesystem>
#include <fstream>

#include "worker/base/status.h"
#include "worker/spec/job_spec.h"

namespace shardmax {
namespace {

constexpr int64_t kMaxSpecBytes = int64_t{1} << 20;

absl::StatusOr<v1::JobSpec> LoadJobSpec(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::error_code error;
  if (!in || std::filesystem::is_directory(path, error)) {
    return InvalidArgument("--job {}: cannot read the file: {}", path,
                           std::filesystem::exists(path, error) ? "not a readable file" : "it does not exist");
  }
  std::string text(static_cast<size_t>(kMaxSpecBytes) + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  SHARDMAX_ASSIGN_OR_RETURN(const v1::JobSpec spec, ParseJobSpec(text, SpecFormatOf(path), path));
  auto resolved = ResolveJobSpec(spec);
  if (!resolved.ok()) return Annotate(resolved.status(), path);
  return resolved;
}

}  // namespace

absl::StatusOr<v1::JobSpec> ShareJobSpec(Communicator& comm, const std::string& path) {
  absl::StatusOr<v1::JobSpec> mine = v1::JobSpec();
  if (comm.rank() == 0) mine = LoadJobSpec(path);
  // The whole message, as it may list many mistakes: an agreement would cut it.
  SHARDMAX_RETURN_IF_ERROR(BroadcastStatus(comm, mine.status(), 0));
  SHARDMAX_ASSIGN_OR_RETURN(const std::string bytes, BroadcastString(comm, mine->SerializeAsString(), 0));
  v1::JobSpec spec;
  if (!spec.ParseFromString(bytes)) return absl::InternalError("the job spec of rank 0 does not parse");
  return spec;
}

}  // namespace shardmax
