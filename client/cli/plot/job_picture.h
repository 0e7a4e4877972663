// The course of a job as a picture. Pure.
#pragma once

#include <vector>

#include "client/cli/plot/picture.h"
#include "shardmax/v1/control.pb.h"

namespace shardmax {

// Loss, held-out top-1, label cosine, support-vector ratio and learning rate over the steps. `metrics` as the server
// sends them: where a job began again from a checkpoint, the later line of a step counts.
Picture JobPicture(const v1::Job& job, const std::vector<v1::StepMetrics>& metrics);

}  // namespace shardmax
