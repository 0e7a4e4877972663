#include "worker/resume.h"

#include <spdlog/logger.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_join.h"
#include "worker/base/status.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/checkpoint/folders.h"
#include "worker/fill_tensor.h"
#include "worker/spec/resume_rules.h"
#include "worker/training_plan.h"

namespace shardmax {
namespace {

template <typename... Args>
absl::Status Refusal(fmt::format_string<Args...> format, Args&&... args) {
  return Error(absl::StatusCode::kFailedPrecondition, format, std::forward<Args>(args)...);
}

absl::Status CheckChanges(const JobFolder& folder, const std::string& newest, const std::vector<std::string>& changes) {
  if (changes.empty()) return absl::OkStatus();
  return Refusal(
      "--resume: the job of {} was another one, and its steps are made:\n{}\nGo on with what that file says, or train "
      "in "
      "a new folder from these weights with train.init.weights: \"{}/{}\"",
      folder.spec_path(), absl::StrJoin(changes, "\n"), folder.checkpoints_folder(), newest);
}

absl::Status CheckNeighbours(const v1::Manifest& manifest, const v1::Train& train, const TrainingPlan& plan,
                             const std::string& folder) {
  if (!plan.nearest.has_value()) return absl::OkStatus();
  const int64_t needed = plan.nearest->IsBuiltAfter(manifest.step())
                             ? std::min<int64_t>(plan.nearest->neighbours, train.num_classes() - 1)
                             : 0;
  if (manifest.neighbours() == needed) return absl::OkStatus();
  return Refusal("{}: the checkpoint has {} neighbours of each class, but after {} steps the job has {}", folder,
                 manifest.neighbours(), manifest.step(), needed);
}

absl::Status CheckManifest(const v1::Manifest& manifest, const v1::Train& train, const TrainingPlan& plan,
                           const std::string& folder) {
  if (manifest.num_classes() != train.num_classes() || manifest.dim() != train.dim()) {
    return Refusal("{}: the checkpoint is of num_classes {} and dim {}, the job has num_classes {} and dim {}", folder,
                   manifest.num_classes(), manifest.dim(), train.num_classes(), train.dim());
  }
  for (const std::string& name : plan.optimizer.StateNames()) {
    if (std::find(manifest.tensors().begin(), manifest.tensors().end(), name) == manifest.tensors().end()) {
      return Refusal("{}: the checkpoint has no tensor '{}', which train.optimizer needs; it was written with {}",
                     folder, name, manifest.optimizer());
    }
  }
  if (manifest.step() > plan.total_steps) {
    return Refusal("--resume: {} steps are done, which {} holds, but train.{} makes {}: ask for as many or more",
                   manifest.step(), folder, train.has_steps() ? "steps" : "epochs", plan.total_steps);
  }
  return CheckNeighbours(manifest, train, plan, folder);
}

// Those of the checkpoint that the job has too.
std::vector<std::string> WantedTensors(const JobTensors& tensors, const v1::Manifest& manifest) {
  std::vector<std::string> wanted = tensors.engine.options().optimizer.StateNames();
  wanted.emplace_back("weight");
  if (tensors.neighbours != nullptr && manifest.has_neighbours()) wanted.emplace_back(kNeighboursTensor);
  return wanted;
}

// Fills the job from a verified checkpoint. Not collective.
absl::Status Restore(const JobTensors& tensors, const v1::Train& train, const TrainingPlan& plan,
                     const std::string& folder) {
  SHARDMAX_ASSIGN_OR_RETURN(const CheckpointReader reader, CheckpointReader::Open(folder));
  SHARDMAX_RETURN_IF_ERROR(CheckManifest(reader.manifest(), train, plan, folder));
  for (const std::string& tensor : WantedTensors(tensors, reader.manifest())) {
    const ReadClasses read = [&](Range classes, MatrixView<float> rows) { return reader.Read(tensor, classes, rows); };
    SHARDMAX_RETURN_IF_ERROR(FillRows(
        tensors.engine.options().shard, WidthOf(reader.manifest(), tensor), read,
        [&](Range classes, MatrixView<const float> rows) { return tensors.WriteRows(tensor, classes, rows); }));
  }
  if (tensors.neighbours != nullptr) tensors.neighbours->SetBuilt(reader.manifest().has_neighbours());
  return absl::OkStatus();
}

// Fills the job from the checkpoint in `folder`, which is verified on the way. Collective. An error is the verdict
// on the folder; one that fits no such job is a refusal instead, and then nothing was read.
absl::Status VerifyAndRestore(Communicator& comm, const JobTensors& tensors, const v1::Train& train,
                              const TrainingPlan& plan, const std::string& folder, int64_t& step,
                              absl::Status& refusal) {
  const auto reader = CheckpointReader::Open(folder);
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm, reader.status()));
  refusal = AgreeOk(comm, CheckManifest(reader->manifest(), train, plan, folder));
  step = reader->manifest().step();
  if (!refusal.ok()) return absl::OkStatus();
  const std::vector<std::string> names = WantedTensors(tensors, reader->manifest());
  if (tensors.neighbours != nullptr) tensors.neighbours->SetBuilt(reader->manifest().has_neighbours());
  return TakeCheckpoint(
      comm, *reader, [&](int rank) { return BalancedPart(train.num_classes(), rank, comm.size()); },
      [&](const std::string& name, Range classes, MatrixView<const float> rows) {
        const bool wanted = std::find(names.begin(), names.end(), name) != names.end();
        return wanted ? tensors.WriteRows(name, classes, rows) : absl::OkStatus();
      });
}

}  // namespace

