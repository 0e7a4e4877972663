// The writing half of a stream on the server's side.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <deque>
#include <limits>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "rpc/status.h"
#include "worker/base/status.h"

namespace shardmax {

// gRPC takes one write at a time and one end, and wants the end after the last write: this keeps what comes in
// between. Any thread writes and ends. `Reactor` is grpc::ServerWriteReactor or grpc::ServerBidiReactor of raw bytes.
template <typename Reactor>
class StreamWriter : public Reactor {
 public:
  StreamWriter(const StreamWriter&) = delete;
  StreamWriter& operator=(const StreamWriter&) = delete;

  // Sends the message after those before it. No effect once the stream has been ended.
  void Write(const grpc::ByteBuffer& message) { Write({&message, 1}); }
  // The same for several, of which the last alone may be followed by OnDrained().
  void Write(std::span<const grpc::ByteBuffer> messages) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const grpc::ByteBuffer& message : messages) QueueLocked(message);
  }
  // The same, but takes the place of those that wait: for peers who want the newest only.
  void Offer(const grpc::ByteBuffer& message) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!end_) queue_.clear();
    QueueLocked(message);
  }
  // Ends the stream when all messages are sent. Again: no effect.
  void End(const absl::Status& status) {
    std::lock_guard<std::mutex> lock(mutex_);
    EndLocked(status);
  }
  bool ended() {
    std::lock_guard<std::mutex> lock(mutex_);
    return finished_ || end_.has_value();
  }

 protected:
  // `peer` is what texts of errors call who reads ("caller"). One that lets more than `max_queued` messages wait is
  // taken for one that does not read.
  explicit StreamWriter(std::string peer, size_t max_queued = std::numeric_limits<size_t>::max())
      : peer_(std::move(peer)), max_queued_(max_queued) {}
  ~StreamWriter() override = default;

  // All messages have been sent. On threads of gRPC; must not block.
  virtual void OnDrained() {}
  // Once, right before gRPC is told how the stream ends. Must not call back.
  virtual void OnFinish(const absl::Status& /*status*/) {}

  // Calls `action` unless gRPC has been told the end, after which nothing may be started.
  template <typename Action>
  void IfNotFinished(const Action& action) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!finished_) action();
  }

 private:
  void OnWriteDone(bool ok) final {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      in_flight_ = false;
      if (finished_) return;
      if (!ok) return FinishLocked(Gone());
      if (!queue_.empty()) return WriteLocked();
      if (end_) return FinishLocked(*end_);
    }
    OnDrained();
  }

  void OnCancel() final {
    std::lock_guard<std::mutex> lock(mutex_);
    // A write that is in flight fails by itself, and finishes then.
    queue_.clear();
    if (!in_flight_) FinishLocked(Gone());
  }

  void QueueLocked(const grpc::ByteBuffer& message) {
    if (finished_ || end_) return;
    queue_.push_back(message);
    if (!in_flight_) {
      WriteLocked();
    } else if (queue_.size() > max_queued_) {
      queue_.clear();
      EndLocked(Error(absl::StatusCode::kResourceExhausted, "the {} does not read what it is sent", peer_));
    }
  }

  void WriteLocked() {
    sending_ = queue_.front();
    queue_.pop_front();
    in_flight_ = true;
    this->StartWrite(&sending_);
  }

  void EndLocked(const absl::Status& status) {
    if (finished_ || end_) return;
    end_ = status;
    if (!in_flight_) FinishLocked(status);
  }

  void FinishLocked(const absl::Status& status) {
    if (finished_) return;
    finished_ = true;
    OnFinish(status);
    this->Finish(ToGrpc(status));
  }

  absl::Status Gone() const { return Error(absl::StatusCode::kCancelled, "the {} is gone", peer_); }

  const std::string peer_;
  const size_t max_queued_;

  std::mutex mutex_;
  grpc::ByteBuffer sending_;
  std::deque<grpc::ByteBuffer> queue_;
  std::optional<absl::Status> end_;
  bool in_flight_ = false;
  bool finished_ = false;
};

}  // namespace shardmax
