// shardmax-worker: one rank of a pool.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "worker/base/shard_range.h"
#include "worker/base/status.h"
#include "worker/comm/mpi_comm.h"
#if defined(SHARDMAX_CUDA)
#include "worker/cuda_backend.h"
#endif
#include "worker/control/pool_session.h"
#include "worker/cost_model.h"
#include "worker/host_cost.h"
#include "worker/job_file.h"
#include "worker/job_runner.h"
#include "worker/job_setup.h"
#include "worker/live/data_plane.h"
#include "worker/live/endpoints.h"
#include "worker/metrics/live_metrics.h"
#include "worker/metrics/metrics_endpoint.h"
#include "worker/metrics/worker_metrics.h"
#include "worker/options.h"
#include "worker/progress.h"
#include "worker/sampling_cost.h"
#include "worker/stop_signals.h"
#include "worker/training_plan.h"

namespace shardmax {
namespace {

// Where trainers reach this rank, and whether other machines do.
struct DataAddress {
  std::string host;
  int port = 0;
  bool local = true;
};

// Serves trainers at the desk for as long as the object lives.
class TrainersService {
 public:
  explicit TrainersService(LiveDesk& desk) : desk_(desk) {}

  // Tells every rank's desk where the others are. Collective; all ranks return alike.
  absl::Status Start(Communicator& comm, const WorkerOptions& options) {
    SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm, StartHere(comm, options)));
    SHARDMAX_ASSIGN_OR_RETURN(auto endpoints, GatherEndpoints(comm, address_.host, address_.port));
    desk_.SetEndpoints(std::move(endpoints));
    return absl::OkStatus();
  }

  const DataAddress& address() const { return address_; }

 private:
  absl::Status StartHere(const Communicator& comm, const WorkerOptions& options) {
    const DataPlaneOptions data = {.listen = options.data_listen,
                                   .port_base = options.data_port_base,
                                   .tls = {.option_prefix = "--data_",
                                           .cert = options.data_tls_cert,
                                           .key = options.data_tls_key,
                                           .client_ca = options.data_tls_client_ca},
                                   .tokens_file = options.data_tokens_file,
                                   .insecure = options.insecure};
    SHARDMAX_ASSIGN_OR_RETURN(plane_, DataPlane::Start(data, comm.rank(), desk_));
    SHARDMAX_ASSIGN_OR_RETURN(address_.local, IsLoopbackHost(options.data_listen));
    address_.port = plane_->port();
    // Of an address that stands for all of the machine's nothing can be said but its name.
    const bool any = options.data_listen == "0.0.0.0" || options.data_listen == "::" || options.data_listen == "[::]";
    address_.host = any ? MetricsHost(options.advertise_host, "elsewhere:0") : options.data_listen;
    if (address_.port != options.data_port_base.value_or(kDefaultDataPortBase) + comm.rank()) {
      fmt::print(stderr, "shardmax-worker: rank {} serves trainers at {}:{}\n", comm.rank(), address_.host,
                 address_.port);
    }
    return absl::OkStatus();
  }

  LiveDesk& desk_;
  std::unique_ptr<DataPlane> plane_;
  DataAddress address_;
};

// Of a service that cannot start.
JobEnd NotServed(const absl::Status& status) {
  const bool use = absl::IsInvalidArgument(status) || absl::IsNotFound(status) || absl::IsFailedPrecondition(status);
  return {use ? kExitInvalidUse : kExitJobFailed, status};
}

// Reads the job that --job names and runs it. Collective.
JobEnd RunJobOfFile(Communicator& comm, const WorkerOptions& options, JobHost host) {
  auto spec = ShareJobSpec(comm, options.job_path);
  if (!spec.ok()) return {kExitInvalidUse, spec.status()};
  TrainersService trainers(*host.live);
  if (spec->train().has_live()) {
    host.live->Expect();
    if (const absl::Status served = trainers.Start(comm, options); !served.ok()) return NotServed(served);
  }
  const JobRun job = {.spec = *std::move(spec),
                      .output_folder = options.output_folder,
                      .resume = options.resume,
                      .data_roots = options.data_roots,
                      .base_folder = std::filesystem::absolute(options.job_path).parent_path().string()};
  Progress progress(options.progress);
  if (comm.rank() == 0) {
    host.observers.push_back(&progress);
    host.log_sinks.push_back(progress.NewLogSink());
  }
  return RunJob(comm, job, host);
}

// Prints what the job of --job costs on options.dry_run_ranks ranks. Collective.
JobEnd DryRun(Communicator& comm, const WorkerOptions& options) {
  const auto describe = [&]() -> absl::StatusOr<std::string> {
    SHARDMAX_ASSIGN_OR_RETURN(const v1::JobSpec spec, ShareJobSpec(comm, options.job_path));
    if (!spec.has_train()) return InvalidArgument("--dry_run is for jobs that train");
    const v1::Train& train = spec.train();
    SHARDMAX_ASSIGN_OR_RETURN(const TrainingPlan plan, MakeTrainingPlan(train, 1));
    const int ranks = options.dry_run_ranks;
    SHARDMAX_ASSIGN_OR_RETURN(const Range shard, ShardOfRank(train.num_classes(), 0, ranks));
    const EngineOptions engine = {.shard = shard,
                                  .dim = train.dim(),
                                  .optimizer = plan.optimizer,
                                  .precision = plan.precision,
                                  .threads = std::max(1, options.threads),
                                  .cosines = CosineStorageOf(train, ranks),
                                  .batch_rows = train.batch_size(),
                                  .sample_rate = plan.sample_rate,
                                  .storage_folder = train.storage() == v1::MMAP ? "shards" : ""};
    return DescribeHostCost(engine, ranks, train.checkpoint().keep()) + "\n" +
           DescribeCost(engine, train.batch_size(), ranks, !train.has_dataset(), H100(ranks)) +
           DescribeSampling(plan, train.num_classes(), train.dim(), train.batch_size(), ranks);
  };
  const auto text = describe();
  if (!text.ok()) return {kExitInvalidUse, text.status()};
  if (comm.rank() == 0) fmt::print("{}", *text);
  return {};
}

