// Job specs: from a file to a JobSpec with every default filled in, or to a list of everything that is wrong with it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardmax/v1/job.pb.h"

namespace shardmax {

enum class SpecFormat { kTextproto, kJson };

// kJson when `path` ends in ".json", else kTextproto.
SpecFormat SpecFormatOf(const std::string& path);

// Parses one JobSpec. InvalidArgument with line and column, or for JSON the offending field; `name` is the file name
// for the message. Unknown fields are errors. At most 1 MiB of text.
absl::StatusOr<shardmax::v1::JobSpec> ParseJobSpec(const std::string& text, SpecFormat format, const std::string& name);

// Everything that is wrong with `spec`, one sentence each, beginning with the field path: "train.loss.scale is 0:
// allowed is greater than 0, at most 10000". Empty if valid. `spec` is as written by the user (before resolving).
std::vector<std::string> Mistakes(const shardmax::v1::JobSpec& spec);

// `spec` with every default and preset written out, so that each scalar field has explicit presence. InvalidArgument
// with all mistakes, one a line, if it is not valid.
absl::StatusOr<shardmax::v1::JobSpec> ResolveJobSpec(const shardmax::v1::JobSpec& spec);

// JSON with proto field names (job.json). Ends with a newline.
std::string JobSpecToJson(const shardmax::v1::JobSpec& spec);

}  // namespace shardmax
