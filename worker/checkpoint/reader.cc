#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "worker/base/status.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/checkpoint/manifest.h"
#include "worker/data/checksum.h"
#include "worker/data/file.h"
#include "worker/data/quote.h"
#include "worker/data/safetensors.h"

namespace shardmax {
namespace {

constexpr int64_t kVerifyBytes = 4 << 20;

}  // namespace

CheckpointReader::CheckpointReader(std::string folder, shardmax::v1::Manifest manifest)
    : folder_(std::move(folder)), manifest_(std::move(manifest)) {}

absl::StatusOr<CheckpointReader> CheckpointReader::Open(const std::string& folder) {
  SHARDMAX_ASSIGN_OR_RETURN(shardmax::v1::Manifest manifest, ReadManifest(folder));
  CheckpointReader reader(folder, std::move(manifest));
  for (int index = 0; index < reader.manifest_.files_size(); ++index) {
    SHARDMAX_RETURN_IF_ERROR(reader.OpenFile(index).status());
  }
  return reader;
}

std::string CheckpointReader::PathOf(int index) const {
  return folder_ + "/" + manifest_.files(index).path();
}

absl::StatusOr<SafetensorsFile> CheckpointReader::OpenFile(int index) const {
  SHARDMAX_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(PathOf(index), Links::kRefuse));
  for (const std::string& name : manifest_.tensors()) {
    SHARDMAX_RETURN_IF_ERROR(file.CheckMatrix(name, manifest_.files(index).num_classes(), WidthOf(manifest_, name),
                                              DtypeOf(manifest_, name)));
  }
  if (file.tensors().size() != static_cast<size_t>(manifest_.tensors_size())) {
    return InvalidArgument("{}: has {} tensors, the manifest says {}", file.path(), file.tensors().size(),
                           manifest_.tensors_size());
  }
  return file;
}

absl::Status CheckpointReader::VerifyFile(int index) const {
  SHARDMAX_ASSIGN_OR_RETURN(const File file, File::OpenForReading(PathOf(index), Links::kRefuse));
  std::vector<std::byte> buffer(static_cast<size_t>(std::min(kVerifyBytes, file.size())));
  Checksum checksum;
  for (int64_t offset = 0; offset < file.size(); offset += kVerifyBytes) {
    const auto bytes = std::span(buffer).first(static_cast<size_t>(std::min(kVerifyBytes, file.size() - offset)));
    SHARDMAX_RETURN_IF_ERROR(file.ReadAt(offset, bytes));
    checksum.Update(bytes);
  }
  return CompareChecksum(index, checksum);
}

absl::Status CheckpointReader::TakeFile(int index, const TakeShardRows& take) const {
  SHARDMAX_ASSIGN_OR_RETURN(const SafetensorsFile file, OpenFile(index));
  const Range classes = ClassesOf(index);
  std::vector<float> chunk;
  Checksum checksum;
  SHARDMAX_RETURN_IF_ERROR(file.AddHeaderTo(checksum));
  for (const std::string& name : file.Names()) {
    const int64_t width = WidthOf(manifest_, name);
    const int64_t chunk_rows = RowsOfChunk(classes.count, width);
    chunk.resize(static_cast<size_t>(chunk_rows * width));
    for (int64_t first = 0; first < classes.count; first += chunk_rows) {
      const Range part = {first, std::min(chunk_rows, classes.count - first)};
      const MatrixView<float> rows = {chunk.data(), part.count, width};
      SHARDMAX_RETURN_IF_ERROR(file.TakeRows(name, part, rows, checksum));
      SHARDMAX_RETURN_IF_ERROR(take(name, {classes.first + part.first, part.count}, rows));
    }
  }
  return CompareChecksum(index, checksum);
}

absl::Status CheckpointReader::CompareChecksum(int index, const Checksum& checksum) const {
  const std::string& expected = manifest_.files(index).checksum();
  if (checksum.Text() == expected) return absl::OkStatus();
  return Error(absl::StatusCode::kDataLoss, "{}: checksum is {}, the manifest says {}: the file is damaged",
               PathOf(index), checksum.Text(), expected);
}

absl::Status CheckpointReader::Read(const std::string& name, Range classes, MatrixView<float> out) const {
  if (std::find(manifest_.tensors().begin(), manifest_.tensors().end(), name) == manifest_.tensors().end()) {
    return InvalidArgument("{}: has no tensor {}", folder_, Quoted(name));
  }
  if (classes.first < 0 || classes.count < 0 || classes.count > manifest_.num_classes() - classes.first) {
    return InvalidArgument("{}: has {} classes, {} from {} on are wanted", folder_, manifest_.num_classes(),
                           classes.count, classes.first);
  }
  if (const int64_t width = WidthOf(manifest_, name); out.rows != classes.count || out.cols != width) {
    return InvalidArgument("{}: {} classes are [{}, {}], the matrix to fill is [{}, {}]", folder_, classes.count,
                           classes.count, width, out.rows, out.cols);
  }
  for (int index = 0; index < manifest_.files_size(); ++index) {
    const Range in_file = ClassesOf(index);
    const int64_t first = std::max(classes.first, in_file.first);
    const int64_t count = std::min(classes.end(), in_file.end()) - first;
    if (count <= 0) continue;
    SHARDMAX_ASSIGN_OR_RETURN(const SafetensorsFile file, OpenFile(index));
    SHARDMAX_RETURN_IF_ERROR(
        file.ReadRows(name, {first - in_file.first, count}, out.slice(first - classes.first, count)));
  }
  return absl::OkStatus();
}

}  // namespace shardmax
