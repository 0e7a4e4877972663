#include "server/calls.h"

#include <utility>

#include "rpc/status.h"
#include "worker/base/status.h"

namespace shardmax {

void UnaryCall::Reply(const google::protobuf::Message& message) {
  *response_ = ToBytes(message);
  End(absl::OkStatus());
}

void UnaryCall::Fail(const absl::Status& status) {
  End(status);
}

void UnaryCall::End(const absl::Status& status) {
  metrics_.RpcEnded(method_, status.code());
  metrics_.UnaryTook(method_, std::chrono::steady_clock::now() - start_);
  Finish(ToGrpc(status));
}

StreamCall::StreamCall(ServerMetrics& metrics, std::string method) : metrics_(metrics), method_(std::move(method)) {
  metrics_.StreamOpened(method_);
}

std::shared_ptr<StreamCall> StreamCall::Make(ServerMetrics& metrics, std::string method) {
  std::shared_ptr<StreamCall> call(new StreamCall(metrics, std::move(method)));
  call->self_ = call;
  return call;
}

void StreamCall::Send(const grpc::ByteBuffer& message) {
  Queue(message, false);
}

void StreamCall::Send(const std::vector<grpc::ByteBuffer>& messages) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const grpc::ByteBuffer& message : messages) QueueLocked(message, false);
}

void StreamCall::Offer(const grpc::ByteBuffer& message) {
  Queue(message, true);
}

void StreamCall::Queue(const grpc::ByteBuffer& message, bool replace) {
  std::lock_guard<std::mutex> lock(mutex_);
  QueueLocked(message, replace);
}

void StreamCall::QueueLocked(const grpc::ByteBuffer& message, bool replace) {
  if (finished_ || close_) return;
  if (in_flight_) {
    if (replace) queue_.clear();
    queue_.push_back(message);
    return;
  }
  sending_ = message;
  in_flight_ = true;
  StartWrite(&sending_);
}

void StreamCall::Close(const absl::Status& status) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (finished_ || close_) return;
  close_ = status;
  if (!in_flight_) FinishLocked(status);
}

bool StreamCall::closed() {
  std::lock_guard<std::mutex> lock(mutex_);
  return finished_ || close_.has_value();
}

void StreamCall::FinishLocked(const absl::Status& status) {
  if (finished_) return;
  finished_ = true;
  metrics_.RpcEnded(method_, status.code());
  Finish(ToGrpc(status));
}

void StreamCall::OnWriteDone(bool ok) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    in_flight_ = false;
    if (!ok) {
      FinishLocked(Error(absl::StatusCode::kCancelled, "the caller is gone"));
      return;
    }
    if (finished_) return;
    if (!queue_.empty()) {
      sending_ = queue_.front();
      queue_.pop_front();
      in_flight_ = true;
      StartWrite(&sending_);
      return;
    }
    if (close_) {
      FinishLocked(*close_);
      return;
    }
  }
  if (on_drained_) on_drained_();
}

void StreamCall::OnCancel() {
  std::lock_guard<std::mutex> lock(mutex_);
  // A write that is in flight fails by itself, and finishes then.
  queue_.clear();
  if (!in_flight_) FinishLocked(Error(absl::StatusCode::kCancelled, "the caller is gone"));
}

void StreamCall::OnDone() {
  metrics_.StreamClosed(method_);
  ticket_.reset();
  if (on_ended_) on_ended_();
  on_drained_ = nullptr;
  on_ended_ = nullptr;
  self_.reset();
}

}  // namespace shardmax
