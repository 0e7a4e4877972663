#include "client/cpp/follow.h"

#include <algorithm>
#include <utility>

#include "rpc/channel.h"
#include "rpc/status.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

// A stream that lasted so long was connected, even if nothing came.
constexpr std::chrono::seconds kConnected(10);
constexpr std::chrono::milliseconds kProbeTimeout(5'000);

}  // namespace

Reconnector::Reconnector(const ClientConnection& connection, const StreamOptions& stream, std::string id)
    : connection_(connection),
      stream_(stream),
      id_(std::move(id)),
      backoff_(connection.options.first_backoff, connection.options.longest_backoff) {}

void Reconnector::Received() {
  if (!broken_) return;
  broken_ = false;
  backoff_.Reset();
  if (stream_.on_reconnect) stream_.on_reconnect();
}

absl::Status Reconnector::Recover(absl::Status why) {
  if (Clock::now() - opened_ >= kConnected) {
    broken_ = false;
    backoff_.Reset();
  }
  // The streams of before may still count against the limits of the server.
  const bool crowded = broken_ && absl::IsResourceExhausted(why);
  if (!absl::IsUnavailable(why) && !crowded) return why;
  if (!broken_) {
    broken_ = true;
    give_up_ = Clock::now() + stream_.reconnect_for;
    if (stream_.on_break) stream_.on_break(connection_.WithAddress(why));
  }
  return WaitForServer(std::move(why));
}

absl::Status Reconnector::WaitForServer(absl::Status why) {
  v1::GetJobRequest request;
  request.set_job(id_);
  while (true) {
    const std::chrono::milliseconds wait = backoff_.Next();
    if (Clock::now() + wait >= give_up_) return connection_.WithAddress(why);
    if (!SleepUnlessStopped(wait, stream_.stop)) return StoppedByCaller();
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(give_up_ - Clock::now());
    grpc::ClientContext context;
    PrepareStream(connection_, context);
    // Until the channel is connected: by itself it would fail at once while the channel waits to try again.
    context.set_wait_for_ready(true);
    context.set_deadline(std::chrono::system_clock::now() + std::min(left, kProbeTimeout));
    const std::stop_callback cancel(stream_.stop, [&context] { context.TryCancel(); });
    v1::Job job;
    const absl::Status status = FromGrpc(connection_.jobs->GetJob(&context, request, &job));
    if (stream_.stop.stop_requested()) return StoppedByCaller();
    if (status.ok()) return status;
    if (!absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status)) return status;
    // A time-out says less than why the stream broke.
    if (absl::IsUnavailable(status)) why = status;
  }
}

void PrepareStream(const ClientConnection& connection, grpc::ClientContext& context) {
  AddToken(connection.options.token, context);
}

absl::Status EndOfStream(const grpc::Status& status) {
  if (status.ok()) return absl::UnavailableError("the server ended the stream");
  // A server that shuts down cancels what is open.
  if (status.error_code() == grpc::StatusCode::CANCELLED) {
    return absl::UnavailableError("the server cancelled the stream");
  }
  return FromGrpc(status);
}

}  // namespace shardmax
