// Vectors of the kernels of the CPU engine.
//
// No include guard, by intent: a kernel file includes this once for each instruction set, inside the namespace of that
// set (shardmax::HWY_NAMESPACE), after <hwy/highway.h>.

namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes, so that a vector never passes the padding of a tile.
using Floats = hn::CappedTag<float, kColumnAlignment>;
using Ints = hn::RebindToSigned<Floats>;
using Bits = hn::RebindToUnsigned<Floats>;
using Halves = hn::Rebind<uint16_t, Bits>;
using Vector = hn::Vec<Floats>;

// e^x for -87 < x < 88, to 2e-7 of its value; 0 for smaller x, and of no use for larger. x log2(e) = n + f with f in
// [-1/2, 1/2]: adding 1.5 2^23 leaves n in the low bits, from where it goes into the exponent.
HWY_INLINE Vector ExpOf(Vector x) {
  const Floats d;
  const Ints di;
  const auto log2_e = hn::Set(d, 1.44269504F);
  const auto magic = hn::Set(d, 0x1.8p23F);
  const auto shifted = hn::MulAdd(x, log2_e, magic);
  const auto f = hn::MulSub(x, log2_e, hn::Sub(shifted, magic));
  // 2^f, least relative error.
  auto p = hn::Set(d, 0.00132647261F);
  p = hn::MulAdd(p, f, hn::Set(d, 0.00967151299F));
  p = hn::MulAdd(p, f, hn::Set(d, 0.0555073358F));
  p = hn::MulAdd(p, f, hn::Set(d, 0.240222424F));
  p = hn::MulAdd(p, f, hn::Set(d, 0.693147004F));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0F));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
  const auto value = hn::BitCast(d, hn::Add(hn::BitCast(di, p), exponent));
  return hn::IfThenElseZero(hn::Gt(x, hn::Set(d, -87.0F)), value);
}

// The bits of v rounded to bfloat16, ties to even, in the low half of each lane. No NaN: some would become numbers.
HWY_INLINE hn::Vec<Bits> Bfloat16Bits(Vector v) {
  const Bits du;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1U));
  return hn::ShiftRight<16>(hn::Add(bits, hn::Add(hn::Set(du, 0x7FFFU), odd)));
}

HWY_INLINE Vector RoundedToBfloat16(Vector v) {
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(Bfloat16Bits(v)));
}

HWY_INLINE void StoreBfloat16(Vector v, uint16_t* out) {
  hn::StoreU(hn::DemoteTo(Halves(), hn::BitCast(Ints(), Bfloat16Bits(v))), Halves(), out);
}

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
  V Exp(V a) const { return ExpOf(a); }
  M Gt(V a, V b) const { return hn::Gt(a, b); }
  V IfThenElse(M m, V yes, V no) const { return hn::IfThenElse(m, yes, no); }
};
