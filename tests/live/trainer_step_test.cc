#include "worker/live/trainer_step.h"

#include <gmock/gmock.h>

#include <limits>

#include "worker/base/status.h"
#include "worker/live/wire.h"

namespace shardmax {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr StepShape kShape = {.num_classes = 9, .dim = 2, .max_rows = 4};

v1::StepRequest Request(const std::vector<float>& features, const std::vector<int32_t>& labels,
                        v1::WireType type = v1::WIRE_FLOAT32) {
  v1::StepRequest request;
  request.set_step(7);
  request.set_rows(static_cast<int32_t>(labels.size()));
  request.set_type(type);
  request.set_features(EncodeValues(features, type));
  request.set_labels(std::string(reinterpret_cast<const char*>(labels.data()), labels.size() * 4));
  return request;
}

std::string Mistake(const v1::StepRequest& request) {
  const TrainerStep step = ReadTrainerStep(3, request, kShape);
  EXPECT_TRUE(absl::IsInvalidArgument(step.status)) << step.status;
  EXPECT_EQ(step.rows, 0);
  EXPECT_TRUE(step.features.empty() && step.labels.empty());
  return Message(step.status);
}

TEST(TrainerStep, IsReadFromEveryType) {
  for (const v1::WireType type : {v1::WIRE_FLOAT32, v1::WIRE_FLOAT16, v1::WIRE_BFLOAT16}) {
    v1::StepRequest request = Request({1, 2, -3, 0.5, 8, 0}, {8, 0, 4}, type);
    request.set_lr(0.25);
    const TrainerStep step = ReadTrainerStep(3, request, kShape);
    ASSERT_TRUE(step.status.ok()) << step.status;
    EXPECT_EQ(step.trainer, 3);
    EXPECT_EQ(step.step, 7);
    EXPECT_EQ(step.rows, 3);
    EXPECT_EQ(step.lr, 0.25);
    EXPECT_FALSE(step.checkpoint);
    EXPECT_THAT(step.features, ElementsAre(1, 2, -3, 0.5, 8, 0));
    EXPECT_THAT(step.labels, ElementsAre(8, 0, 4));
  }
}

TEST(TrainerStep, OfNoRowsIsOne) {
  const TrainerStep step = ReadTrainerStep(0, Request({}, {}), kShape);
  EXPECT_TRUE(step.status.ok()) << step.status;
  EXPECT_EQ(step.rows, 0);
}

TEST(TrainerStep, LooksAtNothingOfIgnoredRows) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const TrainerStep step = ReadTrainerStep(0, Request({nan, 1, 3, 4}, {-1, 2}), kShape);
  ASSERT_TRUE(step.status.ok()) << step.status;
  EXPECT_THAT(step.features, ElementsAre(0, 0, 3, 4));
}

TEST(TrainerStep, NamesTrainerRowAndWhatIsWrong) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(Mistake(Request({1, 2, 3, nan}, {1, 1})),
            "trainer 3: features row 1: column 1 is nan: every value must be finite");
  EXPECT_THAT(Mistake(Request({0, 0}, {1})), HasSubstr("trainer 3: features row 0: has length zero"));
  EXPECT_EQ(Mistake(Request({1, 1}, {9})),
            "trainer 3: labels row 0 is 9: allowed is -1 (ignored) or a class in [0, 9)");
  EXPECT_THAT(Mistake(Request({1, 1, 1, 1}, {0, -2})), HasSubstr("labels row 1 is -2"));
  EXPECT_EQ(Mistake(Request({1, 1, 1}, {0})),
            "trainer 3: features has 12 bytes: 1 rows of width 2 in 4 bytes a value are 8");
  v1::StepRequest request = Request({1, 1}, {0});
  request.set_labels("abc");
  EXPECT_EQ(Mistake(request), "trainer 3: labels has 3 bytes: 1 rows of int32 are 4");
  EXPECT_THAT(Mistake(Request({1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {0, 0, 0, 0, 0})),
              HasSubstr("rows is 5: allowed is 0 to"));
  request = Request({1, 1}, {0});
  request.set_rows(-1);
  EXPECT_THAT(Mistake(request), HasSubstr("rows is -1"));
  request = Request({1, 1}, {0});
  request.set_type(v1::WIRE_TYPE_UNSPECIFIED);
  EXPECT_THAT(Mistake(request), HasSubstr("type is 0: allowed is WIRE_FLOAT32, WIRE_FLOAT16, WIRE_BFLOAT16"));
  for (const double lr : {-0.1, 1.1e6, std::numeric_limits<double>::quiet_NaN()}) {
    request = Request({1, 1}, {0});
    request.set_lr(lr);
    EXPECT_THAT(Mistake(request), HasSubstr("allowed is 0 to 1000000"));
  }
}

TEST(TrainerStep, HasAFingerprintOfAllThatItBrings) {
  const v1::StepRequest request = Request({1, 2}, {0});
  const auto fingerprint = [](const v1::StepRequest& each) { return ReadTrainerStep(0, each, kShape).fingerprint; };
  EXPECT_EQ(fingerprint(request), fingerprint(Request({1, 2}, {0})));
  std::vector<v1::StepRequest> others = {Request({1, 3}, {0}), Request({1, 2}, {1}), request, request, request};
  others[2].set_lr(0);
  others[3].set_checkpoint(true);
  others[4].set_type(v1::WIRE_FLOAT16);
  for (const auto& other : others) EXPECT_NE(fingerprint(request), fingerprint(other)) << other.ShortDebugString();
}

}  // namespace
}  // namespace shardmax
