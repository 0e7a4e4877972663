#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "shardmax/client.h"
#include "tests/client/scripted_server.h"
#include "tests/data/temp_folder.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ExportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    server_.Start();
    auto client = Client::Create({.server = server_.address(), .first_backoff = milliseconds(1)});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  // Sends `parts` as chunks of a file of `total_bytes`.
  static grpc::Status Send(grpc::ServerWriter<v1::ExportChunk>& out, int64_t total_bytes,
                           const std::vector<std::string>& parts) {
    for (const std::string& part : parts) {
      v1::ExportChunk chunk;
      chunk.set_data(part);
      if (&part == &parts.front()) chunk.set_total_bytes(total_bytes);
      out.Write(chunk);
    }
    return grpc::Status::OK;
  }

  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path()))
      names.push_back(entry.path().filename());
    return names;
  }

  ScriptedJobs jobs_;
  ScriptedServer server_{jobs_};
  TempFolder folder_;
  std::unique_ptr<Client> client_;
};

TEST_F(ExportTest, WritesTheFileAndReplacesTheOneThatWasThere) {
  jobs_.exported = [](int, grpc::ServerContext&, grpc::ServerWriter<v1::ExportChunk>& out) {
    return Send(out, 10, {"01234", "56789"});
  };
  const std::string path = folder_.Write("w.safetensors", "of before, and longer than the new one");
  std::vector<std::pair<int64_t, int64_t>> progress;
  const auto exported = client_->ExportCheckpoint(
      "glyphs", 0, path, [&](int64_t bytes, int64_t total) { progress.emplace_back(bytes, total); });
  ASSERT_TRUE(exported.ok()) << exported.status();
  EXPECT_EQ(exported->step, 120);
  EXPECT_EQ(exported->bytes, 10);
  EXPECT_EQ(TempFolder::ReadAll(path), "0123456789");
  EXPECT_THAT(progress, ElementsAre(std::pair(5, 10), std::pair(10, 10)));
  EXPECT_THAT(Names(), ElementsAre("w.safetensors"));
}

TEST_F(ExportTest, ABreakBeginsAgainWithTheSameStep) {
  jobs_.exported = [](int call, grpc::ServerContext&, grpc::ServerWriter<v1::ExportChunk>& out) {
    Send(out, 10, call == 0 ? std::vector<std::string>{"0123456"} : std::vector<std::string>{"01234", "56789"});
    return call == 0 ? kUnavailable : grpc::Status::OK;
  };
  const std::string path = folder_.path("w.safetensors");
  ASSERT_TRUE(client_->ExportCheckpoint("glyphs", 0, path).ok());
  EXPECT_EQ(TempFolder::ReadAll(path), "0123456789");
  EXPECT_THAT(jobs_.requests("ExportCheckpoint"),
              ElementsAre("job: \"glyphs-7\" step: 120", "job: \"glyphs-7\" step: 120"));
}

TEST_F(ExportTest, AShortStreamOrAnErrorLeavesNothingBehind) {
  jobs_.exported = [](int call, grpc::ServerContext&, grpc::ServerWriter<v1::ExportChunk>& out) {
    Send(out, 10, {"01234"});
    return call == 0 ? grpc::Status::OK : grpc::Status(grpc::StatusCode::DATA_LOSS, "rank-1.safetensors: checksum");
  };
  const auto brief = client_->ExportCheckpoint("glyphs", 100, folder_.path("w.safetensors"));
  EXPECT_TRUE(absl::IsDataLoss(brief.status())) << brief.status();
  EXPECT_THAT(Message(brief.status()), HasSubstr("5 bytes of 10"));
  const auto damaged = client_->ExportCheckpoint("glyphs", 100, folder_.path("w.safetensors"));
  EXPECT_THAT(Message(damaged.status()), HasSubstr("rank-1.safetensors"));
  EXPECT_THAT(Names(), ElementsAre());
}

