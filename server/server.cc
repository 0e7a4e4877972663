#include "server/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <utility>

#include "rpc/channel.h"
#include "rpc/listen_address.h"
#include "rpc/server_credentials.h"
#include "server/job_service.h"
#include "server/metrics_listener.h"
#include "server/pool_service.h"
#include "server/server_events.h"
#include "server/state_folder.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

constexpr int kBlockingThreads = 4;
constexpr std::chrono::seconds kShutdownTime{5};
// gRPC looks at the size of a message when it has all of it, so a limit of its own would save nothing, and its refusals
// would be counted nowhere: the limit is ours (Gate::Parse). What protects the memory is this, of all that gRPC
// buffers: beyond it, streams are ended with RESOURCE_EXHAUSTED.
constexpr int kNoLimit = -1;
constexpr size_t kBufferBytes = 512 << 20;

// A method that does not exist: refused like any other call, and counted.
class UnknownMethods final : public grpc::CallbackGenericService {
 public:
  explicit UnknownMethods(ServerMetrics& metrics) : metrics_(metrics) {}

 private:
  class Refusal final : public grpc::ServerGenericBidiReactor {
   public:
    Refusal() { Finish(grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "this server has no such method")); }

   private:
    void OnDone() override { delete this; }
  };

  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* /*context*/) override {
    metrics_.RpcEnded("unknown", absl::StatusCode::kUnimplemented);
    return new Refusal;
  }

  ServerMetrics& metrics_;
};

absl::Status CheckExposure(const ServerOptions& options, const ListenAddress& listen, const ListenAddress& metrics) {
  if (options.insecure) return absl::OkStatus();
  if (options.tls_cert.empty()) {
    SHARDMAX_RETURN_IF_ERROR(RequireLoopback(
        "--listen", listen,
        "give --tls_cert and --tls_key, or --insecure if everyone who can reach it may read and change everything"));
  }
  return RequireLoopback("--metrics_listen", metrics,
                         "metrics are served without TLS and tokens: give --insecure if everyone who can reach it may "
                         "read them");
}

class ServerImpl final : public Server {
 public:
  explicit ServerImpl(const ServerOptions& options) : options_(options), metrics_(SHARDMAX_VERSION), loop_(Period()) {}
  ~ServerImpl() override { Shutdown(); }

  absl::Status Open();

  const std::string& listen() const override { return listen_; }
  const std::string& metrics() const override { return metrics_listen_; }
  absl::Status ReloadTokens() override;
  void Shutdown() override;

 private:
  std::chrono::milliseconds Period() const;
  absl::Status OpenState();
  absl::Status Expose(const ListenAddress& address);
  absl::Status Listen(ListenAddress address);
  void Tick();

  const ServerOptions options_;
  std::string listen_;
  std::string metrics_listen_;
  ServerMetrics metrics_;
  std::unique_ptr<StateFolder> state_;
  std::unique_ptr<Authenticator> authenticator_;
  std::unique_ptr<Gate> gate_;
  std::unique_ptr<SubmitCheck> submit_check_;
  JobFeed feed_;
  std::unique_ptr<ServerEvents> events_;
  std::unique_ptr<Controller> controller_;
  std::unique_ptr<JobServiceImpl> job_service_;
  std::unique_ptr<PoolServiceImpl> pool_service_;
  std::unique_ptr<UnknownMethods> unknown_methods_;
  BlockingPool blocking_{kBlockingThreads};
  Loop loop_;
  std::unique_ptr<MetricsListener> metrics_listener_;
  std::unique_ptr<grpc::Server> grpc_;
  bool shut_down_ = false;
};

// Several looks in the shortest time that the loop has to notice.
std::chrono::milliseconds ServerImpl::Period() const {
  const auto shortest = std::min(options_.heartbeat, options_.pool_grace);
  return std::clamp(shortest / 8, std::chrono::milliseconds(5), std::chrono::milliseconds(100));
}

absl::Status ServerImpl::Open() {
  SHARDMAX_ASSIGN_OR_RETURN(const ListenAddress listen, ParseListenAddress("--listen", options_.listen));
  SHARDMAX_ASSIGN_OR_RETURN(const ListenAddress metrics,
                            ParseListenAddress("--metrics_listen", options_.metrics_listen));
  SHARDMAX_RETURN_IF_ERROR(CheckExposure(options_, listen, metrics));
  SHARDMAX_ASSIGN_OR_RETURN(authenticator_, Authenticator::Make(options_.tokens_file));
  SHARDMAX_RETURN_IF_ERROR(OpenState());
  SHARDMAX_RETURN_IF_ERROR(Expose(metrics));
  SHARDMAX_RETURN_IF_ERROR(Listen(listen));
  return state_->WriteServerJson(listen_, metrics_listen_);
}