absl::StatusOr<EarlierRun> FindEarlierRun(const JobFolder& folder, const v1::JobSpec& spec) {
  EarlierRun earlier;
  SHARDMAX_ASSIGN_OR_RETURN(earlier.newest, NewestName(folder.checkpoints_folder()));
  if (earlier.newest.empty()) return earlier;
  absl::StatusOr<v1::JobSpec> before = folder.ReadSpec();
  if (absl::IsNotFound(before.status())) return earlier;  // The manifest says the most important.
  SHARDMAX_RETURN_IF_ERROR(before.status());
  SHARDMAX_RETURN_IF_ERROR(CheckChanges(folder, earlier.newest, ChangesOfTheJob(before->train(), spec.train())));
  earlier.spec = *std::move(before);
  return earlier;
}

absl::Status CheckLength(const JobFolder& folder, const EarlierRun& earlier, const v1::Train& now, int64_t steps_now,
                         int64_t steps_per_epoch) {
  if (!earlier.spec.has_value()) return absl::OkStatus();
  const int64_t steps_before = TotalSteps(earlier.spec->train(), steps_per_epoch);
  return CheckChanges(folder, earlier.newest, ChangesOfTheLength(now, steps_before, steps_now));
}

absl::StatusOr<int64_t> RestoreNewest(Communicator& comm, const JobTensors& tensors, const v1::Train& train,
                                      const TrainingPlan& plan, const std::string& checkpoints_folder,
                                      spdlog::logger* log) {
  absl::Status refusal;
  int64_t step = 0;
  const auto restore = [&](const std::string& folder) {
    return VerifyAndRestore(comm, tensors, train, plan, folder, step, refusal);
  };
  SHARDMAX_ASSIGN_OR_RETURN(const NewestCheckpoint newest, FindNewest(comm, checkpoints_folder, restore));
  SHARDMAX_RETURN_IF_ERROR(refusal);
  if (newest.folder.empty()) {
    return Error(absl::StatusCode::kDataLoss,
                 "--resume: no checkpoint in {} is valid, and nothing was changed:\n{}\nPut back a whole one, or train "
                 "anew in another folder",
                 checkpoints_folder, absl::StrJoin(newest.rejected, "\n"));
  }
  if (log != nullptr) {
    for (const std::string& reason : newest.rejected) log->warn("checkpoint rejected: {}", reason);
  }
  if (log != nullptr) log->info("resuming after step {} from {}", step, newest.folder);
  return step;
}

absl::Status RestoreStep(Communicator& comm, const JobTensors& tensors, const v1::Train& train,
                         const TrainingPlan& plan, const std::string& checkpoints_folder, int32_t step) {
  const std::string folder = checkpoints_folder + "/" + StepFolderName(step);
  absl::Status fits = VerifyCheckpoint(comm, folder);
  // Tells a verdict on the folder from a lost rank: a broken communicator fails again.
  SHARDMAX_RETURN_IF_ERROR(comm.Barrier());
  if (fits.ok()) {
    const auto reader = CheckpointReader::Open(folder);
    fits = reader.status();
    if (fits.ok()) fits = CheckManifest(reader->manifest(), train, plan, folder);
    fits = AgreeOk(comm, fits);
    SHARDMAX_RETURN_IF_ERROR(comm.Barrier());
  }
  if (!fits.ok()) {
    return Error(absl::StatusCode::kNotFound, "no checkpoint of step {} can be loaded: {}", step, Message(fits));
  }
  const absl::Status status = AgreeOk(comm, Restore(tensors, train, plan, folder));
  // It was there a moment ago, and half of it may be in the engine.
  return absl::IsNotFound(status) ? absl::DataLossError(Message(status)) : status;
}

}  // namespace shardmax
