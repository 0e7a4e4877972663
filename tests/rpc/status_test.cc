#include "rpc/status.h"

#include <gtest/gtest.h>

#include "worker/base/status.h"

namespace shardmax {
namespace {

TEST(StatusTest, EveryCodeGoesThereAndBackWithItsMessage) {
  for (int code = 1; code <= 16; ++code) {
    const auto status = absl::Status(static_cast<absl::StatusCode>(code), "what is wrong");
    const grpc::Status sent = ToGrpc(status);
    EXPECT_EQ(static_cast<int>(sent.error_code()), code);
    EXPECT_EQ(sent.error_message(), "what is wrong");
    EXPECT_EQ(FromGrpc(sent), status);
  }
  EXPECT_TRUE(ToGrpc(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpc(grpc::Status::OK).ok());
}

TEST(StatusTest, CodesAreNotOffByOne) {
  EXPECT_EQ(ToGrpc(absl::NotFoundError("x")).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_TRUE(absl::IsUnavailable(FromGrpc({grpc::StatusCode::UNAVAILABLE, "x"})));
}

}  // namespace
}  // namespace shardmax
