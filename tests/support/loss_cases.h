// The losses that tests run through: the 13 presets, and mixtures that no preset has.
#pragma once

#include <string>
#include <vector>

#include "tests/support/dense_loss.h"
#include "worker/loss/loss_params.h"

namespace shardmax {

struct LossCase {
  std::string name;
  LossParams params;
};

// The 13 presets, written down here from the table rather than taken from worker/spec.
inline std::vector<LossCase> PresetCases() {
  return {
      {"Softmax", {}},
      {"FSoftmax", {.gamma = 2}},
      {"HmSoftmax", {.keep = 0.9}},
      {"ASoftmax", {.m1 = 4}},
      {"AmSoftmax", {.m3 = 0.35}},
      {"ArcSoftmax", {.m2 = 0.5}},
      {"FAmSoftmax", {.m3 = 0.35, .gamma = 2}},
      {"FArcSoftmax", {.m2 = 0.5, .gamma = 2}},
      {"HmAmSoftmax", {.m3 = 0.35, .keep = 0.9}},
      {"HmArcSoftmax", {.m2 = 0.5, .keep = 0.9}},
      {"SvSoftmax", {.t = 1.2}},
      {"SvAmSoftmax", {.m3 = 0.35, .t = 1.2}},
      {"SvArcSoftmax", {.m2 = 0.5, .t = 1.2}},
  };
}

// Every part at once, each extension, and parameters away from the presets.
inline std::vector<LossCase> MixtureCases() {
  return {
      {"Everything", {.scale = 10, .m1 = 1.35, .m2 = 0.4, .m3 = 0.2, .t = 1.3, .gamma = 1.5, .keep = 0.7}},
      {"ManyTurns", {.scale = 8, .m1 = 4, .m2 = 0.5, .m3 = 0.35, .t = 1.1}},
      {"EasyA", {.scale = 16, .m1 = 4, .extension = Extension::kEasy}},
      {"EasyArc", {.m2 = 0.5, .extension = Extension::kEasy}},
      {"EasySvAm", {.m3 = 0.35, .extension = Extension::kEasy, .t = 1.2}},
      {"LinearArc", {.m2 = 0.5, .extension = Extension::kLinear}},
      {"LinearSvArc", {.scale = 24, .m2 = 0.5, .m3 = 0.1, .extension = Extension::kLinear, .t = 1.2}},
      {"LinearA", {.scale = 16, .m1 = 2, .m2 = 0.3, .extension = Extension::kLinear, .gamma = 0.5}},
      {"SmallGamma", {.scale = 16, .m3 = 0.2, .gamma = 0.25}},
      {"HalfOfTheRows", {.scale = 20, .t = 1.5, .gamma = 2, .keep = 0.5}},
  };
}

inline std::vector<LossCase> AllLossCases() {
  std::vector<LossCase> cases = PresetCases();
  for (LossCase& mixture : MixtureCases()) cases.push_back(std::move(mixture));
  return cases;
}

inline DenseLossSpec DenseSpecOf(const LossParams& p) {
  const auto extension = p.extension == Extension::kEasy     ? DenseExtension::kEasy
                         : p.extension == Extension::kLinear ? DenseExtension::kLinear
                                                             : DenseExtension::kMonotone;
  return {.scale = p.scale,
          .m1 = p.m1,
          .m2 = p.m2,
          .m3 = p.m3,
          .extension = extension,
          .t = p.t,
          .gamma = p.gamma,
          .keep = p.keep};
}

}  // namespace shardmax
