#include <vector>

#include "worker/base/status.h"
#include "worker/comm/communicator.h"
#include "worker/comm/verdict.h"

namespace shardmax {
absl::Status AgreeOk(Communicator& comm, const absl::Status& mine) {
  const auto verdict = Verdict<1000>::Of(mine);
  std::vector<Verdict<1000>> verdicts(comm.size());
  SHARDMAX_RETURN_IF_ERROR(
      comm.AllGather(std::as_bytes(std::span(&verdict, 1)), std::as_writable_bytes(std::span(verdicts))));
  for (int rank = 0; rank < comm.size(); ++rank) SHARDMAX_RETURN_IF_ERROR(verdicts[rank].From(rank));
  return absl::OkStatus();
}

absl::StatusOr<std::string> BroadcastString(Communicator& comm, const std::string& value, int root) {
  uint64_t length = value.size();
  SHARDMAX_RETURN_IF_ERROR(comm.Broadcast(std::as_writable_bytes(std::span(&length, 1)), root));
  std::string result = comm.rank() == root ? value : std::string(length, '\0');
  SHARDMAX_RETURN_IF_ERROR(comm.Broadcast(std::as_writable_bytes(std::span(result)), root));
  return result;
}

absl::Status BroadcastStatus(Communicator& comm, const absl::Status& status, int root) {
  // One character for the code: there are 17.
  const std::string mine = static_cast<char>('A' + static_cast<int>(status.code())) + Message(status);
  SHARDMAX_ASSIGN_OR_RETURN(const std::string text, BroadcastString(comm, mine, root));
  return absl::Status(static_cast<absl::StatusCode>(text[0] - 'A'), text.substr(1));
}

}  // namespace shardmax
