// Sentences about what is wrong with a spec, in the order found.
#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

namespace shardmax {

// Not thread-safe.
class MistakeList {
 public:
  template <typename... Args>
  void Add(fmt::format_string<Args...> format, Args&&... args) {
    mistakes_.push_back(fmt::format(format, std::forward<Args>(args)...));
  }

  // Call after the mistakes of the elements of one list, with size() from before them: keeps the first ten that were
  // added since and counts the rest, so that a long list cannot flood the answer.
  void Shorten(size_t first, const std::string& path);

  size_t size() const { return mistakes_.size(); }
  std::vector<std::string> Take() { return std::move(mistakes_); }

 private:
  std::vector<std::string> mistakes_;
};

}  // namespace shardmax
