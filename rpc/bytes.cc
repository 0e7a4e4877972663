#include "rpc/bytes.h"

#include <grpcpp/support/slice.h>

namespace shardmax {

grpc::ByteBuffer ToBytes(const google::protobuf::Message& message) {
  grpc::Slice slice(message.ByteSizeLong());
  message.SerializeToArray(const_cast<uint8_t*>(slice.begin()), static_cast<int>(slice.size()));
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace shardmax
