#include <google/protobuf/util/message_differencer.h>

#include "tests/spec/sample_specs.h"

namespace shardmax {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::HasSubstr;
using testing::StartsWith;
namespace v1 = shardmax::v1;

// The message of a parse that must fail, and print nothing.
std::string ErrorOf(const std::string& text, SpecFormat format, const std::string& name) {
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  const auto spec = ParseJobSpec(text, format, name);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << spec.status();
  return Message(spec.status());
}
std::string TextError(const std::string& text) {
  return ErrorOf(text, SpecFormat::kTextproto, "job.textproto");
}
std::string JsonError(const std::string& text) {
  return ErrorOf(text, SpecFormat::kJson, "job.json");
}

constexpr char kJson[] = R"({
  "name": "glyphs",
  "train": {
    "num_classes": 20000, "dim": 128, "batch_size": 512, "epochs": 20,
    "dataset": {"features": "x.npy", "labels": "y.npy"},
    "schedule": {"step": {"milestones": [1, 2], "gamma": 0.5}},
    "loss": {"preset": "SV_AM_SOFTMAX", "scale": 16}
  }
})";

TEST(SpecFormatOf, IsJsonOnlyForNamesThatEndInJson) {
  EXPECT_EQ(SpecFormatOf("a/job.json"), SpecFormat::kJson);
  EXPECT_EQ(SpecFormatOf("job.textproto"), SpecFormat::kTextproto);
  EXPECT_EQ(SpecFormatOf("job.json.txt"), SpecFormat::kTextproto);
  EXPECT_EQ(SpecFormatOf(""), SpecFormat::kTextproto);
}

TEST(ParseJobSpec, ReadsTheSameJobFromBothFormats) {
  const auto from_json = ParseJobSpec(kJson, SpecFormat::kJson, "job.json");
  ASSERT_TRUE(from_json.ok()) << from_json.status();
  const v1::JobSpec expected = MinimalWith(
      "train { schedule { step { milestones: [1, 2] gamma: 0.5 } } loss { preset: SV_AM_SOFTMAX scale: 16 } }");
  EXPECT_TRUE(MessageDifferencer::Equals(*from_json, expected)) << from_json->DebugString();
  std::string text;
  google::protobuf::TextFormat::PrintToString(expected, &text);
  const auto from_text = ParseJobSpec(text, SpecFormat::kTextproto, "job.textproto");
  ASSERT_TRUE(from_text.ok()) << from_text.status();
  EXPECT_TRUE(MessageDifferencer::Equals(*from_text, expected)) << from_text->DebugString();
}

TEST(ParseJobSpec, TellsZeroFromAbsent) {
  const auto spec = ParseJobSpec(R"({"train": {"loss": {"scale": 0}}})", SpecFormat::kJson, "job.json");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_TRUE(spec->train().loss().has_scale());
  EXPECT_FALSE(spec->train().loss().has_warmup_steps());
}

TEST(ParseTextproto, NamesFileLineAndColumnOfAnUnknownField) {
  EXPECT_EQ(TextError("name: 'a'\ntrain {\n  loss { scael: 3 }\n}"),
            "job.textproto: line 3, column 10: Message type \"shardmax.v1.Loss\" has no field named \"scael\".");
  EXPECT_THAT(TextError("a\n:\n1"), StartsWith("job.textproto: line 1, column 1: Message type"));
  EXPECT_THAT(TextError("train {\tloss { scael: 3 } }"), StartsWith("job.textproto: line 1, column 16: Message"));
}

TEST(ParseTextproto, RefusesValuesOfAnotherType) {
  EXPECT_EQ(TextError("train { dim: 'x' }"), "job.textproto: line 1, column 14: Expected integer, got: 'x'");
  EXPECT_EQ(TextError("train { dim: 1.5 }"), "job.textproto: line 1, column 14: Expected integer, got: 1.5");
  EXPECT_EQ(TextError("train { dim: 2147483648 }"),
            "job.textproto: line 1, column 14: Integer out of range (2147483648)");
  EXPECT_EQ(TextError("train { init { seed: -1 } }"), "job.textproto: line 1, column 22: Expected integer, got: -");
  EXPECT_THAT(TextError("train { loss {\n  preset: SV_SOFTMIN\n  scale: 3 } }"),
              StartsWith("job.textproto: line 2, column 11: Unknown enumeration value of \"SV_SOFTMIN\""));
}

