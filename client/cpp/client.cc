#include "shardmax/client.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "client/cpp/connection.h"
#include "rpc/channel.h"
#include "rpc/status.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using Jobs = v1::JobService::Stub;

constexpr int kPageSize = 500;

// 128 random bits.
std::string RandomKey() {
  std::random_device random;
  std::string key;
  for (int i = 0; i < 4; ++i) key += fmt::format("{:08x}", random());
  return key;
}

template <typename Request>
Request ForJob(const std::string& job) {
  Request request;
  request.set_job(job);
  return request;
}

template <typename Message>
std::vector<Message> Moved(google::protobuf::RepeatedPtrField<Message>* field) {
  return {std::make_move_iterator(field->begin()), std::make_move_iterator(field->end())};
}

}  // namespace

bool IsFinal(v1::JobState state) {
  return state == v1::SUCCEEDED || state == v1::FAILED || state == v1::STOPPED;
}

Client::Client(std::unique_ptr<ClientConnection> connection) : connection_(std::move(connection)) {}
Client::~Client() = default;

absl::StatusOr<std::unique_ptr<Client>> Client::Create(ClientOptions options) {
  ChannelOptions to;
  to.server = options.server;
  to.tls_ca = options.tls_ca;
  to.tls_cert = options.tls_cert;
  to.tls_key = options.tls_key;
  to.token = options.token;
  auto connection = std::make_unique<ClientConnection>();
  SHARDMAX_ASSIGN_OR_RETURN(connection->channel, MakeChannel(to));
  connection->jobs = v1::JobService::NewStub(connection->channel);
  connection->pools = v1::PoolService::NewStub(connection->channel);
  connection->options = std::move(options);
  return std::unique_ptr<Client>(new Client(std::move(connection)));
}

absl::StatusOr<v1::Job> Client::Submit(const v1::JobSpec& spec, const std::string& idempotency_key,
                                       const CallOptions& call) {
  v1::SubmitJobRequest request;
  *request.mutable_spec() = spec;
  request.set_idempotency_key(idempotency_key.empty() ? RandomKey() : idempotency_key);
  return connection_->Read<v1::Job>(call, connection_->jobs, &Jobs::SubmitJob, request);
}

absl::StatusOr<v1::Job> Client::Get(const std::string& job, const CallOptions& call) {
  return connection_->Read<v1::Job>(call, connection_->jobs, &Jobs::GetJob, ForJob<v1::GetJobRequest>(job));
}

absl::StatusOr<v1::ListJobsResponse> Client::List(const v1::ListJobsRequest& request, const CallOptions& call) {
  return connection_->Read<v1::ListJobsResponse>(call, connection_->jobs, &Jobs::ListJobs, request);
}

absl::StatusOr<std::vector<v1::Job>> Client::ListAll(v1::ListJobsRequest request, int64_t limit,
                                                     const CallOptions& call) {
  std::vector<v1::Job> jobs;
  while (true) {
    const int64_t left = limit > 0 ? limit - static_cast<int64_t>(jobs.size()) : kPageSize;
    request.set_page_size(static_cast<int32_t>(std::min<int64_t>(left, kPageSize)));
    SHARDMAX_ASSIGN_OR_RETURN(v1::ListJobsResponse page, List(request, call));
    for (v1::Job& job : *page.mutable_jobs()) jobs.push_back(std::move(job));
    if (page.next_page_token().empty() || (limit > 0 && static_cast<int64_t>(jobs.size()) >= limit)) return jobs;
    request.set_page_token(page.next_page_token());
  }
}

absl::StatusOr<v1::Job> Client::Stop(const std::string& job, const CallOptions& call) {
  SHARDMAX_ASSIGN_OR_RETURN(const std::string id, connection_->ResolveId(job, call));
  return connection_->Read<v1::Job>(call, connection_->jobs, &Jobs::StopJob, ForJob<v1::StopJobRequest>(id));
}

absl::Status Client::Delete(const std::string& job, const CallOptions& call) {
  return connection_->SendOnce(call, [&](grpc::ClientContext& context) {
    v1::DeleteJobResponse response;
    return connection_->jobs->DeleteJob(&context, ForJob<v1::DeleteJobRequest>(job), &response);
  });
}

absl::Status Client::CheckpointNow(const std::string& job, const CallOptions& call) {
  return connection_->SendOnce(call, [&](grpc::ClientContext& context) {
    v1::CheckpointNowResponse response;
    return connection_->jobs->CheckpointNow(&context, ForJob<v1::CheckpointNowRequest>(job), &response);
  });
}

absl::StatusOr<std::vector<v1::CheckpointInfo>> Client::ListCheckpoints(const std::string& job,
                                                                        const CallOptions& call) {
  SHARDMAX_ASSIGN_OR_RETURN(
      auto response, connection_->Read<v1::ListCheckpointsResponse>(call, connection_->jobs, &Jobs::ListCheckpoints,
                                                                    ForJob<v1::ListCheckpointsRequest>(job)));
  return Moved(response.mutable_checkpoints());
}

absl::StatusOr<v1::CheckpointInfo> Client::GetCheckpoint(const std::string& job, int32_t step,
                                                         const CallOptions& call) {
  auto request = ForJob<v1::GetCheckpointRequest>(job);
  request.set_step(step);
  return connection_->Read<v1::CheckpointInfo>(call, connection_->jobs, &Jobs::GetCheckpoint, request);
}

absl::StatusOr<std::vector<v1::Pool>> Client::ListPools(const CallOptions& call) {
  SHARDMAX_ASSIGN_OR_RETURN(auto response,
                            connection_->Read<v1::ListPoolsResponse>(
                                call, connection_->pools, &v1::PoolService::Stub::ListPools, v1::ListPoolsRequest()));
  return Moved(response.mutable_pools());
}

}  // namespace shardmax
