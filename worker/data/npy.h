// Memory-mapped .npy files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "worker/data/mapped_file.h"
#include "worker/data/npy_header.h"

namespace shardmax {

// An array [rows, cols] or [rows] in a mapped .npy file of version 1.0, 2.0 or 3.0. Movable; any thread reads. See
// MappedFile for files that change while they are open.
class NpyFile {
 public:
  // InvalidArgument, beginning with the path: not an .npy file, a header of ParseNpyHeader's errors or longer than the
  // file, a shape whose bytes overflow, data that is truncated, or bytes after the data (two arrays in one file would
  // else silently be one).
  static absl::StatusOr<NpyFile> Open(const std::string& path, MappedFile::Access access = MappedFile::Access::kNormal);

  const std::string& path() const { return file_.path(); }
  NpyType dtype() const { return header_.dtype; }
  int ndim() const { return header_.ndim; }          // 1 or 2.
  int64_t rows() const { return header_.shape[0]; }  // 0 or more.
  int64_t cols() const { return header_.shape[1]; }  // 1 when ndim is 1; may be 0.
  int64_t row_bytes() const { return cols() * NpyItemBytes(dtype()); }

  // Row-major values; at any address, so copy them out with memcpy.
  const std::byte* data() const { return file_.bytes().data() + data_offset_; }
  const std::byte* row(int64_t i) const { return data() + i * row_bytes(); }

 private:
  NpyFile(MappedFile file, NpyHeader header, size_t data_offset);

  MappedFile file_;
  NpyHeader header_;
  size_t data_offset_;
};

}  // namespace shardmax
