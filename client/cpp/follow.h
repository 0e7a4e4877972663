// Streams that outlive the server and the network.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/sync_stream.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "client/cpp/connection.h"
#include "client/cpp/retry.h"
#include "rpc/backoff.h"

namespace shardmax {

// One stream over as many connections as it takes. Not thread-safe.
class Reconnector {
 public:
  // Asks for job `id` to see whether the server is back.
  Reconnector(const ClientConnection& connection, const StreamOptions& stream, std::string id);

  // Call before the stream is opened, and when a message came.
  void Opened() { opened_ = Clock::now(); }
  void Received();

  // Call when the stream ended with `why`, not as it should. OK: open it again. Else how the stream ends.
  absl::Status Recover(absl::Status why);

 private:
  using Clock = std::chrono::steady_clock;

  absl::Status WaitForServer(absl::Status why);

  const ClientConnection& connection_;
  const StreamOptions& stream_;
  std::string id_;
  Backoff backoff_;
  bool broken_ = false;
  Clock::time_point opened_;
  Clock::time_point give_up_;
};

// The context of a stream: with the token, without a deadline.
void PrepareStream(const ClientConnection& connection, grpc::ClientContext& context);

// The status of a stream that ended, seen by the client: an orderly end that came too early is a break.
absl::Status EndOfStream(const grpc::Status& status);

// Delivers the messages of a stream until `deliver` returns false, or the stream ends and `complete(ended_ok)` says
// that nothing is missing. `open` starts it at the place where it was.
template <typename Message>
absl::Status FollowStream(
    const ClientConnection& connection, const StreamOptions& stream, const std::string& id,
    const std::function<std::unique_ptr<grpc::ClientReader<Message>>(grpc::ClientContext& context)>& open,
    const OnMessage<Message>& deliver, const std::function<bool(bool ended_ok)>& complete) {
  Reconnector reconnector(connection, stream, id);
  while (true) {
    grpc::ClientContext context;
    PrepareStream(connection, context);
    const std::stop_callback cancel(stream.stop, [&context] { context.TryCancel(); });
    reconnector.Opened();
    const auto reader = open(context);
    bool more = true;
    Message message;
    while (more && reader->Read(&message)) {
      reconnector.Received();
      more = deliver(message);
    }
    if (!more) context.TryCancel();
    const grpc::Status status = reader->Finish();
    if (!more || complete(status.ok())) return absl::OkStatus();
    if (stream.stop.stop_requested()) return StoppedByCaller();
    if (absl::Status end = reconnector.Recover(EndOfStream(status)); !end.ok()) return end;
  }
}

}  // namespace shardmax
