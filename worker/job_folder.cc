#include "worker/job_folder.h"

#include <fcntl.h>
#include <google/protobuf/util/json_util.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <span>
#include <utility>

#include "worker/base/status.h"
#include "worker/data/file.h"
#include "worker/spec/job_spec.h"

namespace shardmax {
namespace {

namespace fs = std::filesystem;

absl::Status WriteAll(int file, const std::string& text, int64_t offset, const std::string& path) {
  size_t written = 0;
  while (written < text.size()) {
    const ssize_t n =
        pwrite(file, text.data() + written, text.size() - written, offset + static_cast<int64_t>(written));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, path);
    written += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status JobFolder::Make() const {
  std::error_code error;
  fs::create_directories(path_, error);
  return error ? ErrnoError(error.value(), fmt::format("--output {}: cannot make the folder", path_))
               : absl::OkStatus();
}

absl::Status JobFolder::CheckUnused() const {
  std::error_code error;
  const fs::path metrics = path_ + "/metrics.jsonl";
  const bool trained = fs::exists(metrics, error) && fs::file_size(metrics, error) > 0;
  const bool evaluated = fs::exists(result_path(), error);
  if (!trained && !evaluated && !fs::exists(checkpoints_folder(), error)) return absl::OkStatus();
  return absl::FailedPreconditionError(fmt::format(
      "--output {}: the folder holds a job already; add --resume to go on with it, or name another", path_));
}

absl::Status JobFolder::WriteWhole(const std::string& path, const std::string& text) const {
  const std::string temporary = path + ".tmp";
  absl::StatusOr<File> file = File::Create(temporary);
  if (!file.ok()) return Annotate(file.status(), "--output: cannot write");
  SHARDMAX_RETURN_IF_ERROR(file->Append(std::as_bytes(std::span(text))));
  SHARDMAX_RETURN_IF_ERROR(file->SyncAndClose());
  if (std::rename(temporary.c_str(), path.c_str()) != 0) return ErrnoError(errno, path);
  return SyncFolder(path_);
}

absl::Status JobFolder::WriteSpec(const v1::JobSpec& spec) const {
  return WriteWhole(spec_path(), JobSpecToJson(spec));
}

absl::Status JobFolder::WriteResult(const std::string& json) const {
  return WriteWhole(result_path(), json);
}

absl::StatusOr<v1::JobSpec> JobFolder::ReadSpec() const {
  SHARDMAX_ASSIGN_OR_RETURN(const File file, File::OpenForReading(spec_path()));
  std::string text(static_cast<size_t>(file.size()), '\0');
  SHARDMAX_RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(text))));
  SHARDMAX_ASSIGN_OR_RETURN(const v1::JobSpec spec, ParseJobSpec(text, SpecFormat::kJson, spec_path()));
  auto resolved = ResolveJobSpec(spec);
  return resolved.ok() ? resolved : Annotate(resolved.status(), spec_path());
}

absl::StatusOr<std::shared_ptr<spdlog::logger>> JobFolder::OpenLog(
    const std::vector<std::shared_ptr<spdlog::sinks::sink>>& sinks) const {
  const std::string path = path_ + "/log.txt";
  try {
    auto logger = std::make_shared<spdlog::logger>("job", std::make_shared<spdlog::sinks::basic_file_sink_mt>(path));
    logger->sinks().insert(logger->sinks().end(), sinks.begin(), sinks.end());
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
    logger->flush_on(spdlog::level::info);
    return logger;
  } catch (const spdlog::spdlog_ex& error) {
    return Error(absl::StatusCode::kUnknown, "cannot write {}: {}", path, error.what());
  }
}

absl::StatusOr<MetricsLog> MetricsLog::Open(const JobFolder& folder, int64_t step) {
  const std::string path = folder.path() + "/metrics.jsonl";
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return ErrnoError(errno, fmt::format("cannot write {}", path));
  MetricsLog log(path, file);
  SHARDMAX_RETURN_IF_ERROR(log.GoBack(step));
  return log;
}

absl::Status MetricsLog::GoBack(int64_t step) {
  last_ = v1::StepMetrics();
  last_offset_ = end_offset_ = 0;
  ReadUpTo(step);
  return ftruncate(file_, end_offset_) == 0 ? absl::OkStatus() : ErrnoError(errno, path_);
}

void MetricsLog::ReadUpTo(int64_t step) {
  std::ifstream in(path_);
  for (std::string line; std::getline(in, line) && !in.eof();) {
    v1::StepMetrics metrics;
    if (!google::protobuf::util::JsonStringToMessage(line, &metrics).ok() || metrics.step() > step) return;
    last_ = metrics;
    last_offset_ = end_offset_;
    end_offset_ += static_cast<int64_t>(line.size()) + 1;
  }
}

MetricsLog::MetricsLog(MetricsLog&& other) noexcept
    : path_(std::move(other.path_)),
      file_(std::exchange(other.file_, -1)),
      last_(std::move(other.last_)),
      last_offset_(other.last_offset_),
      end_offset_(other.end_offset_) {}

MetricsLog::~MetricsLog() {
  if (file_ >= 0) close(file_);
}

absl::Status MetricsLog::Append(const v1::StepMetrics& metrics) {
  last_offset_ = end_offset_;
  return ReplaceLast(metrics);
}

absl::Status MetricsLog::ReplaceLast(const v1::StepMetrics& metrics) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string line;
  const auto status = google::protobuf::util::MessageToJsonString(metrics, &line, options);
  if (!status.ok()) return Error(absl::StatusCode::kInternal, "{}: {}", path_, status.ToString());
  line += '\n';
  last_ = metrics;
  end_offset_ = last_offset_ + static_cast<int64_t>(line.size());
  return WriteAll(file_, line, last_offset_, path_);
}

}  // namespace shardmax
