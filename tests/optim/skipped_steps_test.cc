#include "worker/optim/skipped_steps.h"

#include <gmock/gmock.h>

#include "worker/loss/portable.h"

namespace shardmax {
namespace {

double RateAt(int64_t step) {
  return 0.3 / (1 + 0.1 * static_cast<double>(step));
}

struct Pair {
  double weight, momentum;
};

// The optimizer's own step, with a gradient of zero, for each step of [from, now).
Pair OneByOne(const OptimizerParams& params, Pair at, int64_t from, int64_t now) {
  using Ops = ScalarOps<double>;
  for (int64_t step = from; step < now; ++step) {
    const SgdConstants<Ops> k(Ops(), UpdateRule::At(params, RateAt(step), step));
    at.weight = params.momentum == 0 ? SgdUpdate(Ops(), k, at.weight, 0.0)
                                     : SgdMomentumUpdate<false>(Ops(), k, at.weight, 0.0, at.momentum);
  }
  return at;
}

TEST(SkippedSteps, AreThoseOfTheOptimizerOneByOne) {
  for (const OptimizerParams& params :
       {OptimizerParams{.weight_decay = 0.2}, OptimizerParams{.momentum = 0.9},
        OptimizerParams{.weight_decay = 0.05, .momentum = 0.9}, OptimizerParams{.weight_decay = 1, .momentum = 0.5}}) {
    SkippedSteps skipped(params, RateAt);
    for (const int64_t now : {1, 7, 200}) {
      skipped.MoveTo(now);
      skipped.Reach(0);
      for (const int64_t from : {int64_t{0}, now / 2, now - 1, now}) {
        const Pair start = {0.7, params.momentum == 0 ? 0.0 : -0.4};
        const Pair expected = OneByOne(params, start, from, now);
        const DecayMap& map = skipped.Since(from);
        EXPECT_NEAR(map.weight_of_weight * start.weight + map.weight_of_momentum * start.momentum, expected.weight,
                    1e-13)
            << from << " to " << now;
        if (params.momentum == 0) continue;
        EXPECT_NEAR(map.momentum_of_weight * start.weight + map.momentum_of_momentum * start.momentum,
                    expected.momentum, 1e-13)
            << from << " to " << now;
      }
    }
  }
}

TEST(SkippedSteps, NeedNoWorkWhereNothingWasSkipped) {
  int asked = 0;
  SkippedSteps skipped({.momentum = 0.9}, [&](int64_t) {
    ++asked;
    return 0.1;
  });
  skipped.MoveTo(1'000'000);
  skipped.Reach(1'000'000);
  EXPECT_EQ(asked, 0);
  EXPECT_EQ(skipped.Since(1'000'000).weight_of_weight, 1);
  skipped.Reach(999'990);
  EXPECT_EQ(asked, 10);
}

}  // namespace
}  // namespace shardmax
