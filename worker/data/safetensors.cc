#include "worker/data/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "worker/base/bfloat16.h"
#include "worker/base/status.h"
#include "worker/data/quote.h"

namespace shardmax {
namespace {

static_assert(std::endian::native == std::endian::little, "values are used as they lie in the file");

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // The limit of the reference implementation.
constexpr int64_t kLengthBytes = 8;

absl::StatusOr<std::string> ReadHeader(const File& file) {
  if (file.size() < kLengthBytes) {
    return InvalidArgument("{}: is {} bytes long, too short for a safetensors file", file.path(), file.size());
  }
  uint64_t length = 0;
  SHARDMAX_RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(&length, 1))));
  const auto rest = static_cast<uint64_t>(file.size() - kLengthBytes);
  if (length > rest) {
    return InvalidArgument("{}: truncated or not a safetensors file: the header claims {} bytes, the file has {}",
                           file.path(), length, rest);
  }
  if (length > kMaxHeaderBytes) {
    return InvalidArgument("{}: the header claims {} bytes, at most {} are allowed", file.path(), length,
                           kMaxHeaderBytes);
  }
  std::string header(length, '\0');
  SHARDMAX_RETURN_IF_ERROR(file.ReadAt(kLengthBytes, std::as_writable_bytes(std::span(header))));
  return header;
}

}  // namespace

SafetensorsFile::SafetensorsFile(File file, SafetensorsTensors tensors, int64_t data_offset)
    : file_(std::move(file)), tensors_(std::move(tensors)), data_offset_(data_offset) {}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path, Links links) {
  SHARDMAX_ASSIGN_OR_RETURN(File file, File::OpenForReading(path, links));
  SHARDMAX_ASSIGN_OR_RETURN(const std::string header, ReadHeader(file));
  const int64_t data_offset = kLengthBytes + static_cast<int64_t>(header.size());
  absl::StatusOr<SafetensorsTensors> tensors = ParseSafetensorsHeader(header, file.size() - data_offset);
  if (!tensors.ok()) return Annotate(tensors.status(), path);
  return SafetensorsFile(std::move(file), *std::move(tensors), data_offset);
}

absl::Status SafetensorsFile::CheckMatrix(const std::string& name, int64_t rows, int64_t cols,
                                          const std::string& dtype) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return InvalidArgument("{}: has no tensor {}, {} [{}, {}] is needed", path(), Quoted(name), dtype, rows, cols);
  }
  const SafetensorsTensor& tensor = found->second;
  if (tensor.dtype != dtype || tensor.shape != std::vector<int64_t>{rows, cols}) {
    return InvalidArgument("{}: tensor {} is {}, {} [{}, {}] is needed", path(), Quoted(name), Describe(tensor), dtype,
                           rows, cols);
  }
  return absl::OkStatus();
}

absl::Status SafetensorsFile::ReadRows(const std::string& name, Range rows, MatrixView<float> out) const {
  SHARDMAX_ASSIGN_OR_RETURN(const Bytes bytes, Find(name, rows, out));
  return ReadValues(bytes, out, nullptr);
}

absl::Status SafetensorsFile::TakeRows(const std::string& name, Range rows, MatrixView<float> out,
                                       Checksum& checksum) const {
  SHARDMAX_ASSIGN_OR_RETURN(const Bytes bytes, Find(name, rows, out));
  // The disk goes on with what is probably asked for next.
  file_.WillNeed(bytes.offset + bytes.count, bytes.count);
  SHARDMAX_RETURN_IF_ERROR(ReadValues(bytes, out, &checksum));
  file_.WillNotNeed(bytes.offset, bytes.count);
  return absl::OkStatus();
}

absl::Status SafetensorsFile::AddHeaderTo(Checksum& checksum) const {
  std::vector<std::byte> header(static_cast<size_t>(data_offset_));
  SHARDMAX_RETURN_IF_ERROR(file_.ReadAt(0, header));
  checksum.Update(header);
  return absl::OkStatus();
}

std::vector<std::string> SafetensorsFile::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors_) names.push_back(name);
  std::ranges::sort(names, {}, [this](const std::string& name) { return tensors_.at(name).offset; });
  return names;
}

absl::StatusOr<SafetensorsFile::Bytes> SafetensorsFile::Find(const std::string& name, Range rows,
                                                             MatrixView<float> out) const {
  const auto found = tensors_.find(name);
  const int64_t all_rows = found == tensors_.end() || found->second.shape.empty() ? 0 : found->second.shape[0];
  const std::string dtype = found != tensors_.end() ? found->second.dtype : "";
  const bool bfloat16 = dtype == "BF16";
  SHARDMAX_RETURN_IF_ERROR(CheckMatrix(name, all_rows, out.cols, bfloat16 || dtype == "I32" ? dtype : "F32"));
  if (rows.first < 0 || rows.count != out.rows || rows.count > all_rows - rows.first) {
    return InvalidArgument("{}: tensor {} has {} rows, {} from row {} on are wanted", path(), Quoted(name), all_rows,
                           rows.count, rows.first);
  }
  const int64_t row_bytes = out.cols * (bfloat16 ? 2 : 4);
  return Bytes{data_offset_ + found->second.offset + rows.first * row_bytes, rows.count * row_bytes, bfloat16};
}

absl::Status SafetensorsFile::ReadValues(const Bytes& bytes, MatrixView<float> out, Checksum* checksum) const {
  if (!bytes.bfloat16) {
    SHARDMAX_RETURN_IF_ERROR(file_.ReadAt(bytes.offset, std::as_writable_bytes(out.flat())));
    if (checksum != nullptr) checksum->Update(std::as_bytes(out.flat()));
    return absl::OkStatus();
  }
  std::vector<uint16_t> values(out.flat().size());
  SHARDMAX_RETURN_IF_ERROR(file_.ReadAt(bytes.offset, std::as_writable_bytes(std::span(values))));
  if (checksum != nullptr) checksum->Update(std::as_bytes(std::span(values)));
  std::transform(values.begin(), values.end(), out.data, FromBfloat16);
  return absl::OkStatus();
}

}  // namespace shardmax
