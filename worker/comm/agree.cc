#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "worker/base/status.h"
#include "worker/comm/communicator.h"

namespace shardmax {
namespace {

constexpr size_t kMaxMessageBytes = 1000;

// One rank's verdict on the wire: the code, then the message padded with zeros.
struct Verdict {
  int32_t code = 0;
  int32_t length = 0;
  std::array<char, kMaxMessageBytes> message = {};
};

Verdict Encode(const absl::Status& status) {
  Verdict verdict;
  verdict.code = static_cast<int32_t>(status.code());
  const std::string message = Message(status);
  verdict.length = static_cast<int32_t>(std::min(message.size(), kMaxMessageBytes));
  std::copy_n(message.begin(), verdict.length, verdict.message.begin());
  return verdict;
}

}  // namespace

absl::Status AgreeOk(Communicator& comm, const absl::Status& mine) {
  const Verdict verdict = Encode(mine);
  std::vector<Verdict> verdicts(comm.size());
  SHARDMAX_RETURN_IF_ERROR(
      comm.AllGather(std::as_bytes(std::span(&verdict, 1)), std::as_writable_bytes(std::span(verdicts))));
  for (int rank = 0; rank < comm.size(); ++rank) {
    const Verdict& v = verdicts[rank];
    if (v.code == 0) continue;
    return Error(static_cast<absl::StatusCode>(v.code), "rank {}: {}", rank,
                 std::string(v.message.data(), static_cast<size_t>(v.length)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> BroadcastString(Communicator& comm, const std::string& value, int root) {
  uint64_t length = value.size();
  SHARDMAX_RETURN_IF_ERROR(comm.Broadcast(std::as_writable_bytes(std::span(&length, 1)), root));
  std::string result = comm.rank() == root ? value : std::string(length, '\0');
  SHARDMAX_RETURN_IF_ERROR(comm.Broadcast(std::as_writable_bytes(std::span(result)), root));
  return result;
}

}  // namespace shardmax