absl::Status ServerImpl::OpenState() {
  SHARDMAX_ASSIGN_OR_RETURN(state_, StateFolder::Take(options_.state_dir));
  auto check = SubmitCheck::Make(options_.data_roots, state_->jobs());
  SHARDMAX_RETURN_IF_ERROR(Annotate(check.status(), "--data_root"));
  submit_check_ = std::make_unique<SubmitCheck>(*std::move(check));
  SHARDMAX_ASSIGN_OR_RETURN(auto store, JobStore::Open(state_->database()));
  events_ = std::make_unique<ServerEvents>(metrics_, feed_, *state_);
  const ControllerOptions controller = {.jobs_folder = state_->jobs(),
                                        .data_roots = submit_check_->pool_roots(),
                                        .heartbeat = options_.heartbeat,
                                        .pool_grace = options_.pool_grace};
  SHARDMAX_ASSIGN_OR_RETURN(controller_, Controller::Start(controller, std::move(store), *events_, Moment::Now()));
  gate_ = std::make_unique<Gate>(*authenticator_, metrics_, options_.limits);
  const ServiceParts parts = {*gate_, loop_, blocking_, *controller_, feed_, *submit_check_};
  job_service_ = std::make_unique<JobServiceImpl>(parts);
  pool_service_ = std::make_unique<PoolServiceImpl>(parts);
  unknown_methods_ = std::make_unique<UnknownMethods>(metrics_);
  return absl::OkStatus();
}

absl::Status ServerImpl::Expose(const ListenAddress& address) {
  SHARDMAX_ASSIGN_OR_RETURN(metrics_listener_, MetricsListener::Start(address, metrics_.registry()));
  metrics_listen_ = metrics_listener_->address().Text();
  events_->SetMetricsAddress(metrics_listen_);
  return absl::OkStatus();
}

absl::Status ServerImpl::Listen(ListenAddress address) {
  SHARDMAX_ASSIGN_OR_RETURN(
      const auto credentials,
      ReadServerCredentials({.option_prefix = "--",
                             .cert = options_.tls_cert,
                             .key = options_.tls_key,
                             .client_ca = options_.tls_client_ca},
                            [this] { metrics_.RpcEnded("unknown", absl::StatusCode::kUnauthenticated); }));
  loop_.Start({.tick = [this] { Tick(); }, .end_batch = [this] { controller_->EndBatch(Moment::Now()); }});
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(address.Text(), credentials, &port);
  builder.RegisterService(job_service_.get());
  builder.RegisterService(pool_service_.get());
  builder.RegisterCallbackGenericService(unknown_methods_.get());
  builder.SetMaxReceiveMessageSize(kNoLimit);
  builder.SetResourceQuota(grpc::ResourceQuota("shardmax-server").Resize(kBufferBytes));
  // Else a second server would share the port instead of being refused.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options_.limits.streams + 1000);
  AcceptKeepalive(builder);
  grpc_ = builder.BuildAndStart();
  if (!grpc_ || port == 0) {
    return Error(
        absl::StatusCode::kUnavailable,
        "--listen: cannot listen at {}: another process has the port, or the host is no address of this machine",
        address.Text());
  }
  address.port = port;
  listen_ = address.Text();
  grpc_->GetHealthCheckService()->SetServingStatus("shardmax.v1.JobService", true);
  grpc_->GetHealthCheckService()->SetServingStatus("shardmax.v1.PoolService", true);
  return absl::OkStatus();
}

void ServerImpl::Tick() {
  const Moment now = Moment::Now();
  controller_->Tick(now);
  pool_service_->Tick(now);
  feed_.Flush(now);
  events_->Tick(*controller_, now);
}

absl::Status ServerImpl::ReloadTokens() {
  SHARDMAX_RETURN_IF_ERROR(authenticator_->Reload());
  gate_->CloseRevoked();
  return absl::OkStatus();
}

void ServerImpl::Shutdown() {
  if (std::exchange(shut_down_, true)) return;
  if (grpc_) {
    grpc_->GetHealthCheckService()->Shutdown();
    // The controller first: else the end of a pool's stream would look like its loss.
    loop_.Post([this] { controller_->Shutdown(Moment::Now()); });
    gate_->CloseAll(Error(absl::StatusCode::kUnavailable, "the server shuts down; jobs go on: connect again"));
    grpc_->Shutdown(std::chrono::system_clock::now() + kShutdownTime);
    grpc_->Wait();
  }
  blocking_.Stop();
  loop_.Stop();
  metrics_listener_.reset();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options) {
  auto server = std::make_unique<ServerImpl>(options);
  SHARDMAX_RETURN_IF_ERROR(server->Open());
  return server;
}

}  // namespace shardmax
