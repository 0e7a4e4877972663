#include "server/pool_service.h"

#include <optional>
#include <utility>

#include "rpc/bytes.h"
#include "rpc/stream_writer.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

constexpr char kConnect[] = "PoolService/Connect";
constexpr std::chrono::seconds kHelloTimeout{10};
constexpr size_t kMaxSilentStreams = 100;
// A pool that reads nothing for so many messages is as good as gone.
constexpr size_t kMaxQueuedMessages = 10'000;

}  // namespace

// Lives until gRPC and the controller let go.
class PoolStream final : public StreamWriter<grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>>,
                         public PoolLink,
                         public std::enable_shared_from_this<PoolStream> {
 public:
  explicit PoolStream(PoolServiceImpl& service) : StreamWriter("pool", kMaxQueuedMessages), service_(service) {
    service_.parts_.gate.metrics().StreamOpened(kConnect);
  }

  // gRPC's share. Then refuse it with Close(), or Start().
  void Keep() { self_ = shared_from_this(); }
  void Hold(StreamTicket held) { ticket_.emplace(std::move(held)); }
  void Start() { ReadNext(); }

  void Send(const v1::ServerMessage& message) override { Write(ToBytes(message)); }
  void Close(const absl::Status& status) override { End(status); }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) {
      // The pool has ended its half, or the connection is gone: then OnCancel comes too.
      End(absl::OkStatus());
      return;
    }
    auto message = std::make_shared<v1::PoolMessage>();
    if (const absl::Status status = service_.parts_.gate.Parse(received_, message.get()); !status.ok()) {
      End(status);
      return;
    }
    service_.parts_.loop.Post([self = shared_from_this(), message] { self->Handle(*message); });
  }

  void Handle(const v1::PoolMessage& message) {
    Controller& controller = service_.parts_.controller;
    if (message.has_hello()) service_.silent_.erase(shared_from_this());
    controller.PoolSaid(shared_from_this(), message, Moment::Now());
    // The next message is read when this one is done with: a pool cannot send faster than the server works.
    controller.AfterCommit([self = shared_from_this()](const absl::Status& /*committed*/) { self->ReadNext(); });
  }

  void ReadNext() {
    IfNotFinished([this] { StartRead(&received_); });
  }

  void OnFinish(const absl::Status& status) override {
    service_.parts_.gate.metrics().RpcEnded(kConnect, status.code());
  }

  void OnDone() override {
    service_.parts_.gate.metrics().StreamClosed(kConnect);
    ticket_.reset();
    service_.parts_.loop.Post([self = std::exchange(self_, nullptr)] {
      self->service_.silent_.erase(self);
      self->service_.parts_.controller.PoolBroke(self, Moment::Now());
    });
  }

  PoolServiceImpl& service_;
  std::shared_ptr<PoolStream> self_;
  std::optional<StreamTicket> ticket_;
  grpc::ByteBuffer received_;
};

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* PoolServiceImpl::Connect(
    grpc::CallbackServerContext* context) {
  auto stream = std::make_shared<PoolStream>(*this);
  stream->Keep();
  const auto open = [&]() -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const Caller caller, parts_.gate.Admit(*context, Need::kPool));
    auto ticket = parts_.gate.OpenStream(*context, caller, Need::kPool,
                                         [weak = std::weak_ptr(stream)](const absl::Status& status) {
                                           if (const auto alive = weak.lock()) alive->Close(status);
                                         });
    SHARDMAX_RETURN_IF_ERROR(ticket.status());
    stream->Hold(*std::move(ticket));
    return absl::OkStatus();
  };
  if (const absl::Status status = open(); !status.ok()) {
    stream->Close(status);
    return stream.get();
  }
  parts_.loop.Post([this, stream] {
    if (silent_.size() >= kMaxSilentStreams) {
      return stream->Close(Error(absl::StatusCode::kResourceExhausted, "too many pools connect at once"));
    }
    silent_.emplace(stream, Moment::Now());
    stream->Start();
  });
  return stream.get();
}

void PoolServiceImpl::Tick(const Moment& now) {
  for (auto entry = silent_.begin(); entry != silent_.end();) {
    if (now.steady - entry->second.steady < kHelloTimeout) {
      ++entry;
      continue;
    }
    entry->first->Close(Error(absl::StatusCode::kDeadlineExceeded, "no hello came within 10 seconds"));
    entry = silent_.erase(entry);
  }
}

grpc::ServerUnaryReactor* PoolServiceImpl::ListPools(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  auto* call = new UnaryCall(parts_.gate.metrics(), "PoolService/ListPools", response);
  v1::ListPoolsRequest parsed;
  Caller caller;
  if (!Accept(parts_.gate, *context, Need::kView, *request, call, &parsed, &caller)) return call;
  parts_.loop.Post([this, call] {
    v1::ListPoolsResponse pools;
    for (v1::Pool& pool : parts_.controller.Pools()) *pools.add_pools() = std::move(pool);
    AnswerAfterCommit<v1::ListPoolsResponse>(parts_.controller, call, std::move(pools));
  });
  return call;
}

}  // namespace shardmax
