#include "worker/eval/protocol_data.h"

#include "worker/base/shard_range.h"
#include "worker/base/status.h"
#include "worker/data/checksum.h"
#include "worker/eval/exchange.h"

namespace shardmax {
namespace {

absl::StatusOr<ProtocolData> Open(const EvaluationContext& context, const PathField& rows, const PathField& names) {
  SHARDMAX_ASSIGN_OR_RETURN(const std::string rows_path, context.roots.Resolve(rows.field, rows.path));
  SHARDMAX_ASSIGN_OR_RETURN(const std::string names_path, context.roots.Resolve(names.field, names.path));
  SHARDMAX_ASSIGN_OR_RETURN(Embeddings embeddings, Embeddings::Open(rows.field, rows_path));
  SHARDMAX_ASSIGN_OR_RETURN(std::vector<int64_t> identities,
                            ReadIdentities(names.field, names_path, embeddings.rows()));
  IdentityGroups groups = GroupByIdentity(identities);
  return ProtocolData{std::move(embeddings), std::move(identities), std::move(groups)};
}

}  // namespace

absl::StatusOr<ProtocolData> OpenRows(const EvaluationContext& context, const PathField& embeddings,
                                      const PathField& identities) {
  auto data = Open(context, embeddings, identities);
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(context.comm, data.status()));
  SHARDMAX_RETURN_IF_ERROR(AgreeOnFile(context.comm, data->embeddings.name(), data->embeddings.digest()));
  Checksum checksum;
  checksum.Update(std::as_bytes(std::span(data->identities)));
  SHARDMAX_RETURN_IF_ERROR(AgreeOnFile(context.comm, identities.field, "checksum " + checksum.Text()));
  const Range mine = BalancedPart(data->embeddings.rows(), context.comm.rank(), context.comm.size());
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(context.comm, data->embeddings.Check(mine, data->identities)));
  return data;
}

absl::StatusOr<ProtocolData> OpenProtocolData(const EvaluationContext& context) {
  const v1::Evaluate& evaluate = context.evaluate;
  return OpenRows(context, {"evaluate.embeddings", evaluate.embeddings()},
                  {"evaluate.identities", evaluate.identities()});
}

}  // namespace shardmax
