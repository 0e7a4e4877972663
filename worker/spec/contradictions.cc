#include "worker/spec/contradictions.h"

#include <initializer_list>
#include <string>
#include <utility>

#include "worker/spec/field_rules.h"

namespace shardmax {
namespace {

namespace v1 = shardmax::v1;

// Of rates and counts that each cost a row of the result.
constexpr int kMaxListLength = 64;

void CheckOneofs(const v1::Train& train, MistakeList& mistakes) {
  if (train.length_case() == v1::Train::LENGTH_NOT_SET) {
    mistakes.Add("train.steps is missing: allowed is exactly one of train.steps, train.epochs");
  }
  if (train.source_case() == v1::Train::SOURCE_NOT_SET) {
    mistakes.Add("train.dataset is missing: allowed is exactly one of train.dataset, train.live");
  }
}

// Trainers bring rows for as long as they like, so there is no epoch at whose end to validate.
void CheckLive(const v1::Train& train, MistakeList& mistakes) {
  if (!train.has_live()) return;
  if (train.has_epochs())
    mistakes.Add("train.epochs is given: allowed only without train.live, which needs train.steps");
  if (train.has_validation()) mistakes.Add("train.validation is given: allowed only without train.live");
}

void CheckSgd(const v1::Sgd& sgd, MistakeList& mistakes) {
  if (sgd.nesterov() && sgd.momentum() == 0) {
    mistakes.Add("train.optimizer.sgd.nesterov is true: allowed only with train.optimizer.sgd.momentum greater than 0");
  }
}

// `end_lr` is that of `curve`, "cosine" or "polynomial".
void CheckEndLr(const v1::Schedule& schedule, const std::string& curve, double end_lr, MistakeList& mistakes) {
  const FieldRule& rule = RuleOf(*schedule.descriptor()->FindFieldByNumber(v1::Schedule::kBaseLrFieldNumber));
  const double base_lr = schedule.has_base_lr() ? schedule.base_lr() : rule.default_value;
  // No rate is above the range of base_lr, the last no more than the first.
  if (rule.range.Contains(base_lr) && end_lr > base_lr && end_lr <= rule.range.high) {
    mistakes.Add("train.schedule.{}.end_lr is {}: allowed is at most train.schedule.base_lr, which is {}{}", curve,
                 NumberText(end_lr), NumberText(base_lr), schedule.has_base_lr() ? "" : " by default");
  }
}

void CheckMilestones(const v1::Train& train, MistakeList& mistakes) {
  const auto& milestones = train.schedule().step().milestones();
  const std::string path = "train.schedule.step.milestones";
  const size_t first = mistakes.size();
  for (int i = 0; i < milestones.size(); ++i) {
    if (milestones[i] < 0) continue;
    if (i > 0 && milestones[i] <= milestones[i - 1]) {
      mistakes.Add("{0}[{1}] is {2}: allowed is greater than {0}[{3}], which is {4}", path, i, milestones[i], i - 1,
                   milestones[i - 1]);
    }
  }
  mistakes.Shorten(first, path);
}

void CheckSchedule(const v1::Train& train, MistakeList& mistakes) {
  const v1::Schedule& schedule = train.schedule();
  if (schedule.has_cosine()) CheckEndLr(schedule, "cosine", schedule.cosine().end_lr(), mistakes);
  if (schedule.has_polynomial()) CheckEndLr(schedule, "polynomial", schedule.polynomial().end_lr(), mistakes);
  if (schedule.has_step()) CheckMilestones(train, mistakes);
}

// Drawn weights have no neighbours worth knowing, so the first graph is built after so many steps.
void CheckFirstGraph(const v1::Train& train, MistakeList& mistakes) {
  if (!train.sampling().has_nearest() || train.init().has_weights() || train.steps() < 1) return;
  const v1::NearestSampling& nearest = train.sampling().nearest();
  const FieldRule& rule = RuleOf(*nearest.descriptor()->FindFieldByName("rebuild_every_steps"));
  const bool given = nearest.has_rebuild_every_steps();
  const double every = given ? nearest.rebuild_every_steps() : rule.default_value;
  if (rule.range.Contains(every) && every >= train.steps()) {
    mistakes.Add(
        "train.sampling.nearest.rebuild_every_steps is {}{}: allowed without train.init.weights is less than "
        "train.steps, which is {}, as the first graph is built then",
        NumberText(every), given ? "" : " by default", train.steps());
  }
}

void CheckSampling(const v1::Train& train, MistakeList& mistakes) {
  if (!train.has_sampling()) return;
  if (train.sampling().kind_case() == v1::Sampling::KIND_NOT_SET) {
    mistakes.Add("train.sampling.random is missing: allowed is exactly one of random {{ rate }}, nearest {{ rate }}");
  }
  CheckFirstGraph(train, mistakes);
  // The steps that a class is left out of are made up for in closed form, which these have not.
  if (train.optimizer().has_adamw()) {
    mistakes.Add("train.optimizer.adamw is given: allowed with train.sampling is sgd");
  }
  if (train.optimizer().sgd().nesterov()) {
    mistakes.Add("train.optimizer.sgd.nesterov is true: allowed with train.sampling is false");
  }
}

void CheckInit(const v1::Init& init, MistakeList& mistakes) {
  if (init.has_weights() && init.has_stddev()) {
    mistakes.Add("train.init.stddev is {}: allowed only without train.init.weights", NumberText(init.stddev()));
  }
}

void CheckRanks(const v1::JobSpec& spec, MistakeList& mistakes) {
  if (spec.max_ranks() > 0 && spec.min_ranks() > spec.max_ranks()) {
    mistakes.Add("min_ranks is {}: allowed is at most max_ranks, which is {}", spec.min_ranks(), spec.max_ranks());
  }
  if (spec.train().num_classes() > 0 && spec.min_ranks() > spec.train().num_classes()) {
    mistakes.Add("min_ranks is {}: allowed is at most train.num_classes, which is {}", spec.min_ranks(),
                 spec.train().num_classes());
  }
}

// Beside `path`, which replaces what they steer, these fields of a message would mean nothing.
void CheckAbsentBeside(const std::string& path, bool present,
                       std::initializer_list<std::pair<const char*, bool>> fields, MistakeList& mistakes) {
  const std::string parent = path.substr(0, path.rfind('.') + 1);
  for (const auto& [field, is_set] : fields) {
    if (present && is_set) mistakes.Add("{}{} is given: allowed only without {}", parent, field, path);
  }
}

void CheckListLength(const std::string& path, int size, MistakeList& mistakes) {
  if (size > kMaxListLength) mistakes.Add("{} has {} values: allowed are at most {}", path, size, kMaxListLength);
}

void CheckIdentification(const v1::Identification& identification, MistakeList& mistakes) {
  const std::string path = "evaluate.identification";
  if (!identification.has_distractors() && !identification.has_probe_identities()) {
    mistakes.Add("{0}.distractors is missing: allowed is exactly one of {0}.distractors, {0}.probe_identities", path);
  }
  CheckAbsentBeside(path + ".distractors", identification.has_distractors(),
                    {{"probe_identities", identification.has_probe_identities()}}, mistakes);
  const auto& counts = identification.distractor_counts();
  const size_t first = mistakes.size();
  for (int i = 1; i < counts.size(); ++i) {
    if (counts[i] < 1 || counts[i] > counts[i - 1]) continue;
    mistakes.Add("{0}.distractor_counts[{1}] is {2}: allowed is greater than {0}.distractor_counts[{3}], which is {4}",
                 path, i, counts[i], i - 1, counts[i - 1]);
  }
  mistakes.Shorten(first, path + ".distractor_counts");
  CheckListLength(path + ".distractor_counts", counts.size(), mistakes);
  CheckListLength(path + ".fars", identification.fars_size(), mistakes);
}

void CheckEvaluate(const v1::Evaluate& evaluate, MistakeList& mistakes) {
  if (evaluate.protocol_case() == v1::Evaluate::PROTOCOL_NOT_SET) {
    mistakes.Add("evaluate.verification is missing: allowed is exactly one of verification, identification, all_pairs");
  }
  const v1::Verification& verification = evaluate.verification();
  CheckAbsentBeside("evaluate.verification.pairs", verification.has_pairs(),
                    {{"num_pairs", verification.has_num_pairs()}, {"seed", verification.has_seed()}}, mistakes);
  CheckListLength("evaluate.verification.fars", verification.fars_size(), mistakes);
  if (evaluate.has_identification()) CheckIdentification(evaluate.identification(), mistakes);
  const v1::AllPairs& all_pairs = evaluate.all_pairs();
  if (all_pairs.has_gallery_embeddings() != all_pairs.has_gallery_identities()) {
    mistakes.Add("evaluate.all_pairs.{} is missing: allowed are both gallery files or none",
                 all_pairs.has_gallery_embeddings() ? "gallery_identities" : "gallery_embeddings");
  }
  CheckListLength("evaluate.all_pairs.fprs", all_pairs.fprs_size(), mistakes);
}

}  // namespace

void CheckContradictions(const v1::JobSpec& spec, MistakeList& mistakes) {
  if (spec.work_case() == v1::JobSpec::WORK_NOT_SET) {
    mistakes.Add("train is missing: allowed is exactly one of train, evaluate");
  }
  CheckRanks(spec, mistakes);
  if (spec.has_evaluate()) CheckEvaluate(spec.evaluate(), mistakes);
  if (!spec.has_train()) return;
  CheckOneofs(spec.train(), mistakes);
  CheckLive(spec.train(), mistakes);
  CheckSgd(spec.train().optimizer().sgd(), mistakes);
  CheckSampling(spec.train(), mistakes);
  CheckSchedule(spec.train(), mistakes);
  CheckInit(spec.train().init(), mistakes);
}

}  // namespace shardmax
