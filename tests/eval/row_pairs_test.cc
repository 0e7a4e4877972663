#include "worker/eval/row_pairs.h"

#include <set>

#include "tests/eval/eval_fixture.h"

namespace shardmax {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;

std::vector<RowPair> Drawn(const IdentityGroups& groups, int64_t num_pairs, uint32_t seed) {
  auto pairs = DrawPairs("p", groups, num_pairs, seed);
  EXPECT_TRUE(pairs.ok()) << pairs.status();
  return pairs.ok() ? *std::move(pairs) : std::vector<RowPair>();
}

TEST(IdentityGroups, SortsRowsByIdentityAndLeavesNobodyOut) {
  const IdentityGroups groups = GroupByIdentity(std::vector<int64_t>{7, -1, 3, 7, 1LL << 40, 3, 7});
  EXPECT_THAT(groups.rows, ElementsAre(2, 5, 0, 3, 6, 4));
  EXPECT_THAT(groups.starts, ElementsAre(0, 2, 5, 6));
  EXPECT_EQ(groups.genuine_pairs(), 1 + 3);
  EXPECT_EQ(groups.impostor_pairs(), 15 - 4);
  EXPECT_EQ(GroupByIdentity(std::vector<int64_t>{-1}).count(), 0);
}

TEST(DrawPairs, GivesEveryPairOnceWhenAllAreAskedFor) {
  const std::vector<int64_t> identities = {0, 0, 0, 1, 1, 2, -1, 0};
  const IdentityGroups groups = GroupByIdentity(identities);  // 6 + 1 genuine, 21 - 7 impostor pairs.
  std::set<std::pair<int64_t, int64_t>> genuine;
  std::set<std::pair<int64_t, int64_t>> impostor;
  const std::vector<RowPair> pairs = Drawn(groups, 14, 5);
  for (size_t i = 0; i < pairs.size(); ++i) {
    const RowPair& pair = pairs[i];
    EXPECT_EQ(pair.genuine, i % 2 == 0);
    EXPECT_NE(pair.first, pair.second);
    EXPECT_EQ(identities[pair.first] == identities[pair.second], pair.genuine);
    EXPECT_TRUE(identities[pair.first] >= 0 && identities[pair.second] >= 0);
    (pair.genuine ? genuine : impostor).insert(std::minmax(pair.first, pair.second));
  }
  EXPECT_EQ(genuine.size(), 7u);
  EXPECT_EQ(impostor.size(), 7u);
}

TEST(DrawPairs, ReachesEveryImpostorPair) {
  const std::vector<int64_t> identities = {2, 0, 1, 0, 2, 2};  // 1 + 3 genuine, 11 impostor pairs.
  const IdentityGroups groups = GroupByIdentity(identities);
  std::set<std::pair<int64_t, int64_t>> seen;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    for (const RowPair& pair : Drawn(groups, 8, seed)) {
      if (!pair.genuine) seen.insert(std::minmax(pair.first, pair.second));
    }
  }
  EXPECT_EQ(seen.size(), 11u);
}

TEST(DrawPairs, DependsOnTheSeedOnly) {
  const Sample sample(200, 1, 20);
  const IdentityGroups groups = GroupByIdentity(sample.identities);
  EXPECT_EQ(Drawn(groups, 100, 3), Drawn(groups, 100, 3));
  EXPECT_NE(Drawn(groups, 100, 3), Drawn(groups, 100, 4));
}

TEST(DrawPairs, SaysHowManyThereAre) {
  const IdentityGroups groups = GroupByIdentity(std::vector<int64_t>{0, 0, 1, 2});
  EXPECT_EQ(Message(DrawPairs("f", groups, 6000, 1).status()),
            "f is 6000: it takes 3000 genuine and 3000 impostor pairs, there are 1 and 5");
}

class ReadPairsTest : public EvalTest {
 protected:
  std::string ErrorOf(const std::vector<int64_t>& values, int64_t cols = 3) {
    WriteIntegers("p.npy", values, cols);
    const auto pairs = ReadPairs("f", folder_.path("p.npy"), std::vector<int64_t>{4, 4, 5, -1});
    EXPECT_FALSE(pairs.ok());
    EXPECT_THAT(Message(pairs.status()), testing::StartsWith("f: " + folder_.path("p.npy") + ": "));
    return Message(pairs.status());
  }
};

TEST_F(ReadPairsTest, TakesThemInTheOrderOfTheFile) {
  WriteIntegers("p.npy", {2, 0, 0, 1, 0, 1}, 3);
  const auto pairs = ReadPairs("f", folder_.path("p.npy"), std::vector<int64_t>{4, 4, 5});
  ASSERT_TRUE(pairs.ok()) << pairs.status();
  EXPECT_THAT(*pairs, ElementsAre(RowPair{2, 0, false}, RowPair{1, 0, true}));
}

TEST_F(ReadPairsTest, NamesTheRowThatIsWrong) {
  EXPECT_THAT(ErrorOf({0, 1, 1, 0, 4, 0}), EndsWith("row 1: names embedding 4, allowed are 0 to 3"));
  EXPECT_THAT(ErrorOf({-1, 1, 1}), EndsWith("row 0: names embedding -1, allowed are 0 to 3"));
  EXPECT_THAT(ErrorOf({0, 3, 0}), EndsWith("row 0: names embedding 3, whose identity is -1: it is to be ignored"));
  EXPECT_THAT(ErrorOf({1, 1, 1}), EndsWith("row 0: pairs embedding 1 with itself"));
  EXPECT_THAT(ErrorOf({0, 1, 2}), EndsWith("row 0: its third value is 2, allowed are 0 and 1"));
  EXPECT_THAT(ErrorOf({0, 1, 0}),
              EndsWith("row 0: its third value is 0, but embeddings 0 and 1 are of the identities 4 and 4"));
}

TEST_F(ReadPairsTest, RefusesAnotherShapeOrType) {
  EXPECT_THAT(ErrorOf({0, 1, 1, 0}, 4), EndsWith("has shape [1, 4], [p, 3] is needed"));
  EXPECT_THAT(ErrorOf({0, 1, 1}, 0), EndsWith("has shape [3], [p, 3] is needed"));
  WriteFeatures("p.npy", {0, 1, 1}, 3);
  EXPECT_THAT(Message(ReadPairs("f", folder_.path("p.npy"), std::vector<int64_t>{4, 4}).status()),
              HasSubstr("dtype is float32, int32 or int64 is needed"));
}

}  // namespace
}  // namespace shardmax
