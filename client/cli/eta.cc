#include "client/cli/eta.h"

#include <cmath>

#include "client/cli/job_text.h"

namespace shardmax {
namespace {

constexpr double kWindowS = 60;
constexpr double kEnoughS = 3;

}  // namespace

void Eta::Observe(const v1::Job& job, double now_s) {
  if (job.spec().train().batch_size() > 0) batch_size_ = job.spec().train().batch_size();
  const std::optional<WorkDone> work = WorkOf(job);
  const bool went_back = work && !marks_.empty() && work->done < marks_.back().done;
  if (job.attempt() != attempt_ || went_back) marks_.clear();
  attempt_ = job.attempt();
  seconds_.reset();
  if (!work || job.state() != v1::RUNNING) return;
  marks_.push_back({now_s, work->done});
  while (marks_.size() > 2 && marks_.front().at_s < now_s - kWindowS) marks_.pop_front();

  const auto left = static_cast<double>(work->total - work->done);
  const double elapsed_s = now_s - marks_.front().at_s;
  const auto done = static_cast<double>(work->done - marks_.front().done);
  const double samples_per_second = job.progress().samples_per_second();
  if (elapsed_s >= kEnoughS && done > 0) {
    seconds_ = left * elapsed_s / done;
  } else if (batch_size_ > 0 && samples_per_second > 0 && std::isfinite(samples_per_second)) {
    seconds_ = left * batch_size_ / samples_per_second;
  }
}

}  // namespace shardmax
