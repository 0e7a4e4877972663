#include "worker/comm/communicator.h"

namespace shardmax {

CommStats::Counter CommStats::Total() const {
  Counter total;
  for (const Counter* counter : {&all_gather, &all_reduce, &reduce_scatter, &broadcast, &barrier}) {
    total.calls += counter->calls;
    total.bytes += counter->bytes;
    total.seconds += counter->seconds;
  }
  return total;
}

}  // namespace shardmax
