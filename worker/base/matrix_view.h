// A borrowed row-major matrix.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>

namespace shardmax {

// `rows` x `cols` values of T, row i at data + i * cols. Does not own; T may be const.
template <typename T>
struct MatrixView {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;

  std::span<T> row(int64_t i) const { return {data + i * cols, static_cast<size_t>(cols)}; }
  std::span<T> flat() const { return {data, static_cast<size_t>(rows * cols)}; }
  MatrixView slice(int64_t first, int64_t count) const { return {data + first * cols, count, cols}; }
  operator MatrixView<const T>() const  // NOLINT(google-explicit-constructor): as T* converts to const T*.
      requires(!std::is_const_v<T>) {
    return {data, rows, cols};
  }
};

}  // namespace shardmax
