#include "worker/checkpoint/initial_weights.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "worker/base/status.h"
#include "worker/data/row_check.h"

namespace shardmax {
namespace {

constexpr char kWeight[] = "weight";

}  // namespace

InitialWeights::InitialWeights(SafetensorsFile file) : source_(std::move(file)) {}

InitialWeights::InitialWeights(CheckpointReader reader) : source_(Folder{std::move(reader), {}}) {
  auto& folder = std::get<Folder>(source_);
  folder.verified.resize(static_cast<size_t>(folder.reader.manifest().files_size()));
}

absl::Status InitialWeights::VerifyFilesOf(Range classes) {
  auto* folder = std::get_if<Folder>(&source_);
  if (folder == nullptr) return absl::OkStatus();
  for (int index = 0; index < folder->reader.manifest().files_size(); ++index) {
    const auto& file = folder->reader.manifest().files(index);
    const bool touched =
        classes.first < file.first_class() + int64_t{file.num_classes()} && file.first_class() < classes.end();
    if (!touched || folder->verified[index]) continue;
    SHARDMAX_RETURN_IF_ERROR(folder->reader.VerifyFile(index));
    folder->verified[index] = true;
  }
  return absl::OkStatus();
}

absl::Status InitialWeights::Read(Range classes, MatrixView<float> out) {
  SHARDMAX_RETURN_IF_ERROR(VerifyFilesOf(classes));
  std::string path;
  if (const auto* file = std::get_if<SafetensorsFile>(&source_)) {
    SHARDMAX_RETURN_IF_ERROR(file->ReadRows(kWeight, classes, out));
    path = file->path();
  } else {
    const CheckpointReader& reader = std::get<Folder>(source_).reader;
    SHARDMAX_RETURN_IF_ERROR(reader.Read(kWeight, classes, out));
    path = reader.folder();
  }
  for (int64_t i = 0; i < out.rows; ++i) {
    if (absl::Status status = CheckDirection(out.row(i)); !status.ok()) {
      return Annotate(status, fmt::format("{}: weight of class {}", path, classes.first + i));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<InitialWeights> OpenWeights(const std::string& path, int64_t num_classes, int64_t dim) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    SHARDMAX_ASSIGN_OR_RETURN(CheckpointReader reader, CheckpointReader::Open(path));
    const auto& manifest = reader.manifest();
    if (manifest.num_classes() != num_classes || manifest.dim() != dim) {
      return InvalidArgument("{}: weight is [{}, {}], [{}, {}] is needed", path, manifest.num_classes(), manifest.dim(),
                             num_classes, dim);
    }
    return InitialWeights(std::move(reader));
  }
  SHARDMAX_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(path));
  SHARDMAX_RETURN_IF_ERROR(file.CheckMatrix(kWeight, num_classes, dim));
  return InitialWeights(std::move(file));
}

}  // namespace shardmax
