// A trainer's stream, as gRPC sees it.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <memory>

#include "rpc/stream_writer.h"
#include "worker/live/desk.h"

namespace shardmax {

// Raw bytes, so that a message that is too long or does not parse is refused in words of ours. Lives until gRPC and the
// desk let go.
class TrainerStream final : public StreamWriter<grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>>,
                            public TrainerLink,
                            public std::enable_shared_from_this<TrainerStream> {
 public:
  // Counts itself in `open` for as long as it lives.
  static std::shared_ptr<TrainerStream> Make(LiveDesk& desk, std::atomic<int>& open);
  ~TrainerStream() override { --open_; }

  // Reads the hello. Else refuse it with Close().
  void Start();

  void Send(SharedMessage message) override;
  void Close(const absl::Status& status) override { End(status); }

 private:
  TrainerStream(LiveDesk& desk, std::atomic<int>& open);
  void OnReadDone(bool ok) override;
  void OnDone() override;

  absl::Status Receive();
  void ReadNext();

  LiveDesk& desk_;
  std::atomic<int>& open_;
  std::shared_ptr<TrainerStream> self_;  // gRPC's share.
  grpc::Alarm hello_alarm_;
  std::atomic<bool> greeted_ = false;
  grpc::ByteBuffer received_;
};

}  // namespace shardmax
