#include "worker/eval/protocol_data.h"

#include "worker/base/shard_range.h"
#include "worker/base/status.h"
#include "worker/data/checksum.h"
#include "worker/eval/exchange.h"

namespace shardmax {
namespace {

absl::StatusOr<ProtocolData> Open(const EvaluationContext& context) {
  const v1::Evaluate& evaluate = context.evaluate;
  const std::string rows_field = "evaluate.embeddings";
  const std::string identities_field = "evaluate.identities";
  SHARDMAX_ASSIGN_OR_RETURN(const std::string rows_path, context.roots.Resolve(rows_field, evaluate.embeddings()));
  SHARDMAX_ASSIGN_OR_RETURN(const std::string identities_path,
                            context.roots.Resolve(identities_field, evaluate.identities()));
  SHARDMAX_ASSIGN_OR_RETURN(Embeddings embeddings, Embeddings::Open(rows_field, rows_path));
  SHARDMAX_ASSIGN_OR_RETURN(std::vector<int64_t> identities,
                            ReadIdentities(identities_field, identities_path, embeddings.rows()));
  IdentityGroups groups = GroupByIdentity(identities);
  return ProtocolData{std::move(embeddings), std::move(identities), std::move(groups)};
}

}  // namespace

absl::StatusOr<ProtocolData> OpenProtocolData(const EvaluationContext& context) {
  auto data = Open(context);
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(context.comm, data.status()));
  SHARDMAX_RETURN_IF_ERROR(AgreeOnFile(context.comm, data->embeddings.name(), data->embeddings.digest()));
  Checksum checksum;
  checksum.Update(std::as_bytes(std::span(data->identities)));
  SHARDMAX_RETURN_IF_ERROR(AgreeOnFile(context.comm, "evaluate.identities", "checksum " + checksum.Text()));
  const Range mine = BalancedPart(data->embeddings.rows(), context.comm.rank(), context.comm.size());
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(context.comm, data->embeddings.Check(mine, data->identities)));
  return data;
}

}  // namespace shardmax
