#include "tests/server/scripted_pool.h"

#include <chrono>

namespace shardmax {
namespace {

constexpr std::chrono::seconds kLong{30};
constexpr std::chrono::milliseconds kShort{150};

}  // namespace

ScriptedPool::ScriptedPool(const std::shared_ptr<grpc::Channel>& channel, const v1::PoolHello& hello,
                           const std::string& token)
    : stub_(v1::PoolService::NewStub(channel)) {
  if (!token.empty()) context_.AddMetadata("authorization", "Bearer " + token);
  stream_ = stub_->Connect(&context_);
  v1::PoolMessage message;
  *message.mutable_hello() = hello;
  stream_->Write(message);
  reader_ = std::thread([this] { Read(); });
}

ScriptedPool::~ScriptedPool() {
  Break();
}

void ScriptedPool::Break() {
  context_.TryCancel();
  if (reader_.joinable()) reader_.join();
}

void ScriptedPool::Read() {
  v1::ServerMessage message;
  while (stream_->Read(&message)) {
    std::lock_guard<std::mutex> lock(mutex_);
    received_.push_back(message);
    changed_.notify_all();
  }
  const grpc::Status status = stream_->Finish();
  std::lock_guard<std::mutex> lock(mutex_);
  ended_ = status;
  changed_.notify_all();
}

std::optional<v1::ServerMessage> ScriptedPool::Take(v1::ServerMessage::KindCase kind, std::chrono::milliseconds wait) {
  const auto deadline = std::chrono::steady_clock::now() + wait;
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    while (!received_.empty()) {
      const v1::ServerMessage message = received_.front();
      received_.pop_front();
      if (message.kind_case() == kind) return message;
    }
    if (ended_ || changed_.wait_until(lock, deadline) == std::cv_status::timeout) return std::nullopt;
  }
}

std::optional<v1::ServerMessage> ScriptedPool::Await(v1::ServerMessage::KindCase kind) {
  return Take(kind, kLong);
}

std::optional<v1::Assignment> ScriptedPool::AwaitAssignment() {
  const auto message = Await(v1::ServerMessage::kAssignment);
  if (!message) return std::nullopt;
  return message->assignment();
}

bool ScriptedPool::GetsNo(v1::ServerMessage::KindCase kind) {
  return !Take(kind, kShort).has_value();
}

grpc::Status ScriptedPool::AwaitEnd() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!changed_.wait_for(lock, kLong, [this] { return ended_.has_value(); })) {
    return {grpc::StatusCode::UNKNOWN, "the stream goes on"};
  }
  return *ended_;
}

bool ScriptedPool::Send(const v1::PoolMessage& message) {
  return stream_->Write(message);
}

bool ScriptedPool::SendHeartbeat() {
  v1::PoolMessage message;
  message.mutable_heartbeat();
  return Send(message);
}

bool ScriptedPool::SendProgress(const std::string& job, int attempt, int step, int total_steps) {
  v1::PoolMessage message;
  message.mutable_progress()->set_job(job);
  message.mutable_progress()->set_attempt(attempt);
  message.mutable_progress()->set_total_steps(total_steps);
  message.mutable_progress()->mutable_metrics()->set_step(step);
  message.mutable_progress()->mutable_metrics()->set_loss(1.0 / step);
  return Send(message);
}

bool ScriptedPool::SendCheckpoint(const std::string& job, int attempt, int step) {
  v1::PoolMessage message;
  message.mutable_checkpoint()->set_job(job);
  message.mutable_checkpoint()->set_attempt(attempt);
  message.mutable_checkpoint()->set_step(step);
  return Send(message);
}

bool ScriptedPool::SendLog(const std::string& job, int attempt, int number, const std::string& text) {
  v1::PoolMessage message;
  message.mutable_log()->set_job(job);
  message.mutable_log()->set_attempt(attempt);
  message.mutable_log()->set_number(number);
  message.mutable_log()->set_level("info");
  message.mutable_log()->set_text(text);
  return Send(message);
}

bool ScriptedPool::SendEnded(const std::string& job, int attempt, v1::JobEnded::Outcome outcome,
                             const std::string& reason) {
  v1::PoolMessage message;
  message.mutable_ended()->set_job(job);
  message.mutable_ended()->set_attempt(attempt);
  message.mutable_ended()->set_outcome(outcome);
  message.mutable_ended()->set_reason(reason);
  return Send(message);
}

bool ScriptedPool::SendGoodbye(const std::string& reason) {
  v1::PoolMessage message;
  message.mutable_goodbye()->set_reason(reason);
  return Send(message);
}

}  // namespace shardmax
