#include "worker/spec/presets.h"

namespace shardmax {
namespace {

namespace v1 = shardmax::v1;

constexpr double kAngle = 4;
constexpr double kArc = 0.5;
constexpr double kAm = 0.35;
constexpr double kSv = 1.2;
constexpr double kFocal = 2;
constexpr double kHard = 0.9;

constexpr struct {
  v1::Preset preset;
  PresetValues values;
} kPresets[] = {
    {v1::SOFTMAX, {}},
    {v1::F_SOFTMAX, {.gamma = kFocal}},
    {v1::HM_SOFTMAX, {.keep = kHard}},
    {v1::A_SOFTMAX, {.m1 = kAngle}},
    {v1::AM_SOFTMAX, {.m3 = kAm}},
    {v1::ARC_SOFTMAX, {.m2 = kArc}},
    {v1::F_AM_SOFTMAX, {.m3 = kAm, .gamma = kFocal}},
    {v1::F_ARC_SOFTMAX, {.m2 = kArc, .gamma = kFocal}},
    {v1::HM_AM_SOFTMAX, {.m3 = kAm, .keep = kHard}},
    {v1::HM_ARC_SOFTMAX, {.m2 = kArc, .keep = kHard}},
    {v1::SV_SOFTMAX, {.t = kSv}},
    {v1::SV_AM_SOFTMAX, {.m3 = kAm, .t = kSv}},
    {v1::SV_ARC_SOFTMAX, {.m2 = kArc, .t = kSv}},
};

}  // namespace

std::optional<PresetValues> ValuesOfPreset(v1::Preset preset) {
  for (const auto& row : kPresets) {
    if (row.preset == preset) return row.values;
  }
  return std::nullopt;
}

}  // namespace shardmax
