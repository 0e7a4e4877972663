// What a server needs to start, and what it leaves for others to find.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "server/options.h"
#include "tests/server/server_fixture.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

ParsedServerOptions Parse(const std::vector<std::string>& arguments) {
  std::vector<const char*> argv = {"shardmax-server"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  return ParseServerOptions(static_cast<int>(argv.size()), argv.data());
}

TEST(ServerOptionsTest, DefaultsAndTimesAreUnderstood) {
  const ParsedServerOptions parsed = Parse({"--state_dir=s", "--data_root=a", "--data_root=b", "--pool_grace_s=1.5"});
  ASSERT_TRUE(parsed.run) << parsed.text;
  EXPECT_EQ(parsed.options.listen, "127.0.0.1:7700");
  EXPECT_EQ(parsed.options.metrics_listen, "127.0.0.1:7701");
  EXPECT_EQ(parsed.options.data_roots.size(), 2u);
  EXPECT_EQ(parsed.options.pool_grace, std::chrono::milliseconds(1500));
  EXPECT_EQ(parsed.options.heartbeat, std::chrono::seconds(2));
}

TEST(ServerOptionsTest, WrongUseExitsWithTwoAndSaysWhatIsMissing) {
  const auto text = [](const std::vector<std::string>& arguments) {
    const ParsedServerOptions parsed = Parse(arguments);
    EXPECT_FALSE(parsed.run);
    EXPECT_EQ(parsed.exit_code, 2);
    return parsed.text;
  };
  EXPECT_THAT(text({"--data_root=a"}), HasSubstr("--state_dir is required"));
  EXPECT_THAT(text({"--state_dir=s"}), HasSubstr("--data_root is required"));
  EXPECT_THAT(text({"--state_dir=s", "--data_root=a", "--tls_cert=c"}),
              HasSubstr("--tls_cert and --tls_key go together"));
  EXPECT_THAT(text({"--state_dir=s", "--data_root=a", "--tls_client_ca=c"}), HasSubstr("--tls_client_ca needs"));
  EXPECT_THAT(text({"--nonsense"}), HasSubstr("--nonsense"));
  EXPECT_THAT(text({"--new_token=root:ann"}), StartsWith("--new_token: the role \"root\""));
}

TEST(ServerOptionsTest, ANewTokenIsPrintedWithItsLine) {
  const ParsedServerOptions parsed = Parse({"--new_token=viewer:val"});
  EXPECT_EQ(parsed.exit_code, 0);
  EXPECT_THAT(parsed.text, HasSubstr("smx_"));
  EXPECT_THAT(parsed.text, HasSubstr("viewer val "));
}

class StartTest : public ServerFixture {
 protected:
  std::string Refusal() { return Message(Server::Start(options_).status()); }
};

TEST_F(StartTest, TheChosenPortsStandInServerJson) {
  StartServer();
  const auto json = nlohmann::json::parse(TempFolder::ReadAll(options_.state_dir + "/server.json"));
  EXPECT_EQ(json["listen"], server_->listen());
  EXPECT_EQ(json["metrics"], server_->metrics());
  EXPECT_EQ(json["pid"], getpid());
}

TEST_F(StartTest, OneStateFolderHasOneServer) {
  StartServer();
  EXPECT_THAT(Refusal(), HasSubstr("another shardmax-server uses this state folder"));
  StopServer();
  StartServer();
}

TEST_F(StartTest, APortThatIsTakenIsAnError) {
  StartServer();
  const std::string listen = server_->listen();
  const std::string metrics = server_->metrics();
  options_.state_dir = folder_.path("other");
  options_.listen = listen;
  EXPECT_THAT(Refusal(), HasSubstr("--listen: cannot listen at " + listen));
  options_.listen = "127.0.0.1:0";
  options_.metrics_listen = metrics;
  EXPECT_THAT(Refusal(), HasSubstr("--metrics_listen: cannot listen at " + metrics));
}

TEST_F(StartTest, WithoutTlsItListensToThisMachineOnlyUnlessToldOtherwise) {
  options_.listen = "0.0.0.0:0";
  EXPECT_THAT(Refusal(), HasSubstr("--listen is 0.0.0.0:0, which other machines can reach: give --tls_cert"));
  EXPECT_THAT(Refusal(), HasSubstr("--insecure"));
  options_.listen = "127.0.0.1:0";
  options_.metrics_listen = "[::]:0";
  EXPECT_THAT(Refusal(), HasSubstr("--metrics_listen is [::]:0, which other machines can reach"));
  options_.listen = "0.0.0.0:0";
  options_.metrics_listen = "0.0.0.0:0";
  options_.insecure = true;
  EXPECT_TRUE(Server::Start(options_).ok());
  options_.listen = "127.0.0.1";
  EXPECT_EQ(Refusal(), "--listen is \"127.0.0.1\": give HOST:PORT, or [IPV6]:PORT; port 0 is any");
}

TEST_F(StartTest, WhatIsMissingIsNamed) {
  options_.data_roots = {folder_.path("nothing")};
  EXPECT_THAT(Refusal(), HasSubstr("--data_root: data root " + folder_.path("nothing")));
  options_.data_roots = {folder_.path("data")};
  options_.tokens_file = folder_.path("no-tokens");
  EXPECT_THAT(Refusal(), HasSubstr(folder_.path("no-tokens")));
}

// grpc.health.v1 and reflection, as any tool speaks them. Their messages are few bytes, written by hand.
class PlainCalls : public StartTest {
 protected:
  std::string Call(const std::string& method, const std::string& bytes, bool first_of_stream) {
    grpc::GenericStub stub(Connect());
    grpc::ClientContext context;
    Prepare(context);
    grpc::CompletionQueue queue;
    const auto wait = [&queue] {
      void* tag = nullptr;
      bool ok = false;
      queue.Next(&tag, &ok);
      return ok;
    };
    const grpc::Slice slice(bytes);
    const grpc::ByteBuffer request(&slice, 1);
    auto call = stub.PrepareCall(&context, method, &queue);
    call->StartCall(this);
    EXPECT_TRUE(wait());
    call->Write(request, this);
    EXPECT_TRUE(wait());
    grpc::ByteBuffer response;
    call->Read(&response, this);
    EXPECT_TRUE(wait());
    if (first_of_stream) {
      call->WritesDone(this);
      wait();
    }
    grpc::Status status;
    call->Finish(&status, this);
    wait();
    std::vector<grpc::Slice> slices;
    response.Dump(&slices);
    std::string text;
    for (const grpc::Slice& part : slices) text.append(reinterpret_cast<const char*>(part.begin()), part.size());
    return text;
  }
};

TEST_F(PlainCalls, HealthSaysServing) {
  StartServer();
  EXPECT_EQ(Call("/grpc.health.v1.Health/Check", "", false), std::string("\x08\x01"));
  EXPECT_EQ(Call("/grpc.health.v1.Health/Check", "\x0a\x16shardmax.v1.JobService", false), std::string("\x08\x01"));
}

TEST_F(PlainCalls, ReflectionListsTheServices) {
  StartServer();
  const std::string list =
      Call("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", std::string("\x3a\x01*", 3), true);
  EXPECT_THAT(list, HasSubstr("shardmax.v1.JobService"));
  EXPECT_THAT(list, HasSubstr("shardmax.v1.PoolService"));
}

}  // namespace
}  // namespace shardmax
