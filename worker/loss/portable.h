// What lets one formula compile for the CPU, for CUDA and for SIMD vectors.
#pragma once

#include <cmath>

#if defined(__CUDACC__)
#define SHARDMAX_HOST_DEVICE __host__ __device__
#else
#define SHARDMAX_HOST_DEVICE
#endif

namespace shardmax {

// The operations that element-wise formulas are written in. A formula is a template over such a policy; ScalarOps
// serves the reference engine (double) and CUDA kernels (float), the CPU engine has one for Highway vectors.
template <typename T>
struct ScalarOps {
  using V = T;     // a value
  using M = bool;  // a condition

  SHARDMAX_HOST_DEVICE V Set(double x) const { return static_cast<T>(x); }
  SHARDMAX_HOST_DEVICE V Add(V a, V b) const { return a + b; }
  SHARDMAX_HOST_DEVICE V Sub(V a, V b) const { return a - b; }
  SHARDMAX_HOST_DEVICE V Mul(V a, V b) const { return a * b; }
  SHARDMAX_HOST_DEVICE V Div(V a, V b) const { return a / b; }
  SHARDMAX_HOST_DEVICE V MulAdd(V a, V b, V c) const { return a * b + c; }  // a b + c
  SHARDMAX_HOST_DEVICE V Sqrt(V a) const { return std::sqrt(a); }
  SHARDMAX_HOST_DEVICE V Exp(V a) const { return std::exp(a); }
  SHARDMAX_HOST_DEVICE M Gt(V a, V b) const { return a > b; }
  SHARDMAX_HOST_DEVICE V IfThenElse(M m, V yes, V no) const { return m ? yes : no; }
};

}  // namespace shardmax
