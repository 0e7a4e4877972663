#include "worker/live/trainer_stream.h"

#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/slice.h>

#include <chrono>
#include <utility>

#include "rpc/status.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

constexpr std::chrono::seconds kHelloTimeout{10};
// A trainer that reads nothing for so many messages sends without end, too.
constexpr size_t kMaxQueuedMessages = 100;

grpc::ByteBuffer ToBytes(const v1::HeadMessage& message) {
  grpc::Slice slice(message.ByteSizeLong());
  message.SerializeToArray(const_cast<uint8_t*>(slice.begin()), static_cast<int>(slice.size()));
  return grpc::ByteBuffer(&slice, 1);
}

absl::Status Gone() {
  return Error(absl::StatusCode::kCancelled, "the trainer is gone");
}

}  // namespace

std::shared_ptr<TrainerStream> TrainerStream::Make(LiveDesk& desk, std::atomic<int>& open) {
  std::shared_ptr<TrainerStream> stream(new TrainerStream(desk, open));
  stream->self_ = stream;
  return stream;
}

void TrainerStream::Start() {
  hello_alarm_.Set(std::chrono::system_clock::now() + kHelloTimeout, [weak = weak_from_this()](bool rang) {
    const auto stream = weak.lock();
    if (!rang || stream == nullptr || stream->greeted_) return;
    stream->Close(Error(absl::StatusCode::kDeadlineExceeded, "no hello came within {} s", kHelloTimeout.count()));
  });
  ReadNext();
}

void TrainerStream::ReadNext() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!finished_) StartRead(&received_);
}

void TrainerStream::OnReadDone(bool ok) {
  if (!ok) return Close(absl::OkStatus());  // The trainer has ended its half; or is gone, then OnCancel comes too.
  if (const absl::Status status = Receive(); !status.ok()) {
    if (desk_.observer() != nullptr) desk_.observer()->OnRefused(status.code());
    return Close(status);
  }
  ReadNext();
}

absl::Status TrainerStream::Receive() {
  const size_t bytes = received_.Length();
  if (desk_.observer() != nullptr) desk_.observer()->OnReceived(static_cast<int64_t>(bytes));
  if (const size_t most = desk_.MaxMessageBytes(); bytes > most) {
    return Error(absl::StatusCode::kResourceExhausted, "the message has {} bytes: at most {} are allowed", bytes, most);
  }
  v1::TrainerMessage message;
  grpc::ProtoBufferReader reader(&received_);
  if (!reader.status().ok() || !message.ParseFromZeroCopyStream(&reader)) {
    return InvalidArgument("what was sent is not a TrainerMessage: the bytes are malformed");
  }
  if (greeted_) return desk_.Handle(shared_from_this(), message);
  if (!message.has_hello()) return InvalidArgument("the first message of a stream is hello");
  greeted_ = true;
  return desk_.Connect(message.hello(), shared_from_this());
}

void TrainerStream::Send(SharedMessage message) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (finished_ || close_.has_value()) return;
  queue_.push_back(std::move(message));
  if (queue_.size() > kMaxQueuedMessages) {
    close_ = Error(absl::StatusCode::kResourceExhausted, "the trainer does not read what it is sent");
    queue_.clear();
  } else if (!in_flight_) {
    WriteLocked();
  }
}

void TrainerStream::Close(const absl::Status& status) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (finished_ || close_.has_value()) return;
  close_ = status;
  if (!in_flight_) FinishLocked(status);
}

void TrainerStream::WriteLocked() {
  sending_ = ToBytes(*queue_.front());
  queue_.pop_front();
  in_flight_ = true;
  if (desk_.observer() != nullptr) desk_.observer()->OnSent(static_cast<int64_t>(sending_.Length()));
  StartWrite(&sending_);
}

void TrainerStream::OnWriteDone(bool ok) {
  std::lock_guard<std::mutex> lock(mutex_);
  in_flight_ = false;
  if (finished_) return;
  if (!ok) {
    FinishLocked(Gone());
  } else if (!queue_.empty()) {
    WriteLocked();
  } else if (close_.has_value()) {
    FinishLocked(*close_);
  }
}

void TrainerStream::OnCancel() {
  std::lock_guard<std::mutex> lock(mutex_);
  queue_.clear();
  if (!in_flight_) FinishLocked(Gone());
}

void TrainerStream::FinishLocked(const absl::Status& status) {
  if (finished_) return;
  finished_ = true;
  Finish(ToGrpc(status));
}

void TrainerStream::OnDone() {
  const auto self = std::exchange(self_, nullptr);
  desk_.Disconnect(self);
}

}  // namespace shardmax
