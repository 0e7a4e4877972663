#include "tests/spec/sample_specs.h"

namespace shardmax {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;
namespace v1 = shardmax::v1;

std::vector<std::string> MistakesWith(const std::string& textproto) {
  return Mistakes(MinimalWith(textproto));
}

TEST(Mistakes, AreNoneForTheRequiredFieldsAlone) {
  EXPECT_THAT(MistakesWith(""), IsEmpty());
}

TEST(Mistakes, NameEveryRequiredField) {
  v1::JobSpec spec;
  EXPECT_THAT(Mistakes(spec),
              ElementsAre("name is missing: allowed is 1 to 64 characters of [A-Za-z0-9._-], starting with a letter or "
                          "digit",
                          "train is missing: allowed is exactly one of train, evaluate"));
  spec.set_name("a");
  spec.mutable_train();
  EXPECT_THAT(
      Mistakes(spec),
      ElementsAre("train.num_classes is missing: allowed is 2 to 2^31 - 1",
                  "train.dim is missing: allowed is 1 to 65536", "train.batch_size is missing: allowed is 1 to 1048576",
                  "train.steps is missing: allowed is exactly one of train.steps, train.epochs",
                  "train.dataset is missing: allowed is exactly one of train.dataset, train.live"));
}

TEST(Mistakes, AreAllReportedAtOnceInTheOrderOfTheProto) {
  EXPECT_THAT(
      MistakesWith("name: '-a' train { dim: 0 loss { scale: 0 margin { m1: 0.5 } focal { gamma: -1 } } optimizer { "
                   "sgd { momentum: 1 nesterov: true } } schedule { base_lr: nan } checkpoint { keep: 0 } }"),
      ElementsAre(
          "name is \"-a\" (2 bytes): allowed is 1 to 64 characters of [A-Za-z0-9._-], starting with a letter or digit",
          "train.dim is 0: allowed is 1 to 65536", "train.loss.scale is 0: allowed is greater than 0, at most 10000",
          "train.loss.margin.m1 is 0.5: allowed is 1 to 16", "train.loss.focal.gamma is -1: allowed is 0 to 16",
          "train.optimizer.sgd.momentum is 1: allowed is 0 to less than 1",
          "train.schedule.base_lr is nan: allowed is greater than 0, at most 1000000",
          "train.checkpoint.keep is 0: allowed is 1 to 2^31 - 1"));
}

TEST(Mistakes, HoldNamesToTheirPattern) {
  v1::JobSpec spec = MinimalWith("");
  for (const std::string& name : std::vector<std::string>{"a", "0", "A.b_c-9", "a..", std::string(64, 'x')}) {
    spec.set_name(name);
    EXPECT_THAT(Mistakes(spec), IsEmpty()) << name;
  }
  for (const std::string& name :
       {std::string(), std::string(".a"), std::string("_a"), std::string("a/b"), std::string("a b"), std::string("a\n"),
        std::string("\u00e9"), std::string("a\0", 2), std::string(65, 'x')}) {
    spec.set_name(name);
    EXPECT_THAT(Mistakes(spec), ElementsAre(StartsWith("name is "))) << testing::PrintToString(name);
  }
}

TEST(Mistakes, HoldTheNameOfAPoolToThatPattern) {
  EXPECT_THAT(MistakesWith("pool: 'gpu-8'"), IsEmpty());
  EXPECT_THAT(MistakesWith("pool: '../a'"), ElementsAre(StartsWith("pool is \"../a\" (4 bytes): allowed is 1 to 64 ")));
}

TEST(Mistakes, FewestRanksAreNotAboveTheMostNorAboveTheClasses) {
  EXPECT_THAT(MistakesWith("min_ranks: 4 max_ranks: 4"), IsEmpty());
  EXPECT_THAT(MistakesWith("min_ranks: 4 max_ranks: 3"),
              ElementsAre("min_ranks is 4: allowed is at most max_ranks, which is 3"));
  EXPECT_THAT(MistakesWith("min_ranks: 4 train { num_classes: 3 }"),
              ElementsAre("min_ranks is 4: allowed is at most train.num_classes, which is 3"));
}

TEST(Mistakes, HoldEveryPathToItsLimits) {
  const auto paths = [](v1::JobSpec& spec, const std::string& path) {
    v1::Train& train = *spec.mutable_train();
    train.mutable_dataset()->set_features(path);
    train.mutable_dataset()->set_labels(path);
    train.mutable_init()->set_weights(path);
    train.mutable_validation()->set_features(path);
    train.mutable_validation()->set_labels(path);
  };
  v1::JobSpec spec = MinimalWith("");
  for (const std::string& path : std::vector<std::string>{"x", "/data/\u4e2d \n.npy", std::string(4096, 'x')}) {
    paths(spec, path);
    EXPECT_THAT(Mistakes(spec), IsEmpty()) << path;
  }
  const std::string allowed = ": allowed is a path of 1 to 4096 bytes of UTF-8 without NUL";
  const std::pair<std::string, std::string> refused[] = {
      {"", "\"\" (0 bytes)"},
      {std::string("a\0b", 3), "\"a\\x00b\" (3 bytes)"},
      {"a\xFF", "\"a\\xff\" (2 bytes)"},
      {std::string(4097, 'x'), "\"" + std::string(80, 'x') + "...\" (4097 bytes)"}};
  for (const auto& [path, shown] : refused) {
    paths(spec, path);
    EXPECT_THAT(
        Mistakes(spec),
        ElementsAre("train.dataset.features is " + shown + allowed, "train.dataset.labels is " + shown + allowed,
                    "train.init.weights is " + shown + allowed, "train.validation.features is " + shown + allowed,
                    "train.validation.labels is " + shown + allowed));
  }
}

TEST(Mistakes, RefuseNumbersThatAreNoEnumerator) {
  EXPECT_THAT(MistakesWith("train { precision: 2 loss { preset: 13 extension: -1 } }"),
              ElementsAre("train.loss.preset is 13: allowed is SOFTMAX, F_SOFTMAX, HM_SOFTMAX, A_SOFTMAX, AM_SOFTMAX, "
                          "ARC_SOFTMAX, F_AM_SOFTMAX, F_ARC_SOFTMAX, HM_AM_SOFTMAX, HM_ARC_SOFTMAX, SV_SOFTMAX, "
                          "SV_AM_SOFTMAX, SV_ARC_SOFTMAX",
                          "train.loss.extension is -1: allowed is MONOTONE, EASY, LINEAR",
                          "train.precision is 2: allowed is FLOAT32, BFLOAT16"));
}

TEST(Mistakes, ALiveJobHasStepsAndTrainersAndNoValidation) {
  EXPECT_THAT(MistakesWith("train { live { trainers: 4096 } steps: 9 }"), IsEmpty());
  EXPECT_THAT(MistakesWith("train { live {} validation { features: 'v' labels: 'v' } }"),
              ElementsAre("train.live.trainers is missing: allowed is 1 to 4096",
                          "train.epochs is given: allowed only without train.live, which needs train.steps",
                          "train.validation is given: allowed only without train.live"));
  EXPECT_THAT(MistakesWith("train { live { trainers: 4097 } steps: 9 }"),
              ElementsAre("train.live.trainers is 4097: allowed is 1 to 4096"));
}

TEST(Mistakes, AnEvaluationNeedsItsFilesAndAProtocol) {
  EXPECT_THAT(MistakesWith("evaluate { embeddings: 'x' identities: 'y' verification {} }"), IsEmpty());
  EXPECT_THAT(MistakesWith("evaluate {}"),
              ElementsAre(StartsWith("evaluate.embeddings is missing: allowed is a path"),
                          StartsWith("evaluate.identities is missing: allowed is a path"),
                          "evaluate.verification is missing: allowed is exactly one of verification, identification, "
                          "all_pairs"));
}

TEST(Mistakes, DrawnAndGivenPairsExcludeEachOther) {
  const std::string start = "evaluate { embeddings: 'x' identities: 'y' verification { pairs: 'p.npy' ";
  EXPECT_THAT(MistakesWith(start + "folds: 5 fars: 0.5 } }"), IsEmpty());
  EXPECT_THAT(MistakesWith(start + "num_pairs: 6000 seed: 1 } }"),
              ElementsAre("evaluate.verification.num_pairs is given: allowed only without evaluate.verification.pairs",
                          "evaluate.verification.seed is given: allowed only without evaluate.verification.pairs"));
}

TEST(Mistakes, IdentificationNeedsDistractorsFromOnePlace) {
  const std::string start = "evaluate { embeddings: 'x' identities: 'y' identification { ";
  EXPECT_THAT(MistakesWith(start + "distractors: 'd' } }"), IsEmpty());
  EXPECT_THAT(MistakesWith(start + "probe_identities: 80 } }"), IsEmpty());
  EXPECT_THAT(MistakesWith(start + "} }"),
              ElementsAre("evaluate.identification.distractors is missing: allowed is exactly one of "
                          "evaluate.identification.distractors, evaluate.identification.probe_identities"));
  EXPECT_THAT(MistakesWith(start + "distractors: 'd' probe_identities: 80 } }"),
              ElementsAre("evaluate.identification.probe_identities is given: allowed only without "
                          "evaluate.identification.distractors"));
  EXPECT_THAT(MistakesWith(start + "distractors: 'd' distractor_counts: [10, 10, 5, 11] } }"),
              ElementsAre("evaluate.identification.distractor_counts[1] is 10: allowed is greater than "
                          "evaluate.identification.distractor_counts[0], which is 10",
                          "evaluate.identification.distractor_counts[2] is 5: allowed is greater than "
                          "evaluate.identification.distractor_counts[1], which is 10"));
}

TEST(Mistakes, AGalleryHasBothItsFiles) {
  const std::string start = "evaluate { embeddings: 'x' identities: 'y' all_pairs { ";
  EXPECT_THAT(MistakesWith(start + "gallery_embeddings: 'a' gallery_identities: 'b' } }"), IsEmpty());
  EXPECT_THAT(MistakesWith(start + "gallery_embeddings: 'a' } }"),
              ElementsAre("evaluate.all_pairs.gallery_identities is missing: allowed are both gallery files or none"));
  EXPECT_THAT(MistakesWith(start + "gallery_identities: 'a' } }"),
              ElementsAre("evaluate.all_pairs.gallery_embeddings is missing: allowed are both gallery files or none"));
}

TEST(Mistakes, AnEvaluationReportsAtMost64Rates) {
  const auto with = [](int count) {
    v1::JobSpec spec = MinimalWith("evaluate { embeddings: 'x' identities: 'y' verification {} }");
    for (int i = 0; i < count; ++i) spec.mutable_evaluate()->mutable_verification()->add_fars(0.5);
    return Mistakes(spec);
  };
  EXPECT_THAT(with(64), IsEmpty());
  EXPECT_THAT(with(65), ElementsAre("evaluate.verification.fars has 65 values: allowed are at most 64"));
}

TEST(Mistakes, NameFieldsOfANewerVersion) {
  v1::JobSpec spec = MinimalWith("train { loss { scale: 3 } }");
  v1::Loss& loss = *spec.mutable_train()->mutable_loss();
  loss.GetReflection()->MutableUnknownFields(&loss)->AddVarint(99, 1);
  spec.GetReflection()->MutableUnknownFields(&spec)->AddVarint(77, 1);
  EXPECT_THAT(Mistakes(spec), ElementsAre("job: field number 77 is not known to this version",
                                          "train.loss: field number 99 is not known to this version"));
}

TEST(Mistakes, NesterovNeedsMomentum) {
  const std::string mistake =
      "train.optimizer.sgd.nesterov is true: allowed only with train.optimizer.sgd.momentum greater than 0";
  EXPECT_THAT(MistakesWith("train { optimizer { sgd { nesterov: true } } }"), ElementsAre(mistake));
  EXPECT_THAT(MistakesWith("train { optimizer { sgd { nesterov: true momentum: 0 } } }"), ElementsAre(mistake));
  EXPECT_THAT(MistakesWith("train { optimizer { sgd { nesterov: true momentum: 0.9 } } }"), IsEmpty());
  EXPECT_THAT(MistakesWith("train { optimizer { sgd { nesterov: false } } }"), IsEmpty());
}

TEST(Mistakes, SamplingNeedsSgdWithoutNesterov) {
  const std::string sampling = "train { sampling { random { rate: 0.1 } } ";
  EXPECT_THAT(MistakesWith(sampling + "}"), IsEmpty());
  EXPECT_THAT(MistakesWith(sampling + "optimizer { sgd { momentum: 0.9 weight_decay: 0.1 } state: BFLOAT16 } }"),
              IsEmpty());
  EXPECT_THAT(MistakesWith(sampling + "optimizer { adamw { } } }"),
              ElementsAre("train.optimizer.adamw is given: allowed with train.sampling is sgd"));
  EXPECT_THAT(MistakesWith(sampling + "optimizer { sgd { momentum: 0.9 nesterov: true } } }"),
              ElementsAre("train.optimizer.sgd.nesterov is true: allowed with train.sampling is false"));
  EXPECT_THAT(
      MistakesWith("train { sampling { } }"),
      ElementsAre("train.sampling.random is missing: allowed is exactly one of random { rate }, nearest { rate }"));
  EXPECT_THAT(MistakesWith("train { sampling { random { } } }"),
              ElementsAre("train.sampling.random.rate is missing: allowed is greater than 0, at most 1"));
}

TEST(Mistakes, OfNearestSamplingAreToldAllAtOnce) {
  EXPECT_THAT(MistakesWith("train { sampling { nearest { rate: 1.5 neighbours: 0 rebuild_every_steps: 0 } "
                           "recall_every_steps: -1 } optimizer { adamw { } } }"),
              ElementsAre("train.sampling.nearest.rate is 1.5: allowed is greater than 0, at most 1",
                          "train.sampling.nearest.neighbours is 0: allowed is 1 to 1024",
                          "train.sampling.nearest.rebuild_every_steps is 0: allowed is 1 to 2^31 - 1",
                          "train.sampling.recall_every_steps is -1: allowed is 0 to 2^31 - 1",
                          "train.optimizer.adamw is given: allowed with train.sampling is sgd"));
  EXPECT_THAT(MistakesWith("train { sampling { nearest { neighbours: 1025 } } }"),
              ElementsAre("train.sampling.nearest.rate is missing: allowed is greater than 0, at most 1",
                          "train.sampling.nearest.neighbours is 1025: allowed is 1 to 1024"));
}

TEST(Mistakes, AJobMustBuildItsFirstGraph) {
  const auto with = [](const std::string& fields, const std::string& nearest) {
    return MistakesWith("train { " + fields + " sampling { nearest { rate: 0.1 " + nearest + " } } }");
  };
  EXPECT_THAT(with("steps: 2000", ""),
              ElementsAre("train.sampling.nearest.rebuild_every_steps is 2000 by default: allowed without "
                          "train.init.weights is less than train.steps, which is 2000, as the first graph is built "
                          "then"));
  EXPECT_THAT(with("steps: 5", "rebuild_every_steps: 5"),
              ElementsAre(HasSubstr("rebuild_every_steps is 5: allowed without train.init.weights is less than")));
  EXPECT_THAT(with("steps: 5", "rebuild_every_steps: 4"), IsEmpty());
  EXPECT_THAT(with("steps: 2001", ""), IsEmpty());
  EXPECT_THAT(with("steps: 5 init { weights: 'w' }", ""), IsEmpty());
  EXPECT_THAT(with("", ""), IsEmpty()) << "epochs: their steps are not known here";
}

TEST(Mistakes, WarmUpsMayOutlastTheJob) {
  EXPECT_THAT(MistakesWith("train { steps: 100 schedule { warmup_steps: 100 cosine {} } }"), IsEmpty());
  EXPECT_THAT(MistakesWith("train { epochs: 1 schedule { warmup_steps: 100 } }"), IsEmpty());
  EXPECT_THAT(MistakesWith("train { steps: 100 loss { warmup_steps: 200 } }"), IsEmpty());
}

TEST(Mistakes, MilestonesIncreaseAndMayLieBeyondTheJob) {
  const auto milestones = [](const std::string& list) {
    return MistakesWith("train { steps: 100 schedule { step { milestones: [" + list + "] } } }");
  };
  const std::string path = "train.schedule.step.milestones";
  EXPECT_THAT(milestones("0, 1, 100, 2147483647"), IsEmpty());
  EXPECT_THAT(milestones(""), ElementsAre(path + " is missing: allowed is 0 to 2^31 - 1"));
  EXPECT_THAT(milestones("-1, 3"), ElementsAre(path + "[0] is -1: allowed is 0 to 2^31 - 1"));
  EXPECT_THAT(milestones("5, 5, 4"),
              ElementsAre(path + "[1] is 5: allowed is greater than " + path + "[0], which is 5",
                          path + "[2] is 4: allowed is greater than " + path + "[1], which is 5"));
}

TEST(Mistakes, OfALongListAreCounted) {
  v1::JobSpec spec = MinimalWith("");
  auto& milestones = *spec.mutable_train()->mutable_schedule()->mutable_step()->mutable_milestones();
  for (int i = 0; i < 1000; ++i) milestones.Add(-i - 1);
  for (int i = 0; i < 500; ++i) milestones.Add(7);
  const auto mistakes = Mistakes(spec);
  ASSERT_EQ(mistakes.size(), 22u);
  EXPECT_EQ(mistakes[9], "train.schedule.step.milestones[9] is -10: allowed is 0 to 2^31 - 1");
  EXPECT_EQ(mistakes[10], "train.schedule.step.milestones: 990 more mistakes of this kind");
  EXPECT_EQ(mistakes[21], "train.schedule.step.milestones: 489 more mistakes of this kind");
}

TEST(Mistakes, TheLastRateIsNotAboveTheFirst) {
  for (const std::string curve : {"cosine", "polynomial"}) {
    const auto schedule = [&](const std::string& fields, const std::string& end_lr) {
      return MistakesWith("train { schedule { " + fields + " " + curve + " { end_lr: " + end_lr + " } } }");
    };
    const std::string path = "train.schedule." + curve + ".end_lr";
    EXPECT_THAT(schedule("base_lr: 0.5", "0.5"), IsEmpty());
    EXPECT_THAT(schedule("base_lr: 0.5", "0.6"),
                ElementsAre(path + " is 0.6: allowed is at most train.schedule.base_lr, which is 0.5"));
    EXPECT_THAT(schedule("", "0.2"),
                ElementsAre(path + " is 0.2: allowed is at most train.schedule.base_lr, which is 0.1 by default"));
    EXPECT_THAT(schedule("base_lr: -1", "0"), ElementsAre(HasSubstr("train.schedule.base_lr is -1")));
  }
}

TEST(Mistakes, DrawnAndGivenWeightsExcludeEachOther) {
  EXPECT_THAT(MistakesWith("train { init { weights: 'w' stddev: 0.01 } }"),
              ElementsAre("train.init.stddev is 0.01: allowed only without train.init.weights"));
  EXPECT_THAT(MistakesWith("train { init { weights: 'w' seed: 3 } }"), IsEmpty());
}

TEST(Mistakes, ValidationNeedsBothFiles) {
  EXPECT_THAT(MistakesWith("train { validation { features: 'v.npy' } }"),
              ElementsAre("train.validation.labels is missing: allowed is a path of 1 to 4096 bytes of UTF-8 without "
                          "NUL"));
  EXPECT_THAT(MistakesWith("train { validation { labels: 'v.npy' } }"),
              ElementsAre(StartsWith("train.validation.features is missing")));
}

}  // namespace
}  // namespace shardmax
