// Errors of calls as absl::Status, and back: same code, same message.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace shardmax {

absl::Status FromGrpc(const grpc::Status& status);
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace shardmax
