// A trainer's stream, as gRPC sees it.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>

#include "worker/live/desk.h"

namespace shardmax {

// Raw bytes, so that a message that is too long or does not parse is refused in words of ours. Lives until gRPC and the
// desk let go.
class TrainerStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                            public TrainerLink,
                            public std::enable_shared_from_this<TrainerStream> {
 public:
  // Counts itself in `open` for as long as it lives.
  static std::shared_ptr<TrainerStream> Make(LiveDesk& desk, std::atomic<int>& open);
  ~TrainerStream() override { --open_; }

  // Reads the hello. Else refuse it with Close().
  void Start();

  void Send(SharedMessage message) override;
  void Close(const absl::Status& status) override;

 private:
  TrainerStream(LiveDesk& desk, std::atomic<int>& open) : desk_(desk), open_(open) { ++open_; }
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  absl::Status Receive();
  void ReadNext();
  void WriteLocked();
  void FinishLocked(const absl::Status& status);

  LiveDesk& desk_;
  std::atomic<int>& open_;
  std::shared_ptr<TrainerStream> self_;  // gRPC's share.
  grpc::Alarm hello_alarm_;
  std::atomic<bool> greeted_ = false;
  grpc::ByteBuffer received_;

  std::mutex mutex_;
  grpc::ByteBuffer sending_;
  std::deque<SharedMessage> queue_;
  std::optional<absl::Status> close_;
  bool in_flight_ = false;
  bool finished_ = false;
};

}  // namespace shardmax
