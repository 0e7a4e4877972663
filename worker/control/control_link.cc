#include "worker/control/control_link.h"

#include <spdlog/logger.h>

#include <algorithm>
#include <utility>

#include "rpc/backoff.h"
#include "rpc/status.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

constexpr int kDefaultHeartbeatMs = 2'000;
constexpr int kMinHeartbeatMs = 20;
constexpr std::chrono::seconds kBetweenFailureLines(30);
constexpr std::chrono::seconds kFarewellTimeout(10);

// Errors that another try does not mend.
bool IsRefusal(const absl::Status& status) {
  return absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status) || absl::IsAlreadyExists(status) ||
         absl::IsInvalidArgument(status) || absl::IsNotFound(status) || absl::IsUnimplemented(status);
}

}  // namespace

ControlLink::ControlLink(LinkOptions options, LinkDesk& desk, std::shared_ptr<spdlog::logger> log)
    : options_(std::move(options)), desk_(desk), log_(std::move(log)), thread_([this] { Run(); }) {}

ControlLink::~ControlLink() {
  End(nullptr, std::chrono::milliseconds(0));
}

void ControlLink::Leave(const std::string& reason, std::chrono::milliseconds wait) {
  End(&reason, wait);
}

void ControlLink::End(const std::string* goodbye, std::chrono::milliseconds wait) {
  if (!thread_.joinable()) return;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (goodbye != nullptr) goodbye_ = *goodbye;
    leaving_ = true;
    if (connection_ != nullptr) {
      connection_->interrupted = true;
      connection_->answered = true;  // Nobody waits for a welcome any more.
    }
  }
  desk_.Wake();
  desk_.AwaitFlag(Clock::now() + wait, finished_);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (context_ != nullptr) context_->TryCancel();
  }
  thread_.join();
}

void ControlLink::Run() {
  Backoff backoff(options_.first_wait, options_.longest_wait);
  while (!leaving_) {
    bool welcomed = false;
    const absl::Status status = Connect(welcomed);
    if (leaving_) break;
    if (welcomed) {
      backoff.Reset();
    } else if (!ever_welcomed_ && IsRefusal(status)) {
      desk_.Fail(Annotate(
          status, fmt::format("server {} refuses the pool \"{}\"", options_.channel.server, options_.hello.pool())));
      break;
    }
    LogFailure(status, welcomed);
    desk_.AwaitFlag(Clock::now() + backoff.Next(), leaving_);
  }
  finished_ = true;
  desk_.Wake();
}

void ControlLink::LogFailure(const absl::Status& status, bool was_connected) {
  const Clock::time_point now = Clock::now();
  if (!was_connected && status.code() == last_failure_ && now < next_log_) return;
  next_log_ = now + kBetweenFailureLines;
  last_failure_ = status.code();
  log_->warn("{} server {}: {}; trying again until it answers",
             was_connected ? "lost the connection to" : "no connection to", options_.channel.server,
             status.ok() ? "it ended the stream" : Message(status));
}

bool ControlLink::Register(grpc::ClientContext* context, Connection* connection) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (leaving_) return false;
  context_ = context;
  connection_ = connection;
  return true;
}

void ControlLink::Unregister() {
  std::lock_guard<std::mutex> lock(mutex_);
  context_ = nullptr;
  connection_ = nullptr;
}

absl::Status ControlLink::Connect(bool& welcomed) {
  SHARDMAX_ASSIGN_OR_RETURN(const std::string token, ReadToken(options_.token_file));
  SHARDMAX_ASSIGN_OR_RETURN(const auto channel, MakeChannel(options_.channel));
  const auto stub = v1::PoolService::NewStub(channel);
  grpc::ClientContext context;
  AddToken(token, context);
  Connection connection;
  if (!Register(&context, &connection)) return absl::OkStatus();
  const auto stream = stub->Connect(&context);
  std::thread listener([&] { Listen(*stream, connection); });

  if (SayHello(*stream, connection)) {
    welcomed = true;
    ever_welcomed_ = true;
    next_log_ = {};
    log_->info("connected to server {} as pool \"{}\"", options_.channel.server, options_.hello.pool());
    Talk(*stream, connection);
    SayGoodbye(*stream, connection);
  }
  // The listener ends with the stream: on its own account if the server has ended it, else because of this.
  if (!connection.ended) context.TryCancel();
  listener.join();
  const grpc::Status status = stream->Finish();
  Unregister();
  return FromGrpc(status);
}

void ControlLink::Listen(Stream& stream, Connection& connection) {
  v1::ServerMessage message;
  while (stream.Read(&message)) {
    if (message.has_welcome()) {
      const int heartbeat_ms = message.welcome().heartbeat_interval_ms();
      connection.heartbeat_ms = heartbeat_ms > 0 ? std::max(heartbeat_ms, kMinHeartbeatMs) : kDefaultHeartbeatMs;
      connection.welcomed = true;
      connection.answered = true;
    }
    desk_.Handle(message);
  }
  connection.ended = true;
  connection.interrupted = true;
  connection.answered = true;
  desk_.Wake();
}

bool ControlLink::SayHello(Stream& stream, Connection& connection) {
  v1::PoolMessage message;
  *message.mutable_hello() = options_.hello;
  if (const auto running = desk_.Rewind(); running.has_value()) *message.mutable_hello()->mutable_running() = *running;
  if (!stream.Write(message)) return false;
  desk_.AwaitFlag(Clock::now() + options_.welcome_timeout, connection.answered);
  return connection.welcomed;
}

void ControlLink::Talk(Stream& stream, Connection& connection) {
  while (!connection.interrupted) {
    const auto heartbeat_due = Clock::now() + std::chrono::milliseconds(connection.heartbeat_ms);
    auto message = desk_.AwaitMessage(heartbeat_due, connection.interrupted);
    if (connection.interrupted && !message.has_value()) return;
    if (!message.has_value()) message.emplace().mutable_heartbeat();
    if (!stream.Write(*message)) return;
  }
}

void ControlLink::SayGoodbye(Stream& stream, Connection& connection) {
  v1::PoolMessage goodbye;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!leaving_ || goodbye_.empty()) return;
    goodbye.mutable_goodbye()->set_reason(goodbye_);
  }
  while (const auto message = desk_.AwaitMessage(Clock::now(), connection.ended)) {
    if (!stream.Write(*message)) return;
  }
  // The server ends the stream when it has read all this; Leave() does not wait for ever.
  if (stream.Write(goodbye) && stream.WritesDone()) {
    desk_.AwaitFlag(Clock::now() + kFarewellTimeout, connection.ended);
  }
}

}  // namespace shardmax
