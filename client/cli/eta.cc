#include "client/cli/eta.h"

#include <cmath>

namespace shardmax {
namespace {

constexpr double kWindowS = 60;
constexpr double kEnoughS = 3;

}  // namespace

void Eta::Observe(const v1::Job& job, double now_s) {
  if (job.spec().train().batch_size() > 0) batch_size_ = job.spec().train().batch_size();
  const int32_t step = job.progress().step();
  if (job.attempt() != attempt_ || (!marks_.empty() && step < marks_.back().step)) marks_.clear();
  attempt_ = job.attempt();
  seconds_.reset();
  if (!job.has_progress() || job.total_steps() <= 0 || job.state() != v1::RUNNING) return;
  marks_.push_back({now_s, step});
  while (marks_.size() > 2 && marks_.front().at_s < now_s - kWindowS) marks_.pop_front();

  const double left = job.total_steps() - step;
  const double elapsed_s = now_s - marks_.front().at_s;
  const int32_t done = step - marks_.front().step;
  const double samples_per_second = job.progress().samples_per_second();
  if (elapsed_s >= kEnoughS && done > 0) {
    seconds_ = left * elapsed_s / done;
  } else if (batch_size_ > 0 && samples_per_second > 0 && std::isfinite(samples_per_second)) {
    seconds_ = left * batch_size_ / samples_per_second;
  }
}

}  // namespace shardmax
