// Vectors of the kernels of the CPU engine.
//
// No include guard, by intent: a kernel file includes this once for each instruction set, inside the namespace of that
// set (shardmax::HWY_NAMESPACE), after <hwy/highway.h> and <hwy/contrib/math/math-inl.h>.

namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes, so that a vector never passes the padding of a tile.
using Floats = hn::CappedTag<float, kColumnAlignment>;
using Ints = hn::RebindToSigned<Floats>;
using Vector = hn::Vec<Floats>;

// The Ops policy (worker/loss/portable.h) of a vector.
struct VectorOps {
  using V = Vector;
  using M = hn::Mask<Floats>;

  V Set(double x) const { return hn::Set(Floats(), static_cast<float>(x)); }
  V Add(V a, V b) const { return hn::Add(a, b); }
  V Sub(V a, V b) const { return hn::Sub(a, b); }
  V Mul(V a, V b) const { return hn::Mul(a, b); }
  V Div(V a, V b) const { return hn::Div(a, b); }
  V MulAdd(V a, V b, V c) const { return hn::MulAdd(a, b, c); }
  V Sqrt(V a) const { return hn::Sqrt(a); }
  V Exp(V a) const { return hn::Exp(Floats(), a); }
  M Gt(V a, V b) const { return hn::Gt(a, b); }
  V IfThenElse(M m, V yes, V no) const { return hn::IfThenElse(m, yes, no); }
};
