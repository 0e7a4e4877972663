#include "client/cpp/weight_encoder.h"

#include <fmt/format.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "worker/base/status.h"

namespace shardmax {
namespace {

constexpr size_t kLengthBytes = 8;
// A header with one tensor is far shorter.
constexpr uint64_t kMaxHeaderBytes = 1 << 20;
// Of a job.
constexpr int64_t kMaxClasses = 2147483647;
constexpr int64_t kMaxDim = 65536;

absl::Status NotWeights(std::string_view why) {
  return Error(absl::StatusCode::kDataLoss, "the server sent no weights [C, D]: {}", why);
}

struct Shape {
  int64_t num_classes = 0;
  int64_t dim = 0;
};

absl::StatusOr<Shape> ParseShape(const std::string& text) {
  const auto header = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) return NotWeights("a damaged header");
  const auto weight = header.find("weight");
  if (weight == header.end() || !weight->is_object()) return NotWeights("no tensor `weight`");
  const auto dtype = weight->find("dtype");
  const auto shape = weight->find("shape");
  if (dtype == weight->end() || *dtype != "F32") return NotWeights("they are not float32");
  const auto size = [&](size_t i, int64_t limit) -> int64_t {
    const auto& value = (*shape)[i];
    return value.is_number_integer() && value > 0 && value <= limit ? value.get<int64_t>() : 0;
  };
  if (shape == weight->end() || !shape->is_array() || shape->size() != 2) return NotWeights("another shape");
  const Shape found = {.num_classes = size(0, kMaxClasses), .dim = size(1, kMaxDim)};
  if (found.num_classes == 0 || found.dim == 0) return NotWeights("another shape");
  return found;
}

class NpyEnvelope : public Envelope {
 public:
  absl::Status Begin(int64_t num_classes, int64_t dim, const Sink& sink) override {
    constexpr size_t kAlignment = 64;
    constexpr size_t kMagicBytes = 10;  // With the version and the length of what follows.
    std::string header =
        fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", num_classes, dim);
    header.append(kAlignment - 1 - (kMagicBytes + header.size()) % kAlignment, ' ');
    header += '\n';
    std::string magic("\x93NUMPY\x01\x00", 8);
    magic += static_cast<char>(header.size() & 0xff);
    magic += static_cast<char>(header.size() >> 8);
    return sink(magic + header);
  }
  absl::Status Values(std::string_view bytes, const Sink& sink) override { return sink(bytes); }
  absl::Status End(const Sink&) override { return absl::OkStatus(); }
};

}  // namespace

std::unique_ptr<Envelope> MakeNpyEnvelope() {
  return std::make_unique<NpyEnvelope>();
}

WeightEncoder::WeightEncoder(WeightFormat format, const std::string& path, Sink sink) : sink_(std::move(sink)) {
  if (format == WeightFormat::kNpy) envelope_ = MakeNpyEnvelope();
  if (format == WeightFormat::kTorch) envelope_ = MakeTorchEnvelope(path);
}

absl::Status WeightEncoder::Add(std::string_view piece) {
  if (envelope_ == nullptr) return sink_(piece);
  if (!in_values_) {
    header_ += piece;
    if (header_.size() < kLengthBytes) return absl::OkStatus();
    uint64_t length = 0;
    std::memcpy(&length, header_.data(), kLengthBytes);
    if (length > kMaxHeaderBytes) return NotWeights("a damaged header");
    if (header_.size() < kLengthBytes + length) return absl::OkStatus();
    in_values_ = true;
    const std::string values = header_.substr(kLengthBytes + length);
    header_ = header_.substr(kLengthBytes, length);
    SHARDMAX_RETURN_IF_ERROR(BeginValues());
    return Add(values);
  }
  values_left_ -= static_cast<int64_t>(piece.size());
  if (values_left_ < 0) return NotWeights("more values than their shape says");
  return piece.empty() ? absl::OkStatus() : envelope_->Values(piece, sink_);
}

absl::Status WeightEncoder::BeginValues() {
  SHARDMAX_ASSIGN_OR_RETURN(const Shape shape, ParseShape(header_));
  values_left_ = shape.num_classes * shape.dim * static_cast<int64_t>(sizeof(float));
  return envelope_->Begin(shape.num_classes, shape.dim, sink_);
}

absl::Status WeightEncoder::End() {
  if (envelope_ == nullptr) return absl::OkStatus();
  if (!in_values_ || values_left_ != 0) return NotWeights("fewer values than their shape says");
  return envelope_->End(sink_);
}

}  // namespace shardmax
