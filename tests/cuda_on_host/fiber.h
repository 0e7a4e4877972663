// Stacks that take turns on one thread of the system: the threads of a CUDA block.
#pragma once

#include <cstddef>
#include <functional>

namespace cuda_on_host {

// A stack with a task on it. Used on the thread that made it. Known to AddressSanitizer, which needs the bounds of the
// stack, and to ThreadSanitizer, to which each fiber is a thread of its own: so it finds races between the threads of
// a block.
class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Sets what the next Resume() begins. Requires that the task before has ended.
  void Begin(std::function<void()> task);

  // Runs the task until it yields or ends. Returns whether it has ended.
  bool Resume();

  // Called by the running task: goes back to Resume().
  void Yield();

 private:
  static void Enter(Fiber* fiber);
  void SwitchIn();
  void SwitchOut();

  std::byte* stack_ = nullptr;
  void* stack_pointer_ = nullptr;   // Of the task while it does not run.
  void* caller_pointer_ = nullptr;  // Of Resume() while the task runs.
  std::function<void()> task_;
  bool ended_ = true;

  // What the sanitizers want to know, each its own.
  [[maybe_unused]] void* caller_tsan_fiber_ = nullptr;
  [[maybe_unused]] void* tsan_fiber_ = nullptr;
  [[maybe_unused]] void* caller_fake_stack_ = nullptr;
  [[maybe_unused]] void* fake_stack_ = nullptr;
  [[maybe_unused]] const void* caller_stack_ = nullptr;
  [[maybe_unused]] size_t caller_stack_bytes_ = 0;

  friend void EnterFiber(Fiber* fiber);
};

// An order for ThreadSanitizer: what a fiber did before ReleaseTo(x) happened before what follows AcquireFrom(x).
void ReleaseTo(void* variable);
void AcquireFrom(void* variable);

}  // namespace cuda_on_host
