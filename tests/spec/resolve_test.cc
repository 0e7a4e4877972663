#include <google/protobuf/message.h>
#include <google/protobuf/util/message_differencer.h>

#include <set>

#include "tests/spec/sample_specs.h"
#include "worker/spec/presets.h"

namespace shardmax {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::util::MessageDifferencer;
namespace v1 = shardmax::v1;

v1::JobSpec Parsed(const std::string& textproto) {
  auto spec = ParseJobSpec(textproto, SpecFormat::kTextproto, "job.textproto");
  EXPECT_TRUE(spec.ok()) << spec.status();
  return spec.ok() ? *spec : v1::JobSpec();
}

// A job as it was first written down, with most messages in it.
constexpr char kExample[] = R"(
name: "glyphs"
train {
  num_classes: 20000  dim: 128  batch_size: 512  epochs: 20        # or steps: 5000
  dataset { features: "x.npy" labels: "y.npy" shuffle: true }      # or live { trainers: 2 }
  loss { preset: SV_AM_SOFTMAX scale: 32 margin { m1: 1 m2: 0 m3: 0.35 } extension: MONOTONE
         support_vector { t: 1.2 } focal { gamma: 0 } hard_mining { keep: 1 } warmup_steps: 0 }
  optimizer { sgd { momentum: 0.9 weight_decay: 5e-4 } }           # or adamw { … }
  schedule { base_lr: 0.1 warmup_steps: 100 cosine {} }            # or constant {}, step {}, polynomial {}
  checkpoint { every_steps: 1000 keep: 3 }
  init { seed: 1 }                                                 # or weights: "w.safetensors"
  precision: FLOAT32                                               # or BFLOAT16: bf16 products, float32 sums
}
)";

TEST(ResolveJobSpec, WritesOutEveryDefault) {
  const v1::JobSpec expected = Parsed(R"(
    name: "glyphs"
    train {
      num_classes: 20000 dim: 128 batch_size: 512 epochs: 20
      dataset { features: "x.npy" labels: "y.npy" shuffle: false }
      loss { preset: SOFTMAX scale: 32 margin { m1: 1 m2: 0 m3: 0 } extension: MONOTONE support_vector { t: 1 }
             focal { gamma: 0 } hard_mining { keep: 1 } warmup_steps: 0 }
      optimizer { sgd { momentum: 0 weight_decay: 0 nesterov: false } state: FLOAT32 }
      schedule { base_lr: 0.1 warmup_steps: 0 constant {} }
      checkpoint { every_steps: 1000 keep: 3 }
      init { seed: 1 stddev: 0.01 }
      precision: FLOAT32
      log_every_steps: 1
      cosines: AUTO cosines_memory_mib: 128
      storage: MEMORY
    }
    priority: 0 min_ranks: 1 max_restarts: 3)");
  const v1::JobSpec resolved = Resolved(Parsed(kMinimal));
  EXPECT_TRUE(MessageDifferencer::Equals(resolved, expected)) << resolved.DebugString();
}

TEST(ResolveJobSpec, WritesOutTheDefaultsOfWhatWasChosen) {
  const v1::JobSpec resolved = Resolved(MinimalWith(
      "train { steps: 5 optimizer { adamw {} } schedule { polynomial {} } init { weights: 'w.safetensors' } }"));
  const v1::JobSpec expected = Resolved(MinimalWith(R"(train {
      steps: 5
      optimizer { adamw { beta1: 0.9 beta2: 0.999 eps: 1e-8 weight_decay: 0.01 } }
      schedule { polynomial { power: 1 end_lr: 0 } } init { weights: 'w.safetensors' seed: 1 } })"));
  EXPECT_TRUE(MessageDifferencer::Equals(resolved, expected)) << resolved.DebugString();
  EXPECT_FALSE(resolved.train().init().has_stddev());
  EXPECT_TRUE(resolved.train().optimizer().adamw().has_eps());
  EXPECT_TRUE(resolved.train().schedule().polynomial().has_power());
  const auto step = Resolved(MinimalWith("train { schedule { step { milestones: 7 } } }")).train().schedule().step();
  EXPECT_EQ(step.gamma(), 0.1);
  const auto cosine = Resolved(MinimalWith("train { schedule { cosine {} } }")).train().schedule().cosine();
  EXPECT_TRUE(cosine.has_end_lr());
  EXPECT_EQ(cosine.end_lr(), 0);
}

