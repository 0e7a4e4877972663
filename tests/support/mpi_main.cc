#include "tests/support/mpi_main.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <span>
#include <utility>

namespace shardmax {
namespace {

std::unique_ptr<MpiSession> session;

// Prints failures only, each with its rank.
class FailurePrinter : public testing::EmptyTestEventListener {
 public:
  explicit FailurePrinter(int rank) : rank_(rank) {}

 private:
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    const testing::TestInfo* test = testing::UnitTest::GetInstance()->current_test_info();
    std::fprintf(stderr, "rank %d: %s.%s: %s:%d: Failure\n%s\n", rank_, test ? test->test_suite_name() : "",
                 test ? test->name() : "", result.file_name() ? result.file_name() : "", result.line_number(),
                 result.message());
  }

  int rank_;
};

// Whether the tests passed on every rank.
absl::StatusOr<bool> AllPassed(bool passed_here) {
  auto comm = session->NewCommunicator(std::chrono::seconds(60));
  if (!comm.ok()) return comm.status();
  float failed_ranks = passed_here ? 0 : 1;
  if (absl::Status status = (*comm)->AllReduceSum(std::span(&failed_ranks, 1)); !status.ok()) return status;
  return failed_ranks == 0;
}

int RunTests(int argc, char** argv) {
  auto started = MpiSession::Start(&argc, &argv);
  if (!started.ok()) {
    std::cerr << started.status() << "\n";
    return 1;
  }
  session = std::move(started).value();
  testing::InitGoogleMock(&argc, argv);
  testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
  if (session->rank() != 0) {
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailurePrinter(session->rank()));
  }
  const bool passed_here = RUN_ALL_TESTS() == 0;
  const absl::StatusOr<bool> passed = AllPassed(passed_here);
  if (!passed.ok()) {
    std::cerr << "rank " << session->rank() << ": " << passed.status() << "\n";
    session->Abort(1);
  }
  const absl::Status closed = session->Close();
  if (!closed.ok()) std::cerr << closed << "\n";
  session.reset();
  return *passed && closed.ok() ? 0 : 1;
}

}  // namespace

MpiSession& TestSession() {
  return *session;
}

}  // namespace shardmax

int main(int argc, char** argv) {
  return shardmax::RunTests(argc, argv);
}
