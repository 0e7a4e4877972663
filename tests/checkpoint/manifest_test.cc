#include "worker/checkpoint/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "tests/data/mutate.h"
#include "tests/data/temp_folder.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using shardmax::v1::Manifest;
using ::testing::HasSubstr;
using ::testing::StartsWith;

void AddFile(Manifest& manifest, const std::string& path, int32_t first_class, int32_t num_classes) {
  shardmax::v1::ManifestFile* file = manifest.add_files();
  file->set_path(path);
  file->set_first_class(first_class);
  file->set_num_classes(num_classes);
  file->set_checksum("xxh3_128:99aa06d3014798d86001c324468d497f");
}

Manifest Sound() {
  Manifest manifest;
  manifest.set_format_version(1);
  manifest.set_num_classes(7);
  manifest.set_dim(3);
  manifest.set_optimizer("sgd");
  manifest.add_tensors("weight");
  manifest.add_tensors("momentum");
  AddFile(manifest, "a", 0, 4);
  AddFile(manifest, "b", 4, 3);
  return manifest;
}

// The message for the sound manifest after `change`.
std::string ErrorAfter(const std::function<void(Manifest&)>& change) {
  Manifest manifest = Sound();
  change(manifest);
  const absl::Status status = CheckManifest(manifest);
  EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kInvalidArgument) << status;
  return Message(status);
}

TEST(Manifest, RoundTripsThroughJson) {
  const absl::StatusOr<std::string> json = ManifestToJson(Sound());
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_THAT(*json, HasSubstr("\"step\": 0")) << "zeros are written";
  EXPECT_THAT(*json, HasSubstr("\"format_version\": 1"));
  EXPECT_TRUE(json->ends_with("}\n"));
  EXPECT_FALSE(json->ends_with("\n\n"));
  const absl::StatusOr<Manifest> parsed = ParseManifest(*json);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->SerializeAsString(), Sound().SerializeAsString());
}

TEST(Manifest, KnowsTheTensorsOfEachOptimizer) {
  const auto set = [](const std::string& optimizer, const std::vector<std::string>& tensors) {
    return [=](Manifest& manifest) {
      manifest.set_optimizer(optimizer);
      manifest.clear_tensors();
      for (const std::string& name : tensors) manifest.add_tensors(name);
    };
  };
  EXPECT_EQ(ErrorAfter(set("sgd", {"weight"})), "");
  EXPECT_EQ(ErrorAfter(set("sgd", {"weight", "momentum"})), "");
  EXPECT_EQ(ErrorAfter(set("adamw", {"weight", "exp_avg", "exp_avg_sq"})), "");
  EXPECT_EQ(ErrorAfter(set("sgd", {})), "tensors is \"\": sgd has weight, or weight and momentum");
  EXPECT_EQ(ErrorAfter(set("sgd", {"momentum", "weight"})),
            "tensors is \"momentum weight\": sgd has weight, or weight and momentum");
  EXPECT_EQ(ErrorAfter(set("adamw", {"weight"})), "tensors is \"weight\": adamw has weight, exp_avg and exp_avg_sq");
  EXPECT_EQ(ErrorAfter(set("lamb", {"weight"})), "optimizer is \"lamb\": allowed are \"sgd\" and \"adamw\"");
}

TEST(Manifest, KnowsTheGraphOfNearestClasses) {
  const auto set = [](int32_t neighbours, bool has_tensor) {
    return [=](Manifest& manifest) {
      manifest.set_neighbours(neighbours);
      if (has_tensor) manifest.add_tensors("neighbours");
    };
  };
  EXPECT_EQ(ErrorAfter(set(64, true)), "");
  EXPECT_EQ(ErrorAfter(set(64, false)), "tensors is \"weight momentum\": with neighbours the last is neighbours");
  EXPECT_EQ(ErrorAfter(set(0, true)), "neighbours is 0: allowed is 1 to 1024");
  EXPECT_EQ(ErrorAfter(set(1025, true)), "neighbours is 1025: allowed is 1 to 1024");
  EXPECT_EQ(ErrorAfter([](Manifest& manifest) { manifest.add_tensors("neighbours"); }),
            "tensors is \"weight momentum neighbours\": sgd has weight, or weight and momentum");
  Manifest manifest = Sound();
  set(64, true)(manifest);
  manifest.set_state_dtype("BF16");
  EXPECT_EQ(DtypeOf(manifest, "neighbours"), "I32");
  EXPECT_EQ(WidthOf(manifest, "neighbours"), 64);
  EXPECT_EQ(WidthOf(manifest, "momentum"), 3);
}

