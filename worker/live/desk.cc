#include "worker/live/desk.h"

#include <algorithm>

#include "worker/base/status.h"

namespace shardmax {
namespace {

// Of what a message holds beside features and labels, and of a hello.
constexpr size_t kSmallMessageBytes = 64 << 10;

absl::Status FailedPrecondition(const std::string& message) {
  return absl::FailedPreconditionError(message);
}

absl::Status LastStepMade() {
  return FailedPrecondition("the job has made its last step");
}

SharedMessage MakeRefusal(int32_t step, const absl::Status& status, int32_t steps_done) {
  auto message = std::make_shared<v1::HeadMessage>();
  v1::Refusal& refusal = *message->mutable_refusal();
  refusal.set_step(step);
  refusal.set_code(static_cast<int32_t>(status.code()));
  refusal.set_message(Message(status));
  refusal.set_steps_done(steps_done);
  return message;
}

}  // namespace

void LiveDesk::Deliver(const Posts& posts) const {
  for (const Post& post : posts) {
    if (post.message != nullptr) {
      post.link->Send(post.message);
    } else {
      post.link->Close(post.close);
    }
  }
}

v1::HeadDescription LiveDesk::DescribeLocked() const {
  v1::HeadDescription description;
  description.set_job(job_->id);
  description.set_attempt(job_->attempt);
  description.set_num_classes(static_cast<int32_t>(job_->shape.num_classes));
  description.set_dim(static_cast<int32_t>(job_->shape.dim));
  description.set_max_rows(static_cast<int32_t>(job_->shape.max_rows));
  description.set_trainers(job_->trainers);
  description.set_total_steps(job_->total_steps);
  description.set_steps_done(steps_done_);
  for (const int32_t step : checkpoints_) description.add_checkpoint_steps(step);
  for (const std::string& endpoint : endpoints_) description.add_endpoints(endpoint);
  return description;
}

void LiveDesk::SetEndpoints(std::vector<std::string> endpoints) {
  std::lock_guard<std::mutex> lock(mutex_);
  endpoints_ = std::move(endpoints);
}

absl::Status LiveDesk::NoJob() const {
  if (expected_) return absl::UnavailableError("the job that is to run here is being prepared: come again");
  return FailedPrecondition("no live job runs here");
}

void LiveDesk::Expect() {
  std::lock_guard<std::mutex> lock(mutex_);
  expected_ = true;
}

absl::StatusOr<v1::HeadDescription> LiveDesk::Describe() const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!job_.has_value()) return NoJob();
  return DescribeLocked();
}

size_t LiveDesk::MaxMessageBytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!job_.has_value()) return kSmallMessageBytes;
  return kSmallMessageBytes + static_cast<size_t>(job_->shape.max_rows * 4 * (job_->shape.dim + 1));
}

absl::Status LiveDesk::CheckHello(const v1::TrainerHello& hello) const {
  if (!job_.has_value()) return NoJob();
  if (!hello.job().empty() && hello.job() != job_->id && hello.job() != job_->name) {
    return FailedPrecondition(fmt::format("the job here is {}, not the one that was asked for", job_->id));
  }
  if (hello.trainer() < 0 || hello.trainer() >= job_->trainers) {
    return InvalidArgument("trainer is {}: the job has trainers 0 to {}", hello.trainer(), job_->trainers - 1);
  }
  const int rank = RankOfTrainer(hello.trainer(), job_->trainers, job_->ranks);
  if (rank == job_->rank) return absl::OkStatus();
  const auto endpoint = static_cast<size_t>(rank) < endpoints_.size() ? " at " + endpoints_[rank] : std::string();
  return FailedPrecondition(fmt::format("this is rank {}: trainer {} of {} connects to rank {}{}", job_->rank,
                                        hello.trainer(), job_->trainers, rank, endpoint));
}

absl::Status LiveDesk::Connect(const v1::TrainerHello& hello, const SharedLink& link) {
  Posts posts;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    SHARDMAX_RETURN_IF_ERROR(CheckHello(hello));
    Seat& seat = seats_[hello.trainer() - trainers_.first];
    if (seat.link != nullptr) {
      posts.push_back({.link = seat.link,
                       .close = Error(absl::StatusCode::kAlreadyExists,
                                      "another stream has taken the place of trainer {}", hello.trainer())});
    }
    Leave(seat);
    seat.link = link;
    seat.says_received = hello.says_received();
    auto welcome = std::make_shared<v1::HeadMessage>();
    *welcome->mutable_welcome() = DescribeLocked();
    posts.push_back({.link = link, .message = std::move(welcome)});
    Settle(posts);
    CountTrainers();
  }
  Deliver(posts);
  return absl::OkStatus();
}

LiveDesk::Seat* LiveDesk::SeatOf(const SharedLink& link) {
  const auto seat = std::ranges::find_if(seats_, [&](const Seat& each) { return each.link == link; });
  return seat == seats_.end() ? nullptr : &*seat;
}

absl::Status LiveDesk::Handle(const SharedLink& link, const v1::TrainerMessage& message) {
  if (!message.has_step() && !message.has_load() && !message.has_received()) {
    return InvalidArgument("a message after the hello is a step or a load, or says that the last answer was received");
  }
  std::shared_ptr<const TrainerStep> step;
  if (message.has_step()) {
    StepShape shape;
    int trainer = 0;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      const Seat* seat = SeatOf(link);
      if (seat == nullptr) return absl::OkStatus();  // It has been closed.
      shape = job_->shape;
      trainer = static_cast<int>(trainers_.first + (seat - seats_.data()));
    }
    step = std::make_shared<TrainerStep>(ReadTrainerStep(trainer, message.step(), shape));
  }
  Posts posts;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    Seat* seat = SeatOf(link);
    if (seat == nullptr) return absl::OkStatus();
    if (step != nullptr) {
      PutStep(*seat, std::move(step), posts);
    } else if (message.has_load()) {
      PutLoad(*seat, message.load().step(), posts);
    } else {
      SHARDMAX_RETURN_IF_ERROR(PutReceived(*seat, posts));
    }
    Settle(posts);
  }
  Deliver(posts);
  return absl::OkStatus();
}

