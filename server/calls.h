// One RPC on the server's side, for methods that take and give raw bytes.
//
// Raw, because with generated types gRPC answers a message that does not parse with UNIMPLEMENTED, before any code of
// ours could say what is wrong or count it; and because a message for a hundred watchers is then serialised once.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "rpc/stream_writer.h"
#include "server/gate.h"

namespace shardmax {

// A call with one answer. Lives until Reply() or Fail(), one of which must be called, once, on any thread.
class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  // `response` is gRPC's and lives as long as the call.
  UnaryCall(ServerMetrics& metrics, std::string method, grpc::ByteBuffer* response)
      : metrics_(metrics), method_(std::move(method)), response_(response) {}

  void Reply(const google::protobuf::Message& message);
  // `status` is not OK.
  void Fail(const absl::Status& status);

 private:
  void End(const absl::Status& status);
  void OnDone() override { delete this; }

  ServerMetrics& metrics_;
  const std::string method_;
  grpc::ByteBuffer* response_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// A call with a stream of answers. Any thread calls. Shared: it lives until gRPC and all others let go.
class StreamCall final : public StreamWriter<grpc::ServerWriteReactor<grpc::ByteBuffer>>,
                         public std::enable_shared_from_this<StreamCall> {
 public:
  // Counts in the metrics until it is done.
  static std::shared_ptr<StreamCall> Make(ServerMetrics& metrics, std::string method);

  // Gives the ticket back when it is done. Before the handler returns.
  void Hold(StreamTicket ticket) { ticket_.emplace(std::move(ticket)); }

  // Called once when the RPC ends, for whatever reason; and whenever all messages have been sent. On threads of
  // gRPC; must not block. Set before the first message.
  void SetOnEnded(std::function<void()> on_ended) { on_ended_ = std::move(on_ended); }
  void SetOnDrained(std::function<void()> on_drained) { on_drained_ = std::move(on_drained); }

  // For the handler to return to gRPC.
  grpc::ServerWriteReactor<grpc::ByteBuffer>* reactor() { return this; }

 private:
  StreamCall(ServerMetrics& metrics, std::string method);
  void OnDrained() override;
  void OnFinish(const absl::Status& status) override;
  void OnDone() override;

  ServerMetrics& metrics_;
  const std::string method_;
  std::optional<StreamTicket> ticket_;
  std::function<void()> on_ended_;
  std::function<void()> on_drained_;
  std::shared_ptr<StreamCall> self_;  // gRPC's share.
};

}  // namespace shardmax
