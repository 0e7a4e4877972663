// A request to stop, as a launcher or a person sends it.
#pragma once

namespace shardmax {

// Bit of StepInput::requests: stop after this step.
inline constexpr unsigned kRequestStop = 1;

// Holds SIGTERM and SIGINT back, so that they end no step in the middle, and tells when one is there. Make it before
// any other thread starts, as threads inherit the mask. One object a process.
class StopSignals {
 public:
  StopSignals();

  // Whether a signal has come since the object was made. Does not block. One thread calls.
  bool Pending();

 private:
  bool seen_ = false;
};

}  // namespace shardmax
