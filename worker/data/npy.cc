#include "worker/data/npy.h"

#include <bit>
#include <utility>

#include "worker/base/status.h"

namespace shardmax {
namespace {

static_assert(std::endian::native == std::endian::little, ".npy data is used as it lies in the file");

constexpr std::string_view kMagic = "\x93NUMPY";

// The header text and where the data begins.
struct Layout {
  std::string_view text;
  size_t data_offset;
};

absl::StatusOr<Layout> FindHeader(std::span<const std::byte> bytes) {
  const std::string_view content(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const size_t version_end = kMagic.size() + 2;
  if (content.size() < version_end || !content.starts_with(kMagic)) return InvalidArgument("is not an .npy file");
  const int major = std::to_integer<int>(bytes[kMagic.size()]);
  const int minor = std::to_integer<int>(bytes[kMagic.size() + 1]);
  if (major < 1 || major > 3 || minor != 0) {
    return InvalidArgument("is .npy version {}.{}: allowed are 1.0, 2.0 and 3.0", major, minor);
  }
  const size_t length_bytes = major == 1 ? 2 : 4;
  const size_t text_offset = version_end + length_bytes;
  if (content.size() < text_offset) return InvalidArgument("truncated: ends within the header");
  size_t length = 0;
  for (size_t i = 0; i < length_bytes; ++i) {
    length |= std::to_integer<size_t>(bytes[version_end + i]) << (8 * i);
  }
  if (length > content.size() - text_offset) {
    return InvalidArgument("truncated: the header claims {} bytes, the file has {} after its length", length,
                           content.size() - text_offset);
  }
  return Layout{content.substr(text_offset, length), text_offset + length};
}

absl::Status CheckDataBytes(const NpyHeader& header, size_t available) {
  uint64_t needed = 0;
  if (__builtin_mul_overflow(header.shape[0], header.shape[1], &needed) ||
      __builtin_mul_overflow(needed, NpyItemBytes(header.dtype), &needed) || needed > INT64_MAX) {
    return InvalidArgument("shape [{}, {}] of {} is larger than any file", header.shape[0], header.shape[1],
                           NpyTypeName(header.dtype));
  }
  if (available < needed) return InvalidArgument("truncated: needs {} bytes of data, has {}", needed, available);
  if (available > needed) {
    return InvalidArgument("has {} bytes after the {} bytes of data that its shape says", available - needed, needed);
  }
  return absl::OkStatus();
}

}  // namespace

NpyFile::NpyFile(MappedFile file, NpyHeader header, size_t data_offset)
    : file_(std::move(file)), header_(header), data_offset_(data_offset) {}

absl::StatusOr<NpyFile> NpyFile::Open(const std::string& path, MappedFile::Access access) {
  SHARDMAX_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path, access));
  absl::StatusOr<Layout> layout = FindHeader(file.bytes());
  if (!layout.ok()) return Annotate(layout.status(), path);
  absl::StatusOr<NpyHeader> header = ParseNpyHeader(layout->text);
  if (!header.ok()) return Annotate(header.status(), path);
  SHARDMAX_RETURN_IF_ERROR(Annotate(CheckDataBytes(*header, file.bytes().size() - layout->data_offset), path));
  return NpyFile(std::move(file), *header, layout->data_offset);
}

}  // namespace shardmax
