#include "worker/eval/lineup.h"

#include <algorithm>

#include "worker/base/shard_range.h"
#include "worker/base/status.h"
#include "worker/data/permutation.h"
#include "worker/eval/exchange.h"

namespace shardmax {
namespace {

// Two orders of one seed.
constexpr int64_t kDistractorStream = 0;
constexpr int64_t kProbeStream = 1;

constexpr char kField[] = "evaluate.identification";

// The groups that have two rows or more, in the order of the identities.
std::vector<int64_t> GroupsWithMates(const IdentityGroups& groups) {
  std::vector<int64_t> eligible;
  for (int64_t group = 0; group < groups.count(); ++group) {
    if (groups.size(group) > 1) eligible.push_back(group);
  }
  return eligible;
}

void AddProbes(const std::vector<int64_t>& chosen, Lineup& lineup) {
  const IdentityGroups& groups = lineup.data.groups;
  lineup.probe_identities = static_cast<int64_t>(chosen.size());
  for (const int64_t group : chosen) {
    const Range positions = {static_cast<int64_t>(lineup.probe_rows.size()), groups.size(group)};
    for (int64_t i = groups.starts[group]; i < groups.starts[group + 1]; ++i) {
      lineup.probe_rows.push_back(groups.rows[i]);
      lineup.groups.push_back(positions);
    }
  }
}

// Some of the groups as probes, the rows of all others as distractors.
absl::Status Split(const v1::Identification& spec, std::vector<int64_t> eligible, Lineup& lineup) {
  const auto count = static_cast<int64_t>(eligible.size());
  if (spec.probe_identities() > count) {
    return InvalidArgument("{}.probe_identities is {}: only {} identities have two rows or more", kField,
                           spec.probe_identities(), count);
  }
  const Permutation order(count, spec.seed(), kProbeStream);
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < spec.probe_identities(); ++i) chosen.push_back(eligible[order(i)]);
  std::sort(chosen.begin(), chosen.end());
  AddProbes(chosen, lineup);
  const IdentityGroups& groups = lineup.data.groups;
  for (int64_t group = 0; group < groups.count(); ++group) {
    if (std::binary_search(chosen.begin(), chosen.end(), group)) continue;
    lineup.distractor_rows.insert(lineup.distractor_rows.end(), groups.rows.begin() + groups.starts[group],
                                  groups.rows.begin() + groups.starts[group + 1]);
  }
  if (lineup.distractor_rows.empty()) {
    return InvalidArgument("{}.probe_identities is {}: no row of another identity is left as a distractor", kField,
                           spec.probe_identities());
  }
  return absl::OkStatus();
}

// Collective.
absl::Status OpenDistractors(const EvaluationContext& context, Lineup& lineup) {
  const std::string field = std::string(kField) + ".distractors";
  const auto open = [&]() -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const std::string path,
                              context.roots.Resolve(field, context.evaluate.identification().distractors()));
    SHARDMAX_ASSIGN_OR_RETURN(lineup.distractors, Embeddings::Open(field, path));
    if (lineup.distractors->dim() == lineup.data.embeddings.dim()) return absl::OkStatus();
    return InvalidArgument("{} has width {}, evaluate.embeddings has {}", lineup.distractors->name(),
                           lineup.distractors->dim(), lineup.data.embeddings.dim());
  };
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(context.comm, open()));
  SHARDMAX_RETURN_IF_ERROR(AgreeOnFile(context.comm, lineup.distractors->name(), lineup.distractors->digest()));
  const Range mine = BalancedPart(lineup.distractors->rows(), context.comm.rank(), context.comm.size());
  return AgreeOk(context.comm, lineup.distractors->Check(mine, {}));
}

void Shuffle(uint32_t seed, std::vector<int64_t>& rows) {
  const Permutation order(static_cast<int64_t>(rows.size()), seed, kDistractorStream);
  std::vector<int64_t> shuffled(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) shuffled[i] = rows[order(static_cast<int64_t>(i))];
  rows = std::move(shuffled);
}

}  // namespace

int64_t Lineup::genuine_pairs() const {
  int64_t pairs = 0;
  for (const Range& group : groups) pairs += group.count - 1;
  return pairs;
}

absl::StatusOr<Lineup> MakeLineup(const EvaluationContext& context) {
  const v1::Identification& spec = context.evaluate.identification();
  SHARDMAX_ASSIGN_OR_RETURN(ProtocolData data, OpenProtocolData(context));
  Lineup lineup = {.data = std::move(data)};
  const std::vector<int64_t> eligible = GroupsWithMates(lineup.data.groups);
  if (eligible.empty()) {
    return InvalidArgument("evaluate.identities: no identity has two rows or more, so nobody can be found again");
  }
  if (spec.has_distractors()) {
    SHARDMAX_RETURN_IF_ERROR(OpenDistractors(context, lineup));
    AddProbes(eligible, lineup);
    for (int64_t row = 0; row < lineup.distractors->rows(); ++row) lineup.distractor_rows.push_back(row);
  } else {
    SHARDMAX_RETURN_IF_ERROR(Split(spec, eligible, lineup));
  }
  Shuffle(spec.seed(), lineup.distractor_rows);
  const auto all = static_cast<int64_t>(lineup.distractor_rows.size());
  for (const int64_t size : spec.distractor_counts()) {
    if (size < all) lineup.gallery_sizes.push_back(size);
  }
  lineup.gallery_sizes.push_back(all);
  return lineup;
}

}  // namespace shardmax
