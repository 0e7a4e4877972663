#include "worker/stop_signals.h"

#include <csignal>
#include <ctime>

namespace shardmax {
namespace {

sigset_t StopSet() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

StopSignals::StopSignals() {
  const sigset_t set = StopSet();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

bool StopSignals::Pending() {
  const sigset_t set = StopSet();
  const timespec no_wait = {};
  if (!seen_ && sigtimedwait(&set, nullptr, &no_wait) > 0) seen_ = true;
  return seen_;
}

}  // namespace shardmax
