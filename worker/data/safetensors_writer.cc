#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "worker/base/bfloat16.h"
#include "worker/base/status.h"
#include "worker/data/safetensors.h"

namespace shardmax {
namespace {

constexpr size_t kAlignment = 8;  // Of the data section, which the reference implementation pads to with spaces.
constexpr size_t kHeaderLengthBytes = 8;
// Large tensors begin where a page of the file does.
constexpr size_t kPageBytes = 4096;
constexpr int64_t kLargeBytes = 1 << 20;

struct Header {
  std::string text;
  std::vector<int64_t> values;  // Of each tensor.
  int64_t data_bytes = 0;
};

Header MakeHeader(const std::vector<SafetensorsWriter::Tensor>& tensors) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  Header header;
  int64_t begin = 0;
  for (const SafetensorsWriter::Tensor& tensor : tensors) {
    int64_t values = 1;
    for (int64_t dimension : tensor.shape) values *= dimension;
    header.values.push_back(values);
    const int64_t end = begin + values * (tensor.dtype == "BF16" ? 2 : 4);
    json[tensor.name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}};
    begin = end;
  }
  header.text = json.dump();
  header.data_bytes = begin;
  const size_t alignment = begin >= kLargeBytes ? kPageBytes : kAlignment;
  header.text.append((alignment - (kHeaderLengthBytes + header.text.size()) % alignment) % alignment, ' ');
  return header;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(StreamedFile file, std::vector<Rest> rests)
    : file_(std::move(file)), rests_(std::move(rests)) {}

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(const std::string& path,
                                                            const std::vector<Tensor>& tensors) {
  const Header header = MakeHeader(tensors);
  const auto file_bytes = static_cast<int64_t>(kHeaderLengthBytes + header.text.size()) + header.data_bytes;
  SHARDMAX_ASSIGN_OR_RETURN(StreamedFile file, StreamedFile::Create(path, file_bytes));
  std::vector<Rest> rests;
  for (size_t i = 0; i < tensors.size(); ++i) rests.push_back({header.values[i], tensors[i].dtype == "BF16"});
  SafetensorsWriter writer(std::move(file), std::move(rests));
  const uint64_t length = header.text.size();
  SHARDMAX_RETURN_IF_ERROR(writer.AppendBytes(std::as_bytes(std::span(&length, 1))));
  SHARDMAX_RETURN_IF_ERROR(writer.AppendBytes(std::as_bytes(std::span(header.text))));
  return writer;
}

absl::Status SafetensorsWriter::AppendBytes(std::span<const std::byte> bytes) {
  checksum_.Update(bytes);
  return file_.Append(bytes);
}

absl::Status SafetensorsWriter::AppendBfloat16(std::span<const float> values) {
  rounded_.resize(values.size());
  std::transform(values.begin(), values.end(), rounded_.begin(), RoundToNearestBfloat16);
  return AppendBytes(std::as_bytes(std::span(rounded_)));
}

int64_t SafetensorsWriter::values_left() const {
  int64_t values = 0;
  for (const Rest& rest : rests_) values += rest.values;
  return values;
}

absl::Status SafetensorsWriter::Append(std::span<const float> values) {
  if (static_cast<int64_t>(values.size()) > values_left()) {
    return Error(absl::StatusCode::kFailedPrecondition, "{}: {} values are appended, there is room for {}",
                 file_.path(), values.size(), values_left());
  }
  while (!values.empty()) {
    Rest& rest = rests_[current_];
    const auto count = static_cast<size_t>(std::min(rest.values, static_cast<int64_t>(values.size())));
    const std::span<const float> part = values.first(count);
    SHARDMAX_RETURN_IF_ERROR(rest.bfloat16 ? AppendBfloat16(part) : AppendBytes(std::as_bytes(part)));
    values = values.subspan(count);
    rest.values -= static_cast<int64_t>(count);
    if (rest.values == 0) ++current_;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> SafetensorsWriter::Finish() {
  if (values_left() != 0) {
    return Error(absl::StatusCode::kFailedPrecondition, "{}: {} values are missing", file_.path(), values_left());
  }
  SHARDMAX_RETURN_IF_ERROR(file_.SyncAndClose());
  return checksum_.Text();
}

}  // namespace shardmax
