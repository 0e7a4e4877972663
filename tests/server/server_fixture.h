// A real server in this process on a port of the kernel's choice, with real clients of it.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/server.h"
#include "shardmax/v1/control.grpc.pb.h"
#include "tests/data/temp_folder.h"
#include "tests/server/scripted_pool.h"

namespace shardmax {

class ServerFixture : public ::testing::Test {
 protected:
  // A data folder with x.npy and y.npy (their content is the worker's to look at), a state folder, short times.
  ServerFixture();

  void StartServer();
  // As after an end of the process: streams break, the state folder is what remains.
  void StopServer() { server_.reset(); }

  // A spec of 50 classes; `textproto` is merged over it.
  static v1::JobSpec Spec(const std::string& name, const std::string& textproto = "");

  std::shared_ptr<grpc::Channel> Connect() const;
  std::unique_ptr<ScriptedPool> NewPool(const std::string& name, const std::string& session, int ranks = 2,
                                        const std::string& running = "", int attempt = 0);

  // Calls with the token of `token_` and a generous deadline. The shorthand forms expect success.
  void Prepare(grpc::ClientContext& context) const;
  grpc::Status TrySubmit(const v1::SubmitJobRequest& request, v1::Job* job);
  v1::Job Submit(const v1::JobSpec& spec);
  v1::Job Get(const std::string& job);
  v1::Job Stop(const std::string& job);
  std::vector<v1::Pool> Pools();
  std::vector<v1::LogLine> Log(const std::string& job);
  // The job once `condition` holds; fails the test after a long time.
  v1::Job AwaitJob(const std::string& job, const std::function<bool(const v1::Job&)>& condition);
  v1::Job AwaitState(const std::string& job, v1::JobState state);

  // What /metrics says now.
  std::string Metrics() const;
  // The value of one series, named as in the text; -1 if it is not there.
  double Metric(const std::string& series) const;

  TempFolder folder_;
  ServerOptions options_;
  std::unique_ptr<Server> server_;
  std::string token_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
  std::unique_ptr<v1::PoolService::Stub> pools_;
};

// Whether `condition` comes true in a time that is long enough for a busy machine.
bool Eventually(const std::function<bool()>& condition);

}  // namespace shardmax
