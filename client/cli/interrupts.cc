#include "client/cli/interrupts.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <ctime>

#include "client/cli/options.h"

namespace shardmax {
namespace {

constexpr uint64_t kSignalled = 1;
constexpr uint64_t kEnded = uint64_t{1} << 32;
// Those who signal a process and its group signal it twice.
constexpr int64_t kSameSignalMs = 300;

// A signal handler has no other way to reach anything.
std::atomic<int> event_descriptor{-1};
std::atomic<int64_t> first_signal_ms{0};

int64_t NowMs() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{1000} * now.tv_sec + now.tv_nsec / 1'000'000 + 1;
}

void OnSignal(int) {
  const int error_number = errno;
  const int64_t now_ms = NowMs();
  int64_t first_ms = 0;
  if (!first_signal_ms.compare_exchange_strong(first_ms, now_ms)) {
    if (now_ms - first_ms >= kSameSignalMs) _exit(kExitInterrupted);
    return;
  }
  const uint64_t value = kSignalled;
  // It can fail only when the counter is full.
  [[maybe_unused]] const ssize_t written = write(event_descriptor, &value, sizeof value);
  errno = error_number;
}

void Install(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace

Interrupts::Interrupts() {
  event_descriptor = eventfd(0, EFD_CLOEXEC);
  first_signal_ms = 0;
  waiter_ = std::jthread([this] {
    uint64_t value = 0;
    while (value < kEnded) {
      if (read(event_descriptor, &value, sizeof value) < 0) return;
      if ((value & (kEnded - 1)) != 0) stop_.request_stop();
    }
  });
  Install(OnSignal);
}

Interrupts::~Interrupts() {
  Install(SIG_DFL);
  [[maybe_unused]] const ssize_t written = write(event_descriptor, &kEnded, sizeof kEnded);
  waiter_.join();
  close(event_descriptor.exchange(-1));
}

}  // namespace shardmax
