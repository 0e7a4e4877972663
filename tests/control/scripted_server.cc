#include "tests/control/scripted_server.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <utility>

#include "rpc/channel.h"

namespace shardmax {
namespace {

constexpr std::chrono::seconds kPatience(60);

}  // namespace

class ScriptedServer::Service final : public v1::PoolService::Service {
 public:
  using Stream = grpc::ServerReaderWriter<v1::ServerMessage, v1::PoolMessage>;

  grpc::Status Connect(grpc::ServerContext* context, Stream* stream) override {
    std::string authorization;
    if (const auto found = context->client_metadata().find("authorization");
        found != context->client_metadata().end()) {
      authorization.assign(found->second.data(), found->second.size());
    }
    const int connection = Open(stream);
    v1::PoolMessage message;
    grpc::Status status;
    while (status.ok() && stream->Read(&message)) status = Hear(*stream, {connection, message, {}, authorization});
    Close(stream);
    return status;
  }

  bool Say(const v1::ServerMessage& message) {
    std::lock_guard<std::mutex> lock(mutex_);
    return stream_ != nullptr && stream_->Write(message);
  }

  std::vector<Heard> heard() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return heard_;
  }

  bool Await(const std::function<bool(const Heard&)>& condition) const {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return std::any_of(heard_.begin(), heard_.end(), condition); });
  }

  int connections() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return connections_;
  }

  template <typename Change>
  void Set(const Change& change) {
    std::lock_guard<std::mutex> lock(mutex_);
    change(*this);
  }

  grpc::Status refusal;
  int heartbeat_ms = 2000;
  bool acknowledges = true;

 private:
  int Open(Stream* stream) {
    std::lock_guard<std::mutex> lock(mutex_);
    stream_ = stream;
    return ++connections_;
  }

  void Close(Stream* stream) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stream_ == stream) stream_ = nullptr;
  }

  grpc::Status Hear(Stream& stream, Heard heard) {
    std::lock_guard<std::mutex> lock(mutex_);
    heard.time = std::chrono::steady_clock::now();
    heard_.push_back(heard);
    changed_.notify_all();
    const v1::PoolMessage& message = heard.message;
    v1::ServerMessage answer;
    if (message.has_hello()) {
      if (!refusal.ok()) return refusal;
      answer.mutable_welcome()->set_heartbeat_interval_ms(heartbeat_ms);
      answer.mutable_welcome()->set_running_accepted(message.hello().has_running());
    } else if (message.has_ended() && acknowledges) {
      answer.mutable_ended_ack()->set_job(message.ended().job());
      answer.mutable_ended_ack()->set_attempt(message.ended().attempt());
    } else if (message.has_log() && acknowledges) {
      answer.mutable_log_ack()->set_job(message.log().job());
      answer.mutable_log_ack()->set_attempt(message.log().attempt());
      answer.mutable_log_ack()->set_number(message.log().number());
    } else {
      return grpc::Status::OK;
    }
    stream.Write(answer);
    return grpc::Status::OK;
  }

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  Stream* stream_ = nullptr;
  int connections_ = 0;
  std::vector<Heard> heard_;
};

ScriptedServer::ScriptedServer() : service_(std::make_unique<Service>()) {
  Start();
}

ScriptedServer::~ScriptedServer() {
  Stop();
}

void ScriptedServer::Start() {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:" + std::to_string(port_), grpc::InsecureServerCredentials(), &port_);
  builder.RegisterService(service_.get());
  AcceptKeepalive(builder);
  server_ = builder.BuildAndStart();
}

void ScriptedServer::Stop() {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
  server_.reset();
}

void ScriptedServer::RefuseWith(const grpc::Status& status) {
  service_->Set([&](Service& service) { service.refusal = status; });
}

void ScriptedServer::SetHeartbeat(std::chrono::milliseconds interval) {
  service_->Set([&](Service& service) { service.heartbeat_ms = static_cast<int>(interval.count()); });
}

void ScriptedServer::SetAcknowledges(bool acknowledges) {
  service_->Set([&](Service& service) { service.acknowledges = acknowledges; });
}

bool ScriptedServer::Say(const v1::ServerMessage& message) {
  return service_->Say(message);
}

std::vector<ScriptedServer::Heard> ScriptedServer::heard() const {
  return service_->heard();
}

bool ScriptedServer::Await(const std::function<bool(const Heard&)>& condition) const {
  return service_->Await(condition);
}

int ScriptedServer::connections() const {
  return service_->connections();
}

}  // namespace shardmax
