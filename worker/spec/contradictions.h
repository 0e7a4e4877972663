// What is wrong with a spec although each of its fields by itself is right.
#pragma once

#include "shardmax/v1/job.pb.h"
#include "worker/spec/mistake_list.h"

namespace shardmax {

// Adds to `mistakes`: oneofs of which exactly one is required and none is there, and fields that contradict each other.
// Compares values only if each by itself is allowed.
void CheckContradictions(const shardmax::v1::JobSpec& spec, MistakeList& mistakes);

}  // namespace shardmax
