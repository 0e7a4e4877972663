// A gRPC server on loopback whose answers a test scripts: real calls over real connections, with failures on demand.
#pragma once

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "shardmax/v1/control.grpc.pb.h"

namespace shardmax {

inline const grpc::Status kUnavailable(grpc::StatusCode::UNAVAILABLE, "scripted");

// Records every request; answers with what is set. Set the scripts before the calls.
class ScriptedJobs : public v1::JobService::Service {
 public:
  template <typename Message>
  using Script = std::function<grpc::Status(int call, grpc::ServerContext& context, grpc::ServerWriter<Message>& out)>;

  // The next calls of each method fail with these.
  std::map<std::string, std::vector<grpc::Status>> failures;
  // `call` counts from 0.
  Script<v1::Job> watch;
  Script<v1::LogLine> logs;
  Script<v1::StepMetrics> metrics;
  Script<v1::ExportChunk> exported;
  std::vector<v1::Job> jobs;  // Of ListJobs, in pages of two.

  // The requests of a method so far, as one-line text.
  std::vector<std::string> requests(const std::string& method) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = requests_.find(method);
    return found == requests_.end() ? std::vector<std::string>() : found->second;
  }

  grpc::Status SubmitJob(grpc::ServerContext*, const v1::SubmitJobRequest* request, v1::Job* job) override {
    return Answer("SubmitJob", *request, [&] { job->set_id(request->spec().name() + "-1"); });
  }
  // A name is the job NAME-7.
  grpc::Status GetJob(grpc::ServerContext* context, const v1::GetJobRequest* request, v1::Job* job) override {
    if (request->job() == "hangs") {
      while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    const bool is_id = request->job().find('-') != std::string::npos;
    return Answer("GetJob", *request, [&] { job->set_id(request->job() + (is_id ? "" : "-7")); });
  }
  grpc::Status ListJobs(grpc::ServerContext*, const v1::ListJobsRequest* request,
                        v1::ListJobsResponse* response) override {
    return Answer("ListJobs", *request, [&] {
      size_t at = request->page_token().empty() ? 0 : std::stoul(request->page_token());
      for (int i = 0; i < std::min(2, request->page_size()) && at < jobs.size(); ++i) {
        *response->add_jobs() = jobs[at++];
      }
      if (at < jobs.size()) response->set_next_page_token(std::to_string(at));
    });
  }
  grpc::Status StopJob(grpc::ServerContext*, const v1::StopJobRequest* request, v1::Job* job) override {
    return Answer("StopJob", *request, [&] { job->set_id(request->job()); });
  }
  grpc::Status DeleteJob(grpc::ServerContext*, const v1::DeleteJobRequest* request, v1::DeleteJobResponse*) override {
    return Answer("DeleteJob", *request, [] {});
  }
  grpc::Status CheckpointNow(grpc::ServerContext*, const v1::CheckpointNowRequest* request,
                             v1::CheckpointNowResponse*) override {
    return Answer("CheckpointNow", *request, [] {});
  }
  grpc::Status GetCheckpoint(grpc::ServerContext*, const v1::GetCheckpointRequest* request,
                             v1::CheckpointInfo* info) override {
    return Answer("GetCheckpoint", *request, [&] {
      info->set_job("glyphs-7");
      info->set_step(request->step() == 0 ? 120 : request->step());
    });
  }
  grpc::Status WatchJob(grpc::ServerContext* context, const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::Job>* out) override {
    return Stream("WatchJob", *request, *context, *out, watch);
  }
  grpc::Status StreamLogs(grpc::ServerContext* context, const v1::StreamLogsRequest* request,
                          grpc::ServerWriter<v1::LogLine>* out) override {
    return Stream("StreamLogs", *request, *context, *out, logs);
  }
  grpc::Status StreamMetrics(grpc::ServerContext* context, const v1::StreamMetricsRequest* request,
                             grpc::ServerWriter<v1::StepMetrics>* out) override {
    return Stream("StreamMetrics", *request, *context, *out, metrics);
  }
  grpc::Status ExportCheckpoint(grpc::ServerContext* context, const v1::ExportCheckpointRequest* request,
                                grpc::ServerWriter<v1::ExportChunk>* out) override {
    return Stream("ExportCheckpoint", *request, *context, *out, exported);
  }

 private:
  // The number of this call, and the failure that is due.
  template <typename Request>
  std::pair<int, grpc::Status> Record(const std::string& method, const Request& request) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::string>& seen = requests_[method];
    seen.push_back(request.ShortDebugString());
    const size_t call = seen.size() - 1;
    const auto found = failures.find(method);
    const bool fails = found != failures.end() && call < found->second.size();
    return {static_cast<int>(call), fails ? found->second[call] : grpc::Status::OK};
  }

  template <typename Request>
  grpc::Status Answer(const std::string& method, const Request& request, const std::function<void()>& fill) {
    const grpc::Status status = Record(method, request).second;
    if (status.ok()) fill();
    return status;
  }

  template <typename Request, typename Message>
  grpc::Status Stream(const std::string& method, const Request& request, grpc::ServerContext& context,
                      grpc::ServerWriter<Message>& out, const Script<Message>& script) {
    const auto [call, failure] = Record(method, request);
    return failure.ok() ? script(call, context, out) : failure;
  }

  mutable std::mutex mutex_;
  std::map<std::string, std::vector<std::string>> requests_;
};

// Serves `service` on 127.0.0.1: on any port at first, on the same one when started again.
class ScriptedServer {
 public:
  explicit ScriptedServer(grpc::Service& service) : service_(service) {
    Start();
    Kill();
  }
  ~ScriptedServer() { Kill(); }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  void Start() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(address(), grpc::InsecureServerCredentials(), &port);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    if (port_ == 0) port_ = port;  // Others read it while the server comes back.
  }
  // Breaks every connection.
  void Kill() {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
  }

 private:
  grpc::Service& service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

// Waits until the client is gone.
inline grpc::Status WaitForCancel(grpc::ServerContext& context) {
  while (!context.IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  return grpc::Status::CANCELLED;
}

}  // namespace shardmax
