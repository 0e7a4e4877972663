// Who is looked for among whom: the probes, their mates and the distractors of the MegaFace protocol.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/eval/protocol_data.h"
#include "worker/eval/row_panel.h"

namespace shardmax {

// Equal on every rank.
struct Lineup {
  ProtocolData data;                      // evaluate.embeddings and evaluate.identities.
  std::optional<Embeddings> distractors;  // The file of their own, if there is one.
  std::vector<int64_t> probe_rows;        // By identity: those that have two rows or more.
  std::vector<Range> groups;              // Of each probe: the positions of its identity, itself among them.
  std::vector<int64_t> distractor_rows;   // In the order in which they join the gallery.
  int64_t probe_identities = 0;
  // Sizes of the gallery at which ranks are asked for, rising; the last is all distractors.
  std::vector<int64_t> gallery_sizes;

  RowList probes() const { return {&data.embeddings, probe_rows}; }
  RowList gallery() const { return {distractors.has_value() ? &*distractors : &data.embeddings, distractor_rows}; }
  // Ordered pairs of a probe and another image of its identity.
  int64_t genuine_pairs() const;
};

// Reads the files of `identification` and draws what the spec leaves to the seed. Collective: errors of any rank come
// back on all. InvalidArgument: nobody to look for, or nobody to look among.
absl::StatusOr<Lineup> MakeLineup(const EvaluationContext& context);

}  // namespace shardmax
