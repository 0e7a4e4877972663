#include "worker/eval/row_pairs.h"

#include <algorithm>
#include <cmath>

#include "worker/base/status.h"
#include "worker/data/npy.h"
#include "worker/data/npy_values.h"
#include "worker/data/permutation.h"

namespace shardmax {
namespace {

// Two orders of one seed.
constexpr int64_t kGenuineStream = 0;
constexpr int64_t kImpostorStream = 1;

// The groups before which so many pairs lie, so that pair p is in the last group with a sum of at most p.
template <typename PairsOf>
std::vector<int64_t> SumsBefore(const IdentityGroups& groups, const PairsOf& pairs_of) {
  std::vector<int64_t> sums = {0};
  for (int64_t group = 0; group < groups.count(); ++group) sums.push_back(sums.back() + pairs_of(group));
  return sums;
}

int64_t GroupOf(const std::vector<int64_t>& sums_before, int64_t pair) {
  return std::upper_bound(sums_before.begin(), sums_before.end(), pair) - sums_before.begin() - 1;
}

// Pair p of the pairs (a, b), a < b, in the order (0, 1), (0, 2), (1, 2), (0, 3), …
void TrianglePair(int64_t p, int64_t& a, int64_t& b) {
  b = static_cast<int64_t>((1 + std::sqrt(1 + 8 * static_cast<double>(p))) / 2);
  while (b * (b - 1) / 2 > p) --b;
  while (b * (b + 1) / 2 <= p) ++b;
  a = p - b * (b - 1) / 2;
}

// All genuine pairs, and all impostor pairs, each counted through from 0.
class PairIndex {
 public:
  explicit PairIndex(const IdentityGroups& groups)
      : groups_(groups),
        genuine_before_(SumsBefore(groups, [&](int64_t g) { return groups.size(g) * (groups.size(g) - 1) / 2; })),
        impostors_before_(SumsBefore(groups, [&](int64_t g) { return groups.size(g) * RowsAfter(g); })) {}

  int64_t genuine_pairs() const { return genuine_before_.back(); }
  int64_t impostor_pairs() const { return impostors_before_.back(); }

  RowPair Genuine(int64_t pair) const {
    const int64_t group = GroupOf(genuine_before_, pair);
    int64_t a = 0;
    int64_t b = 0;
    TrianglePair(pair - genuine_before_[group], a, b);
    return {groups_.rows[groups_.starts[group] + a], groups_.rows[groups_.starts[group] + b], true};
  }
  // A row of one group with a row of a later one.
  RowPair Impostor(int64_t pair) const {
    const int64_t group = GroupOf(impostors_before_, pair);
    const int64_t index = pair - impostors_before_[group];
    const int64_t first = groups_.starts[group] + index / RowsAfter(group);
    const int64_t second = groups_.starts[group + 1] + index % RowsAfter(group);
    return {groups_.rows[first], groups_.rows[second], false};
  }

 private:
  int64_t RowsAfter(int64_t group) const {
    return static_cast<int64_t>(groups_.rows.size()) - groups_.starts[group + 1];
  }

  const IdentityGroups& groups_;
  std::vector<int64_t> genuine_before_;
  std::vector<int64_t> impostors_before_;
};

absl::StatusOr<RowPair> PairAt(const NpyFile& file, int64_t row, std::span<const int64_t> identities) {
  const RowPair pair = {IntegerAt(file, row, 0), IntegerAt(file, row, 1), IntegerAt(file, row, 2) != 0};
  const int64_t same = IntegerAt(file, row, 2);
  for (const int64_t index : {pair.first, pair.second}) {
    if (index < 0 || index >= static_cast<int64_t>(identities.size())) {
      return InvalidArgument("names embedding {}, allowed are 0 to {}", index, identities.size() - 1);
    }
    if (identities[index] == kNobody) {
      return InvalidArgument("names embedding {}, whose identity is -1: it is to be ignored", index);
    }
  }
  if (pair.first == pair.second) return InvalidArgument("pairs embedding {} with itself", pair.first);
  if (same != 0 && same != 1) return InvalidArgument("its third value is {}, allowed are 0 and 1", same);
  if (pair.genuine != (identities[pair.first] == identities[pair.second])) {
    return InvalidArgument("its third value is {}, but embeddings {} and {} are of the identities {} and {}", same,
                           pair.first, pair.second, identities[pair.first], identities[pair.second]);
  }
  return pair;
}

}  // namespace

absl::StatusOr<std::vector<RowPair>> ReadPairs(const std::string& field, const std::string& path,
                                               std::span<const int64_t> identities) {
  absl::StatusOr<NpyFile> file = NpyFile::Open(path, MappedFile::Access::kSequential);
  if (!file.ok()) return Annotate(file.status(), field);
  const std::string prefix = fmt::format("{}: {}", field, path);
  SHARDMAX_RETURN_IF_ERROR(Annotate(CheckIntegers(*file), prefix));
  if (file->ndim() != 2 || file->cols() != 3) {
    return InvalidArgument("{}: has shape [{}{}], [p, 3] is needed", prefix, file->rows(),
                           file->ndim() == 2 ? fmt::format(", {}", file->cols()) : "");
  }
  std::vector<RowPair> pairs(static_cast<size_t>(file->rows()));
  for (int64_t row = 0; row < file->rows(); ++row) {
    auto pair = PairAt(*file, row, identities);
    if (!pair.ok()) return Annotate(pair.status(), fmt::format("{}: row {}", prefix, row));
    pairs[row] = *pair;
  }
  return pairs;
}

absl::StatusOr<std::vector<RowPair>> DrawPairs(const std::string& field, const IdentityGroups& groups,
                                               int64_t num_pairs, uint32_t seed) {
  const PairIndex index(groups);
  const int64_t genuine = (num_pairs + 1) / 2;
  const int64_t impostors = num_pairs / 2;
  if (genuine > index.genuine_pairs() || impostors > index.impostor_pairs()) {
    return InvalidArgument("{} is {}: it takes {} genuine and {} impostor pairs, there are {} and {}", field, num_pairs,
                           genuine, impostors, index.genuine_pairs(), index.impostor_pairs());
  }
  const Permutation genuine_order(index.genuine_pairs(), seed, kGenuineStream);
  const Permutation impostor_order(index.impostor_pairs(), seed, kImpostorStream);
  std::vector<RowPair> pairs(static_cast<size_t>(num_pairs));
  for (int64_t i = 0; i < num_pairs; ++i) {
    pairs[i] = i % 2 == 0 ? index.Genuine(genuine_order(i / 2)) : index.Impostor(impostor_order(i / 2));
  }
  return pairs;
}

}  // namespace shardmax