TEST(ParseTextproto, RefusesFieldsGivenTwiceAndBothMembersOfAOneof) {
  EXPECT_THAT(TextError("name: 'a' name: 'b'"), HasSubstr("Non-repeated field \"name\" is specified multiple times"));
  EXPECT_THAT(TextError("train { steps: 1 epochs: 2 }"),
              HasSubstr("Field \"epochs\" is specified along with field \"steps\""));
}

TEST(ParseTextproto, ReportsTextThatStopsEarly) {
  EXPECT_THAT(TextError("name: \"a\ntrain {"), StartsWith("job.textproto: line 1, column 9: String literals cannot"));
  EXPECT_THAT(TextError("train {\n"), StartsWith("job.textproto: line 2, column 1: Expected identifier"));
}

TEST(ParseTextproto, LimitsTheNumberOfErrors) {
  const std::string message = TextError("train { }" + std::string(500, '\'') + "\n" + std::string(300, '@'));
  EXPECT_LT(std::count(message.begin(), message.end(), '\n'), 11) << message;
}

TEST(ParseJson, NamesLineAndColumnOfASyntaxError) {
  EXPECT_EQ(JsonError("{\n  \"name\": glyphs\n}"),
            "job.json: not JSON: parse error at line 2, column 11: syntax error while parsing value - invalid literal; "
            "last read: '\"name\": g'");
  EXPECT_THAT(JsonError("{\"name\": \"a\","), StartsWith("job.json: not JSON: parse error at line 1, column 14"));
}

TEST(ParseJson, RefusesDialects) {
  EXPECT_THAT(JsonError("{name: 'a'}"), StartsWith("job.json: not JSON: parse error at line 1, column 3"));
  EXPECT_THAT(JsonError("{\"name\": \"a\",}"), StartsWith("job.json: not JSON: parse error at line 1, column 14"));
  EXPECT_THAT(JsonError("{\"train\": {\"dim\": NaN}}"), StartsWith("job.json: not JSON: parse error at line 1"));
  EXPECT_THAT(JsonError("{\"train\": {\"loss\": {\"scale\": 1e999}}}"), HasSubstr("number overflow parsing '1e999'"));
}

TEST(ParseJson, NamesUnknownFields) {
  EXPECT_EQ(JsonError(R"({"train": {"loss": {"scael": 3}}})"), "job.json: train.loss.scael: there is no such field");
  EXPECT_EQ(JsonError(R"({"nmae": 3})"), "job.json: nmae: there is no such field");
}

TEST(ParseJson, NamesFieldsOfAnotherTypeAndWhatTheyTake) {
  EXPECT_EQ(JsonError(R"({"train": {"dim": 1.5}})"), "job.json: train.dim is 1.5: allowed is an integer of 32 bits");
  EXPECT_EQ(JsonError(R"({"train": {"dim": 2147483648}})"),
            "job.json: train.dim is 2147483648: allowed is an integer of 32 bits");
  EXPECT_EQ(JsonError(R"({"train": {"loss": {"scale": "big"}}})"),
            "job.json: train.loss.scale is \"big\": allowed is a number");
  EXPECT_EQ(JsonError(R"({"train": {"dataset": {"shuffle": 7}}})"),
            "job.json: train.dataset.shuffle is 7: allowed is true, false");
  EXPECT_EQ(JsonError(R"({"train": {"precision": "FP8"}})"),
            "job.json: train.precision is \"FP8\": allowed is FLOAT32, BFLOAT16");
  EXPECT_EQ(JsonError(R"({"train": {"loss": 5}})"),
            "job.json: train.loss is 5: allowed is an object of shardmax.v1.Loss");
  EXPECT_EQ(JsonError("[1]"), "job.json: Root element must be a message.");
}

TEST(ParseJson, RefusesFieldsGivenTwiceAndBothMembersOfAOneof) {
  EXPECT_EQ(JsonError(R"({"name": "a", "name": "b"})"), "job.json: name is given twice");
  EXPECT_EQ(JsonError(R"({"train": {"steps": 1, "epochs": 2}})"),
            "job.json: train.epochs is given twice, or beside another length: exactly one is allowed");
}

