// The calls of PoolService, and the server's end of the streams of pools.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <map>
#include <memory>

#include "server/service_parts.h"
#include "shardmax/v1/control.grpc.pb.h"

namespace shardmax {

class PoolStream;

class RawPoolService
    : public shardmax::v1::PoolService::WithRawCallbackMethod_ListPools<
          shardmax::v1::PoolService::WithRawCallbackMethod_Connect<shardmax::v1::PoolService::Service>> {};

class PoolServiceImpl final : public RawPoolService {
 public:
  explicit PoolServiceImpl(const ServiceParts& parts) : parts_(parts) {}

  // Ends streams that said no hello. On the loop's thread, now and then.
  void Tick(const Moment& now);

 private:
  friend class PoolStream;

  grpc::ServerUnaryReactor* ListPools(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                      grpc::ByteBuffer* response) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Connect(grpc::CallbackServerContext* context) override;

  ServiceParts parts_;
  std::map<std::shared_ptr<PoolStream>, Moment> silent_;  // Those without a hello. On the loop's thread only.
};

}  // namespace shardmax