TEST(Manifest, KnowsTheDtypeOfTheState) {
  EXPECT_EQ(ErrorAfter([](Manifest& m) { m.set_state_dtype("BF16"); }), "");
  EXPECT_EQ(ErrorAfter([](Manifest& m) { m.set_state_dtype("F16"); }),
            "state_dtype is \"F16\": allowed are \"F32\" and \"BF16\"");
  Manifest manifest;
  EXPECT_EQ(DtypeOf(manifest, "momentum"), "F32");
  manifest.set_state_dtype("BF16");
  EXPECT_EQ(DtypeOf(manifest, "momentum"), "BF16");
  EXPECT_EQ(DtypeOf(manifest, "weight"), "F32");
}

TEST(Manifest, RefusesNumbersOutOfRange) {
  EXPECT_EQ(ErrorAfter([](Manifest& m) { m.set_step(-1); }), "step is -1: 0 or more is needed");
  EXPECT_EQ(ErrorAfter([](Manifest& m) { m.set_num_classes(0); }), "num_classes is 0: 1 or more is needed");
  EXPECT_EQ(ErrorAfter([](Manifest& m) { m.set_dim(65537); }), "dim is 65537: allowed is 1 to 65536");
  EXPECT_EQ(ErrorAfter([](Manifest& m) { m.set_format_version(0); }), "format_version is 0: 1 is needed");
  EXPECT_EQ(ErrorAfter([](Manifest& m) { m.mutable_files(0)->set_first_class(-1); }),
            "files[0].first_class is -1: 0 must follow");
  for (int32_t count : {-1, 0, 8, 2147483647}) {
    EXPECT_EQ(ErrorAfter([&](Manifest& m) { m.mutable_files(0)->set_num_classes(count); }),
              fmt::format("files[0].num_classes is {}: allowed is 1 to 7", count));
  }
}

TEST(Manifest, RefusesGapsAndOverlaps) {
  EXPECT_EQ(ErrorAfter([](Manifest& m) { m.mutable_files(1)->set_first_class(5); }),
            "files[1].first_class is 5: 4 must follow");
  EXPECT_EQ(ErrorAfter([](Manifest& m) { m.mutable_files(1)->set_first_class(3); }),
            "files[1].first_class is 3: 4 must follow");
  EXPECT_EQ(ErrorAfter([](Manifest& m) { m.mutable_files(1)->set_num_classes(2); }),
            "files end at class 6, num_classes is 7");
  EXPECT_EQ(ErrorAfter([](Manifest& m) { m.clear_files(); }), "files end at class 0, num_classes is 7");
  EXPECT_EQ(ErrorAfter([](Manifest& m) { AddFile(m, "c", 7, 1); }), "files[2].num_classes is 1: allowed is 1 to 0");
}

TEST(Manifest, RefusesPathsThatLeaveTheFolder) {
  for (const std::string path : {"", ".", "..", "/etc/passwd", "../x", "sub/x", "x/"}) {
    EXPECT_EQ(ErrorAfter([&](Manifest& m) { m.mutable_files(1)->set_path(path); }),
              "files[1].path is \"" + path + "\": a plain file name is needed");
  }
  EXPECT_EQ(ErrorAfter([](Manifest& m) { m.mutable_files(1)->set_path(std::string("a\0b", 3)); }),
            "files[1].path is \"a\\x00b\": a plain file name is needed");
  EXPECT_THAT(ErrorAfter([](Manifest& m) { m.mutable_files(1)->set_path(std::string(256, 'a')); }),
              HasSubstr("a plain file name is needed"));
  EXPECT_EQ(ErrorAfter([](Manifest& m) { m.mutable_files(1)->set_path("a"); }), "files[1].path is \"a\" as before");
}

