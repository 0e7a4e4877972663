#include "worker/data/dataset.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "worker/base/status.h"
#include "worker/data/npy_values.h"
#include "worker/data/row_check.h"

namespace shardmax {
namespace {

absl::Status CheckFeatures(const NpyFile& file, int64_t dim) {
  if (file.dtype() != NpyType::kFloat32 && file.dtype() != NpyType::kFloat16) {
    return InvalidArgument("dtype is {}, float32 or float16 is needed", NpyTypeName(file.dtype()));
  }
  if (file.ndim() != 2) return InvalidArgument("has shape [{}], [n, {}] is needed", file.rows(), dim);
  if (file.cols() != dim) {
    return InvalidArgument("has shape [{}, {}], [n, {}] is needed", file.rows(), file.cols(), dim);
  }
  if (file.rows() == 0) return InvalidArgument("has no rows");
  return absl::OkStatus();
}

absl::Status CheckLabels(const NpyFile& file, const NpyFile& features) {
  SHARDMAX_RETURN_IF_ERROR(CheckIntegers(file));
  if (file.ndim() != 1) {
    return InvalidArgument("has shape [{}, {}], [{}] is needed", file.rows(), file.cols(), features.rows());
  }
  if (file.rows() != features.rows()) {
    return InvalidArgument("has {} rows, the features {} have {}", file.rows(), features.path(), features.rows());
  }
  return absl::OkStatus();
}

absl::Status CheckLabelRange(const NpyFile& file, int64_t num_classes) {
  for (int64_t row = 0; row < file.rows(); ++row) {
    const int64_t label = IntegerAt(file, row);
    if (label < -1 || label >= num_classes) {
      return InvalidArgument("row {}: label {} is neither -1 nor in [0, {})", row, label, num_classes);
    }
  }
  return absl::OkStatus();
}

}  // namespace

LabelledRows::LabelledRows(std::string field, NpyFile features, NpyFile labels)
    : field_(std::move(field)), features_(std::move(features)), labels_(std::move(labels)) {}

absl::StatusOr<LabelledRows> LabelledRows::Open(const std::string& field, const std::string& features_path,
                                                const std::string& labels_path, int64_t dim, int64_t num_classes) {
  const std::string features_field = field + ".features";
  absl::StatusOr<NpyFile> features = NpyFile::Open(features_path);
  if (!features.ok()) return Annotate(features.status(), features_field);
  SHARDMAX_RETURN_IF_ERROR(
      Annotate(CheckFeatures(*features, dim), fmt::format("{}: {}", features_field, features_path)));

  const std::string labels_field = field + ".labels";
  absl::StatusOr<NpyFile> labels = NpyFile::Open(labels_path, MappedFile::Access::kSequential);
  if (!labels.ok()) return Annotate(labels.status(), labels_field);
  absl::Status status = CheckLabels(*labels, *features);
  if (status.ok()) status = CheckLabelRange(*labels, num_classes);
  SHARDMAX_RETURN_IF_ERROR(Annotate(status, fmt::format("{}: {}", labels_field, labels_path)));
  return LabelledRows(field, *std::move(features), *std::move(labels));
}

int32_t LabelledRows::label(int64_t row) const {
  return static_cast<int32_t>(IntegerAt(labels_, row));
}

absl::Status LabelledRows::Read(std::span<const int64_t> rows, MatrixView<float> features,
                                std::span<int32_t> labels) const {
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::span<float> out = features.row(static_cast<int64_t>(i));
    labels[i] = label(rows[i]);
    if (labels[i] == -1) {
      std::fill(out.begin(), out.end(), 0.0f);
      continue;
    }
    CopyFloatRow(features_, rows[i], out);
    if (absl::Status status = CheckDirection(out); !status.ok()) {
      return Annotate(status, fmt::format("{}.features: {}: row {}", field_, features_.path(), rows[i]));
    }
  }
  return absl::OkStatus();
}

absl::Status LabelledRows::Check(Range range) const {
  std::vector<float> features(static_cast<size_t>(dim()));
  int32_t label = 0;
  for (int64_t row = range.first; row < range.end(); ++row) {
    SHARDMAX_RETURN_IF_ERROR(Read(std::span(&row, 1), {features.data(), 1, dim()}, std::span(&label, 1)));
  }
  return absl::OkStatus();
}

LabelledRows::Digest LabelledRows::MakeDigest() const {
  return {.features_file = fmt::format("{}.features: {}", field_, features_.path()),
          .features = NpyDigest(features_, kSampledRows),
          .labels_file = fmt::format("{}.labels: {}", field_, labels_.path()),
          .labels = NpyDigest(labels_, labels_.rows())};
}

}  // namespace shardmax
