// Job specs: from text to a JobSpec with every default filled in, or to a list of everything that is wrong with it.
//
// What each field means, may hold and defaults to: proto/shardmax/v1/job.proto; for users docs/job-spec.md.
// All functions are pure and print nothing; any thread may call them.
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

// Parses one JobSpec; unknown fields are errors. `name` is the file name that begins every message.
// InvalidArgument: more than 1 MiB, nothing but white space, not UTF-8, not text, not the format (with line and
// column), an unknown or repeated field, or a value of another type (textproto with line and column, JSON with the
// field path).
absl::StatusOr<shardmax::v1::JobSpec> ParseJobSpec(const std::string& text, SpecFormat format, const std::string& name);

// Everything that is wrong with `spec` in itself, one line each, beginning with the field path: "train.loss.scale is 0:
// allowed is greater than 0, at most 10000". Empty if valid. `spec` is as written by the user, or resolved. Where many
// elements of a list are wrong the first ten are named and the others counted. What depends on the dataset or the
// number of ranks (T of a job given in epochs, C against N) is the runner's to check.
std::vector<std::string> Mistakes(const shardmax::v1::JobSpec& spec);

// `spec` with every default and preset written out: each message that steers training is there and each scalar field in
// it has explicit presence, but for what another field makes meaningless (init.stddev beside init.weights, num_pairs
// beside pairs), for paths without default, validation, and members of a oneof that were not chosen. Resolving again
// changes nothing. InvalidArgument with all mistakes, one a line, if `spec` is not valid.
absl::StatusOr<shardmax::v1::JobSpec> ResolveJobSpec(const shardmax::v1::JobSpec& spec);

// Indented JSON with proto field names, numbers as numbers and enums by name (job.json). Ends with a newline.
// ParseJobSpec gives `spec` back exactly. Requires that Mistakes(spec) is empty.
std::string JobSpecToJson(const shardmax::v1::JobSpec& spec);

}  // namespace shardmax
