// The connection of a pool to its server: rank 0's client of PoolService.Connect.
#pragma once

#include <grpcpp/client_context.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "rpc/channel.h"
#include "shardmax/v1/control.grpc.pb.h"
#include "shardmax/v1/control.pb.h"
#include "worker/control/link_desk.h"

namespace spdlog {
class logger;
}  // namespace spdlog

namespace shardmax {

struct LinkOptions {
  ChannelOptions channel;                         // Files are read anew for each connection; `token` is not used.
  std::string token_file;                         // As ReadToken().
  shardmax::v1::PoolHello hello;                  // All but `running`.
  std::chrono::milliseconds first_wait{200};      // Between two connections; doubles,
  std::chrono::milliseconds longest_wait{5'000};  // to this.
  std::chrono::milliseconds welcome_timeout{10'000};
};

// Keeps one stream to the server open, on threads of its own, for as long as it lives: what the server says goes to
// the desk, and what the desk has goes to the server, with a heartbeat when there is nothing. After a break it connects
// again, for ever. A server that refuses the very first connection (token, certificate, pool name, a pool of that name
// is there) makes the desk Fail(); later refusals are only logged.
class ControlLink {
 public:
  // Connects in the background. `desk` outlives the link; `log` takes lines from any thread.
  ControlLink(LinkOptions options, LinkDesk& desk, std::shared_ptr<spdlog::logger> log);
  // Breaks the connection.
  ~ControlLink();
  ControlLink(const ControlLink&) = delete;
  ControlLink& operator=(const ControlLink&) = delete;

  // Sends what the desk still has, says goodbye, and ends the connection, all within `wait`. Nothing is sent if there
  // is no connection. Last call, by the owner.
  void Leave(const std::string& reason, std::chrono::milliseconds wait);

 private:
  using Clock = LinkDesk::Clock;
  using Stream = grpc::ClientReaderWriter<shardmax::v1::PoolMessage, shardmax::v1::ServerMessage>;

  // What the two threads of one connection tell each other.
  struct Connection {
    std::atomic<bool> answered = false;  // Welcomed, or the stream has ended.
    std::atomic<bool> welcomed = false;
    std::atomic<bool> interrupted = false;  // The stream has ended, or the link is to end.
    std::atomic<bool> ended = false;        // Nothing more comes from the server.
    std::atomic<int> heartbeat_ms = 0;
  };

  void Run();
  // One connection, from the first byte to its end, and how it ended. `welcomed`: whether it came about.
  absl::Status Connect(bool& welcomed);
  void Listen(Stream& stream, Connection& connection);
  void Talk(Stream& stream, Connection& connection);
  bool SayHello(Stream& stream, Connection& connection);
  void SayGoodbye(Stream& stream, Connection& connection);
  // Says in the log that there is no connection, now and then.
  void LogFailure(const absl::Status& status, bool was_connected);
  // Shows the connection to End(). False: the link is to end, do not connect.
  bool Register(grpc::ClientContext* context, Connection* connection);
  void Unregister();
  void End(const std::string* goodbye, std::chrono::milliseconds wait);

  const LinkOptions options_;
  LinkDesk& desk_;
  const std::shared_ptr<spdlog::logger> log_;

  std::mutex mutex_;
  grpc::ClientContext* context_ = nullptr;  // Of the connection, while there is one.
  Connection* connection_ = nullptr;
  std::string goodbye_;
  std::atomic<bool> leaving_ = false;
  std::atomic<bool> finished_ = false;  // Run() is over.
  // Of LogFailure().
  Clock::time_point next_log_;
  absl::StatusCode last_failure_ = absl::StatusCode::kOk;
  bool ever_welcomed_ = false;

  std::thread thread_;
};

}  // namespace shardmax
