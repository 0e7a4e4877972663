#include "client/cpp/weight_encoder.h"

#include <fmt/format.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include <cstring>
#include <utility>

#include "worker/base/status.h"

namespace shardmax {
namespace {

constexpr size_t kLengthBytes = 8;
// A header with one tensor is far shorter.
constexpr uint64_t kMaxHeaderBytes = 1 << 20;
// Of a job.
constexpr double kMaxClasses = 2147483647;
constexpr double kMaxDim = 65536;

absl::Status NotWeights(std::string_view why) {
  return Error(absl::StatusCode::kDataLoss, "the server sent no weights [C, D]: {}", why);
}

struct Shape {
  int64_t num_classes = 0;
  int64_t dim = 0;
};

absl::StatusOr<Shape> ParseShape(const std::string& json) {
  google::protobuf::Struct header;
  if (!google::protobuf::util::JsonStringToMessage(json, &header).ok()) return NotWeights("a damaged header");
  const auto weight = header.fields().find("weight");
  if (weight == header.fields().end()) return NotWeights("no tensor `weight`");
  const auto& fields = weight->second.struct_value().fields();
  const auto dtype = fields.find("dtype");
  const auto shape = fields.find("shape");
  if (dtype == fields.end() || dtype->second.string_value() != "F32") return NotWeights("they are not float32");
  if (shape == fields.end() || shape->second.list_value().values_size() != 2) return NotWeights("another shape");
  const double classes = shape->second.list_value().values(0).number_value();
  const double dim = shape->second.list_value().values(1).number_value();
  if (!(classes >= 1 && classes <= kMaxClasses && dim >= 1 && dim <= kMaxDim)) return NotWeights("another shape");
  return Shape{.num_classes = static_cast<int64_t>(classes), .dim = static_cast<int64_t>(dim)};
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
