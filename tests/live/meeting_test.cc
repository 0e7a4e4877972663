#include "worker/live/meeting.h"

#include <gmock/gmock.h>

#include "worker/base/status.h"

namespace shardmax {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Trainers, AreDealtToRanksInOrder) {
  for (const int ranks : {1, 2, 3, 7, 16}) {
    for (const int trainers : {1, 2, 3, 5, 16, 33}) {
      int64_t next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const Range mine = TrainersOfRank(rank, trainers, ranks);
        EXPECT_EQ(mine.first, next);
        next = mine.end();
        for (int64_t t = mine.first; t < mine.end(); ++t) {
          EXPECT_EQ(RankOfTrainer(static_cast<int>(t), trainers, ranks), rank);
          EXPECT_EQ(rank, t * ranks / trainers);
        }
      }
      EXPECT_EQ(next, trainers) << ranks;
    }
  }
}

RankNotice Brought(int trainers, int64_t rows) {
  RankNotice notice;
  notice.trainers = notice.connected = notice.brought = trainers;
  notice.rows = rows;
  return notice;
}

TEST(Meeting, MakesTheStepWhenAllHaveBroughtIt) {
  std::vector<RankNotice> notices = {Brought(2, 5), RankNotice(), Brought(1, 0)};
  notices[2].lr_trainer = 2;
  notices[2].lr = 0.5;
  notices[0].checkpoint = 1;
  notices[1].requests = 2;
  const Meeting meeting = Conclude(notices, 8);
  EXPECT_TRUE(meeting.step);
  EXPECT_TRUE(meeting.refusal.ok());
  EXPECT_THAT(meeting.rank_rows, ElementsAre(5, 0, 0));
  EXPECT_EQ(meeting.rows, 5);
  EXPECT_EQ(meeting.lr, 0.5);
  EXPECT_TRUE(meeting.checkpoint && meeting.all_connected);
  EXPECT_EQ(meeting.requests, 2U);
  EXPECT_EQ(meeting.load, kNoLoad);
}

TEST(Meeting, WaitsForATrainerThatIsMissing) {
  std::vector<RankNotice> notices = {Brought(2, 5), Brought(2, 3)};
  notices[1].brought = 1;
  notices[1].connected = 1;
  const Meeting meeting = Conclude(notices, 8);
  EXPECT_FALSE(meeting.step);
  EXPECT_FALSE(meeting.all_connected);
}

TEST(Meeting, RefusesTheStepOfAllForTheMistakeOfOne) {
  std::vector<RankNotice> notices = {Brought(1, 5), Brought(1, 3)};
  EXPECT_THAT(Message(Conclude(notices, 7).refusal), HasSubstr("bring 8 rows together: train.batch_size allows 7"));
  notices[0].lr_trainer = 0;
  notices[1].lr_trainer = 1;
  notices[1].lr = 0.1;
  EXPECT_EQ(Message(Conclude(notices, 8).refusal),
            "lr is 0 of trainer 0, but 0.1 of trainer 1: those who give one must agree");
  notices[1].verdict = decltype(RankNotice::verdict)::Of(InvalidArgument("trainer 1: odd"));
  const Meeting meeting = Conclude(notices, 8);
  EXPECT_TRUE(meeting.step);
  EXPECT_EQ(meeting.refusal, InvalidArgument("trainer 1: odd"));
  EXPECT_THAT(Message(Conclude(std::vector{Brought(1, 0), Brought(1, 0)}, 8).refusal),
              HasSubstr("no trainer brings a row"));
}

TEST(Meeting, LoadsTheLowestCheckpointOnceAllAskForIt) {
  std::vector<RankNotice> notices = {Brought(1, 5), Brought(2, 3)};
  notices[1].load = 20;
  notices[1].loads = 2;
  Meeting meeting = Conclude(notices, 8);
  EXPECT_FALSE(meeting.step) << "a load goes before a step";
  EXPECT_EQ(meeting.load, 20);
  EXPECT_FALSE(meeting.load_agreed);
  notices[0].load = 10;
  notices[0].loads = 1;
  meeting = Conclude(notices, 8);
  EXPECT_EQ(meeting.load, 10);
  EXPECT_FALSE(meeting.load_agreed);
  notices[1].load = 10;
  EXPECT_TRUE(Conclude(notices, 8).load_agreed);
}

}  // namespace
}  // namespace shardmax
