// Messages as raw bytes.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

namespace shardmax {

// Many streams may send them: copies share them.
grpc::ByteBuffer ToBytes(const google::protobuf::Message& message);

}  // namespace shardmax
