// Ranks as processes that a launcher (mpirun, srun) started, connected by MPI.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/comm/communicator.h"

namespace shardmax {

namespace internal {
struct MpiWorld;
}  // namespace internal

// MPI in this process, from MPI_Init_thread to MPI_Finalize. A process makes one in its life, and calls it and its
// communicators from one thread at a time; other threads may run (MPI_THREAD_SERIALIZED).
class MpiSession {
 public:
  // Joins the other processes of the launch; a process that no launcher started is a world of one. Takes MPI's own
  // arguments out of argc and argv. MPI_Init_thread and MPI_Finalize wait for all ranks and cannot be cancelled: one
  // that takes longer than `timeout` ends this process with a message, and so the launch.
  static absl::StatusOr<std::unique_ptr<MpiSession>> Start(
      int* argc, char*** argv, std::chrono::milliseconds timeout = std::chrono::minutes(10));

  // Finalizes, unless Close() did, or a communicator broke: then peers might never come to MPI_Finalize and it would
  // hang, so that is left out, and the launcher sees a process that failed and ends the others.
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  int rank() const;
  int size() const;
  // The number of ranks that share this machine's memory, this one included.
  int local_size() const;
  // This rank's number among them, from 0 in the order of ranks.
  int local_rank() const;
  // Ids of the processors that this rank computes on: those that the launcher bound it to. Ranks of this machine that
  // may run on the same processors share them out evenly, so ranks that are not bound do not meet on one. Empty where
  // they are fewer than those ranks.
  const std::vector<int>& processors() const;

  // A communicator of all ranks, with messages of its own. No wait for a peer is longer than `timeout`. Collective.
  // It must be destroyed before the session closes.
  //
  // Before a collective moves data every rank tells every other what it calls. So a rank that is late, has failed or
  // has gone is known by number, calls that do not match are InvalidArgument on all ranks, and a failure of one rank
  // reaches the others at once: all return one status. Data then goes by MPI's own collectives; sums are added by us in
  // rank order, from the unsummed parts, so they do not depend on MPI's algorithms. AllReduceSum holds N vectors for
  // that: it is for short ones. ReduceScatterSum is an all-to-all and costs no more wire than MPI's own.
  //
  // MPI only sees memory that lives as long as the session, so the spans of a call that failed may be freed.
  absl::StatusOr<std::unique_ptr<Communicator>> NewCommunicator(std::chrono::milliseconds timeout);

  // MPI_Finalize. Every rank calls and waits for all, so never call it after a communicator broke.
  absl::Status Close();

  // Ends this process with `exit_code` and has the launcher end all others. For use after a communicator broke.
  [[noreturn]] void Abort(int exit_code);

 private:
  explicit MpiSession(std::shared_ptr<internal::MpiWorld> world);

  std::shared_ptr<internal::MpiWorld> world_;
};

}  // namespace shardmax
