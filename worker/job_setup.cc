#include "worker/job_setup.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "worker/base/shard_range.h"
#include "worker/base/status.h"
#include "worker/checkpoint/initial_weights.h"
#include "worker/fill_tensor.h"
#include "worker/head/random_weights.h"

namespace shardmax {

int ThreadsOfRank(const JobHost& host) {
  return host.threads > 0 ? host.threads : std::max(1, static_cast<int>(host.processors.size()));
}

absl::StatusOr<JobData> OpenJobData(const JobRun& run, bool initial_weights) {
  const v1::Train& train = run.spec.train();
  SHARDMAX_ASSIGN_OR_RETURN(const DataRoots roots, DataRoots::Make(run.data_roots, run.base_folder));
  const auto open = [&](const std::string& field, const auto& files) -> absl::StatusOr<LabelledRows> {
    SHARDMAX_ASSIGN_OR_RETURN(const std::string features, roots.Resolve(field + ".features", files.features()));
    SHARDMAX_ASSIGN_OR_RETURN(const std::string labels, roots.Resolve(field + ".labels", files.labels()));
    return LabelledRows::Open(field, features, labels, train.dim(), train.num_classes());
  };
  SHARDMAX_ASSIGN_OR_RETURN(LabelledRows dataset, open("train.dataset", train.dataset()));
  JobData data = {.dataset = std::move(dataset)};
  if (train.has_validation()) {
    SHARDMAX_ASSIGN_OR_RETURN(data.validation, open("train.validation", train.validation()));
  }
  if (initial_weights) {
    SHARDMAX_ASSIGN_OR_RETURN(data.initial_weights, FindInitialWeights(run));
  }
  return data;
}

absl::StatusOr<std::string> FindInitialWeights(const JobRun& run) {
  const v1::Init& init = run.spec.train().init();
  if (!init.has_weights()) return std::string();
  SHARDMAX_ASSIGN_OR_RETURN(const DataRoots roots, DataRoots::Make(run.data_roots, run.base_folder));
  return roots.Resolve("train.init.weights", init.weights());
}

absl::Status AgreeOnData(Communicator& comm, const LabelledRows& rows) {
  const LabelledRows::Digest mine = rows.MakeDigest();
  absl::Status status;
  const auto compare = [&](const std::string& file, const std::string& here) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const std::string on_rank_0, BroadcastString(comm, here, 0));
    if (here == on_rank_0 || !status.ok()) return absl::OkStatus();
    status =
        InvalidArgument("{} has {} here, but {} on rank 0: every rank must see the same files", file, here, on_rank_0);
    return absl::OkStatus();
  };
  SHARDMAX_RETURN_IF_ERROR(compare(mine.features_file, mine.features));
  SHARDMAX_RETURN_IF_ERROR(compare(mine.labels_file, mine.labels));
  return AgreeOk(comm, status);
}

absl::StatusOr<const DeviceBackend*> AgreeOnDevice(Communicator& comm, const JobHost& host) {
  if (host.backend == BackendChoice::kCuda) return host.device;
  if (host.backend != BackendChoice::kAuto) return nullptr;
  const auto devices = host.device != nullptr ? host.device->CountDevices() : 0;
  const auto mine = static_cast<std::byte>(devices.ok() && *devices > 0 ? 1 : 0);
  std::vector<std::byte> all(static_cast<size_t>(comm.size()));
  SHARDMAX_RETURN_IF_ERROR(comm.AllGather({&mine, 1}, all));
  const bool everywhere = std::all_of(all.begin(), all.end(), [](std::byte one) { return one != std::byte{0}; });
  return everywhere ? host.device : nullptr;
}

namespace {

// Whatever a run that was killed has left there is removed.
absl::Status MakeStorageFolder(const std::string& folder) {
  std::error_code error;
  std::filesystem::remove_all(folder, error);
  if (!error) std::filesystem::create_directories(folder, error);
  return error ? ErrnoError(error.value(), "train.storage: " + folder) : absl::OkStatus();
}

}  // namespace

absl::StatusOr<EngineChoice> MakeJobEngine(Communicator& comm, const JobHost& host, const DeviceBackend* device,
                                           const v1::Train& train, const TrainingPlan& plan,
                                           const std::string& storage_folder) {
  EngineOptions options = {.dim = train.dim(),
                           .optimizer = plan.optimizer,
                           .precision = plan.precision,
                           .threads = ThreadsOfRank(host),
                           .cosines = CosineStorageOf(train, comm.size()),
                           .batch_rows = train.batch_size(),
                           .sample_rate = plan.sample_rate,
                           .ranks = comm.size()};
  if (host.pin_threads) options.processors = host.processors;
  SHARDMAX_ASSIGN_OR_RETURN(options.shard, ShardOfRank(train.num_classes(), comm.rank(), comm.size()));
  if (train.storage() == v1::MMAP) {
    options.storage_folder = storage_folder;
    SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm, comm.rank() == 0 ? MakeStorageFolder(storage_folder) : absl::OkStatus()));
  }
  const EngineKind on_host = host.backend == BackendChoice::kReference ? EngineKind::kReference : EngineKind::kCpu;
  auto engine = device != nullptr ? device->MakeEngine(options) : MakeEngine(on_host, options);
  const absl::Status made = AgreeOk(comm, engine.status());
  if (train.storage() == v1::MMAP && comm.rank() == 0) {
    std::error_code ignored;  // The files have no names any more.
    std::filesystem::remove_all(storage_folder, ignored);
  }
  SHARDMAX_RETURN_IF_ERROR(made);
  return engine;
}

absl::Status InitialiseWeights(Engine& engine, const v1::Train& train, const std::string& weights_path) {
  if (weights_path.empty()) return DrawWeights(engine, train.init().seed(), train.init().stddev());
  SHARDMAX_ASSIGN_OR_RETURN(auto weights, OpenWeights(weights_path, train.num_classes(), train.dim()));
  return FillTensor(engine, "weight",
                    [&](Range classes, MatrixView<float> rows) { return weights.Read(classes, rows); });
}

absl::Status ClearOptimizer(Engine& engine) {
  for (const std::string& tensor : engine.options().optimizer.StateNames()) {
    SHARDMAX_RETURN_IF_ERROR(FillTensor(engine, tensor, [](Range /*classes*/, MatrixView<float> rows) {
      std::ranges::fill(rows.flat(), 0.0F);
      return absl::OkStatus();
    }));
  }
  return absl::OkStatus();
}

}  // namespace shardmax
