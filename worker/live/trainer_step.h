// What a trainer brings to a step, read from its message.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "shardmax/v1/head.pb.h"

namespace shardmax {

// Immutable once it is made. `status` not OK: the rows are not to be used, and are not there.
struct TrainerStep {
  int trainer = 0;
  int32_t step = 0;
  shardmax::v1::WireType type = shardmax::v1::WIRE_FLOAT32;
  int64_t rows = 0;             // n
  std::vector<float> features;  // [n, D]; zeros where ignored
  std::vector<int32_t> labels;  // [n]
  std::optional<double> lr;
  bool checkpoint = false;
  bool checkpoint_behind = false;
  std::string fingerprint;  // Equal for equal requests.
  absl::Status status;      // InvalidArgument naming trainer, and row where it is one's.
};

// The shape that steps must have.
struct StepShape {
  int64_t num_classes = 0;  // C
  int64_t dim = 0;          // D
  int64_t max_rows = 0;     // Of all trainers together, so of one as well.
};

// Reads and checks the request: sizes, type, labels in [-1, C), finite values, rows that have a direction (but those
// labelled -1, which are not looked at), a learning rate of 0 to 1e6.
TrainerStep ReadTrainerStep(int trainer, const shardmax::v1::StepRequest& request, const StepShape& shape);

}  // namespace shardmax
