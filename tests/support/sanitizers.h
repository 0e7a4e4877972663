// SHARDMAX_ASAN, SHARDMAX_TSAN: which sanitizer this is compiled for, in the words of GCC and of Clang.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define SHARDMAX_ASAN
#elif defined(__SANITIZE_THREAD__)
#define SHARDMAX_TSAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SHARDMAX_ASAN
#elif __has_feature(thread_sanitizer)
#define SHARDMAX_TSAN
#endif
#endif
