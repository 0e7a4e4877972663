// Rank 0 of a pool that does what a test says: a client of the real server.
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "shardmax/v1/control.grpc.pb.h"

namespace shardmax {

class ScriptedPool {
 public:
  // Connects and says `hello`. `token`: may be empty.
  ScriptedPool(const std::shared_ptr<grpc::Channel>& channel, const v1::PoolHello& hello,
               const std::string& token = "");
  // Breaks the stream, if it still is there.
  ~ScriptedPool();

  // The next message of this kind; others before it are dropped. None if the stream ends, or after a long time.
  std::optional<v1::ServerMessage> Await(v1::ServerMessage::KindCase kind);
  std::optional<v1::Assignment> AwaitAssignment();
  // Whether no message of this kind comes in a short time.
  bool GetsNo(v1::ServerMessage::KindCase kind);

  // False: the stream is broken.
  bool Send(const v1::PoolMessage& message);
  bool SendHeartbeat();
  bool SendProgress(const std::string& job, int attempt, int step, int total_steps);
  bool SendCheckpoint(const std::string& job, int attempt, int step);
  bool SendLog(const std::string& job, int attempt, int number, const std::string& text);
  bool SendEnded(const std::string& job, int attempt, v1::JobEnded::Outcome outcome, const std::string& reason = "");
  bool SendGoodbye(const std::string& reason);

  // Breaks the stream as a cut cable does, as far as the server can tell.
  void Break();
  // How the server ended the stream; waits for that.
  grpc::Status AwaitEnd();

 private:
  void Read();
  std::optional<v1::ServerMessage> Take(v1::ServerMessage::KindCase kind, std::chrono::milliseconds wait);

  std::unique_ptr<v1::PoolService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::PoolMessage, v1::ServerMessage>> stream_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::ServerMessage> received_;
  std::optional<grpc::Status> ended_;
  std::thread reader_;
};

}  // namespace shardmax
