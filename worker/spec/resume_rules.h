// What may change of a job that goes on in its folder.
#pragma once

#include <string>
#include <vector>

#include "shardmax/v1/job.pb.h"

namespace shardmax {

// The fields of `now` that differ from `before` and would change what the steps already made were: one line each,
// "train.batch_size was 64, is 32". Both are resolved. May change, and are not compared: the name, the length,
// checkpoint, validation, log_every_steps, storage, and where cosines are kept, which changes no more than rounding.
//
// The length, as only the dataset tells how long epochs are: `steps_before` and `steps_now` are T. It is told where the
// learning rate of every step depends on it (cosine, polynomial).
std::vector<std::string> ChangesOfTheJob(const shardmax::v1::Train& before, const shardmax::v1::Train& now);
std::vector<std::string> ChangesOfTheLength(const shardmax::v1::Train& now, int64_t steps_before, int64_t steps_now);

}  // namespace shardmax
