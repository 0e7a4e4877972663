#include "worker/eval/embeddings.h"

#include <algorithm>
#include <utility>

#include "worker/base/status.h"
#include "worker/data/row_check.h"
#include "worker/engine/norm.h"

namespace shardmax {
namespace {

constexpr int64_t kMaxDim = 65536;

}  // namespace

absl::StatusOr<Embeddings> Embeddings::Open(const std::string& field, const std::string& path) {
  absl::StatusOr<NpyFile> file = NpyFile::Open(path);
  if (!file.ok()) return Annotate(file.status(), field);
  SHARDMAX_RETURN_IF_ERROR(Annotate(CheckFloatMatrix(*file, kMaxDim), fmt::format("{}: {}", field, path)));
  return Embeddings(field, *std::move(file));
}

absl::Status Embeddings::ReadDirection(int64_t row, std::span<float> direction) const {
  CopyFloatRow(file_, row, direction);
  if (absl::Status status = CheckDirection(direction); !status.ok()) {
    return Annotate(status, fmt::format("{}: row {}", name(), row));
  }
  const double inverse = InverseNorm(direction);
  for (float& x : direction) x = static_cast<float>(x * inverse);
  return absl::OkStatus();
}

absl::Status Embeddings::Check(Range rows, std::span<const int64_t> identities) const {
  std::vector<float> row(static_cast<size_t>(dim()));
  for (int64_t i = rows.first; i < rows.end(); ++i) {
    if (!identities.empty() && identities[i] == kNobody) continue;
    SHARDMAX_RETURN_IF_ERROR(ReadDirection(i, row));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int64_t>> ReadIdentities(const std::string& field, const std::string& path, int64_t rows) {
  absl::StatusOr<NpyFile> file = NpyFile::Open(path, MappedFile::Access::kSequential);
  if (!file.ok()) return Annotate(file.status(), field);
  const std::string prefix = fmt::format("{}: {}", field, path);
  SHARDMAX_RETURN_IF_ERROR(Annotate(CheckIntegers(*file), prefix));
  if (file->ndim() != 1) {
    return InvalidArgument("{}: has shape [{}, {}], [{}] is needed", prefix, file->rows(), file->cols(), rows);
  }
  if (file->rows() != rows) {
    return InvalidArgument("{}: has {} rows, the embeddings have {}", prefix, file->rows(), rows);
  }
  std::vector<int64_t> identities(static_cast<size_t>(rows));
  for (int64_t row = 0; row < rows; ++row) {
    identities[row] = IntegerAt(*file, row);
    if (identities[row] < kNobody) {
      return InvalidArgument("{}: row {}: identity {} is neither -1 nor 0 or more", prefix, row, identities[row]);
    }
  }
  return identities;
}

int64_t IdentityGroups::genuine_pairs() const {
  int64_t pairs = 0;
  for (int64_t group = 0; group < count(); ++group) pairs += size(group) * (size(group) - 1) / 2;
  return pairs;
}

int64_t IdentityGroups::impostor_pairs() const {
  const auto n = static_cast<int64_t>(rows.size());
  return n * (n - 1) / 2 - genuine_pairs();
}

IdentityGroups GroupByIdentity(std::span<const int64_t> identities) {
  IdentityGroups groups;
  for (int64_t row = 0; row < static_cast<int64_t>(identities.size()); ++row) {
    if (identities[row] != kNobody) groups.rows.push_back(row);
  }
  std::stable_sort(groups.rows.begin(), groups.rows.end(),
                   [&](int64_t a, int64_t b) { return identities[a] < identities[b]; });
  for (size_t i = 0; i < groups.rows.size(); ++i) {
    const bool starts = i == 0 || identities[groups.rows[i]] != identities[groups.rows[i - 1]];
    if (starts) groups.starts.push_back(static_cast<int64_t>(i));
  }
  groups.starts.push_back(static_cast<int64_t>(groups.rows.size()));
  return groups;
}

}  // namespace shardmax
