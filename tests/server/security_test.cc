// Who is let in, and what becomes of messages that are not what they should be.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <map>

#include "rpc/auth.h"
#include "rpc/channel.h"
#include "tests/server/server_fixture.h"
#include "tests/support/certificates.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using grpc::StatusCode;
using ::testing::HasSubstr;

class TokensTest : public ServerFixture {
 protected:
  TokensTest() {
    for (const char* name : {"viewer:val", "submitter:sue", "submitter:sam", "admin:ann", "worker:wim"}) {
      const auto token = MakeToken(name);
      tokens_[std::string(name).substr(std::string(name).find(':') + 1)] = token->token;
      lines_ += token->line + "\n";
    }
    options_.tokens_file = folder_.Write("tokens", lines_);
    StartServer();
  }

  StatusCode SubmitAs(const std::string& name) {
    token_ = tokens_[name];
    v1::SubmitJobRequest request;
    *request.mutable_spec() = Spec("a");
    v1::Job job;
    return TrySubmit(request, &job).error_code();
  }
  StatusCode GetAs(const std::string& name) {
    token_ = tokens_[name];
    grpc::ClientContext context;
    Prepare(context);
    v1::GetJobRequest request;
    request.set_job("a");
    v1::Job job;
    return jobs_->GetJob(&context, request, &job).error_code();
  }
  grpc::Status StopAs(const std::string& name, const std::string& job) {
    token_ = tokens_[name];
    grpc::ClientContext context;
    Prepare(context);
    v1::StopJobRequest request;
    request.set_job(job);
    v1::Job stopped;
    return jobs_->StopJob(&context, request, &stopped);
  }
  StatusCode ConnectAs(const std::string& name) {
    token_ = tokens_[name];
    auto pool = NewPool("p-" + name, "s");
    if (pool->Await(v1::ServerMessage::kWelcome).has_value()) return StatusCode::OK;
    return pool->AwaitEnd().error_code();
  }
  StatusCode WatchAs(const std::string& name) {
    token_ = tokens_[name];
    grpc::ClientContext context;
    Prepare(context);
    v1::WatchJobRequest request;
    request.set_job("a");
    const auto reader = jobs_->WatchJob(&context, request);
    v1::Job job;
    if (reader->Read(&job)) {
      context.TryCancel();
      while (reader->Read(&job)) {
      }
      reader->Finish();
      return StatusCode::OK;
    }
    return reader->Finish().error_code();
  }

  std::map<std::string, std::string> tokens_;
  std::string lines_;
};

