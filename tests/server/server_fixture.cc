#include "tests/server/server_fixture.h"

#include <arpa/inet.h>
#include <google/protobuf/text_format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "rpc/channel.h"

namespace shardmax {
namespace {

constexpr std::chrono::seconds kLong{30};

std::string HttpGet(const std::string& address) {
  const size_t colon = address.rfind(':');
  const int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(colon + 1))));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (connect(client, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0) {
    const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
    if (write(client, request.data(), request.size()) == static_cast<ssize_t>(request.size())) {
      char buffer[4096];
      for (ssize_t n = 0; (n = read(client, buffer, sizeof(buffer))) > 0;)
        answer.append(buffer, static_cast<size_t>(n));
    }
  }
  close(client);
  return answer;
}

}  // namespace

bool Eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kLong;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

ServerFixture::ServerFixture() {
  std::filesystem::create_directory(folder_.path("data"));
  folder_.Write("data/x.npy", "features");
  folder_.Write("data/y.npy", "labels");
  options_.listen = "127.0.0.1:0";
  options_.metrics_listen = "127.0.0.1:0";
  options_.state_dir = folder_.path("state");
  options_.data_roots = {folder_.path("data")};
  options_.pool_grace = std::chrono::milliseconds(300);
  // A scripted pool sends no heartbeats by itself: silence is for the tests that are about it.
  options_.heartbeat = std::chrono::seconds(20);
}

void ServerFixture::StartServer() {
  auto server = Server::Start(options_);
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  if (!options_.tls_cert.empty()) return;  // Then the test connects by itself.
  const auto channel = Connect();
  jobs_ = v1::JobService::NewStub(channel);
  pools_ = v1::PoolService::NewStub(channel);
}

std::shared_ptr<grpc::Channel> ServerFixture::Connect() const {
  ChannelOptions options;
  options.server = server_->listen();
  auto channel = MakeChannel(options);
  EXPECT_TRUE(channel.ok()) << channel.status();
  return *channel;
}

v1::JobSpec ServerFixture::Spec(const std::string& name, const std::string& textproto) {
  v1::JobSpec spec;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(
      "train { num_classes: 50 dim: 16 batch_size: 32 steps: 10 dataset { features: 'x.npy' labels: 'y.npy' } }",
      &spec));
  EXPECT_TRUE(google::protobuf::TextFormat::MergeFromString(textproto, &spec)) << textproto;
  spec.set_name(name);
  return spec;
}

std::unique_ptr<ScriptedPool> ServerFixture::NewPool(const std::string& name, const std::string& session, int ranks,
                                                     const std::string& running, int attempt) {
  v1::PoolHello hello;
  hello.set_pool(name);
  hello.set_session(session);
  hello.set_ranks(ranks);
  hello.set_backend("cpu");
  hello.set_version("1");
  for (int rank = 0; rank < ranks; ++rank) {
    v1::RankEndpoint& endpoint = *hello.add_endpoints();
    endpoint.set_rank(rank);
    endpoint.set_host("127.0.0.1");
    endpoint.set_metrics_port(7710 + rank);
  }
  if (!running.empty()) {
    hello.mutable_running()->set_job(running);
    hello.mutable_running()->set_attempt(attempt);
  }
  return std::make_unique<ScriptedPool>(Connect(), hello, token_);
}

void ServerFixture::Prepare(grpc::ClientContext& context) const {
  if (!token_.empty()) context.AddMetadata("authorization", "Bearer " + token_);
  context.set_deadline(std::chrono::system_clock::now() + kLong);
}

grpc::Status ServerFixture::TrySubmit(const v1::SubmitJobRequest& request, v1::Job* job) {
  grpc::ClientContext context;
  Prepare(context);
  return jobs_->SubmitJob(&context, request, job);
}

v1::Job ServerFixture::Submit(const v1::JobSpec& spec) {
  v1::SubmitJobRequest request;
  *request.mutable_spec() = spec;
  v1::Job job;
  const grpc::Status status = TrySubmit(request, &job);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return job;
}

v1::Job ServerFixture::Get(const std::string& job) {
  grpc::ClientContext context;
  Prepare(context);
  v1::GetJobRequest request;
  request.set_job(job);
  v1::Job answer;
  const grpc::Status status = jobs_->GetJob(&context, request, &answer);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return answer;
}

v1::Job ServerFixture::Stop(const std::string& job) {
  grpc::ClientContext context;
  Prepare(context);
  v1::StopJobRequest request;
  request.set_job(job);
  v1::Job answer;
  const grpc::Status status = jobs_->StopJob(&context, request, &answer);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return answer;
}

std::vector<v1::Pool> ServerFixture::Pools() {
  grpc::ClientContext context;
  Prepare(context);
  v1::ListPoolsResponse answer;
  const grpc::Status status = pools_->ListPools(&context, {}, &answer);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return {answer.pools().begin(), answer.pools().end()};
}

std::vector<v1::LogLine> ServerFixture::Log(const std::string& job) {
  grpc::ClientContext context;
  Prepare(context);
  v1::StreamLogsRequest request;
  request.set_job(job);
  const auto stream = jobs_->StreamLogs(&context, request);
  std::vector<v1::LogLine> lines;
  for (v1::LogLine line; stream->Read(&line);) lines.push_back(line);
  const grpc::Status status = stream->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  return lines;
}

v1::Job ServerFixture::AwaitJob(const std::string& job, const std::function<bool(const v1::Job&)>& condition) {
  v1::Job newest;
  EXPECT_TRUE(Eventually([&] { return condition(newest = Get(job)); })) << newest.DebugString();
  return newest;
}

v1::Job ServerFixture::AwaitState(const std::string& job, v1::JobState state) {
  return AwaitJob(job, [state](const v1::Job& now) { return now.state() == state; });
}

std::string ServerFixture::Metrics() const {
  return HttpGet(server_->metrics());
}

double ServerFixture::Metric(const std::string& series) const {
  const std::string text = "\n" + Metrics();
  const size_t at = text.find("\n" + series + " ");
  if (at == std::string::npos) return -1;
  return std::stod(text.substr(at + series.size() + 2));
}

}  // namespace shardmax
