#include "worker/live/data_plane.h"

#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_context.h>

#include <atomic>
#include <chrono>
#include <iterator>
#include <string_view>
#include <utility>

#include "rpc/auth.h"
#include "rpc/channel.h"
#include "rpc/listen_address.h"
#include "rpc/status.h"
#include "shardmax/v1/head.grpc.pb.h"
#include "worker/base/status.h"
#include "worker/live/trainer_stream.h"

namespace shardmax {
namespace {

constexpr int kMaxPort = 65535;
constexpr int kMaxStreams = 5000;  // A job has at most 4096 trainers; some may come twice for a moment.
// The limit of a message is that of the job (LiveDesk::MaxMessageBytes), which gRPC cannot change while it serves. What
// protects the memory is the sum of what gRPC buffers.
constexpr int kNoLimit = -1;
constexpr size_t kBufferBytes = size_t{4} << 30;
constexpr std::chrono::seconds kShutdownTime{5};

using RawService = v1::HeadService::WithCallbackMethod_Describe<
    v1::HeadService::WithRawCallbackMethod_Train<v1::HeadService::Service>>;

class Service final : public RawService {
 public:
  Service(LiveDesk& desk, Authenticator& authenticator) : desk_(desk), authenticator_(authenticator) {}

 private:
  absl::Status Admit(const grpc::CallbackServerContext& context) {
    // A file with a mistake changes nothing.
    authenticator_.Reload().IgnoreError();
    const auto& metadata = context.client_metadata();
    const auto [first, last] = metadata.equal_range("authorization");
    if (first == last) return authenticator_.Admit(nullptr, Need::kSubmit).status();
    if (std::next(first) != last) {
      return Error(absl::StatusCode::kUnauthenticated, "there is more than one authorization in the metadata");
    }
    const std::string_view value(first->second.data(), first->second.size());
    return authenticator_.Admit(&value, Need::kSubmit).status();
  }

  absl::Status Refused(const absl::Status& status) const {
    if (!status.ok() && desk_.observer() != nullptr) desk_.observer()->OnRefused(status.code());
    return status;
  }

  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context, const v1::DescribeRequest* /*request*/,
                                     v1::HeadDescription* response) override {
    absl::Status status = Refused(Admit(*context));
    if (status.ok()) {
      auto description = desk_.Describe();
      status = description.status();
      if (status.ok()) *response = *std::move(description);
    }
    auto* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpc(status));
    return reactor;
  }

  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Train(grpc::CallbackServerContext* context) override {
    const auto stream = TrainerStream::Make(desk_, open_streams_);
    absl::Status status = Admit(*context);
    if (status.ok() && open_streams_ > kMaxStreams) {
      status = Error(absl::StatusCode::kResourceExhausted, "this rank has {} streams open, its limit", kMaxStreams);
    }
    if (Refused(status).ok()) {
      stream->Start();
    } else {
      stream->Close(status);
    }
    return stream.get();
  }

  LiveDesk& desk_;
  Authenticator& authenticator_;
  std::atomic<int> open_streams_ = 0;
};

std::string WithoutBrackets(const std::string& host) {
  const bool brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
  return brackets ? host.substr(1, host.size() - 2) : host;
}

class DataPlaneImpl final : public DataPlane {
 public:
  DataPlaneImpl(LiveDesk& desk, std::unique_ptr<Authenticator> authenticator)
      : desk_(desk), authenticator_(std::move(authenticator)), service_(desk, *authenticator_) {}
  ~DataPlaneImpl() override {
    if (server_ == nullptr) return;
    desk_.Close(absl::UnavailableError("the rank ends"));
    server_->Shutdown(std::chrono::system_clock::now() + kShutdownTime);
    server_->Wait();
  }

  // False if the port is taken.
  bool Listen(const ListenAddress& address, const std::shared_ptr<grpc::ServerCredentials>& credentials) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address.Text(), credentials, &port_);
    builder.RegisterService(&service_);
    builder.SetMaxReceiveMessageSize(kNoLimit);
    builder.SetMaxSendMessageSize(kNoLimit);
    builder.SetResourceQuota(grpc::ResourceQuota("shardmax-worker").Resize(kBufferBytes));
    // Else a second rank would share the port instead of being refused.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreams);
    AcceptKeepalive(builder);
    server_ = builder.BuildAndStart();
    return server_ != nullptr && port_ != 0;
  }

  int port() const override { return port_; }

 private:
  LiveDesk& desk_;
  std::unique_ptr<Authenticator> authenticator_;
  Service service_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

absl::Status CheckExposure(const DataPlaneOptions& options, const ListenAddress& address) {
  if (options.insecure || !options.tls.cert.empty()) return IsLoopback("--data_listen", address).status();
  return RequireLoopback(
      "--data_listen", address,
      "give --data_tls_cert and --data_tls_key, or --insecure if everyone who can reach it may train");
}

}  // namespace

absl::StatusOr<bool> IsLoopbackHost(const std::string& host) {
  return IsLoopback("--data_listen", {.host = WithoutBrackets(host)});
}

absl::StatusOr<std::unique_ptr<DataPlane>> DataPlane::Start(const DataPlaneOptions& options, int rank, LiveDesk& desk) {
  const int base = options.port_base.value_or(kDefaultDataPortBase);
  ListenAddress address = {.host = WithoutBrackets(options.listen), .port = base == 0 ? 0 : base + rank};
  if (address.port > kMaxPort) {
    return InvalidArgument("--data_port_base is {}: rank {} would need port {}", base, rank, address.port);
  }
  SHARDMAX_RETURN_IF_ERROR(CheckExposure(options, address));
  SHARDMAX_ASSIGN_OR_RETURN(const auto credentials, ReadServerCredentials(options.tls, [&desk] {
                              if (desk.observer() != nullptr) {
                                desk.observer()->OnRefused(absl::StatusCode::kUnauthenticated);
                              }
                            }));
  const auto start = [&]() -> absl::StatusOr<std::unique_ptr<DataPlaneImpl>> {
    auto authenticator = Authenticator::Make(options.tokens_file);
    if (!authenticator.ok()) return Annotate(authenticator.status(), "--data_tokens_file");
    auto plane = std::make_unique<DataPlaneImpl>(desk, *std::move(authenticator));
    if (!plane->Listen(address, credentials)) plane.reset();
    return plane;
  };
  SHARDMAX_ASSIGN_OR_RETURN(auto plane, start());
  if (plane == nullptr && !options.port_base.has_value()) {
    address.port = 0;
    SHARDMAX_ASSIGN_OR_RETURN(plane, start());
  }
  if (plane == nullptr) {
    return Error(
        absl::StatusCode::kUnavailable,
        "cannot serve trainers at {}: another process has the port, or the host is no address of this machine; "
        "choose another --data_port_base, or 0 for any port",
        address.Text());
  }
  return std::unique_ptr<DataPlane>(std::move(plane));
}

}  // namespace shardmax
