#include "server/export_file.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/checkpoint_folder.h"
#include "worker/base/matrix_view.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

constexpr int64_t kChunkBytes = 1 << 20;
constexpr size_t kAlignment = 8;  // Of the data section.

// The length and the JSON of https://github.com/huggingface/safetensors.
std::string MakeHeader(int64_t classes, int64_t dim) {
  const int64_t bytes = classes * dim * static_cast<int64_t>(sizeof(float));
  nlohmann::ordered_json json;
  json["weight"] = {{"dtype", "F32"}, {"shape", {classes, dim}}, {"data_offsets", {0, bytes}}};
  std::string text = json.dump();
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');
  const uint64_t length = text.size();
  std::string header(sizeof(length), '\0');
  std::memcpy(header.data(), &length, sizeof(length));
  return header + text;
}

}  // namespace

ExportFile::ExportFile(CheckpointReader reader)
    : reader_(std::move(reader)), header_(MakeHeader(reader_.manifest().num_classes(), reader_.manifest().dim())) {}

absl::StatusOr<ExportFile> ExportFile::Open(const v1::Job& job, int32_t step) {
  SHARDMAX_ASSIGN_OR_RETURN(CheckpointReader reader, OpenJobCheckpoint(job, step));
  for (int index = 0; index < reader.manifest().files_size(); ++index) {
    SHARDMAX_RETURN_IF_ERROR(reader.VerifyFile(index));
  }
  return ExportFile(std::move(reader));
}

absl::StatusOr<v1::ExportChunk> ExportFile::Next() {
  v1::ExportChunk chunk;
  const int64_t classes = reader_.manifest().num_classes();
  const int64_t dim = reader_.manifest().dim();
  if (!std::exchange(header_sent_, true)) {
    const int64_t data_bytes = classes * dim * static_cast<int64_t>(sizeof(float));
    chunk.set_total_bytes(static_cast<int64_t>(header_.size()) + data_bytes);
    chunk.set_step(reader_.manifest().step());
    chunk.set_data(header_);
    return chunk;
  }
  const int64_t row_bytes = dim * static_cast<int64_t>(sizeof(float));
  const int64_t count = std::min(std::max<int64_t>(1, kChunkBytes / row_bytes), classes - next_class_);
  if (count == 0) return chunk;
  std::string& data = *chunk.mutable_data();
  data.resize(static_cast<size_t>(count * row_bytes));
  const MatrixView<float> rows{reinterpret_cast<float*>(data.data()), count, dim};
  SHARDMAX_RETURN_IF_ERROR(reader_.Read("weight", {next_class_, count}, rows));
  next_class_ += count;
  return chunk;
}

}  // namespace shardmax
