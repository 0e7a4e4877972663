// safetensors files: https://github.com/huggingface/safetensors. 8 bytes of header length (little-endian), a JSON
// header, then the values of all tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/base/matrix_view.h"
#include "worker/base/shard_range.h"
#include "worker/data/checksum.h"
#include "worker/data/file.h"
#include "worker/data/safetensors_header.h"
#include "worker/data/streamed_file.h"

namespace shardmax {

// A safetensors file whose header was found sound. Movable; any thread reads.
//
// Rows are read, not mapped: they are copied to a rank's own memory anyway, a mapping would count as resident memory
// beside them, and a disk error or a file that is cut short meanwhile is a status here, not a SIGBUS.
class SafetensorsFile {
 public:
  // InvalidArgument, beginning with the path: a header that is longer than the file or than 100 MB (checked before
  // anything is allocated), that ParseSafetensorsHeader refuses, or a file that is shorter or longer than its tensors.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path, Links links = Links::kFollow);

  const std::string& path() const { return file_.path(); }
  const SafetensorsTensors& tensors() const { return tensors_; }
  // Names of the tensors, in the order of the file.
  std::vector<std::string> Names() const;

  // OK if tensor `name` is `dtype` [rows, cols]; else InvalidArgument naming the path, what is there and what is
  // needed.
  absl::Status CheckMatrix(const std::string& name, int64_t rows, int64_t cols, const std::string& dtype = "F32") const;

  // Copies `rows` of `name`, an F32, BF16 or I32 matrix [n, out.cols], to out [rows.count, cols]; of I32 the bits.
  // InvalidArgument: another tensor, or rows outside [0, n).
  absl::Status ReadRows(const std::string& name, Range rows, MatrixView<float> out) const;

  // The same, and the bytes of the rows go into `checksum`, and out of the page cache. All bytes of the file are those
  // of AddHeaderTo, then all rows of each of Names().
  absl::Status TakeRows(const std::string& name, Range rows, MatrixView<float> out, Checksum& checksum) const;
  absl::Status AddHeaderTo(Checksum& checksum) const;

 private:
  // Where the bytes of a piece of a tensor are.
  struct Bytes {
    int64_t offset;
    int64_t count;
    bool bfloat16;
  };

  absl::StatusOr<Bytes> Find(const std::string& name, Range rows, MatrixView<float> out) const;
  // Reads `bytes` into out; `checksum` may be null.
  absl::Status ReadValues(const Bytes& bytes, MatrixView<float> out, Checksum* checksum) const;
  SafetensorsFile(File file, SafetensorsTensors tensors, int64_t data_offset);

  File file_;
  SafetensorsTensors tensors_;
  int64_t data_offset_;
};

// Writes a file of F32, BF16 and I32 tensors in one pass, without holding it: see streamed_file.h. Create, Append until
// all values are written, Finish. After an error, which may come late, or without Finish, what lies at the path is not
// a valid file.
class SafetensorsWriter {
 public:
  struct Tensor {
    std::string name;
    std::vector<int64_t> shape;  // Each 0 or more.
    std::string dtype = "F32";   // Or "BF16": values are rounded to the nearest, no NaN. "I32": a float has its bits.
  };

  // Creates the file and writes its header. Names differ from each other and from "__metadata__".
  static absl::StatusOr<SafetensorsWriter> Create(const std::string& path, const std::vector<Tensor>& tensors);

  // Appends values: those of the first tensor, row-major, then those of the next, in pieces of any size.
  // FailedPrecondition: more than all tensors hold.
  absl::Status Append(std::span<const float> values);

  // Syncs and closes the file; returns its checksum (checksum.h). FailedPrecondition: values are missing.
  absl::StatusOr<std::string> Finish();

 private:
  // Values of a tensor that are not written yet.
  struct Rest {
    int64_t values;
    bool bfloat16;
  };

  SafetensorsWriter(StreamedFile file, std::vector<Rest> rests);
  absl::Status AppendBytes(std::span<const std::byte> bytes);
  absl::Status AppendBfloat16(std::span<const float> values);
  int64_t values_left() const;

  StreamedFile file_;
  Checksum checksum_;
  std::vector<Rest> rests_;  // In the order of the file.
  size_t current_ = 0;
  std::vector<uint16_t> rounded_;
};

}  // namespace shardmax
