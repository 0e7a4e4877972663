// The calls of JobService.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <string>

#include "server/service_parts.h"
#include "shardmax/v1/control.grpc.pb.h"

namespace shardmax {

class RawJobService
    : public shardmax::v1::JobService::WithRawCallbackMethod_SubmitJob<
          shardmax::v1::JobService::WithRawCallbackMethod_GetJob<
              shardmax::v1::JobService::WithRawCallbackMethod_ListJobs<
                  shardmax::v1::JobService::WithRawCallbackMethod_WatchJob<
                      shardmax::v1::JobService::WithRawCallbackMethod_StreamLogs<
                          shardmax::v1::JobService::WithRawCallbackMethod_StreamMetrics<
                              shardmax::v1::JobService::WithRawCallbackMethod_StopJob<
                                  shardmax::v1::JobService::WithRawCallbackMethod_DeleteJob<
                                      shardmax::v1::JobService::WithRawCallbackMethod_CheckpointNow<
                                          shardmax::v1::JobService::WithRawCallbackMethod_ListCheckpoints<
                                              shardmax::v1::JobService::WithRawCallbackMethod_GetCheckpoint<
                                                  shardmax::v1::JobService::WithRawCallbackMethod_ExportCheckpoint<
                                                      shardmax::v1::JobService::Service>>>>>>>>>>>> {};

class JobServiceImpl final : public RawJobService {
 public:
  explicit JobServiceImpl(const ServiceParts& parts) : parts_(parts) {}

 private:
  using Context = grpc::CallbackServerContext;
  using Bytes = grpc::ByteBuffer;
  using Unary = grpc::ServerUnaryReactor;
  using Stream = grpc::ServerWriteReactor<grpc::ByteBuffer>;

  Unary* SubmitJob(Context* context, const Bytes* request, Bytes* response) override;
  Unary* GetJob(Context* context, const Bytes* request, Bytes* response) override;
  Unary* ListJobs(Context* context, const Bytes* request, Bytes* response) override;
  Unary* StopJob(Context* context, const Bytes* request, Bytes* response) override;
  Unary* DeleteJob(Context* context, const Bytes* request, Bytes* response) override;
  Unary* CheckpointNow(Context* context, const Bytes* request, Bytes* response) override;
  Unary* ListCheckpoints(Context* context, const Bytes* request, Bytes* response) override;
  Unary* GetCheckpoint(Context* context, const Bytes* request, Bytes* response) override;
  Stream* WatchJob(Context* context, const Bytes* request) override;
  Stream* StreamLogs(Context* context, const Bytes* request) override;
  Stream* StreamMetrics(Context* context, const Bytes* request) override;
  Stream* ExportCheckpoint(Context* context, const Bytes* request) override;

  // A call that the controller answers: `handle(request, caller)` runs on the loop.
  template <typename Request, typename Handle>
  Unary* OnLoop(Context* context, const Bytes& bytes, Bytes* response, const char* method, Need need, Handle handle);
  // A call that reads the folder of a job: `handle(request, record)` runs on a blocking thread.
  template <typename Request, typename Handle>
  Unary* OnFolder(Context* context, const Bytes& bytes, Bytes* response, const char* method, Handle handle);
  void FinishSubmit(UnaryCall* call, JobRecord record);
  // The record, if the caller may change it.
  absl::StatusOr<JobRecord> FindOwn(const std::string& job, const Caller& caller);
  void DropWhenEnded(const std::shared_ptr<StreamCall>& call);

  ServiceParts parts_;
};

}  // namespace shardmax
