// A job in words, numbers and a bar. Pure functions; nothing in what they return can harm a terminal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "client/cli/terminal.h"
#include "shardmax/v1/control.pb.h"

namespace shardmax {

// "PENDING" and so on; "state 9" for one that this version does not know.
std::string StateName(v1::JobState state);
std::string PoolStateName(v1::PoolState state);

// Steps, or pairs of an evaluation; 0 <= done <= total, total > 0.
struct WorkDone {
  int64_t done = 0;
  int64_t total = 0;
};
// None before the job has said anything, or without a total.
std::optional<WorkDone> WorkOf(const v1::Job& job);

// "step 1,240/5,000 (25%)"; without a total "step 1,240"; "25% of 1,200,000 pairs"; empty before the first.
std::string StepText(const v1::Job& job);

// "loss 2.5131  8,120 samples/s  sv 1.2e-03  eta 3m12s"; empty before the first step.
std::string MetricsText(const v1::Job& job, std::optional<double> eta_s);

// What the job does now, in one line: "glyphs-1 RUNNING step … loss …", "glyphs-1 PENDING: waits for a pool …".
std::string JobLine(const v1::Job& job, std::optional<double> eta_s);

// The same with a bar, in at most `width` columns; what does not fit is left out from the end.
std::string JobBar(const v1::Job& job, std::optional<double> eta_s, size_t width);

// How a job ended, in a line or a few: result, duration, last numbers, and what to do next.
std::string EndText(const v1::Job& job);

}  // namespace shardmax