TEST_F(TokensTest, EachRoleMayMakeItsCallsAndNoOther) {
  EXPECT_EQ(SubmitAs("sue"), StatusCode::OK);
  EXPECT_EQ(SubmitAs("ann"), StatusCode::OK);
  EXPECT_EQ(SubmitAs("val"), StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(SubmitAs("wim"), StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(SubmitAs("nobody"), StatusCode::UNAUTHENTICATED);
  for (const char* name : {"val", "sue", "ann"}) {
    EXPECT_EQ(GetAs(name), StatusCode::OK) << name;
    EXPECT_EQ(WatchAs(name), StatusCode::OK) << name;
    EXPECT_EQ(ConnectAs(name), StatusCode::PERMISSION_DENIED) << name;
  }
  EXPECT_EQ(GetAs("wim"), StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(WatchAs("wim"), StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(ConnectAs("wim"), StatusCode::OK);
  EXPECT_EQ(GetAs("nobody"), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(WatchAs("nobody"), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(ConnectAs("nobody"), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(Metric("shardmax_rpcs_total{code=\"UNAUTHENTICATED\",method=\"JobService/SubmitJob\"}"), 1);
  EXPECT_EQ(Metric("shardmax_rpcs_total{code=\"PERMISSION_DENIED\",method=\"JobService/SubmitJob\"}"), 2);
  EXPECT_EQ(Metric("shardmax_rpcs_total{code=\"UNAUTHENTICATED\",method=\"JobService/WatchJob\"}"), 1);
  EXPECT_EQ(Metric("shardmax_rpcs_total{code=\"PERMISSION_DENIED\",method=\"PoolService/Connect\"}"), 3);
}

TEST_F(TokensTest, JobsOfOthersAreForAdminsOnly) {
  ASSERT_EQ(SubmitAs("sue"), StatusCode::OK);
  EXPECT_EQ(Get("a").owner(), "sue");
  const grpc::Status status = StopAs("sam", "a");
  EXPECT_EQ(status.error_code(), StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(status.error_message(), "job a-1 belongs to sue: only sue or an admin may do this");
  EXPECT_TRUE(StopAs("sue", "a").ok());
  ASSERT_EQ(SubmitAs("sue"), StatusCode::OK);
  EXPECT_TRUE(StopAs("ann", "a-2").ok());
  EXPECT_EQ(Get("a-2").reason(), "stopped on request of ann while it waited; it never ran");
}

TEST_F(TokensTest, WithoutATokenTheMessageSaysWhatToDo) {
  v1::SubmitJobRequest request;
  v1::Job job;
  EXPECT_EQ(TrySubmit(request, &job).error_message(),
            "this server needs a token: give --token_file, or set SHARDMAX_TOKEN");
}

TEST_F(TokensTest, ARevokedTokenLosesItsStreamsAndCalls) {
  ASSERT_EQ(SubmitAs("sue"), StatusCode::OK);
  grpc::ClientContext context;
  Prepare(context);
  v1::WatchJobRequest request;
  request.set_job("a");
  const auto reader = jobs_->WatchJob(&context, request);
  v1::Job job;
  ASSERT_TRUE(reader->Read(&job));
  token_ = tokens_["wim"];
  auto pool = NewPool("p", "s");
  ASSERT_TRUE(pool->Await(v1::ServerMessage::kWelcome).has_value());
  const auto token = MakeToken("admin:new");
  folder_.Write("tokens", token->line);
  ASSERT_TRUE(server_->ReloadTokens().ok());
  while (reader->Read(&job)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(pool->AwaitEnd().error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(GetAs("ann"), StatusCode::UNAUTHENTICATED);
}

class MessagesTest : public ServerFixture {
 protected:
  MessagesTest() { StartServer(); }

  // A unary call of these bytes.
  grpc::Status Call(const std::string& method, const std::string& bytes) {
    grpc::GenericStub stub(Connect());
    grpc::ClientContext context;
    Prepare(context);
    const grpc::Slice slice(bytes);
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    grpc::CompletionQueue queue;
    auto call = stub.PrepareUnaryCall(&context, "/shardmax.v1." + method, request, &queue);
    call->StartCall();
    grpc::Status status;
    call->Finish(&response, &status, this);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    return status;
  }
};

TEST_F(MessagesTest, MalformedBytesAreRefusedAndCounted) {
  for (const char* method : {"JobService/SubmitJob", "JobService/GetJob", "JobService/WatchJob",
                             "JobService/ExportCheckpoint", "PoolService/ListPools"}) {
    const grpc::Status status = Call(method, "\xff\xff\xff");
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << method;
    EXPECT_THAT(status.error_message(), HasSubstr("what was sent is not a shardmax.v1.")) << method;
    EXPECT_EQ(Metric(std::string("shardmax_rpcs_total{code=\"INVALID_ARGUMENT\",method=\"") + method + "\"}"), 1);
  }
  EXPECT_EQ(Call("PoolService/Connect", "\xff\xff\xff").error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(MessagesTest, TextThatIsNotUtf8IsMalformed) {
  EXPECT_EQ(Call("JobService/GetJob", "\x0a\x01\xff").error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(MessagesTest, AMessageThatIsTooLongIsRefusedAndCounted) {
  for (const size_t size : {(4u << 20) + 1, 20u << 20}) {
    const grpc::Status status = Call("JobService/GetJob", std::string(size, 'x'));
    EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_THAT(status.error_message(), HasSubstr("at most 4194304 are allowed"));
  }
  EXPECT_EQ(Metric("shardmax_rpcs_total{code=\"RESOURCE_EXHAUSTED\",method=\"JobService/GetJob\"}"), 2);
}

TEST_F(MessagesTest, ASpecThatIsTooLongIsRefused) {
  v1::SubmitJobRequest request;
  *request.mutable_spec() = Spec("a");
  for (int i = 0; i < 400'000; ++i)
    request.mutable_spec()->mutable_train()->mutable_schedule()->mutable_step()->add_milestones(i);
  v1::Job job;
  const grpc::Status status = TrySubmit(request, &job);
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("at most 1048576 are allowed"));
}

TEST_F(MessagesTest, AnUnknownMethodIsRefusedAndCountedUnderNoNameOfItsOwn) {
  EXPECT_EQ(Call("JobService/Nope", "").error_code(), StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(Metric("shardmax_rpcs_total{code=\"UNIMPLEMENTED\",method=\"unknown\"}"), 1);
  EXPECT_EQ(Metrics().find("Nope"), std::string::npos);
}

class TlsTest : public ServerFixture {
 protected:
  TlsTest() {
    authority_.Sign("server");
    authority_.Sign("client");
    options_.tls_cert = authority_.cert("server");
    options_.tls_key = authority_.key("server");
  }

  grpc::Status ListOver(const ChannelOptions& how) {
    ChannelOptions options = how;
    options.server = server_->listen();
    const auto channel = MakeChannel(options);
    EXPECT_TRUE(channel.ok()) << channel.status();
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    v1::ListJobsResponse response;
    return v1::JobService::NewStub(*channel)->ListJobs(&context, {}, &response);
  }

  TestAuthority authority_;
};

TEST_F(TlsTest, AClientThatKnowsTheAuthorityTalksAndOthersDoNot) {
  StartServer();
  EXPECT_TRUE(ListOver({.tls_ca = authority_.ca()}).ok());
  EXPECT_EQ(ListOver({}).error_code(), StatusCode::UNAVAILABLE);
  const TestAuthority stranger;
  EXPECT_EQ(ListOver({.tls_ca = stranger.ca()}).error_code(), StatusCode::UNAVAILABLE);
}

TEST_F(TlsTest, MutualTlsWantsACertificateOfTheRightAuthority) {
  options_.tls_client_ca = authority_.ca();
  StartServer();
  EXPECT_TRUE(
      ListOver({.tls_ca = authority_.ca(), .tls_cert = authority_.cert("client"), .tls_key = authority_.key("client")})
          .ok());
  const grpc::Status without = ListOver({.tls_ca = authority_.ca()});
  EXPECT_EQ(without.error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_THAT(without.error_message(), HasSubstr("wants a client certificate"));
  const TestAuthority stranger;
  stranger.Sign("client");
  const grpc::Status strange =
      ListOver({.tls_ca = authority_.ca(), .tls_cert = stranger.cert("client"), .tls_key = stranger.key("client")});
  EXPECT_EQ(strange.error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_THAT(strange.error_message(), HasSubstr("the client certificate is refused: "));
  EXPECT_EQ(Metric("shardmax_rpcs_total{code=\"UNAUTHENTICATED\",method=\"unknown\"}"), 2);
  EXPECT_EQ(Metric("shardmax_rpcs_total{code=\"OK\",method=\"JobService/ListJobs\"}"), 1);
}

TEST_F(TlsTest, ACertificateThatCannotBeUsedIsAnErrorAtTheStart) {
  const auto refusal = [this] { return Message(Server::Start(options_).status()); };
  options_.tls_key = authority_.key("client");
  EXPECT_EQ(refusal(), "--tls_key: " + options_.tls_key + ": is not the key of " + options_.tls_cert);
  options_.tls_key = authority_.cert("server");
  EXPECT_THAT(refusal(), HasSubstr("--tls_key: " + options_.tls_key + ": no key in PEM"));
  options_.tls_key = folder_.path("nothing.key");
  EXPECT_THAT(refusal(), HasSubstr("--tls_key: " + options_.tls_key + ": No such file"));
  options_.tls_key = authority_.key("server");
  options_.tls_cert = folder_.path("data/x.npy");
  EXPECT_EQ(refusal(), "--tls_cert: " + options_.tls_cert + ": no certificate in PEM");
  options_.tls_cert = authority_.cert("server");
  options_.tls_client_ca = folder_.path("data/x.npy");
  EXPECT_EQ(refusal(), "--tls_client_ca: " + options_.tls_client_ca + ": no certificate in PEM");
}

}  // namespace
}  // namespace shardmax
