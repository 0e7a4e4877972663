// The pairs of rows that verification judges: from a file, or drawn.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/eval/embeddings.h"

namespace shardmax {

struct RowPair {
  int64_t first = 0;
  int64_t second = 0;
  bool genuine = false;  // Both of one identity.

  friend bool operator==(const RowPair&, const RowPair&) = default;
};

// The pairs of an .npy file [p, 3]: (i, j, same). InvalidArgument, beginning with `field`, the path and the row:
// another dtype or shape, a row that is not in [0, n) or whose identity is kNobody, i = j, or `same` that is neither 0
// nor 1 or contradicts the identities.
absl::StatusOr<std::vector<RowPair>> ReadPairs(const std::string& field, const std::string& path,
                                               std::span<const int64_t> identities);

// `num_pairs` different pairs: genuine and impostor ones in turn, beginning with a genuine one, each kind uniformly
// among all pairs of it. A pure function of its arguments. InvalidArgument, naming `field`: there are not so many.
absl::StatusOr<std::vector<RowPair>> DrawPairs(const std::string& field, const IdentityGroups& groups,
                                               int64_t num_pairs, uint32_t seed);

}  // namespace shardmax
