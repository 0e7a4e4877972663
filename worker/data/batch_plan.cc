#include <algorithm>

#include "worker/data/dataset.h"
#include "worker/data/permutation.h"

namespace shardmax {

BatchPlan::BatchPlan(int64_t rows, int64_t batch_size, bool shuffle, uint32_t seed)
    : rows_(rows), batch_size_(batch_size), shuffle_(shuffle), seed_(seed) {}

int64_t BatchPlan::steps_per_epoch() const {
  return (rows_ - 1) / batch_size_ + 1;
}

int64_t BatchPlan::batch_rows(int64_t step) const {
  const int64_t first = step % steps_per_epoch() * batch_size_;
  return std::min(batch_size_, rows_ - first);
}

int64_t BatchPlan::row_at(int64_t step, int64_t position) const {
  const int64_t index = step % steps_per_epoch() * batch_size_ + position;
  return shuffle_ ? Permutation(rows_, seed_, epoch_of(step))(index) : index;
}

}  // namespace shardmax