TEST_F(ExportTest, FilesThatCannotBeWrittenAreNamed) {
  jobs_.exported = [](int, grpc::ServerContext&, grpc::ServerWriter<v1::ExportChunk>& out) {
    return Send(out, 5, {"01234"});
  };
  const auto absent = client_->ExportCheckpoint("glyphs", 0, folder_.path("no/folder/w.safetensors"));
  EXPECT_TRUE(absl::IsNotFound(absent.status()));
  EXPECT_THAT(Message(absent.status()), HasSubstr(folder_.path("no/folder/w.safetensors")));
  EXPECT_THAT(Message(client_->ExportCheckpoint("glyphs", 0, folder_.path()).status()), HasSubstr("is a folder"));
  EXPECT_THAT(Message(client_->ExportCheckpoint("glyphs", 0, "/dev/full/x").status()), HasSubstr("/dev/full/x"));
}

// A safetensors file with `weight` [2, 3].
std::string Safetensors(const std::string& values, const std::string& dtype = "F32") {
  std::string header =
      R"({"__metadata__":{"a":"b"},"weight":{"dtype":")" + dtype + R"(","shape":[2,3],"data_offsets":[0,24]}})";
  header.append((8 - header.size() % 8) % 8, ' ');
  return std::string(1, static_cast<char>(header.size())) + std::string(7, '\0') + header + values;
}

std::vector<std::string> SingleBytes(const std::string& text) {
  std::vector<std::string> parts;
  for (const char c : text) parts.emplace_back(1, c);
  return parts;
}

TEST_F(ExportTest, NpyHasItsHeaderAndTheValuesHoweverTheyCome) {
  const std::string values = "abcdefghijklmnopqrstuvwx";
  const std::string file = Safetensors(values);
  jobs_.exported = [&](int call, grpc::ServerContext&, grpc::ServerWriter<v1::ExportChunk>& out) {
    return Send(out, static_cast<int64_t>(file.size()), call == 0 ? SingleBytes(file) : std::vector<std::string>{file});
  };
  for (int call = 0; call < 2; ++call) {
    const std::string path = folder_.path("w.npy");
    const auto exported = client_->ExportCheckpoint("glyphs", 0, path, {}, {}, WeightFormat::kNpy);
    ASSERT_TRUE(exported.ok()) << exported.status();
    EXPECT_EQ(exported->bytes, 128 + 24);
    const std::string written = TempFolder::ReadAll(path);
    EXPECT_EQ(written.substr(0, 10), std::string("\x93NUMPY\x01\x00\x76\x00", 10));
    EXPECT_THAT(written, HasSubstr("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"));
    EXPECT_EQ(written.substr(127), "\n" + values);
  }
}

TEST_F(ExportTest, WhatAreNoWeightsIsNotTurnedIntoAnything) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {Safetensors("too few"), "fewer values than their shape says"},
      {Safetensors(std::string(25, 'x')), "more values than their shape says"},
      {Safetensors(std::string(24, 'x'), "F16"), "they are not float32"},
      {std::string("\x04\0\0\0\0\0\0\0null", 12), "a damaged header"},
      {std::string("\x02\0\0\0\0\0\0\0{}", 10), "no tensor `weight`"},
      {std::string(8, '\xff'), "a damaged header"},
      {"short", "fewer values"},
  };
  for (const auto& [file, message] : cases) {
    // Clang 14 lets no lambda take a structured binding by name alone.
    jobs_.exported = [&, &file = file](int, grpc::ServerContext&, grpc::ServerWriter<v1::ExportChunk>& out) {
      return Send(out, static_cast<int64_t>(file.size()), {file});
    };
    for (const WeightFormat format : {WeightFormat::kNpy, WeightFormat::kTorch}) {
      const auto exported = client_->ExportCheckpoint("glyphs", 0, folder_.path("w"), {}, {}, format);
      EXPECT_EQ(exported.status().code(), absl::StatusCode::kDataLoss);
      EXPECT_THAT(Message(exported.status()), HasSubstr(message));
    }
  }
  EXPECT_THAT(Names(), IsEmpty());
}

}  // namespace
}  // namespace shardmax
