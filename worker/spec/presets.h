// The losses of table 1 of arXiv:1812.11317 and its baselines, by name.
#pragma once

#include <optional>

#include "shardmax/v1/job.pb.h"

namespace shardmax {

// What a preset means. Values that a preset does not name are neutral: plain Softmax, scale 32.
struct PresetValues {
  double scale = 32;
  double m1 = 1;
  double m2 = 0;
  double m3 = 0;
  double t = 1;
  double gamma = 0;
  double keep = 1;

  friend bool operator==(const PresetValues&, const PresetValues&) = default;
};

// Nothing for a number that is no enumerator.
std::optional<PresetValues> ValuesOfPreset(shardmax::v1::Preset preset);

}  // namespace shardmax