TEST(ResolveJobSpec, TakesTheExampleOfTheDesign) {
  const v1::Train train = Resolved(Parsed(kExample)).train();
  EXPECT_EQ(train.epochs(), 20);
  EXPECT_TRUE(train.dataset().shuffle());
  EXPECT_EQ(train.loss().preset(), v1::SV_AM_SOFTMAX);
  EXPECT_EQ(train.loss().margin().m3(), 0.35);
  EXPECT_EQ(train.loss().support_vector().t(), 1.2);
  EXPECT_EQ(train.optimizer().sgd().weight_decay(), 5e-4);
  EXPECT_TRUE(train.schedule().has_cosine());
  EXPECT_EQ(train.init().stddev(), 0.01);
}

TEST(ResolveJobSpec, FillsEachPresetFromTheTableOfTheDesign) {
  const std::pair<const char*, PresetValues> table[] = {{"SOFTMAX", {32, 1, 0, 0, 1, 0, 1}},
                                                        {"F_SOFTMAX", {32, 1, 0, 0, 1, 2, 1}},
                                                        {"HM_SOFTMAX", {32, 1, 0, 0, 1, 0, 0.9}},
                                                        {"A_SOFTMAX", {32, 4, 0, 0, 1, 0, 1}},
                                                        {"AM_SOFTMAX", {32, 1, 0, 0.35, 1, 0, 1}},
                                                        {"ARC_SOFTMAX", {32, 1, 0.5, 0, 1, 0, 1}},
                                                        {"F_AM_SOFTMAX", {32, 1, 0, 0.35, 1, 2, 1}},
                                                        {"F_ARC_SOFTMAX", {32, 1, 0.5, 0, 1, 2, 1}},
                                                        {"HM_AM_SOFTMAX", {32, 1, 0, 0.35, 1, 0, 0.9}},
                                                        {"HM_ARC_SOFTMAX", {32, 1, 0.5, 0, 1, 0, 0.9}},
                                                        {"SV_SOFTMAX", {32, 1, 0, 0, 1.2, 0, 1}},
                                                        {"SV_AM_SOFTMAX", {32, 1, 0, 0.35, 1.2, 0, 1}},
                                                        {"SV_ARC_SOFTMAX", {32, 1, 0.5, 0, 1.2, 0, 1}}};
  ASSERT_EQ(std::size(table), static_cast<size_t>(v1::Preset_descriptor()->value_count()));
  for (const auto& [name, expected] : table) {
    const auto resolved = Resolved(MinimalWith(fmt::format("train {{ loss {{ preset: {} }} }}", name)));
    const v1::Loss& loss = resolved.train().loss();
    EXPECT_EQ(v1::Preset_Name(loss.preset()), name);
    const PresetValues actual = {.scale = loss.scale(),
                                 .m1 = loss.margin().m1(),
                                 .m2 = loss.margin().m2(),
                                 .m3 = loss.margin().m3(),
                                 .t = loss.support_vector().t(),
                                 .gamma = loss.focal().gamma(),
                                 .keep = loss.hard_mining().keep()};
    EXPECT_EQ(actual, expected) << name << ":\n" << loss.DebugString();
  }
}

TEST(ResolveJobSpec, LetsAnExplicitFieldWinOverThePreset) {
  const auto loss = Resolved(MinimalWith("train { loss { preset: SV_ARC_SOFTMAX scale: 64 margin { m2: 0 m3: 0.1 } "
                                         "support_vector { t: 1 } focal { gamma: 3 } hard_mining { keep: 0.5 } } }"))
                        .train()
                        .loss();
  EXPECT_EQ(loss.scale(), 64);
  EXPECT_EQ(loss.margin().m1(), 1);
  EXPECT_EQ(loss.margin().m2(), 0) << "zero, but explicit";
  EXPECT_EQ(loss.margin().m3(), 0.1);
  EXPECT_EQ(loss.support_vector().t(), 1);
  EXPECT_EQ(loss.focal().gamma(), 3);
  EXPECT_EQ(loss.hard_mining().keep(), 0.5);
  const auto hard = Resolved(MinimalWith("train { loss { preset: F_SOFTMAX focal { gamma: 0 } } }")).train().loss();
  EXPECT_EQ(hard.focal().gamma(), 0) << "zero, but explicit";
}

TEST(ResolveJobSpec, FillsAnEvaluation) {
  const v1::JobSpec resolved =
      Resolved(Parsed("name: 'a' evaluate { embeddings: 'e' identities: 'i' verification { num_pairs: 60 } }"));
  EXPECT_FALSE(resolved.has_train());
  const v1::Verification& verification = resolved.evaluate().verification();
  EXPECT_EQ(verification.num_pairs(), 60);
  EXPECT_EQ(verification.seed(), 1u);
  EXPECT_EQ(verification.folds(), 10);
  EXPECT_THAT(verification.fars(), testing::ElementsAre(1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9));
  const auto given = Resolved(
      Parsed("name: 'a' evaluate { embeddings: 'e' identities: 'i' verification { pairs: 'p' fars: [0.1, 0.01] } }"));
  EXPECT_FALSE(given.evaluate().verification().has_num_pairs());
  EXPECT_FALSE(given.evaluate().verification().has_seed());
  EXPECT_THAT(given.evaluate().verification().fars(), testing::ElementsAre(0.1, 0.01));
}

