// Job specs that the tests start from.
#pragma once

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <string>

#include "worker/base/status.h"
#include "worker/spec/job_spec.h"

namespace shardmax {

// Every required field and nothing else.
inline constexpr char kMinimal[] = R"(
  name: "glyphs"
  train {
    num_classes: 20000 dim: 128 batch_size: 512 epochs: 20
    dataset { features: "x.npy" labels: "y.npy" }
  })";

// kMinimal with the fields of `textproto` put over it.
inline shardmax::v1::JobSpec MinimalWith(const std::string& textproto) {
  shardmax::v1::JobSpec spec;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(kMinimal, &spec));
  EXPECT_TRUE(google::protobuf::TextFormat::MergeFromString(textproto, &spec)) << textproto;
  return spec;
}

inline shardmax::v1::JobSpec Resolved(const shardmax::v1::JobSpec& spec) {
  auto resolved = ResolveJobSpec(spec);
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  return resolved.ok() ? *resolved : shardmax::v1::JobSpec();
}

}  // namespace shardmax