// Null if this build knows no device.
std::unique_ptr<DeviceBackend> MakeDeviceBackend([[maybe_unused]] const MpiSession& mpi,
                                                 [[maybe_unused]] const WorkerOptions& options) {
#if defined(SHARDMAX_CUDA)
  return MakeCudaBackend(mpi.local_rank(), mpi.local_size(), std::chrono::seconds(options.timeout_s));
#else
  return nullptr;
#endif
}

// What the options ask for. Collective.
JobEnd Work(Communicator& comm, const WorkerOptions& options, const MpiSession& mpi, const DeviceBackend* device,
            StopSignals& signals) {
  JobHost host = {.backend = options.backend,
                  .device = device,
                  .processors = mpi.processors(),
                  .threads = options.threads,
                  .pin_threads = options.pin_threads,
                  .requests = signals};
  LiveMetrics live_metrics(comm.rank(), options.pool);
  LiveDesk desk(&live_metrics);
  host.live = &desk;
  // What "auto" comes to is told to the server and in the metrics.
  const auto agreed = AgreeOnDevice(comm, host);
  if (!agreed.ok()) return {kExitJobFailed, agreed.status()};
  const std::string backend = *agreed != nullptr ? "cuda" : BackendName(options.backend);
  const bool serves_pool = options.mode == WorkerMode::kPool;
  if (!serves_pool && options.dry_run_ranks > 0) return DryRun(comm, options);
  const std::string metrics_host = MetricsHost(options.advertise_host, serves_pool ? options.server : std::string());
  WorkerMetrics metrics(comm, options.pool, backend);
  host.observers.push_back(&metrics);
  auto collectables = metrics.collectables();
  collectables.push_back(live_metrics.collectable());
  const auto endpoint = MetricsEndpoint::Start(metrics_host, options.metrics_port_base, comm.rank(), collectables);
  if (const absl::Status status = AgreeOk(comm, endpoint.status()); !status.ok()) {
    return {absl::IsInvalidArgument(status) ? kExitInvalidUse : kExitJobFailed, status};
  }
  const int port = (*endpoint)->port();
  if (port != options.metrics_port_base.value_or(kDefaultMetricsPortBase) + comm.rank()) {
    fmt::print(stderr, "shardmax-worker: rank {} serves metrics at http://{}:{}/metrics\n", comm.rank(), metrics_host,
               port);
  }
  if (!serves_pool) return RunJobOfFile(comm, options, host);
  TrainersService trainers(desk);
  if (const absl::Status served = trainers.Start(comm, options); !served.ok()) return NotServed(served);
  // A pool tells one host for all that it serves: trainers do not come there if they come to this machine alone.
  const DataAddress& data = trainers.address();
  const bool reached = !data.local || metrics_host == "localhost" || metrics_host.starts_with("127.");
  return RunPool(comm, {.options = options,
                        .backend = backend,
                        .host = host,
                        .metrics_host = metrics_host,
                        .metrics_port = port,
                        .data_port = reached ? data.port : 0,
                        .after_turn = [&] { metrics.OnIdle(); }});
}

int Main(int argc, char** argv) {
  StopSignals signals;
  // A file that would grow beyond the limit of this process is an error of that write, not the end of the rank.
  std::signal(SIGXFSZ, SIG_IGN);
  const ParsedOptions parsed = ParseWorkerOptions(argc, argv);
  const std::chrono::seconds timeout(parsed.options.timeout_s);
  auto session = MpiSession::Start(&argc, &argv, timeout);
  if (!session.ok()) {
    fmt::print(stderr, "shardmax-worker: {}\n", Message(session.status()));
    return kExitJobFailed;
  }
  MpiSession& mpi = **session;
  if (!parsed.run) {
    if (mpi.rank() == 0) fmt::print(parsed.exit_code == kExitSucceeded ? stdout : stderr, "{}", parsed.text);
    return parsed.exit_code;
  }

  JobEnd end;
  bool broken = false;
  {
    auto comm = mpi.NewCommunicator(timeout);
    if (!comm.ok()) {
      end = {kExitJobFailed, comm.status()};
      broken = true;
    } else {
      const auto device = MakeDeviceBackend(mpi, parsed.options);
      end = Work(**comm, parsed.options, mpi, device.get(), signals);
      // A broken communicator returns its error again; a whole one finds every rank here.
      const absl::Status together = (*comm)->Barrier();
      broken = !together.ok();
      if (end.status.ok() && broken) end = {kExitJobFailed, Annotate(together, "after the job had ended")};
    }
    if (!end.status.ok() && (mpi.rank() == 0 || broken)) {
      fmt::print(stderr, "shardmax-worker: {}\n", Message(end.status));
    }
  }
  if (broken) mpi.Abort(end.exit_code);
  if (const absl::Status closed = mpi.Close(); !closed.ok()) {
    fmt::print(stderr, "shardmax-worker: {}\n", Message(closed));
    return kExitJobFailed;
  }
  return end.exit_code;
}

}  // namespace
}  // namespace shardmax

int main(int argc, char** argv) {
  try {
    return shardmax::Main(argc, argv);
  } catch (const std::exception& error) {
    // Nothing of ours throws: out of memory, or a library.
    fmt::print(stderr, "shardmax-worker: {}\n", error.what());
    return shardmax::kExitJobFailed;
  }
}
