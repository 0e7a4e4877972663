#include "worker/job_setup.h"

#include <spdlog/logger.h>

#include <algorithm>
#include <vector>

#include "worker/base/shard_range.h"
#include "worker/base/status.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/checkpoint/initial_weights.h"
#include "worker/head/random_weights.h"

namespace shardmax {
namespace {

constexpr int64_t kChunkClasses = 4096;

absl::Status CheckSameJob(const v1::Manifest& manifest, const v1::Train& train, const OptimizerParams& optimizer,
                          const std::string& folder) {
  if (manifest.num_classes() != train.num_classes() || manifest.dim() != train.dim()) {
    return InvalidArgument(
        "{}: the checkpoint is of num_classes {} and dim {}, the job has num_classes {} and dim {}; resume with the "
        "same "
        "job, or start from its weights with train.init.weights",
        folder, manifest.num_classes(), manifest.dim(), train.num_classes(), train.dim());
  }
  for (const std::string& name : optimizer.StateNames()) {
    if (std::find(manifest.tensors().begin(), manifest.tensors().end(), name) == manifest.tensors().end()) {
      return InvalidArgument(
          "{}: the checkpoint has no tensor '{}', which train.optimizer needs; it was written with {}", folder, name,
          manifest.optimizer());
    }
  }
  return absl::OkStatus();
}

// Copies every row of the engine's shard of `tensor` from read(classes, rows).
template <typename Read>
absl::Status FillTensor(Engine& engine, const std::string& tensor, const Read& read) {
  const Range shard = engine.options().shard;
  const int64_t dim = engine.options().dim;
  std::vector<float> chunk(static_cast<size_t>(std::min(kChunkClasses, shard.count) * dim));
  for (int64_t first = shard.first; first < shard.end(); first += kChunkClasses) {
    const Range classes = {first, std::min(kChunkClasses, shard.end() - first)};
    const MatrixView<float> rows = {chunk.data(), classes.count, dim};
    SHARDMAX_RETURN_IF_ERROR(read(classes, rows));
    SHARDMAX_RETURN_IF_ERROR(engine.WriteRows(tensor, classes, rows));
  }
  return absl::OkStatus();
}

absl::Status Restore(Engine& engine, const v1::Train& train, const std::string& folder, int64_t& step) {
  SHARDMAX_ASSIGN_OR_RETURN(const CheckpointReader reader, CheckpointReader::Open(folder));
  SHARDMAX_RETURN_IF_ERROR(CheckSameJob(reader.manifest(), train, engine.options().optimizer, folder));
  std::vector<std::string> tensors = engine.options().optimizer.StateNames();
  tensors.emplace_back("weight");
  for (const std::string& tensor : tensors) {
    SHARDMAX_RETURN_IF_ERROR(FillTensor(
        engine, tensor, [&](Range classes, MatrixView<float> rows) { return reader.Read(tensor, classes, rows); }));
  }
  step = reader.manifest().step();
  return absl::OkStatus();
}

}  // namespace

int ThreadsOfRank(const JobHost& host) {
  return host.threads > 0 ? host.threads : std::max(1, static_cast<int>(host.processors.size()));
}

absl::StatusOr<JobData> OpenJobData(const JobRun& run) {
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
  if (train.init().has_weights()) {
    SHARDMAX_ASSIGN_OR_RETURN(data.initial_weights, roots.Resolve("train.init.weights", train.init().weights()));
  }
  return data;
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

absl::StatusOr<EngineChoice> MakeJobEngine(const Communicator& comm, const JobHost& host, const v1::Train& train,
                                           const TrainingPlan& plan) {
  if (host.backend == BackendChoice::kCuda) {
    return absl::FailedPreconditionError("--backend=cuda: this build has no CUDA engine; use --backend=cpu");
  }
  EngineOptions engine;
  SHARDMAX_ASSIGN_OR_RETURN(engine.shard, ShardOfRank(train.num_classes(), comm.rank(), comm.size()));
  engine.dim = train.dim();
  engine.optimizer = plan.optimizer;
  engine.precision = plan.precision;
  engine.threads = ThreadsOfRank(host);
  engine.batch_rows = train.batch_size();
  if (host.pin_threads) engine.processors = host.processors;
  return MakeEngine(host.backend == BackendChoice::kReference ? EngineKind::kReference : EngineKind::kCpu, engine);
}

absl::Status InitialiseWeights(Engine& engine, const v1::Train& train, const std::string& weights_path) {
  if (weights_path.empty()) return DrawWeights(engine, train.init().seed(), train.init().stddev());
  SHARDMAX_ASSIGN_OR_RETURN(auto weights, OpenWeights(weights_path, train.num_classes(), train.dim()));
  return FillTensor(engine, "weight",
                    [&](Range classes, MatrixView<float> rows) { return weights.Read(classes, rows); });
}

absl::StatusOr<int64_t> RestoreNewest(Communicator& comm, Engine& engine, const v1::Train& train,
                                      const std::string& checkpoints_folder, spdlog::logger* log) {
  SHARDMAX_ASSIGN_OR_RETURN(const NewestCheckpoint newest, FindNewestValid(comm, checkpoints_folder));
  if (log != nullptr) {
    for (const std::string& reason : newest.rejected) log->warn("checkpoint rejected: {}", reason);
  }
  int64_t step = 0;
  if (!newest.folder.empty()) {
    SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm, Restore(engine, train, newest.folder, step)));
  }
  if (log != nullptr) {
    if (newest.folder.empty()) {
      log->info("--resume: no valid checkpoint in {}, starting from the first step", checkpoints_folder);
    } else {
      log->info("resuming after step {} from {}", step, newest.folder);
    }
  }
  return step;
}

}  // namespace shardmax
