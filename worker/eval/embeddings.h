// Embeddings and who is on them, in memory-mapped .npy files.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/base/shard_range.h"
#include "worker/data/npy.h"
#include "worker/data/npy_values.h"

namespace shardmax {

// A row to ignore.
inline constexpr int64_t kNobody = -1;

// n embeddings [n, D], float32 or float16. Immutable; any thread reads.
class Embeddings {
 public:
  // `field` and the path begin every message. InvalidArgument: another dtype or shape, no rows, D above 65536; or the
  // system's error.
  static absl::StatusOr<Embeddings> Open(const std::string& field, const std::string& path);

  // "FIELD: PATH", as messages begin, and words that differ when the content does (NpyDigest).
  std::string name() const { return field_ + ": " + file_.path(); }
  std::string digest() const { return NpyDigest(file_, kSampledRows); }
  int64_t rows() const { return file_.rows(); }
  int64_t dim() const { return file_.cols(); }

  // x / |x| of a row as float32 [D], the length summed in float64. InvalidArgument, naming file and row: a value that
  // is not finite, or a length that is zero or not a normal float32.
  absl::Status ReadDirection(int64_t row, std::span<float> direction) const;

  // The first error of ReadDirection in `rows`, but for rows whose identity is kNobody. `identities` is [n], or empty:
  // then every row counts.
  absl::Status Check(Range rows, std::span<const int64_t> identities) const;

 private:
  Embeddings(std::string field, NpyFile file) : field_(std::move(field)), file_(std::move(file)) {}

  std::string field_;
  NpyFile file_;
};

// The identity of each of `rows` rows: 0 or more, or kNobody. InvalidArgument, beginning with `field` and the path:
// another dtype, shape or number of rows, or a smaller number, with its row; or the system's error.
absl::StatusOr<std::vector<int64_t>> ReadIdentities(const std::string& field, const std::string& path, int64_t rows);

// The rows of an .npy file that have somebody on them, by identity.
struct IdentityGroups {
  std::vector<int64_t> rows;    // Sorted by identity, then by row.
  std::vector<int64_t> starts;  // Group g is rows[starts[g]] … rows[starts[g + 1] - 1]. One more than there are groups.

  int64_t count() const { return static_cast<int64_t>(starts.size()) - 1; }
  int64_t size(int64_t group) const { return starts[group + 1] - starts[group]; }
  // Unordered pairs of two different rows, of one identity and of two.
  int64_t genuine_pairs() const;
  int64_t impostor_pairs() const;
};
IdentityGroups GroupByIdentity(std::span<const int64_t> identities);

}  // namespace shardmax
