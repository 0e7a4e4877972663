// How the stand-in says what a GPU would reject.
#pragma once

#include <string>

namespace cuda_on_host {

// Prints "cuda_on_host: MESSAGE", with the kernel, block and thread that run if any, and aborts: such a mistake has no
// result to go on with.
[[noreturn]] void Report(const std::string& message);

}  // namespace cuda_on_host
