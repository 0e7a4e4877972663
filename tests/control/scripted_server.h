// The other end of a pool's connection, under the control of a test.
#pragma once

#include <grpcpp/server.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "shardmax/v1/control.grpc.pb.h"

namespace shardmax {

// Answers a hello with a welcome, or refuses it, and keeps what it hears; says what the test wants. Speaks real gRPC on
// a port of loopback that stays the same over Stop() and Start().
class ScriptedServer {
 public:
  ScriptedServer();
  ~ScriptedServer();

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  void Start();
  // Breaks all connections, as a server that is killed would.
  void Stop();

  // From now on: what to answer a hello with. OK: a welcome.
  void RefuseWith(const grpc::Status& status);
  void SetHeartbeat(std::chrono::milliseconds interval);
  // From now on: whether ends and log lines are acknowledged as they come. Default: true.
  void SetAcknowledges(bool acknowledges);

  // Writes to the open connection; false if there is none.
  bool Say(const shardmax::v1::ServerMessage& message);

  struct Heard {
    int connection = 0;  // Counted from 1.
    shardmax::v1::PoolMessage message;
    std::chrono::steady_clock::time_point time;
    std::string authorization;
  };
  std::vector<Heard> heard() const;
  // Waits until something that was heard in connection `connection` (0: any) satisfies `condition`; fails the caller
  // by returning false after a generous time.
  bool Await(const std::function<bool(const Heard&)>& condition) const;
  int connections() const;

 private:
  class Service;

  int port_ = 0;
  std::unique_ptr<Service> service_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace shardmax
