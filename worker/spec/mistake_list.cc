#include "worker/spec/mistake_list.h"

namespace shardmax {

void MistakeList::Shorten(size_t first, const std::string& path) {
  constexpr size_t kShown = 10;
  if (mistakes_.size() <= first + kShown) return;
  const size_t hidden = mistakes_.size() - first - kShown;
  mistakes_.resize(first + kShown);
  Add("{}: {} more mistakes of this kind", path, hidden);
}

}  // namespace shardmax
