// The main of tests that run under mpirun: every rank runs the same tests in the same order.
#pragma once

#include "worker/comm/mpi_comm.h"

namespace shardmax {

// The session of this test program. Valid while tests run.
MpiSession& TestSession();

}  // namespace shardmax
