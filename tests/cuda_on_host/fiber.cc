#include "tests/cuda_on_host/fiber.h"

#include <sys/mman.h>

#include <utility>

#include "tests/cuda_on_host/report.h"
#include "tests/support/sanitizers.h"

#if !defined(__x86_64__)
#error "fiber.cc switches stacks in the assembler of x86-64: add that of this processor"
#endif

#if defined(SHARDMAX_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(SHARDMAX_TSAN)  // This file itself is not instrumented: see CMakeLists.txt.
extern "C" {
void* __tsan_get_current_fiber();                       // NOLINT(bugprone-reserved-identifier)
void* __tsan_create_fiber(unsigned flags);              // NOLINT(bugprone-reserved-identifier)
void __tsan_destroy_fiber(void* fiber);                 // NOLINT(bugprone-reserved-identifier)
void __tsan_switch_to_fiber(void* fiber, unsigned fl);  // NOLINT(bugprone-reserved-identifier)
void __tsan_acquire(void* variable);                    // NOLINT(bugprone-reserved-identifier)
void __tsan_release(void* variable);                    // NOLINT(bugprone-reserved-identifier)
}
constexpr unsigned kNoSync = 1;
#endif

// Saves the registers that a call keeps, and the stack pointer to *save; goes on at `load`.
extern "C" void cuda_on_host_switch(void** save, void* load);
asm(R"(
.text
.globl cuda_on_host_switch
.type cuda_on_host_switch, @function
cuda_on_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.globl cuda_on_host_enter
.type cuda_on_host_enter, @function
cuda_on_host_enter:
  movq %rbx, %rdi
  call *%r12
  ud2
)");
extern "C" void cuda_on_host_enter();

namespace cuda_on_host {
namespace {

constexpr size_t kStackBytes = size_t{256} << 10;
constexpr size_t kGuardBytes = 4096;

}  // namespace

void EnterFiber(Fiber* fiber) {
  Fiber::Enter(fiber);
}

Fiber::Fiber() {
  void* block = mmap(nullptr, kStackBytes + kGuardBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (block == MAP_FAILED || mprotect(block, kGuardBytes, PROT_NONE) != 0)
    Report("no memory for the stack of a thread");
  stack_ = static_cast<std::byte*>(block) + kGuardBytes;
  // What cuda_on_host_switch pops: r15, r14, r13, r12, rbx, rbp, and where to return to.
  auto** top = reinterpret_cast<void**>(stack_ + kStackBytes);
  top -= 2;  // The stack is aligned to 16 bytes where cuda_on_host_enter begins.
  *--top = reinterpret_cast<void*>(&cuda_on_host_enter);
  *--top = nullptr;
  *--top = this;                                  // rbx: the argument
  *--top = reinterpret_cast<void*>(&EnterFiber);  // r12: the function
  for (int i = 0; i < 3; ++i) *--top = nullptr;
  stack_pointer_ = top;
#if defined(SHARDMAX_TSAN)
  tsan_fiber_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
#if defined(SHARDMAX_TSAN)
  __tsan_destroy_fiber(tsan_fiber_);
#endif
  munmap(stack_ - kGuardBytes, kStackBytes + kGuardBytes);
}

void Fiber::Enter(Fiber* fiber) {
  for (;;) {
#if defined(SHARDMAX_ASAN)
    __sanitizer_finish_switch_fiber(fiber->fake_stack_, &fiber->caller_stack_, &fiber->caller_stack_bytes_);
#endif
    fiber->task_();
    fiber->ended_ = true;
    fiber->SwitchOut();
  }
}

void Fiber::Begin(std::function<void()> task) {
  task_ = std::move(task);
  ended_ = false;
}

void Fiber::SwitchIn() {
#if defined(SHARDMAX_TSAN)
  caller_tsan_fiber_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(tsan_fiber_, kNoSync);
#endif
#if defined(SHARDMAX_ASAN)
  __sanitizer_start_switch_fiber(&caller_fake_stack_, stack_, kStackBytes);
#endif
  cuda_on_host_switch(&caller_pointer_, stack_pointer_);
#if defined(SHARDMAX_ASAN)
  __sanitizer_finish_switch_fiber(caller_fake_stack_, nullptr, nullptr);
#endif
}

void Fiber::SwitchOut() {
#if defined(SHARDMAX_TSAN)
  __tsan_switch_to_fiber(caller_tsan_fiber_, kNoSync);
#endif
#if defined(SHARDMAX_ASAN)
  __sanitizer_start_switch_fiber(&fake_stack_, caller_stack_, caller_stack_bytes_);
#endif
  cuda_on_host_switch(&stack_pointer_, caller_pointer_);
}

bool Fiber::Resume() {
  SwitchIn();
  return ended_;
}

void Fiber::Yield() {
  SwitchOut();
#if defined(SHARDMAX_ASAN)
  __sanitizer_finish_switch_fiber(fake_stack_, &caller_stack_, &caller_stack_bytes_);
#endif
}

void ReleaseTo([[maybe_unused]] void* variable) {
#if defined(SHARDMAX_TSAN)
  __tsan_release(variable);
#endif
}

void AcquireFrom([[maybe_unused]] void* variable) {
#if defined(SHARDMAX_TSAN)
  __tsan_acquire(variable);
#endif
}

}  // namespace cuda_on_host
