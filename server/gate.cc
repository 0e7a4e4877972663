#include "server/gate.h"

#include <grpcpp/support/proto_buffer_reader.h>

#include <string_view>
#include <utility>
#include <vector>

#include "worker/base/status.h"

namespace shardmax {
namespace {

// "ipv4:10.0.0.1:41234" without the port, which is another for each connection.
std::string HostOf(const std::string& peer) {
  return peer.substr(0, peer.rfind(':'));
}

}  // namespace

StreamTicket::~StreamTicket() {
  if (gate_ != nullptr) gate_->GiveBack(number_);
}

absl::StatusOr<Caller> Gate::Admit(const grpc::CallbackServerContext& context, Need need) const {
  const auto& metadata = context.client_metadata();
  const auto [first, last] = metadata.equal_range("authorization");
  if (first == last) return authenticator_.Admit(nullptr, need);
  if (std::next(first) != last) {
    return Error(absl::StatusCode::kUnauthenticated, "there is more than one authorization in the metadata");
  }
  const std::string_view value(first->second.data(), first->second.size());
  return authenticator_.Admit(&value, need);
}

absl::Status Gate::Parse(const grpc::ByteBuffer& bytes, google::protobuf::Message* message) const {
  const std::string& type = message->GetDescriptor()->full_name();
  if (bytes.Length() > limits_.message_bytes) {
    return Error(absl::StatusCode::kResourceExhausted, "the {} has {} bytes: at most {} are allowed", type,
                 bytes.Length(), limits_.message_bytes);
  }
  grpc::ByteBuffer copy(bytes);  // Shares the bytes; the reader wants it mutable.
  grpc::ProtoBufferReader reader(&copy);
  if (reader.status().ok() && message->ParseFromZeroCopyStream(&reader)) return absl::OkStatus();
  return InvalidArgument("what was sent is not a {}: the bytes are malformed", type);
}

absl::Status Gate::Count(const std::string& holder) {
  if (counted_ >= limits_.streams) {
    return Error(absl::StatusCode::kResourceExhausted, "the server has {} streams open, its limit: try again later",
                 counted_);
  }
  int& open = streams_of_[holder];
  if (open >= limits_.streams_of_one) {
    return Error(absl::StatusCode::kResourceExhausted, "{} has {} streams open, the limit: close some first", holder,
                 open);
  }
  ++open;
  ++counted_;
  return absl::OkStatus();
}

absl::StatusOr<StreamTicket> Gate::OpenStream(const grpc::CallbackServerContext& context, const Caller& caller,
                                              Need need, CloseStream close) {
  std::string holder;
  if (need != Need::kPool) holder = caller.anonymous ? HostOf(context.peer()) : caller.name;
  std::lock_guard<std::mutex> lock(mutex_);
  SHARDMAX_RETURN_IF_ERROR(closed_);
  if (!holder.empty()) SHARDMAX_RETURN_IF_ERROR(Count(holder));
  streams_.emplace(next_number_, Stream{caller, holder, std::move(close)});
  return StreamTicket(this, next_number_++);
}

void Gate::GiveBack(uint64_t number) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto stream = streams_.find(number);
  const auto open = streams_of_.find(stream->second.holder);
  if (open != streams_of_.end()) {
    --counted_;
    if (--open->second == 0) streams_of_.erase(open);
  }
  streams_.erase(stream);
}

void Gate::CloseAll(const absl::Status& status) {
  std::vector<CloseStream> closers;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = status;
    for (const auto& [number, stream] : streams_) closers.push_back(stream.close);
  }
  for (const CloseStream& close : closers) close(status);
}

void Gate::CloseRevoked() {
  std::vector<CloseStream> closers;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [number, stream] : streams_) {
      if (!authenticator_.StillValid(stream.caller)) closers.push_back(stream.close);
    }
  }
  for (const CloseStream& close : closers) {
    close(Error(absl::StatusCode::kUnauthenticated, "the token is not one of this server any more"));
  }
}

}  // namespace shardmax