TEST(Manifest, RefusesOtherChecksums) {
  EXPECT_EQ(ErrorAfter([](Manifest& m) { m.mutable_files(0)->set_checksum("md5:0"); }),
            "files[0].checksum is \"md5:0\": \"xxh3_128:\" and 32 hexadecimal digits are needed");
}

TEST(Manifest, SaysWhenTheFormatIsNewer) {
  // A newer format may hold anything; that it is newer is what the user must know.
  EXPECT_EQ(Message(ParseManifest(R"({"format_version": 2, "shards": [1]})").status()),
            "format_version is 2, this program knows 1: use a newer shardmax");
}

TEST(Manifest, RefusesRubbish) {
  EXPECT_THAT(Message(ParseManifest("").status()), StartsWith("is not a manifest: "));
  EXPECT_THAT(Message(ParseManifest("\x7f"
                                    "ELF\x01\xff")
                          .status()),
              StartsWith("is not a manifest: "));
  EXPECT_THAT(Message(ParseManifest("[]").status()), StartsWith("is not a manifest: "));
  EXPECT_THAT(Message(ParseManifest(R"({"format_version": 1, "color": 1})").status()), HasSubstr("color"));
  EXPECT_THAT(Message(ParseManifest(R"({"format_version": 1, "step": 99999999999})").status()),
              StartsWith("is not a manifest: "));
  EXPECT_THAT(Message(ParseManifest(R"({"format_version": 1, "files": [1]})").status()),
              StartsWith("is not a manifest: "));
  EXPECT_THAT(Message(ParseManifest(std::string(1'000'000, '[')).status()), StartsWith("is not a manifest: "));
  std::string nested;
  for (int i = 0; i < 100'000; ++i) nested += "{\"files\":[";
  EXPECT_THAT(Message(ParseManifest(nested).status()), StartsWith("is not a manifest: "));
}

TEST(ReadManifest, NamesTheFile) {
  const TempFolder temp;
  const std::string path = temp.path("manifest.json");
  EXPECT_EQ(Message(ReadManifest(temp.path()).status()), path + ": No such file or directory");
  temp.Write("manifest.json", "{}");
  EXPECT_EQ(Message(ReadManifest(temp.path()).status()), path + ": format_version is 0: 1 is needed");
  std::filesystem::resize_file(path, (16 << 20) + 1);
  EXPECT_EQ(Message(ReadManifest(temp.path()).status()),
            path + ": is 16777217 bytes long, at most 16777216 are allowed");
  std::filesystem::remove(path);
  std::filesystem::create_symlink(temp.Write("other.json", "{}"), path);
  EXPECT_EQ(Message(ReadManifest(temp.path()).status()), path + ": is a symbolic link, a regular file is needed");
}

// The sanitizer presets watch that nothing worse happens than an error.
TEST(Manifest, MutationsNeverCrash) {
  constexpr uint32_t kSeed = 20'240'101;
  constexpr int kMutations = 5000;
  const absl::StatusOr<std::string> sound = ManifestToJson(Sound());
  ASSERT_TRUE(sound.ok());
  std::mt19937 random(kSeed);
  int refused = 0;
  for (int i = 0; i < kMutations; ++i) {
    const absl::StatusOr<Manifest> manifest = ParseManifest(Mutate(*sound, sound->size(), random));
    if (manifest.ok()) {
      EXPECT_TRUE(CheckManifest(*manifest).ok()) << "seed " << kSeed << " mutation " << i;
    } else {
      ++refused;
      EXPECT_LT(Message(manifest.status()).size(), 1000u) << "seed " << kSeed << " mutation " << i;
    }
  }
  EXPECT_GT(refused, kMutations / 2);
  EXPECT_LT(refused, kMutations);
}

}  // namespace
}  // namespace shardmax
