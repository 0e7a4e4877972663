#include "client/cpp/connection.h"

#include <optional>

#include "client/cpp/retry.h"
#include "rpc/backoff.h"
#include "rpc/channel.h"
#include "rpc/status.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using Clock = std::chrono::system_clock;

Clock::time_point DeadlineOf(const ClientOptions& options, const CallOptions& call) {
  return Clock::now() + (call.timeout.count() > 0 ? call.timeout : options.timeout);
}

// What gRPC has to say, without what it always says first.
std::string WithoutPreamble(std::string message) {
  for (const std::string preamble :
       {"failed to connect to all addresses; last error: ", "UNKNOWN: ", "UNAVAILABLE: "}) {
    if (message.starts_with(preamble)) message.erase(0, preamble.size());
  }
  return message;
}

absl::Status TryOnce(const ClientOptions& options, Clock::time_point deadline, const std::stop_token& stop,
                     const Send& send) {
  grpc::ClientContext context;
  context.set_deadline(deadline);
  AddToken(options.token, context);
  const std::stop_callback cancel(stop, [&context] { context.TryCancel(); });
  absl::Status status = FromGrpc(send(context));
  if (!status.ok() && stop.stop_requested()) return StoppedByCaller();
  return status;
}

}  // namespace

absl::Status ClientConnection::WithAddress(const absl::Status& status) const {
  if (!absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status)) return status;
  return Error(status.code(), "no answer from the server at {}: {}", options.server, WithoutPreamble(Message(status)));
}

absl::Status ClientConnection::Retry(const CallOptions& call, const Send& send) const {
  const Clock::time_point deadline = DeadlineOf(options, call);
  Backoff backoff(options.first_backoff, options.longest_backoff);
  absl::Status unavailable;
  while (true) {
    const absl::Status status = TryOnce(options, deadline, call.stop, send);
    // When the time runs out during a later try, what was wrong before says more.
    if (absl::IsDeadlineExceeded(status) && !unavailable.ok()) return WithAddress(unavailable);
    if (!absl::IsUnavailable(status)) return WithAddress(status);
    unavailable = status;
    const std::chrono::milliseconds wait = backoff.Next();
    if (Clock::now() + wait >= deadline) return WithAddress(status);
    if (options.on_retry) options.on_retry(WithAddress(status));
    if (!SleepUnlessStopped(wait, call.stop)) return StoppedByCaller();
  }
}

absl::Status ClientConnection::SendOnce(const CallOptions& call, const Send& send) const {
  const Clock::time_point deadline = DeadlineOf(options, call);
  // In slices, to notice a stop.
  constexpr std::chrono::milliseconds kSlice(50);
  bool told = false;
  while (!channel->WaitForConnected(std::min(deadline, Clock::now() + kSlice))) {
    if (call.stop.stop_requested()) return StoppedByCaller();
    const absl::Status why = WithAddress(absl::UnavailableError("no connection, nothing was sent"));
    if (Clock::now() >= deadline) return why;
    if (!told && channel->GetState(false) == GRPC_CHANNEL_TRANSIENT_FAILURE) {
      told = true;
      if (options.on_retry) options.on_retry(why);
    }
  }
  const absl::Status status = WithAddress(TryOnce(options, deadline, call.stop, send));
  if (!absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status)) return status;
  return Error(status.code(), "{}; it is unknown whether the server did it, so it was not asked again",
               Message(status));
}

absl::StatusOr<std::string> ClientConnection::ResolveId(const std::string& job, const CallOptions& call) const {
  v1::GetJobRequest request;
  request.set_job(job);
  SHARDMAX_ASSIGN_OR_RETURN(const v1::Job found, Read<v1::Job>(call, jobs, &v1::JobService::Stub::GetJob, request));
  return found.id();
}

}  // namespace shardmax
