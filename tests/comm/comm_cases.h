// What every Communicator must do: written once, run over threads and over MPI.
#pragma once

#include <chrono>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "worker/comm/communicator.h"

namespace shardmax {

// A program that each rank runs on a fresh communicator whose waits end after `timeout`. Asserts with gtest.
struct CommCase {
  std::string name;
  std::function<void(Communicator&)> run;
  std::chrono::milliseconds timeout = std::chrono::seconds(30);
};

inline void PrintTo(const CommCase& c, std::ostream* out) {
  *out << c.name;
}

// Cases for any number of ranks from 1; those about peers do nothing on one rank.
std::vector<CommCase> CommCases();

}  // namespace shardmax
