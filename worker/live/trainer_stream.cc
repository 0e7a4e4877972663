#include "worker/live/trainer_stream.h"

#include <grpcpp/support/proto_buffer_reader.h>

#include <chrono>
#include <utility>

#include "rpc/bytes.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

constexpr std::chrono::seconds kHelloTimeout{10};
// A trainer that reads nothing for so many messages sends without end, too.
constexpr size_t kMaxQueuedMessages = 100;

}  // namespace

TrainerStream::TrainerStream(LiveDesk& desk, std::atomic<int>& open)
    : StreamWriter("trainer", kMaxQueuedMessages), desk_(desk), open_(open) {
  ++open_;
}

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
  IfNotFinished([this] { StartRead(&received_); });
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
  const grpc::ByteBuffer bytes = ToBytes(*message);
  if (desk_.observer() != nullptr) desk_.observer()->OnSent(static_cast<int64_t>(bytes.Length()));
  Write(bytes);
}

void TrainerStream::OnDone() {
  const auto self = std::exchange(self_, nullptr);
  desk_.Disconnect(self);
}

}  // namespace shardmax