TEST(ResolveJobSpec, ChangesNothingTheSecondTime) {
  for (const std::string& text :
       {std::string(kMinimal), std::string(kExample),
        std::string("name: 'a' evaluate { embeddings: 'e' identities: 'i' verification { pairs: 'p' } }")}) {
    const v1::JobSpec once = Resolved(Parsed(text));
    const v1::JobSpec twice = Resolved(once);
    EXPECT_TRUE(MessageDifferencer::Equals(once, twice)) << twice.DebugString();
  }
}

TEST(ResolveJobSpec, ReportsAllMistakesOneALine) {
  const auto resolved = ResolveJobSpec(MinimalWith("train { dim: 0 loss { scale: 0 } }"));
  EXPECT_EQ(resolved.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Message(resolved.status()),
            "train.dim is 0: allowed is 1 to 65536\n"
            "train.loss.scale is 0: allowed is greater than 0, at most 10000");
}

TEST(JobSpecToJson, WritesProtoNamesNumbersAndEnumerators) {
  const std::string json = JobSpecToJson(Resolved(Parsed(kExample)));
  EXPECT_THAT(json, testing::EndsWith("}\n"));
  for (const char* line : {"\"num_classes\": 20000,\n", "\"preset\": \"SV_AM_SOFTMAX\",\n", "\"m2\": 0,\n",
                           "\"weight_decay\": 0.0005,\n", "\"precision\": \"FLOAT32\",\n", "\"seed\": 1,\n"}) {
    EXPECT_THAT(json, testing::HasSubstr(line));
  }
  const auto again = ParseJobSpec(json, SpecFormat::kJson, "job.json");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(MessageDifferencer::Equals(*again, Resolved(Parsed(kExample)))) << json;
}

// "Loss.scale" of each scalar field that is set in `message` or in a message of it.
void CollectSet(const google::protobuf::Message& message, std::set<std::string>& fields) {
  std::vector<const FieldDescriptor*> present;
  message.GetReflection()->ListFields(message, &present);
  for (const FieldDescriptor* field : present) {
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      CollectSet(message.GetReflection()->GetMessage(message, field), fields);
    } else {
      fields.insert(field->full_name());
    }
  }
}

// The same of each scalar field that a job can have.
void CollectDeclared(const Descriptor& type, std::set<std::string>& fields) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      CollectDeclared(*field.message_type(), fields);
    } else {
      fields.insert(field.full_name());
    }
  }
}

TEST(ResolveJobSpec, KnowsEveryFieldOfTheProto) {
  std::set<std::string> declared;
  CollectDeclared(*v1::JobSpec::descriptor(), declared);
  // Only what has no default is written here: paths, and each member of each oneof once.
  std::set<std::string> resolved;
  for (const char* textproto :
       {"train { validation { features: 'v' labels: 'v' } optimizer { sgd {} } schedule { constant {} } }",
        "train { steps: 9 optimizer { adamw {} } schedule { cosine {} } init { weights: 'w' } }",
        "train { schedule { step { milestones: 1 } } } pool: 'a' max_ranks: 2", "train { schedule { polynomial {} } }",
        "train { sampling { random { rate: 0.1 } } }", "train { sampling { nearest { rate: 0.1 } } }",
        "evaluate { embeddings: 'e' identities: 'i' verification {} }", "train { steps: 9 live { trainers: 2 } }",
        "evaluate { embeddings: 'e' identities: 'i' verification {} }",
        "evaluate { embeddings: 'e' identities: 'i' verification { pairs: 'p' } }",
        "evaluate { embeddings: 'e' identities: 'i' identification { distractors: 'd' } }",
        "evaluate { embeddings: 'e' identities: 'i' identification { probe_identities: 8 } }",
        "evaluate { embeddings: 'e' identities: 'i' all_pairs { gallery_embeddings: 'g' gallery_identities: 'h' } }"}) {
    CollectSet(Resolved(MinimalWith(textproto)), resolved);
  }
  EXPECT_EQ(resolved, declared) << "a field of job.proto has no default, and no place in this test";
}

}  // namespace
}  // namespace shardmax
