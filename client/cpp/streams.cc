#include "client/cpp/connection.h"
#include "client/cpp/follow.h"
#include "shardmax/client.h"
#include "worker/base/status.h"

namespace shardmax {

absl::Status Client::Watch(const std::string& job, const OnMessage<v1::Job>& on_job, const StreamOptions& stream) {
  SHARDMAX_ASSIGN_OR_RETURN(const std::string id, connection_->ResolveId(job, {.stop = stream.stop}));
  v1::WatchJobRequest request;
  request.set_job(id);
  bool final = false;
  return FollowStream<v1::Job>(
      *connection_, stream, id,
      [&](grpc::ClientContext& context) { return connection_->jobs->WatchJob(&context, request); },
      [&](const v1::Job& now) {
        final = IsFinal(now.state());
        return on_job(now);
      },
      [&](bool) { return final; });
}

absl::StatusOr<v1::Job> Client::Wait(const std::string& job, const StreamOptions& stream) {
  v1::Job last;
  const absl::Status status = Watch(
      job,
      [&](const v1::Job& now) {
        last = now;
        return true;
      },
      stream);
  if (!status.ok()) return status;
  return last;
}

absl::Status Client::StreamLogs(const std::string& job, bool follow, const OnMessage<v1::LogLine>& on_line,
                                int64_t after_sequence, const StreamOptions& stream) {
  v1::StreamLogsRequest request;
  SHARDMAX_ASSIGN_OR_RETURN(*request.mutable_job(), connection_->ResolveId(job, {.stop = stream.stop}));
  request.set_follow(follow);
  request.set_after_sequence(after_sequence);
  return FollowStream<v1::LogLine>(
      *connection_, stream, request.job(),
      [&](grpc::ClientContext& context) { return connection_->jobs->StreamLogs(&context, request); },
      [&](const v1::LogLine& line) {
        request.set_after_sequence(line.sequence());
        return on_line(line);
      },
      [](bool ended_ok) { return ended_ok; });
}

absl::Status Client::StreamMetrics(const std::string& job, bool follow, const OnMessage<v1::StepMetrics>& on_step,
                                   int32_t after_step, const StreamOptions& stream) {
  v1::StreamMetricsRequest request;
  SHARDMAX_ASSIGN_OR_RETURN(*request.mutable_job(), connection_->ResolveId(job, {.stop = stream.stop}));
  request.set_follow(follow);
  request.set_after_step(after_step);
  return FollowStream<v1::StepMetrics>(
      *connection_, stream, request.job(),
      [&](grpc::ClientContext& context) { return connection_->jobs->StreamMetrics(&context, request); },
      [&](const v1::StepMetrics& step) {
        request.set_after_step(step.step());
        return on_step(step);
      },
      [](bool ended_ok) { return ended_ok; });
}

}  // namespace shardmax
