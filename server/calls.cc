#include "server/calls.h"

#include <utility>

#include "rpc/bytes.h"
#include "rpc/status.h"

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

StreamCall::StreamCall(ServerMetrics& metrics, std::string method)
    : StreamWriter("caller"), metrics_(metrics), method_(std::move(method)) {
  metrics_.StreamOpened(method_);
}

std::shared_ptr<StreamCall> StreamCall::Make(ServerMetrics& metrics, std::string method) {
  std::shared_ptr<StreamCall> call(new StreamCall(metrics, std::move(method)));
  call->self_ = call;
  return call;
}

void StreamCall::OnDrained() {
  if (on_drained_) on_drained_();
}

void StreamCall::OnFinish(const absl::Status& status) {
  metrics_.RpcEnded(method_, status.code());
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
