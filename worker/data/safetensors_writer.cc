#include <nlohmann/json.hpp>
#include <utility>

#include "worker/base/status.h"
#include "worker/data/safetensors.h"

namespace shardmax {
namespace {

constexpr size_t kAlignment = 8;  // Of the data section, which the reference implementation pads to with spaces.

struct Header {
  std::string text;
  int64_t values = 0;
};

Header MakeHeader(const std::vector<SafetensorsWriter::Tensor>& tensors) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  Header header;
  for (const SafetensorsWriter::Tensor& tensor : tensors) {
    int64_t values = 1;
    for (int64_t dimension : tensor.shape) values *= dimension;
    const int64_t begin = header.values;
    header.values += values;
    constexpr int64_t kValueBytes = sizeof(float);
    json[tensor.name] = {{"dtype", "F32"},
                         {"shape", tensor.shape},
                         {"data_offsets", {begin * kValueBytes, header.values * kValueBytes}}};
  }
  header.text = json.dump();
  header.text.append((kAlignment - header.text.size() % kAlignment) % kAlignment, ' ');
  return header;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(File file, int64_t values) : file_(std::move(file)), values_left_(values) {}

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(const std::string& path,
                                                            const std::vector<Tensor>& tensors) {
  const Header header = MakeHeader(tensors);
  SHARDMAX_ASSIGN_OR_RETURN(File file, File::Create(path));
  SafetensorsWriter writer(std::move(file), header.values);
  const uint64_t length = header.text.size();
  SHARDMAX_RETURN_IF_ERROR(writer.AppendBytes(std::as_bytes(std::span(&length, 1))));
  SHARDMAX_RETURN_IF_ERROR(writer.AppendBytes(std::as_bytes(std::span(header.text))));
  return writer;
}

absl::Status SafetensorsWriter::AppendBytes(std::span<const std::byte> bytes) {
  checksum_.Update(bytes);
  return file_.Append(bytes);
}

absl::Status SafetensorsWriter::Append(std::span<const float> values) {
  if (static_cast<int64_t>(values.size()) > values_left_) {
    return Error(absl::StatusCode::kFailedPrecondition, "{}: {} values are appended, there is room for {}",
                 file_.path(), values.size(), values_left_);
  }
  values_left_ -= static_cast<int64_t>(values.size());
  return AppendBytes(std::as_bytes(values));
}

absl::StatusOr<std::string> SafetensorsWriter::Finish() {
  if (values_left_ != 0) {
    return Error(absl::StatusCode::kFailedPrecondition, "{}: {} values are missing", file_.path(), values_left_);
  }
  SHARDMAX_RETURN_IF_ERROR(file_.SyncAndClose());
  return checksum_.Text();
}

}  // namespace shardmax