void LiveDesk::Disconnect(const SharedLink& link) {
  Posts posts;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    Seat* seat = SeatOf(link);
    if (seat == nullptr) return;
    Leave(*seat);
    Settle(posts);
    CountTrainers();
  }
  Deliver(posts);
}

void LiveDesk::Leave(Seat& seat) {
  seat.link = nullptr;
  seat.awaits = false;
  seat.load = kNoLoad;
}

void LiveDesk::RefuseSeat(const Seat& seat, int32_t step, const absl::Status& status, int32_t steps_done,
                          Posts& posts) const {
  posts.push_back({.link = seat.link, .message = MakeRefusal(step, status, steps_done)});
  if (observer_ != nullptr) observer_->OnRefused(status.code());
}

void LiveDesk::RefuseForLoad(const Seat& seat, int32_t step, int32_t load, Posts& posts) const {
  RefuseSeat(
      seat, step,
      Error(absl::StatusCode::kAborted, "a trainer asks to go back to the checkpoint after step {}: load it too", load),
      load, posts);
}

void LiveDesk::PutStepAgain(Seat& seat, const TrainerStep& step, Posts& posts) {
  if (seat.awaits) {
    return RefuseSeat(seat, step.step,
                      FailedPrecondition(fmt::format("step {} of this trainer is not answered yet", seat.step->step)),
                      steps_done_, posts);
  }
  if (step.step != seat.step->step || step.fingerprint != seat.step->fingerprint) {
    return RefuseSeat(seat, step.step,
                      FailedPrecondition(fmt::format("step {} is being made with other bytes of this trainer, which an "
                                                     "earlier stream sent",
                                                     seat.step->step)),
                      steps_done_, posts);
  }
  seat.awaits = true;
  if (observer_ != nullptr) observer_->OnResent();
}

void LiveDesk::PutStep(Seat& seat, std::shared_ptr<const TrainerStep> step, Posts& posts) {
  const int32_t number = step->step;
  if (seat.load != kNoLoad) {
    return RefuseSeat(seat, number, FailedPrecondition("this trainer's request to load is not answered yet"),
                      steps_done_, posts);
  }
  if (seat.step != nullptr) return PutStepAgain(seat, *step, posts);
  if (const int32_t load = LowestLoad(); load != kNoLoad) return RefuseForLoad(seat, number, load, posts);
  if (seat.answer != nullptr && number == seat.made_step) {
    if (step->fingerprint == seat.made_fingerprint) {
      if (observer_ != nullptr) observer_->OnResent();
      posts.push_back({.link = seat.link, .message = seat.answer});
      return;
    }
    return RefuseSeat(seat, number,
                      FailedPrecondition(fmt::format("step {} has been made with other bytes of this trainer", number)),
                      steps_done_, posts);
  }
  if (ended_) return RefuseSeat(seat, number, LastStepMade(), steps_done_, posts);
  if (number != steps_done_) {
    return RefuseSeat(seat, number,
                      FailedPrecondition(fmt::format("the head waits for step {}, not {}", steps_done_, number)),
                      steps_done_, posts);
  }
  seat.step = std::move(step);
  seat.awaits = true;
}

void LiveDesk::PutLoad(Seat& seat, int32_t step, Posts& posts) {
  if (step < 0) {
    return RefuseSeat(seat, step, Error(absl::StatusCode::kNotFound, "no checkpoint is of step {}", step), steps_done_,
                      posts);
  }
  if (ended_) return RefuseSeat(seat, step, LastStepMade(), steps_done_, posts);
  seat.awaits = false;
  seat.load = step;
}

absl::Status LiveDesk::PutReceived(Seat& seat, Posts& posts) {
  if (!ended_) return InvalidArgument("there is no last answer yet that could have been received");
  seat.received = true;
  posts.push_back({.link = seat.link, .close = absl::OkStatus()});
  Leave(seat);
  CountTrainers();
  return absl::OkStatus();
}

int32_t LiveDesk::LowestLoad() const {
  int32_t lowest = other_load_;
  for (const Seat& seat : seats_) {
    if (seat.load != kNoLoad && (lowest == kNoLoad || seat.load < lowest)) lowest = seat.load;
  }
  return lowest;
}

void LiveDesk::Settle(Posts& posts) {
  if (!offered_) {
    const int32_t lowest = LowestLoad();
    for (Seat& seat : seats_) {
      if (lowest != kNoLoad && seat.step != nullptr && seat.awaits) {
        RefuseForLoad(seat, seat.step->step, lowest, posts);
        seat.awaits = false;
      }
      if (!seat.awaits) seat.step = nullptr;
      if (seat.load != kNoLoad && seat.load != lowest) {
        RefuseForLoad(seat, seat.load, lowest, posts);
        seat.load = kNoLoad;
      }
    }
  }
  changed_.notify_all();
}

void LiveDesk::CountTrainers() const {
  if (observer_ == nullptr) return;
  observer_->OnTrainers(
      static_cast<int>(std::ranges::count_if(seats_, [](const Seat& s) { return s.link != nullptr; })));
}

}  // namespace shardmax
