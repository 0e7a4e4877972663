// One rank of lost_rank_test.py: lost_rank_program HOW TIMEOUT_MS. The last rank is lost in the way HOW says; the
// others report what their next collective returns and abort with exit code 3.
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "worker/comm/mpi_comm.h"

namespace shardmax {
namespace {

void Lose(const std::string& how) {
  if (how == "killed") std::raise(SIGKILL);
  if (how == "stopped") std::raise(SIGSTOP);
  if (how == "exits") _exit(0);
}

int Run(int argc, char** argv) {
  auto session = MpiSession::Start(&argc, &argv);
  if (!session.ok() || argc < 3) return 2;
  const std::string how = argv[1];
  auto comm = (*session)->NewCommunicator(std::chrono::milliseconds(std::atoi(argv[2])));
  if (!comm.ok() || !(*comm)->Barrier().ok()) (*session)->Abort(2);
  if ((*session)->rank() == (*session)->size() - 1) {
    Lose(how);
    return 0;  // "returns": MPI_Finalize would wait for the others for ever.
  }
  float value = 1;
  const absl::Status status = (*comm)->AllReduceSum(std::span(&value, 1));
  std::cerr << "rank " << (*session)->rank() << ": " << status << std::endl;
  (*session)->Abort(3);
}

}  // namespace
}  // namespace shardmax

int main(int argc, char** argv) {
  return shardmax::Run(argc, argv);
}
