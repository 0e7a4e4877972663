// Axes with round numbers on them. Pure.
#pragma once

#include <string>
#include <vector>

namespace shardmax {

struct Tick {
  double value;
  std::string label;  // UTF-8.
};

// Maps values to [0, 1] from one end of an axis to the other.
class Axis {
 public:
  // From `low` to `high`, which are finite; equal ones get some room around them. About `count` ticks at multiples of
  // 1, 2 or 5 times a power of ten, labelled with no more decimals than tell them apart.
  static Axis Linear(double low, double high, int count);
  // As Linear(), for whole numbers: no tick between two of them, and large ones in short ("20k", "1.5M").
  static Axis Steps(double low, double high, int count);
  // As Linear(), for shares of one: labels in percent.
  static Axis Percent(double low, double high, int count);
  // Requires 0 < low <= high. Ticks at the powers of ten, and between them where there are few.
  static Axis Log(double low, double high);

  // NaN where `value` has no place: not finite, or not positive on a logarithmic axis.
  double Place(double value) const;
  // Ascending, all within the axis; never empty.
  const std::vector<Tick>& ticks() const { return ticks_; }

 private:
  Axis(double low, double high, bool log) : low_(low), high_(high), log_(log) {}

  double low_;
  double high_;
  bool log_;
  std::vector<Tick> ticks_;
};

}  // namespace shardmax
