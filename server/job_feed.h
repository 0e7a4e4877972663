// Who follows which job: watchers, and readers of logs and metrics that wait for more.
//
// Watchers get the newest state of a job. Changes of state go out at once; progress at most four times a second for
// each job, and more seldom when there are many watchers, so that all of them together cost a machine that trains next
// to nothing. A message is made once, whatever the number of its watchers.
//
// The loop's thread alone calls.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "server/calls.h"
#include "server/moment.h"
#include "shardmax/v1/control.pb.h"

namespace shardmax {

enum class News { kLines, kProgress };

class JobFeed {
 public:
  void Watch(const std::string& job, std::shared_ptr<StreamCall> call);
  // Calls `poke` whenever there is such news of the job, or its state changes, until Drop().
  void Follow(const std::string& job, News news, std::shared_ptr<StreamCall> call, std::function<void()> poke);
  void Drop(const StreamCall* call);

  void Changed(const shardmax::v1::Job& job);
  void Progressed(const shardmax::v1::Job& job, const Moment& now);
  void LinesAdded(const std::string& job);

  // Sends progress that was held back.
  void Flush(const Moment& now);

 private:
  struct Follower {
    News news;
    std::shared_ptr<StreamCall> call;
    std::function<void()> poke;
  };
  struct Feed {
    std::vector<std::shared_ptr<StreamCall>> watchers;
    std::vector<Follower> followers;
    std::unique_ptr<shardmax::v1::Job> held_back;
    std::chrono::steady_clock::time_point last_sent;
  };

  std::chrono::steady_clock::duration Interval() const;
  static void Send(Feed& feed, const shardmax::v1::Job& job);
  static void Poke(const Feed& feed, News news);

  std::map<std::string, Feed> feeds_;  // By id of the job.
  std::map<const StreamCall*, std::string> job_of_;
};

}  // namespace shardmax
