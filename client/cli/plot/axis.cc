#include "client/cli/plot/axis.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace shardmax {
namespace {

constexpr double kTiny = 1e-9;  // Of a step: what rounding may shift a tick by.
constexpr int kEnoughDecades = 3;

// The smallest of 1, 2, 5 times a power of ten that is not below `least`.
double RoundStep(double least) {
  const double power = std::pow(10.0, std::floor(std::log10(least)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= least * (1 - kTiny)) return factor * power;
  }
  return 10 * power;
}

std::vector<double> Multiples(double low, double high, double step) {
  std::vector<double> values;
  const double first = std::ceil(low / step - kTiny);
  const double last = std::floor(high / step + kTiny);
  for (double i = first; i <= last; ++i) values.push_back(i * step + 0.0);  // + 0.0: no minus before a zero.
  return values;
}

// Two ends that differ.
std::pair<double, double> WithRoom(double low, double high) {
  const double size = std::max(std::abs(low), std::abs(high));
  if (high - low > size * 1e-9) return {low, high};
  const double room = size > 0 ? size / 2 : 1;
  return {low - room, high + room};
}

int DecimalsOf(double step) {
  return std::max(0, static_cast<int>(-std::floor(std::log10(step) + kTiny)));
}

std::string LinearLabel(double value, double step, double largest) {
  if (largest >= 1e6 || step < 1e-5) return fmt::format("{:.4g}", value);
  return fmt::format("{:.{}f}", value, DecimalsOf(step));
}

std::string StepLabel(double value, double step) {
  for (const auto& [unit, name] : {std::pair(1e9, "G"), std::pair(1e6, "M"), std::pair(1e3, "k")}) {
    if (value >= unit && value >= 10'000) {
      return fmt::format("{:.{}f}{}", value / unit, DecimalsOf(std::min(step / unit, 1.0)), name);
    }
  }
  return fmt::format("{:.0f}", value);
}

std::string Superscript(int number) {
  static constexpr const char* kDigits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  std::string text = number < 0 ? "⁻" : "";
  for (const char digit : std::to_string(std::abs(number))) text += kDigits[digit - '0'];
  return text;
}

std::string LogLabel(int factor, int exponent) {
  const double value = factor * std::pow(10.0, exponent);
  if (exponent >= -3 && exponent <= 3) return fmt::format("{:.{}f}", value, std::max(0, -exponent));
  return (factor == 1 ? "" : fmt::format("{}·", factor)) + "10" + Superscript(exponent);
}

}  // namespace

Axis Axis::Linear(double low, double high, int count) {
  std::tie(low, high) = WithRoom(low, high);
  Axis axis(low, high, false);
  const double step = RoundStep((high - low) / count);
  const double largest = std::max(std::abs(low), std::abs(high));
  for (const double value : Multiples(low, high, step)) {
    axis.ticks_.push_back({value, LinearLabel(value, step, largest)});
  }
  return axis;
}

Axis Axis::Steps(double low, double high, int count) {
  std::tie(low, high) = WithRoom(low, high);
  Axis axis(low, high, false);
  const double step = std::max(1.0, RoundStep((high - low) / count));
  for (const double value : Multiples(low, high, step)) axis.ticks_.push_back({value, StepLabel(value, step)});
  if (axis.ticks_.empty()) axis.ticks_.push_back({low, fmt::format("{:.0f}", low)});
  return axis;
}

Axis Axis::Percent(double low, double high, int count) {
  Axis axis = Linear(low, high, count);
  const double step = 100 * (axis.ticks_.size() > 1 ? axis.ticks_[1].value - axis.ticks_[0].value : 1);
  for (Tick& tick : axis.ticks_) tick.label = fmt::format("{:.{}f}%", 100 * tick.value, DecimalsOf(step));
  return axis;
}

Axis Axis::Log(double low, double high) {
  // At least half a decade.
  if (high < low * 3) {
    low /= 2;
    high *= 2;
  }
  Axis axis(std::log10(low), std::log10(high), true);
  const int first = static_cast<int>(std::floor(axis.low_));
  const int last = static_cast<int>(std::ceil(axis.high_));
  const int stride = std::max(1, (last - first + 7) / 8);
  const bool between = axis.high_ - axis.low_ < kEnoughDecades;
  for (int exponent = first; exponent <= last; exponent += stride) {
    for (const int factor : {1, 2, 5}) {
      if (factor > 1 && !between) break;
      const double value = factor * std::pow(10.0, exponent);
      if (value >= low * (1 - kTiny) && value <= high * (1 + kTiny)) {
        axis.ticks_.push_back({value, LogLabel(factor, exponent)});
      }
    }
  }
  return axis;
}

double Axis::Place(double value) const {
  if (!std::isfinite(value) || (log_ && value <= 0)) return std::numeric_limits<double>::quiet_NaN();
  return ((log_ ? std::log10(value) : value) - low_) / (high_ - low_);
}

}  // namespace shardmax
