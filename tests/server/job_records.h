// Jobs for tests of the server's parts.
#pragma once

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <string>

#include "server/job_state.h"

namespace shardmax {

// A job of the given spec (textproto), not queued yet.
inline JobRecord NewJob(const std::string& name, const std::string& textproto = "") {
  JobRecord record;
  record.job.set_id(name + "-1");
  record.job.set_name(name);
  v1::JobSpec& spec = *record.job.mutable_spec();
  EXPECT_TRUE(
      google::protobuf::TextFormat::ParseFromString("min_ranks: 1 max_restarts: 2 train { num_classes: 50 }", &spec));
  EXPECT_TRUE(google::protobuf::TextFormat::MergeFromString(textproto, &spec)) << textproto;
  spec.set_name(name);
  return record;
}

inline JobRecord PendingJob(const std::string& name, const std::string& textproto = "") {
  JobRecord record = NewJob(name, textproto);
  Queue(record, 1'000'000);
  return record;
}

}  // namespace shardmax
