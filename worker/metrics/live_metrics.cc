#include "worker/metrics/live_metrics.h"

#include "worker/base/status.h"

namespace shardmax {
namespace {

// Those that head.proto gives reasons for.
constexpr absl::StatusCode kRefusals[] = {
    absl::StatusCode::kInvalidArgument,   absl::StatusCode::kFailedPrecondition, absl::StatusCode::kAborted,
    absl::StatusCode::kNotFound,          absl::StatusCode::kUnauthenticated,    absl::StatusCode::kPermissionDenied,
    absl::StatusCode::kResourceExhausted,
};

}  // namespace

LiveMetrics::LiveMetrics(int rank, const std::string& pool) {
  const prometheus::Labels labels = {{"pool", pool}, {"rank", std::to_string(rank)}};
  const auto counters = [&](const char* name, const char* help) -> prometheus::Family<prometheus::Counter>& {
    return prometheus::BuildCounter().Name(name).Help(help).Labels(labels).Register(*registry_);
  };
  trainers_ = &prometheus::BuildGauge()
                   .Name("shardmax_live_trainers")
                   .Help("Trainers that are connected to this rank.")
                   .Labels(labels)
                   .Register(*registry_)
                   .Add({});
  auto& bytes = counters("shardmax_live_bytes_total", "Bytes of messages from and to trainers.");
  received_bytes_ = &bytes.Add({{"direction", "received"}});
  sent_bytes_ = &bytes.Add({{"direction", "sent"}});
  resent_steps_ =
      &counters("shardmax_live_resent_steps_total", "Steps that were sent again and answered from memory.").Add({});
  auto& refusals = counters("shardmax_live_refusals_total", "Steps, loads, calls and streams that were refused.");
  for (const absl::StatusCode code : kRefusals) {
    refusals_[code] = &refusals.Add({{"code", absl::StatusCodeToString(code)}});
  }
  wait_seconds_ =
      &prometheus::BuildHistogram()
           .Name("shardmax_live_wait_seconds")
           .Help("From the end of a step to when all trainers had sent the next.")
           .Labels(labels)
           .Register(*registry_)
           .Add({}, std::vector<double>{1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60, 600});
}

void LiveMetrics::OnTrainers(int connected) {
  trainers_->Set(connected);
}

void LiveMetrics::OnReceived(int64_t bytes) {
  received_bytes_->Increment(static_cast<double>(bytes));
}

void LiveMetrics::OnSent(int64_t bytes) {
  sent_bytes_->Increment(static_cast<double>(bytes));
}

void LiveMetrics::OnRefused(absl::StatusCode code) {
  if (const auto found = refusals_.find(code); found != refusals_.end()) found->second->Increment();
}

void LiveMetrics::OnResent() {
  resent_steps_->Increment();
}

void LiveMetrics::OnWaited(double seconds) {
  wait_seconds_->Observe(seconds);
}

}  // namespace shardmax
