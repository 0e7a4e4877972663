// Which pending job goes to which idle pool.
#pragma once

#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "server/job_state.h"

namespace shardmax {

struct QueuedJob {
  std::string id;
  int64_t sequence = 0;
  int32_t priority = 0;
  std::string pool;  // Empty: any.
  int32_t min_ranks = 1;
  int32_t max_ranks = std::numeric_limits<int32_t>::max();
  int32_t last_ranks = 0;  // Of the attempt before; 0: none.
};

QueuedJob ToQueued(const JobRecord& record);

struct IdlePool {
  std::string name;
  int32_t ranks = 0;
};

struct Placement {
  std::string job;   // Id.
  std::string pool;  // Name.
};

// The pending jobs in the order in which they run: priority, then submission. Not thread-safe.
class JobQueue {
 public:
  void Add(QueuedJob job);
  void Remove(const std::string& id);  // No error if it is not there.
  void Clear();
  size_t size() const { return keys_.size(); }

  // In queue order, each job takes an idle pool that fits: one of as many ranks as it ran on before (its run then
  // repeats bit for bit), else the largest. A job that nothing fits holds none up. Changes nothing.
  std::vector<Placement> Place(std::vector<IdlePool> idle) const;

 private:
  struct Order {
    bool operator()(const QueuedJob& a, const QueuedJob& b) const {
      return a.priority != b.priority ? a.priority > b.priority : a.sequence < b.sequence;
    }
  };
  using Jobs = std::set<QueuedJob, Order>;

  Jobs jobs_;
  std::unordered_map<std::string, Jobs::iterator> keys_;
};

}  // namespace shardmax
