// The streams that need more than the newest state of a job: its log, its metrics, a checkpoint.
#pragma once

#include <memory>

#include "server/service_parts.h"
#include "shardmax/v1/control.pb.h"

namespace shardmax {

// Called on the loop's thread. The stream goes on by itself.
void StartLogStream(const ServiceParts& parts, const shardmax::v1::StreamLogsRequest& request,
                    std::shared_ptr<StreamCall> call);
void StartMetricsStream(const ServiceParts& parts, const shardmax::v1::StreamMetricsRequest& request,
                        std::shared_ptr<StreamCall> call);
void StartExport(const ServiceParts& parts, const shardmax::v1::Job& job, int32_t step,
                 std::shared_ptr<StreamCall> call);

}  // namespace shardmax
