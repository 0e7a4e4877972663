// Exported weights in the formats of other programs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "client/cpp/shardmax/client.h"

namespace shardmax {

// Takes bytes of the new file, in order.
using Sink = std::function<absl::Status(std::string_view bytes)>;

// What a format has around its values.
class Envelope {
 public:
  virtual ~Envelope() = default;
  // Weights [C, D] float32.
  virtual absl::Status Begin(int64_t num_classes, int64_t dim, const Sink& sink) = 0;
  virtual absl::Status Values(std::string_view bytes, const Sink& sink) = 0;
  virtual absl::Status End(const Sink& sink) = 0;
};

// `path` is that of the new file: torch has its name inside as well.
std::unique_ptr<Envelope> MakeNpyEnvelope();
std::unique_ptr<Envelope> MakeTorchEnvelope(const std::string& path);

// Turns a safetensors file with `weight` [C, D] float32, which comes in pieces of any length, into another format while
// it comes. DataLoss if it is not such a file.
class WeightEncoder {
 public:
  WeightEncoder(WeightFormat format, const std::string& path, Sink sink);

  absl::Status Add(std::string_view piece);
  // Nothing more comes.
  absl::Status End();

 private:
  absl::Status BeginValues();

  Sink sink_;
  std::unique_ptr<Envelope> envelope_;  // Null: as it comes.
  std::string header_;                  // Until all of it is there.
  bool in_values_ = false;
  int64_t values_left_ = 0;  // Bytes.
};

}  // namespace shardmax
