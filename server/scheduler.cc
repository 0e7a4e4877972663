#include "server/scheduler.h"

#include <algorithm>
#include <utility>

namespace shardmax {
namespace {

bool Fits(const QueuedJob& job, const IdlePool& pool) {
  return (job.pool.empty() || job.pool == pool.name) && job.min_ranks <= pool.ranks && pool.ranks <= job.max_ranks;
}

// Of the pools that fit the best, or end().
std::vector<IdlePool>::iterator BestPool(const QueuedJob& job, std::vector<IdlePool>& idle) {
  auto best = idle.end();
  for (auto pool = idle.begin(); pool != idle.end(); ++pool) {
    if (!Fits(job, *pool)) continue;
    if (pool->ranks == job.last_ranks) return pool;
    if (best == idle.end() || pool->ranks > best->ranks) best = pool;
  }
  return best;
}

}  // namespace

QueuedJob ToQueued(const JobRecord& record) {
  const v1::JobSpec& spec = record.job.spec();
  // Each rank of a training job needs a class; an evaluation takes any number.
  const int32_t most = spec.has_train() ? spec.train().num_classes() : std::numeric_limits<int32_t>::max();
  return {.id = record.job.id(),
          .sequence = record.sequence,
          .priority = spec.priority(),
          .pool = spec.pool(),
          .min_ranks = std::max(1, spec.min_ranks()),
          .max_ranks = spec.has_max_ranks() ? std::min(spec.max_ranks(), most) : most,
          .last_ranks = record.job.ranks()};
}

void JobQueue::Add(QueuedJob job) {
  Remove(job.id);
  std::string id = job.id;
  keys_.emplace(std::move(id), jobs_.insert(std::move(job)).first);
}

void JobQueue::Remove(const std::string& id) {
  const auto key = keys_.find(id);
  if (key == keys_.end()) return;
  jobs_.erase(key->second);
  keys_.erase(key);
}

void JobQueue::Clear() {
  jobs_.clear();
  keys_.clear();
}

std::vector<Placement> JobQueue::Place(std::vector<IdlePool> idle) const {
  std::vector<Placement> placements;
  for (const QueuedJob& job : jobs_) {
    if (idle.empty()) break;
    const auto pool = BestPool(job, idle);
    if (pool == idle.end()) continue;
    placements.push_back({job.id, pool->name});
    idle.erase(pool);
  }
  return placements;
}

}  // namespace shardmax
