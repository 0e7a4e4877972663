// Libraries that are loaded when they are first called.
#pragma once

#include <dlfcn.h>

namespace shardmax {

// The address of `symbol` in `library`, or null. The library stays loaded.
inline void* FindSymbol(const char* library, const char* symbol) {
  void* const handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  return handle == nullptr ? nullptr : dlsym(handle, symbol);
}

}  // namespace shardmax

// The body of a function that passes its call on to the function of its name in `library`, or returns `missing`.
#define SHARDMAX_FORWARD(library, function, missing, ...)                                                      \
  static const auto found = reinterpret_cast<decltype(&(function))>(shardmax::FindSymbol(library, #function)); \
  return found == nullptr ? (missing) : found(__VA_ARGS__)
