// What the calls of Client share: stubs, deadlines and the rules for trying again.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <chrono>
#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "client/cpp/shardmax/client.h"
#include "shardmax/v1/control.grpc.pb.h"

namespace shardmax {

// One try of a call.
using Send = std::function<grpc::Status(grpc::ClientContext& context)>;

class ClientConnection {
 public:
  ClientOptions options;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::JobService::Stub> jobs;
  std::unique_ptr<v1::PoolService::Stub> pools;

  // Repeats `send` while it is Unavailable and time is left.
  absl::Status Retry(const CallOptions& call, const Send& send) const;

  // Waits for a connection, then calls `send` once.
  absl::Status SendOnce(const CallOptions& call, const Send& send) const;

  // Unavailable and DeadlineExceeded with the address of the server before the message.
  absl::Status WithAddress(const absl::Status& status) const;

  // The id of a job given by id or name.
  absl::StatusOr<std::string> ResolveId(const std::string& job, const CallOptions& call) const;

  // Runs a read or another call that is safe to repeat. `method` is a method of a stub: (context, request, response).
  template <typename Response, typename Stub, typename Method, typename Request>
  absl::StatusOr<Response> Read(const CallOptions& call, const Stub& stub, Method method,
                                const Request& request) const {
    Response response;
    const absl::Status status =
        Retry(call, [&](grpc::ClientContext& context) { return ((*stub).*method)(&context, request, &response); });
    if (!status.ok()) return status;
    return response;
  }
};

}  // namespace shardmax
