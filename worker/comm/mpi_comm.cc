#include "worker/comm/mpi_comm.h"

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include "worker/base/processors.h"
#include "worker/base/status.h"
#include "worker/base/watchdog.h"
#include "worker/comm/mpi_communicator.h"
#include "worker/comm/mpi_util.h"
#include "worker/comm/pacer.h"

namespace shardmax {

using internal::MpiWorld;

namespace {

// MpiSession::processors(), of a communicator of the ranks of this machine.
absl::StatusOr<std::vector<int>> ShareProcessors(MPI_Comm machine, int world_rank) {
  int local_rank = 0;
  int local_size = 1;
  SHARDMAX_MPI(world_rank, MPI_Comm_rank, machine, &local_rank);
  SHARDMAX_MPI(world_rank, MPI_Comm_size, machine, &local_size);
  const std::vector<int> allowed = AllowedProcessors();
  std::array<uint8_t, kMaxProcessors> mine = {};
  for (const int processor : allowed) mine[processor] = 1;
  std::vector<std::array<uint8_t, kMaxProcessors>> all(static_cast<size_t>(local_size));
  SHARDMAX_MPI(world_rank, MPI_Allgather, mine.data(), kMaxProcessors, MPI_BYTE, all.data(), kMaxProcessors, MPI_BYTE,
               machine);
  const auto before_me = static_cast<int>(std::count(all.begin(), all.begin() + local_rank, mine));
  return ShareOfProcessors(allowed, before_me, static_cast<int>(std::count(all.begin(), all.end(), mine)));
}

}  // namespace

MpiSession::MpiSession(std::shared_ptr<MpiWorld> world) : world_(std::move(world)) {}

absl::StatusOr<std::unique_ptr<MpiSession>> MpiSession::Start(int* argc, char*** argv,
                                                              std::chrono::milliseconds timeout) {
  int started = 0;
  SHARDMAX_MPI(-1, MPI_Initialized, &started);
  if (started != 0) {
    return Error(absl::StatusCode::kFailedPrecondition, "MPI was started before: a process makes one MpiSession");
  }
  int provided = MPI_THREAD_SINGLE;
  {
    const Watchdog watchdog(timeout, "shardmax: MPI_Init_thread, which waits for every rank of the launch,");
    SHARDMAX_MPI(-1, MPI_Init_thread, argc, argv, MPI_THREAD_SERIALIZED, &provided);
  }
  auto world = std::make_shared<MpiWorld>();
  world->timeout = timeout;
  std::unique_ptr<MpiSession> session(new MpiSession(world));
  SHARDMAX_MPI(-1, MPI_Comm_set_errhandler, MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  SHARDMAX_MPI(-1, MPI_Comm_set_errhandler, MPI_COMM_SELF, MPI_ERRORS_RETURN);
  SHARDMAX_MPI(-1, MPI_Comm_rank, MPI_COMM_WORLD, &world->rank);
  SHARDMAX_MPI(world->rank, MPI_Comm_size, MPI_COMM_WORLD, &world->size);
  MPI_Comm machine = MPI_COMM_NULL;
  SHARDMAX_MPI(world->rank, MPI_Comm_split_type, MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine);
  SHARDMAX_MPI(world->rank, MPI_Comm_size, machine, &world->local_size);
  SHARDMAX_MPI(world->rank, MPI_Comm_rank, machine, &world->local_rank);
  auto processors = ShareProcessors(machine, world->rank);
  SHARDMAX_MPI(world->rank, MPI_Comm_free, &machine);
  SHARDMAX_ASSIGN_OR_RETURN(world->processors, std::move(processors));
  if (provided < MPI_THREAD_SERIALIZED) {
    return Error(absl::StatusCode::kFailedPrecondition,
                 "rank {}: this MPI has thread level {}, but the worker has threads and needs MPI_THREAD_SERIALIZED "
                 "({}): use an MPI built with thread support",
                 world->rank, provided, MPI_THREAD_SERIALIZED);
  }
  return session;
}

MpiSession::~MpiSession() {
  if (!world_->finalized && !world_->broken) Close().IgnoreError();
}

int MpiSession::rank() const {
  return world_->rank;
}
int MpiSession::size() const {
  return world_->size;
}
int MpiSession::local_size() const {
  return world_->local_size;
}
int MpiSession::local_rank() const {
  return world_->local_rank;
}

const std::vector<int>& MpiSession::processors() const {
  return world_->processors;
}

absl::StatusOr<std::unique_ptr<Communicator>> MpiSession::NewCommunicator(std::chrono::milliseconds timeout) {
  auto comm = std::make_shared<MPI_Comm>(MPI_COMM_NULL);
  world_->kept_until_finalize.push_back(comm);  // MPI writes it when the request completes, however late.
  MPI_Request request = MPI_REQUEST_NULL;
  SHARDMAX_MPI(rank(), MPI_Comm_idup, MPI_COMM_WORLD, comm.get(), &request);
  int done = 0;
  for (internal::Pacer pacer(std::chrono::microseconds(100)); done == 0; pacer.Pause()) {
    SHARDMAX_MPI(rank(), MPI_Test, &request, &done, MPI_STATUS_IGNORE);
    if (done == 0 && pacer.waited() >= timeout) {
      world_->broken = true;
      return Error(absl::StatusCode::kDeadlineExceeded,
                   "rank {} of {}: not every rank made its communicator within {} ms", rank(), size(), timeout.count());
    }
  }
  SHARDMAX_MPI(rank(), MPI_Comm_set_errhandler, *comm, MPI_ERRORS_RETURN);
  auto communicator = std::make_unique<internal::MpiCommunicator>(world_, *comm, timeout);
  SHARDMAX_RETURN_IF_ERROR(communicator->Listen());
  return communicator;
}

absl::Status MpiSession::Close() {
  if (world_->finalized) return absl::OkStatus();
  world_->finalized = true;
  const Watchdog watchdog(world_->timeout,
                          fmt::format("shardmax: rank {}: MPI_Finalize, which waits for every rank,", world_->rank));
  SHARDMAX_MPI(world_->rank, MPI_Finalize);
  world_->kept_until_finalize.clear();
  return absl::OkStatus();
}

void MpiSession::Abort(int exit_code) {
  // Should MPI_Abort hang, the alarm ends this process, and the launcher sees that.
  constexpr unsigned kSeconds = 10;
  std::signal(SIGALRM, SIG_DFL);
  alarm(kSeconds);
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

}  // namespace shardmax
