// Whether what a pool says about itself can be true. Pure.
#pragma once

#include "absl/status/status.h"
#include "shardmax/v1/control.pb.h"

namespace shardmax {

// InvalidArgument naming the field: a name, session, version or host that is too long or has characters that do not
// belong there, ranks or ports out of range, more endpoints than ranks.
absl::Status CheckHello(const shardmax::v1::PoolHello& hello);

}  // namespace shardmax
