#include "rpc/channel.h"

#include <gmock/gmock.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <gtest/gtest.h>

#include <chrono>

#include "rpc/status.h"
#include "shardmax/v1/control.grpc.pb.h"
#include "tests/data/temp_folder.h"
#include "tests/support/certificates.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using ::testing::HasSubstr;

// Answers GetJob with what the call brought along.
class Mirror : public v1::JobService::Service {
 public:
  grpc::Status GetJob(grpc::ServerContext* context, const v1::GetJobRequest* request, v1::Job* job) override {
    job->set_id(request->job());
    const auto& metadata = context->client_metadata();
    if (const auto found = metadata.find("authorization"); found != metadata.end()) {
      job->set_owner(std::string(found->second.data(), found->second.size()));
    }
    return grpc::Status::OK;
  }
};

class ChannelTest : public ::testing::Test {
 protected:
  // On any free port of 127.0.0.1; fills options_.server.
  void Serve(const std::shared_ptr<grpc::ServerCredentials>& credentials) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", credentials, &port);
    builder.RegisterService(&mirror_);
    AcceptKeepalive(builder);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    options_.server = "127.0.0.1:" + std::to_string(port);
  }

  void ServeTls(const TestAuthority& authority, bool mutual) {
    grpc::SslServerCredentialsOptions ssl;
    ssl.pem_key_cert_pairs.push_back(
        {TempFolder::ReadAll(authority.key("server")), TempFolder::ReadAll(authority.cert("server"))});
    if (mutual) {
      ssl.client_certificate_request = GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;
      ssl.pem_root_certs = TempFolder::ReadAll(authority.ca());
    }
    Serve(grpc::SslServerCredentials(ssl));
  }

  absl::StatusOr<v1::Job> Call() {
    auto channel = MakeChannel(options_);
    if (!channel.ok()) return channel.status();
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    AddToken(options_.token, context);
    v1::GetJobRequest request;
    request.set_job("glyphs-1");
    v1::Job job;
    const absl::Status status = FromGrpc(v1::JobService::NewStub(*channel)->GetJob(&context, request, &job));
    if (!status.ok()) return status;
    return job;
  }

  ChannelOptions options_;
  Mirror mirror_;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(ChannelTest, PlainCallsCarryTheToken) {
  Serve(grpc::InsecureServerCredentials());
  options_.token = "smx_abc";
  const auto job = Call();
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->id(), "glyphs-1");
  EXPECT_EQ(job->owner(), "Bearer smx_abc");
}

TEST_F(ChannelTest, WithoutATokenNoneIsSent) {
  Serve(grpc::InsecureServerCredentials());
  const auto job = Call();
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->owner(), "");
}

TEST_F(ChannelTest, TlsReachesAServerOfTheAuthorityAndNoOther) {
  TestAuthority authority;
  authority.Sign("server");
  ServeTls(authority, false);
  options_.tls_ca = authority.ca();
  options_.token = "smx_abc";
  const auto job = Call();
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->owner(), "Bearer smx_abc");

  const TestAuthority stranger;
  options_.tls_ca = stranger.ca();
  EXPECT_TRUE(absl::IsUnavailable(Call().status())) << Call().status();
  options_.tls_ca = "";
  EXPECT_TRUE(absl::IsUnavailable(Call().status())) << Call().status();
}

TEST_F(ChannelTest, MutualTlsNeedsACertificateOfTheAuthority) {
  TestAuthority authority;
  authority.Sign("server");
  authority.Sign("client");
  ServeTls(authority, true);
  options_.tls_ca = authority.ca();
  EXPECT_TRUE(absl::IsUnavailable(Call().status())) << Call().status();

  TestAuthority stranger;
  stranger.Sign("client");
  options_.tls_cert = stranger.cert("client");
  options_.tls_key = stranger.key("client");
  EXPECT_TRUE(absl::IsUnavailable(Call().status())) << Call().status();

  options_.tls_cert = authority.cert("client");
  options_.tls_key = authority.key("client");
  EXPECT_TRUE(Call().ok()) << Call().status();
}

TEST_F(ChannelTest, AddressesAreHostAndPort) {
  for (const std::string server : {"", "host", "host:", ":7700", "host:0", "host:65536", "host:77x", "::1:7700",
                                   "host name:7700", "http://host:7700", "host:7700/"}) {
    options_.server = server;
    EXPECT_THAT(Message(MakeChannel(options_).status()), HasSubstr("give HOST:PORT")) << server;
  }
  for (const std::string server : {"host:7700", "127.0.0.1:1", "[::1]:65535"}) {
    options_.server = server;
    EXPECT_TRUE(MakeChannel(options_).ok()) << server;
  }
}

TEST_F(ChannelTest, MistakesInTlsOptionsNameTheOption) {
  const TestAuthority authority;
  const TempFolder folder;
  const auto message = [](const ChannelOptions& options) { return Message(MakeChannel(options).status()); };
  EXPECT_THAT(message({.tls_ca = authority.ca(), .tls_cert = authority.ca()}), HasSubstr("go together"));
  EXPECT_THAT(message({.tls_ca = authority.ca(), .tls_key = authority.key("ca")}), HasSubstr("go together"));
  EXPECT_THAT(message({.tls_cert = authority.ca(), .tls_key = authority.key("ca")}), HasSubstr("needs --tls_ca"));
  EXPECT_THAT(message({.tls_ca = folder.path("absent.pem")}), HasSubstr("--tls_ca: " + folder.path("absent.pem")));
  EXPECT_THAT(message({.tls_ca = folder.Write("odd.pem", "hello")}), HasSubstr("give a PEM file"));
  EXPECT_THAT(message({.tls_ca = authority.ca(), .tls_cert = authority.ca(), .tls_key = authority.ca()}),
              HasSubstr("--tls_key: " + authority.ca() + ": no \"PRIVATE KEY-----\""));
}

}  // namespace
}  // namespace shardmax
