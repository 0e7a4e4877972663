#include "client/cli/interrupts.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>

#include "client/cli/options.h"

namespace shardmax {
namespace {

constexpr uint64_t kSignalled = 1;
constexpr uint64_t kEnded = uint64_t{1} << 32;

// A signal handler has no other way to reach anything.
std::atomic<int> event_descriptor{-1};
std::atomic<bool> signalled{false};

void OnSignal(int) {
  const int error_number = errno;
  if (signalled.exchange(true)) _exit(kExitInterrupted);
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
  signalled = false;
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
