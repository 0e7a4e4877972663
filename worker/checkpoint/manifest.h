// manifest.json of a checkpoint folder: read, checked, written.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardmax/v1/checkpoint.pb.h"

namespace shardmax {

inline constexpr char kManifestName[] = "manifest.json";
inline constexpr int32_t kManifestVersion = 1;

// The tensor of the graph of nearest classes.
inline constexpr char kNeighboursTensor[] = "neighbours";

// The dtype of `tensor`, one of manifest.tensors(): "F32", "BF16" or "I32".
std::string DtypeOf(const shardmax::v1::Manifest& manifest, const std::string& tensor);

// Values of a row of it: D or k.
int64_t WidthOf(const shardmax::v1::Manifest& manifest, const std::string& tensor);

// Checks everything but `files`: version, step, C, D, dtype, and the tensors that the optimizer has. InvalidArgument
// names the field.
absl::Status CheckManifestState(const shardmax::v1::Manifest& manifest);

// Checks the whole manifest: also plain file names that differ, ranges that tile [0, C) in order, and checksums of the
// form that checksum.h gives. InvalidArgument names the field.
absl::Status CheckManifest(const shardmax::v1::Manifest& manifest);

// Parses and checks. A newer format_version is said to be that, whatever else is in the text; unknown fields of this
// version are errors.
absl::StatusOr<shardmax::v1::Manifest> ParseManifest(const std::string& json);

// Reads, parses and checks the manifest of `folder`: a regular file, no link, of at most 16 MiB. Errors begin with its
// path.
absl::StatusOr<shardmax::v1::Manifest> ReadManifest(const std::string& folder);

// JSON with proto field names, zeros written out. Ends with a newline.
absl::StatusOr<std::string> ManifestToJson(const shardmax::v1::Manifest& manifest);

}  // namespace shardmax
