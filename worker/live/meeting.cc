#include "worker/live/meeting.h"

#include <algorithm>
#include <string>

#include "worker/base/status.h"

namespace shardmax {
namespace {

// The learning rate that the trainers give; an error if they differ.
absl::Status FindRate(std::span<const RankNotice> notices, std::optional<double>& lr) {
  int32_t first = -1;
  for (const RankNotice& notice : notices) {
    if (notice.lr_trainer < 0) continue;
    if (first < 0) {
      first = notice.lr_trainer;
      lr = notice.lr;
    } else if (notice.lr != *lr) {
      return InvalidArgument("lr is {} of trainer {}, but {} of trainer {}: those who give one must agree", *lr, first,
                             notice.lr, notice.lr_trainer);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStep(std::span<const RankNotice> notices, int64_t max_rows, Meeting& meeting) {
  for (const RankNotice& notice : notices) {
    if (notice.verdict.code == 0) continue;
    const auto length = static_cast<size_t>(notice.verdict.length);
    return absl::Status(static_cast<absl::StatusCode>(notice.verdict.code),
                        std::string(notice.verdict.message.data(), length));
  }
  SHARDMAX_RETURN_IF_ERROR(FindRate(notices, meeting.lr));
  if (meeting.rows == 0) return InvalidArgument("no trainer brings a row: a step needs at least one");
  if (meeting.rows > max_rows) {
    return InvalidArgument("the trainers bring {} rows together: train.batch_size allows {}", meeting.rows, max_rows);
  }
  return absl::OkStatus();
}

}  // namespace

int RankOfTrainer(int trainer, int trainers, int ranks) {
  return static_cast<int>(int64_t{trainer} * ranks / trainers);
}

Range TrainersOfRank(int rank, int trainers, int ranks) {
  // floor(t N / T) >= r from t = ceil(r T / N) on.
  const auto first_of = [&](int64_t r) { return (r * trainers + ranks - 1) / ranks; };
  return {.first = first_of(rank), .count = first_of(rank + 1) - first_of(rank)};
}

absl::Status AgreeOnNotices(Communicator& comm, RankNotice mine, const absl::Status& failure,
                            std::vector<RankNotice>& notices) {
  mine.failure = decltype(mine.failure)::Of(failure);
  notices.resize(static_cast<size_t>(comm.size()));
  SHARDMAX_RETURN_IF_ERROR(
      comm.AllGather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(notices))));
  for (int rank = 0; rank < comm.size(); ++rank) SHARDMAX_RETURN_IF_ERROR(notices[rank].failure.From(rank));
  return absl::OkStatus();
}

Meeting Conclude(std::span<const RankNotice> notices, int64_t max_rows) {
  Meeting meeting;
  int32_t trainers = 0;
  int32_t connected = 0;
  int32_t brought = 0;
  for (const RankNotice& notice : notices) {
    trainers += notice.trainers;
    connected += notice.connected;
    brought += notice.brought;
    if (notice.load != kNoLoad && (meeting.load == kNoLoad || notice.load < meeting.load)) meeting.load = notice.load;
    meeting.rank_rows.push_back(notice.rows);
    meeting.rows += notice.rows;
    meeting.checkpoint = meeting.checkpoint || notice.checkpoint != 0;
    meeting.checkpoint_behind = meeting.checkpoint_behind || notice.checkpoint_behind != 0;
    meeting.requests |= notice.requests;
    meeting.overdue = meeting.overdue || notice.overdue != 0;
    meeting.unreceived += notice.unreceived;
  }
  int32_t loads = 0;
  for (const RankNotice& notice : notices) loads += notice.load == meeting.load ? notice.loads : 0;
  meeting.all_connected = connected == trainers;
  meeting.load_agreed = meeting.load != kNoLoad && loads == trainers;
  meeting.step = meeting.load == kNoLoad && brought == trainers;
  if (meeting.step) meeting.refusal = CheckStep(notices, max_rows, meeting);
  return meeting;
}

}  // namespace shardmax
