#include "worker/live/step_answers.h"

#include "worker/live/wire.h"

namespace shardmax {

std::vector<SharedMessage> MakeAnswers(const StepSummary& summary,
                                       const std::vector<std::shared_ptr<const TrainerStep>>& steps,
                                       MatrixView<const float> gradients) {
  std::vector<SharedMessage> answers;
  int64_t first = 0;
  for (const auto& step : steps) {
    auto message = std::make_shared<v1::HeadMessage>();
    v1::StepReply& reply = *message->mutable_step();
    reply.set_step(step->step);
    reply.set_loss(summary.metrics.loss());
    reply.set_feature_gradients(EncodeValues(gradients.slice(first, step->rows).flat(), step->type));
    reply.set_lr(summary.metrics.lr());
    reply.set_label_cosine(summary.metrics.label_cosine());
    reply.set_support_vector_ratio(summary.metrics.support_vector_ratio());
    reply.set_global_rows(static_cast<int32_t>(summary.global_rows));
    reply.set_counted_rows(static_cast<int32_t>(summary.counted_rows));
    reply.set_checkpoint_step(static_cast<int32_t>(summary.checkpoint_step));
    reply.set_last(summary.last);
    reply.set_snapshot_step(static_cast<int32_t>(summary.snapshot_step));
    first += step->rows;
    answers.push_back(std::move(message));
  }
  return answers;
}

}  // namespace shardmax