TEST(ParseJobSpec, RefusesTextThatIsEmpty) {
  for (const std::string text : {"", " \n\t "}) {
    EXPECT_EQ(TextError(text), "job.textproto: is empty: a job spec has at least `name`, and `train` or `evaluate`");
    EXPECT_EQ(JsonError(text), "job.json: is empty: a job spec has at least `name`, and `train` or `evaluate`");
  }
}

TEST(ParseJobSpec, RefusesBinaryRubbish) {
  EXPECT_EQ(TextError(std::string("name\n\x7F\x45LF\x02\0\0", 11)),
            "job.textproto: line 2, column 5: is not UTF-8 text (byte 0x02)");
  EXPECT_EQ(JsonError(std::string("{\"name\": \"a\0b\"}", 15)),
            "job.json: line 1, column 12: is not UTF-8 text (byte 0x00)");
  std::string rubbish;
  for (int i = 0; i < 100000; ++i) rubbish += static_cast<char>(i * 7919 % 251 + 5);
  EXPECT_THAT(TextError(rubbish), StartsWith("job.textproto: line 1, column 1: is not UTF-8 text"));
  EXPECT_THAT(JsonError(rubbish), StartsWith("job.json: line 1, column 1: is not UTF-8 text"));
}

TEST(ParseJobSpec, RefusesInvalidUtf8) {
  EXPECT_EQ(TextError("name: \"a\"\n# \xE4\xB8"), "job.textproto: line 2, column 3: is not UTF-8 text (byte 0xe4)");
  EXPECT_EQ(JsonError("{\"name\": \"\xFF\"}"), "job.json: line 1, column 11: is not UTF-8 text (byte 0xff)");
  EXPECT_THAT(JsonError(R"({"name": "\ud800"})"), StartsWith("job.json: not JSON: parse error at line 1, column 17"));
}

TEST(ParseJobSpec, TakesOneMebibyteAndNoMore) {
  const std::string json = kJson;
  const std::string largest = json + std::string((1 << 20) - json.size(), ' ');
  EXPECT_TRUE(ParseJobSpec(largest, SpecFormat::kJson, "job.json").ok());
  EXPECT_EQ(JsonError(largest + " "), "job.json: has 1048577 bytes: a job spec has at most 1048576");
  EXPECT_EQ(TextError(std::string((1 << 20) + 1, '#')),
            "job.textproto: has 1048577 bytes: a job spec has at most 1048576");
}

TEST(ParseJobSpec, SurvivesDeepNesting) {
  std::string objects, texts;
  for (int i = 0; i < 80000; ++i) {
    objects += "{\"train\":";
    texts += "train{";
  }
  const std::string brackets(500000, '[');
  EXPECT_THAT(JsonError(objects + "0" + std::string(80000, '}')), StartsWith("job.json: "));
  EXPECT_THAT(JsonError("{\"train\":" + brackets + std::string(500000, ']') + "}"), StartsWith("job.json: "));
  EXPECT_THAT(JsonError(brackets), StartsWith("job.json: not JSON: parse error at line 1, column 500001"));
  EXPECT_THAT(TextError(texts), StartsWith("job.textproto: line 1, column 7: "));
  EXPECT_THAT(TextError("train { schedule { step { milestones: " + brackets), StartsWith("job.textproto: line 1"));
  EXPECT_THAT(TextError(std::string(500000, '{')), StartsWith("job.textproto: line 1, column 1: "));
}

TEST(ParseJobSpec, KeepsMessagesShortForLongValues) {
  const std::string big(500000, 'x');
  EXPECT_LT(JsonError(R"({"train": {"dim": ")" + big + "\"}}").size(), 400u);
  EXPECT_LT(JsonError("{\"" + big + "\": 1}").size(), 400u);
  EXPECT_LT(JsonError("{" + big).size(), 400u);
  EXPECT_LT(TextError("train { dim: " + big + " }").size(), 400u);
  EXPECT_LT(TextError(big + ": 1").size(), 400u);
}

}  // namespace
}  // namespace shardmax
