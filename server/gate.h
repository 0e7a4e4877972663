// What every RPC passes before anything is done for it: who calls, is the message sound, are there too many streams.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "rpc/auth.h"
#include "server/metrics.h"

namespace shardmax {

// Beyond these RESOURCE_EXHAUSTED.
struct Limits {
  size_t message_bytes = 4 << 20;
  size_t spec_bytes = 1 << 20;
  int streams = 1000;
  int streams_of_one = 200;  // Of a token, or without tokens of a host.
};

class Gate;

// One of the streams that are allowed at a time. Movable; given back on destruction.
class StreamTicket {
 public:
  StreamTicket(Gate* gate, uint64_t number) : gate_(gate), number_(number) {}
  StreamTicket(StreamTicket&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)), number_(other.number_) {}
  StreamTicket& operator=(StreamTicket&&) = delete;
  ~StreamTicket();

 private:
  Gate* gate_;
  uint64_t number_;
};

using CloseStream = std::function<void(const absl::Status&)>;

// Any thread calls.
class Gate {
 public:
  Gate(const Authenticator& authenticator, ServerMetrics& metrics, const Limits& limits)
      : authenticator_(authenticator), metrics_(metrics), limits_(limits) {}

  absl::StatusOr<Caller> Admit(const grpc::CallbackServerContext& context, Need need) const;

  // ResourceExhausted if it is too long, InvalidArgument if it is no such message.
  absl::Status Parse(const grpc::ByteBuffer& bytes, google::protobuf::Message* message) const;

  // `close` ends the stream, if there still is one; any thread calls it. The limits count streams of people (kView).
  absl::StatusOr<StreamTicket> OpenStream(const grpc::CallbackServerContext& context, const Caller& caller, Need need,
                                          CloseStream close);

  // Ends every stream, and refuses later ones.
  void CloseAll(const absl::Status& status);
  // Ends the streams of tokens that are not valid any more.
  void CloseRevoked();

  ServerMetrics& metrics() { return metrics_; }
  const Limits& limits() const { return limits_; }

 private:
  friend class StreamTicket;
  struct Stream {
    Caller caller;
    std::string holder;  // Empty: not counted.
    CloseStream close;
  };
  absl::Status Count(const std::string& holder);
  void GiveBack(uint64_t number);

  const Authenticator& authenticator_;
  ServerMetrics& metrics_;
  const Limits limits_;
  std::mutex mutex_;
  std::map<uint64_t, Stream> streams_;
  std::map<std::string, int> streams_of_;  // By holder.
  int counted_ = 0;
  uint64_t next_number_ = 0;
  absl::Status closed_;
};

}  // namespace shardmax
