// What the thread that trains does at the desk.
#include <algorithm>

#include "worker/base/status.h"
#include "worker/live/desk.h"

namespace shardmax {

void LiveDesk::Open(LiveJob job, int64_t steps_done) {
  std::lock_guard<std::mutex> lock(mutex_);
  trainers_ = TrainersOfRank(job.rank, job.trainers, job.ranks);
  seats_.assign(static_cast<size_t>(trainers_.count), Seat());
  steps_done_ = static_cast<int32_t>(steps_done);
  checkpoints_.clear();
  other_load_ = kNoLoad;
  offered_ = false;
  ended_ = false;
  expected_ = false;
  job_ = std::move(job);
}

void LiveDesk::SetCheckpoints(std::vector<int32_t> steps) {
  std::lock_guard<std::mutex> lock(mutex_);
  checkpoints_ = std::move(steps);
}

void LiveDesk::Close(const absl::Status& status) {
  Posts posts;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const Seat& seat : seats_) {
      if (seat.link != nullptr) posts.push_back({.link = seat.link, .close = status});
    }
    seats_.clear();
    job_.reset();
    expected_ = false;
    CountTrainers();
  }
  Deliver(posts);
}

bool LiveDesk::Ready() const {
  const int32_t load = LowestLoad();
  return std::ranges::all_of(
      seats_, [&](const Seat& seat) { return load != kNoLoad ? seat.load == load : seat.step != nullptr; });
}

void LiveDesk::Await(Clock::time_point deadline) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait_until(lock, deadline, [&] { return Ready(); });
}

RankNotice LiveDesk::Offer() {
  std::lock_guard<std::mutex> lock(mutex_);
  offered_ = true;
  RankNotice notice;
  notice.trainers = static_cast<int32_t>(seats_.size());
  for (size_t i = 0; i < seats_.size(); ++i) {
    const Seat& seat = seats_[i];
    notice.connected += seat.link != nullptr ? 1 : 0;
    if (seat.load != kNoLoad) {  // All loads of a desk are of one checkpoint, unless one came during the offer.
      if (notice.load == kNoLoad || seat.load < notice.load) {
        notice.load = seat.load;
        notice.loads = 0;
      }
      notice.loads += seat.load == notice.load ? 1 : 0;
    }
    if (seat.step == nullptr) continue;
    ++notice.brought;
    notice.rows += seat.step->rows;
    if (seat.step->checkpoint) notice.checkpoint = 1;
    if (seat.step->checkpoint_behind) notice.checkpoint_behind = 1;
    if (notice.verdict.code == 0) notice.verdict = decltype(notice.verdict)::Of(seat.step->status);
    if (!seat.step->lr.has_value()) continue;
    if (notice.lr_trainer < 0) {
      notice.lr_trainer = seat.step->trainer;
      notice.lr = *seat.step->lr;
    } else if (notice.lr != *seat.step->lr && notice.verdict.code == 0) {
      notice.verdict = decltype(notice.verdict)::Of(
          InvalidArgument("lr is {} of trainer {}, but {} of trainer {}: those who give one must agree", notice.lr,
                          notice.lr_trainer, *seat.step->lr, seat.step->trainer));
    }
  }
  return notice;
}

void LiveDesk::Withdraw(int32_t load) {
  Posts posts;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    offered_ = false;
    other_load_ = load;
    Settle(posts);
  }
  Deliver(posts);
}

void LiveDesk::Refuse(const absl::Status& status) {
  Posts posts;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    offered_ = false;
    for (Seat& seat : seats_) {
      if (seat.step != nullptr && seat.awaits) RefuseSeat(seat, seat.step->step, status, steps_done_, posts);
      seat.step = nullptr;
      seat.awaits = false;
    }
    Settle(posts);
  }
  Deliver(posts);
}

std::vector<std::shared_ptr<const TrainerStep>> LiveDesk::Take() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::shared_ptr<const TrainerStep>> steps;
  for (const Seat& seat : seats_) steps.push_back(seat.step);
  return steps;
}

void LiveDesk::Answer(const std::vector<SharedMessage>& answers, bool last) {
  Posts posts;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    offered_ = false;
    ended_ = last;
    ++steps_done_;
    for (size_t i = 0; i < seats_.size(); ++i) {
      Seat& seat = seats_[i];
      seat.made_step = seat.step->step;
      seat.made_fingerprint = seat.step->fingerprint;
      seat.answer = answers[i];
      if (seat.awaits) posts.push_back({.link = seat.link, .message = seat.answer});
      seat.step = nullptr;
      seat.awaits = false;
    }
    Settle(posts);
  }
  Deliver(posts);
}

int LiveDesk::AwaitReceived(Clock::time_point deadline) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto missing = [this] {
    return std::ranges::count_if(seats_, [](const Seat& seat) { return seat.says_received && !seat.received; });
  };
  changed_.wait_until(lock, deadline, [&] { return missing() == 0; });
  return static_cast<int>(missing());
}

void LiveDesk::AnswerLoad(int32_t step) {
  Posts posts;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    offered_ = false;
    other_load_ = kNoLoad;
    steps_done_ = step;
    auto reply = std::make_shared<v1::HeadMessage>();
    reply->mutable_load()->set_step(step);
    for (Seat& seat : seats_) {
      if (seat.load == step) posts.push_back({.link = seat.link, .message = reply});
      const SharedLink link = seat.link;
      const int32_t other = seat.load == step ? kNoLoad : seat.load;
      seat = {.link = link, .load = other, .says_received = seat.says_received};
    }
    Settle(posts);
  }
  Deliver(posts);
}

void LiveDesk::RefuseLoad(const absl::Status& status) {
  Posts posts;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    offered_ = false;
    other_load_ = kNoLoad;
    for (Seat& seat : seats_) {
      if (seat.load != kNoLoad) RefuseSeat(seat, seat.load, status, steps_done_, posts);
      seat.load = kNoLoad;
    }
    Settle(posts);
  }
  Deliver(posts);
}

}  // namespace shardmax
