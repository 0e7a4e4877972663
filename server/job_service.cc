#include "server/job_service.h"

#include <filesystem>
#include <utility>

#include "rpc/bytes.h"
#include "server/checkpoint_folder.h"
#include "server/job_streams.h"
#include "server/state_folder.h"
#include "worker/base/status.h"
#include "worker/data/quote.h"

namespace shardmax {
namespace {

using v1::Job;

}  // namespace

template <typename Request, typename Handle>
grpc::ServerUnaryReactor* JobServiceImpl::OnLoop(Context* context, const Bytes& bytes, Bytes* response,
                                                 const char* method, Need need, Handle handle) {
  auto* call = new UnaryCall(parts_.gate.metrics(), method, response);
  Request request;
  Caller caller;
  if (!Accept(parts_.gate, *context, need, bytes, call, &request, &caller)) return call;
  parts_.loop.Post([this, call, request = std::move(request), caller = std::move(caller), handle] {
    AnswerAfterCommit(parts_.controller, call, handle(request, caller));
  });
  return call;
}

template <typename Request, typename Handle>
grpc::ServerUnaryReactor* JobServiceImpl::OnFolder(Context* context, const Bytes& bytes, Bytes* response,
                                                   const char* method, Handle handle) {
  auto* call = new UnaryCall(parts_.gate.metrics(), method, response);
  Request request;
  Caller caller;
  if (!Accept(parts_.gate, *context, Need::kView, bytes, call, &request, &caller)) return call;
  parts_.loop.Post([this, call, request = std::move(request), handle] {
    auto record = parts_.controller.Find(request.job());
    if (!record.ok()) return call->Fail(record.status());
    parts_.blocking.Post([call, request, handle, record = *std::move(record)] {
      const auto answer = handle(request, record);
      if (answer.ok()) {
        call->Reply(*answer);
      } else {
        call->Fail(answer.status());
      }
    });
  });
  return call;
}

absl::StatusOr<JobRecord> JobServiceImpl::FindOwn(const std::string& job, const Caller& caller) {
  SHARDMAX_ASSIGN_OR_RETURN(JobRecord record, parts_.controller.Find(job));
  if (caller.MayChange(record.job.owner())) return record;
  return Error(absl::StatusCode::kPermissionDenied, "job {} belongs to {}: only {} or an admin may do this",
               record.job.id(), record.job.owner().empty() ? "nobody" : record.job.owner(),
               record.job.owner().empty() ? "nobody else" : record.job.owner());
}

grpc::ServerUnaryReactor* JobServiceImpl::SubmitJob(Context* context, const Bytes* bytes, Bytes* response) {
  auto* call = new UnaryCall(parts_.gate.metrics(), "JobService/SubmitJob", response);
  v1::SubmitJobRequest request;
  Caller caller;
  if (!Accept(parts_.gate, *context, Need::kSubmit, *bytes, call, &request, &caller)) return call;
  auto record = ToRecord(request, caller.name, parts_.gate.limits().spec_bytes);
  if (!record.ok()) {
    call->Fail(record.status());
    return call;
  }
  const auto check = [this, call](JobRecord unchecked) {
    parts_.blocking.Post([this, call, unchecked = std::move(unchecked)]() mutable {
      auto spec = parts_.submit_check.Resolve(unchecked.job.spec());
      if (!spec.ok()) return call->Fail(spec.status());
      *unchecked.job.mutable_spec() = *std::move(spec);
      FinishSubmit(call, std::move(unchecked));
    });
  };
  if (record->submit_key.empty()) {
    check(*std::move(record));
    return call;
  }
  // A repeated submit gets its job, whatever has become of the files since.
  parts_.loop.Post([this, call, check, record = *std::move(record)] {
    auto found = parts_.controller.FindSubmit(record);
    if (found.status().code() == absl::StatusCode::kNotFound) return check(record);
    AnswerAfterCommit(parts_.controller, call, std::move(found));
  });
  return call;
}

void JobServiceImpl::FinishSubmit(UnaryCall* call, JobRecord record) {
  parts_.loop.Post([this, call, record = std::move(record)]() mutable {
    AnswerAfterCommit(parts_.controller, call, parts_.controller.Submit(std::move(record), Moment::Now()));
  });
}

grpc::ServerUnaryReactor* JobServiceImpl::GetJob(Context* context, const Bytes* bytes, Bytes* response) {
  return OnLoop<v1::GetJobRequest>(context, *bytes, response, "JobService/GetJob", Need::kView,
                                   [this](const auto& request, const Caller&) -> absl::StatusOr<Job> {
                                     SHARDMAX_ASSIGN_OR_RETURN(JobRecord record, parts_.controller.Find(request.job()));
                                     return std::move(record.job);
                                   });
}

grpc::ServerUnaryReactor* JobServiceImpl::ListJobs(Context* context, const Bytes* bytes, Bytes* response) {
  return OnLoop<v1::ListJobsRequest>(
      context, *bytes, response, "JobService/ListJobs", Need::kView,
      [this](const auto& request, const Caller&) { return parts_.controller.List(request); });
}

grpc::ServerUnaryReactor* JobServiceImpl::StopJob(Context* context, const Bytes* bytes, Bytes* response) {
  return OnLoop<v1::StopJobRequest>(context, *bytes, response, "JobService/StopJob", Need::kSubmit,
                                    [this](const auto& request, const Caller& caller) -> absl::StatusOr<Job> {
                                      SHARDMAX_ASSIGN_OR_RETURN(const JobRecord record, FindOwn(request.job(), caller));
                                      return parts_.controller.Stop(record, caller.name, Moment::Now());
                                    });
}

grpc::ServerUnaryReactor* JobServiceImpl::DeleteJob(Context* context, const Bytes* bytes, Bytes* response) {
  const auto handle = [this](const auto& request, const Caller& caller) -> absl::StatusOr<v1::DeleteJobResponse> {
    SHARDMAX_ASSIGN_OR_RETURN(const JobRecord record, FindOwn(request.job(), caller));
    SHARDMAX_RETURN_IF_ERROR(parts_.controller.Delete(record));
    // The folder goes once the job is forgotten for good: half a job is never seen.
    parts_.controller.AfterCommit([this, folder = record.job.folder()](const absl::Status& committed) {
      if (!committed.ok()) return;
      const std::string aside = SetJobFolderAside(folder);
      if (!aside.empty()) parts_.blocking.Post([aside] { RemoveFolder(aside); });
    });
    return v1::DeleteJobResponse();
  };
  return OnLoop<v1::DeleteJobRequest>(context, *bytes, response, "JobService/DeleteJob", Need::kSubmit, handle);
}

grpc::ServerUnaryReactor* JobServiceImpl::CheckpointNow(Context* context, const Bytes* bytes, Bytes* response) {
  const auto handle = [this](const auto& request, const Caller& caller) -> absl::StatusOr<v1::CheckpointNowResponse> {
    SHARDMAX_ASSIGN_OR_RETURN(const JobRecord record, FindOwn(request.job(), caller));
    SHARDMAX_RETURN_IF_ERROR(parts_.controller.CheckpointNow(record));
    return v1::CheckpointNowResponse();
  };
  return OnLoop<v1::CheckpointNowRequest>(context, *bytes, response, "JobService/CheckpointNow", Need::kSubmit, handle);
}

grpc::ServerUnaryReactor* JobServiceImpl::ListCheckpoints(Context* context, const Bytes* bytes, Bytes* response) {
  return OnFolder<v1::ListCheckpointsRequest>(
      context, *bytes, response, "JobService/ListCheckpoints",
      [](const auto&, const JobRecord& record) { return ListJobCheckpoints(record.job); });
}

grpc::ServerUnaryReactor* JobServiceImpl::GetCheckpoint(Context* context, const Bytes* bytes, Bytes* response) {
  return OnFolder<v1::GetCheckpointRequest>(
      context, *bytes, response, "JobService/GetCheckpoint",
      [](const auto& request, const JobRecord& record) { return GetJobCheckpoint(record.job, request.step()); });
}

void JobServiceImpl::DropWhenEnded(const std::shared_ptr<StreamCall>& call) {
  call->SetOnEnded([this, key = call.get()] { parts_.loop.Post([this, key] { parts_.feed.Drop(key); }); });
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* JobServiceImpl::WatchJob(Context* context, const Bytes* bytes) {
  v1::WatchJobRequest request;
  bool accepted = false;
  auto call = AcceptStream(parts_.gate, *context, "JobService/WatchJob", *bytes, &request, &accepted);
  if (!accepted) return call->reactor();
  DropWhenEnded(call);
  parts_.loop.Post([this, call, name = request.job()] {
    const auto record = parts_.controller.Find(name);
    if (!record.ok()) return call->End(record.status());
    call->Write(ToBytes(record->job));
    if (IsFinal(record->job.state())) return call->End(absl::OkStatus());
    parts_.feed.Watch(record->job.id(), call);
  });
  return call->reactor();
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* JobServiceImpl::StreamLogs(Context* context, const Bytes* bytes) {
  v1::StreamLogsRequest request;
  bool accepted = false;
  auto call = AcceptStream(parts_.gate, *context, "JobService/StreamLogs", *bytes, &request, &accepted);
  if (!accepted) return call->reactor();
  DropWhenEnded(call);
  parts_.loop.Post([this, call, request] { StartLogStream(parts_, request, call); });
  return call->reactor();
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* JobServiceImpl::StreamMetrics(Context* context, const Bytes* bytes) {
  v1::StreamMetricsRequest request;
  bool accepted = false;
  auto call = AcceptStream(parts_.gate, *context, "JobService/StreamMetrics", *bytes, &request, &accepted);
  if (!accepted) return call->reactor();
  DropWhenEnded(call);
  parts_.loop.Post([this, call, request] { StartMetricsStream(parts_, request, call); });
  return call->reactor();
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* JobServiceImpl::ExportCheckpoint(Context* context, const Bytes* bytes) {
  v1::ExportCheckpointRequest request;
  bool accepted = false;
  auto call = AcceptStream(parts_.gate, *context, "JobService/ExportCheckpoint", *bytes, &request, &accepted);
  if (!accepted) return call->reactor();
  parts_.loop.Post([this, call, request] {
    auto record = parts_.controller.Find(request.job());
    if (!record.ok()) return call->End(record.status());
    StartExport(parts_, record->job, request.step(), call);
  });
  return call->reactor();
}

}  // namespace shardmax
