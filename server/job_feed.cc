#include "server/job_feed.h"

#include <algorithm>
#include <utility>

#include "rpc/bytes.h"
#include "server/job_state.h"

namespace shardmax {
namespace {

constexpr std::chrono::milliseconds kShortestInterval{250};
constexpr std::chrono::milliseconds kIntervalPerFollower{5};

}  // namespace

std::chrono::steady_clock::duration JobFeed::Interval() const {
  return std::max(kShortestInterval, static_cast<int>(job_of_.size()) * kIntervalPerFollower);
}

void JobFeed::Watch(const std::string& job, std::shared_ptr<StreamCall> call) {
  if (call->ended()) return;  // It was cancelled meanwhile, and its Drop() may have come before.
  job_of_[call.get()] = job;
  feeds_[job].watchers.push_back(std::move(call));
}

void JobFeed::Follow(const std::string& job, News news, std::shared_ptr<StreamCall> call, std::function<void()> poke) {
  if (call->ended()) return;
  job_of_[call.get()] = job;
  feeds_[job].followers.push_back({news, std::move(call), std::move(poke)});
}

void JobFeed::Drop(const StreamCall* call) {
  const auto job = job_of_.find(call);
  if (job == job_of_.end()) return;
  const auto feed = feeds_.find(job->second);
  std::erase_if(feed->second.watchers, [&](const auto& watcher) { return watcher.get() == call; });
  std::erase_if(feed->second.followers, [&](const Follower& follower) { return follower.call.get() == call; });
  if (feed->second.watchers.empty() && feed->second.followers.empty()) feeds_.erase(feed);
  job_of_.erase(job);
}

void JobFeed::Send(Feed& feed, const v1::Job& job) {
  feed.held_back.reset();
  if (feed.watchers.empty()) return;
  const grpc::ByteBuffer bytes = ToBytes(job);
  for (const auto& watcher : feed.watchers) watcher->Offer(bytes);
}

void JobFeed::Poke(const Feed& feed, News news) {
  // A poked follower may end, but is dropped only later, by a task of its own.
  for (const Follower& follower : feed.followers) {
    if (follower.news == news) follower.poke();
  }
}

void JobFeed::Changed(const v1::Job& job) {
  const auto feed = feeds_.find(job.id());
  if (feed == feeds_.end()) return;
  Send(feed->second, job);
  Poke(feed->second, News::kLines);
  Poke(feed->second, News::kProgress);
  if (!IsFinal(job.state())) return;
  for (const auto& watcher : feed->second.watchers) watcher->End(absl::OkStatus());
}

void JobFeed::Progressed(const v1::Job& job, const Moment& now) {
  const auto feed = feeds_.find(job.id());
  if (feed == feeds_.end()) return;
  if (!feed->second.held_back) feed->second.held_back = std::make_unique<v1::Job>();
  *feed->second.held_back = job;
  feed->second.held_back->clear_spec();
  if (now.steady - feed->second.last_sent < Interval()) return;
  feed->second.last_sent = now.steady;
  Poke(feed->second, News::kProgress);
  const v1::Job newest = *feed->second.held_back;
  Send(feed->second, newest);
}

void JobFeed::Flush(const Moment& now) {
  for (auto& [id, feed] : feeds_) {
    if (!feed.held_back || now.steady - feed.last_sent < Interval()) continue;
    feed.last_sent = now.steady;
    Poke(feed, News::kProgress);
    const v1::Job newest = *feed.held_back;
    Send(feed, newest);
  }
}

void JobFeed::LinesAdded(const std::string& job) {
  const auto feed = feeds_.find(job);
  if (feed != feeds_.end()) Poke(feed->second, News::kLines);
}

}  // namespace shardmax
