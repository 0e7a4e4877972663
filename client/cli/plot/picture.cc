#include "client/cli/plot/picture.h"

#include <cairo.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "client/cli/plot/axis.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

// In units of which kScale pixels make one.
constexpr double kScale = 1.6;
constexpr double kWidth = 1000;
constexpr double kHeight = 820;
constexpr double kHeader = 64;
constexpr double kLeft = 62;  // Of a panel: labels of the y axis.
constexpr double kRight = 14;
constexpr double kAbove = 30;  // The title of a panel.
constexpr double kBelow = 34;  // Labels of the x axis.
constexpr double kMargin = 12;
constexpr double kFont = 12;
constexpr double kLine = 1.9;
constexpr double kSmoothing = 0.02;
constexpr double kLeastShown = 1e-9;  // Of the highest value, on a logarithmic axis.
constexpr double kPadding = 0.05;     // Between the curve and the ends of the y axis.

constexpr Rgb kInk = {0.13, 0.15, 0.18};
constexpr Rgb kGrey = {0.45, 0.48, 0.52};
constexpr Rgb kGrid = {0.90, 0.91, 0.93};

struct FreeSurface {
  void operator()(cairo_surface_t* surface) const { cairo_surface_destroy(surface); }
};
struct FreeContext {
  void operator()(cairo_t* context) const { cairo_destroy(context); }
};

struct Box {
  double x, y, width, height;
};

enum class Anchor { kLeft, kCentre, kRight };

class Pen {
 public:
  explicit Pen(cairo_surface_t* surface) : cairo_(cairo_create(surface)) { cairo_scale(cairo_.get(), kScale, kScale); }

  void Colour(const Rgb& colour, double opacity = 1) {
    cairo_set_source_rgba(cairo_.get(), colour.red, colour.green, colour.blue, opacity);
  }
  void Fill(const Box& box, const Rgb& colour) {
    Colour(colour);
    cairo_rectangle(cairo_.get(), box.x, box.y, box.width, box.height);
    cairo_fill(cairo_.get());
  }
  void Line(double x0, double y0, double x1, double y1, const Rgb& colour, double width) {
    Colour(colour);
    cairo_set_line_width(cairo_.get(), width);
    cairo_move_to(cairo_.get(), x0, y0);
    cairo_line_to(cairo_.get(), x1, y1);
    cairo_stroke(cairo_.get());
  }
  // `y` is the baseline.
  void Text(const std::string& text, double x, double y, Anchor anchor, double size, const Rgb& colour,
            bool bold = false) {
    cairo_select_font_face(cairo_.get(), "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cairo_.get(), size);
    cairo_text_extents_t extents;
    cairo_text_extents(cairo_.get(), text.c_str(), &extents);
    const double shift = anchor == Anchor::kLeft ? 0 : anchor == Anchor::kCentre ? 0.5 : 1;
    Colour(colour);
    cairo_move_to(cairo_.get(), x - shift * extents.x_advance, y);
    cairo_show_text(cairo_.get(), text.c_str());
  }
  // Joins points; NaN in either coordinate lifts the pen. Nothing is drawn outside of `clip`.
  void Curve(const std::vector<Point>& points, const Rgb& colour, double opacity, double width, const Box& clip) {
    cairo_save(cairo_.get());
    cairo_rectangle(cairo_.get(), clip.x, clip.y - width, clip.width, clip.height + 2 * width);
    cairo_clip(cairo_.get());
    Colour(colour, opacity);
    cairo_set_line_width(cairo_.get(), width);
    cairo_set_line_join(cairo_.get(), CAIRO_LINE_JOIN_ROUND);
    bool down = false;
    for (const Point& point : points) {
      const bool known = std::isfinite(point.x) && std::isfinite(point.y);
      if (known && down) cairo_line_to(cairo_.get(), point.x, point.y);
      if (known && !down) cairo_move_to(cairo_.get(), point.x, point.y);
      down = known;
    }
    cairo_stroke(cairo_.get());
    cairo_restore(cairo_.get());
  }
  void Dot(const Point& point, double radius, const Rgb& colour) {
    if (!std::isfinite(point.x) || !std::isfinite(point.y)) return;
    Colour(colour);
    cairo_arc(cairo_.get(), point.x, point.y, radius, 0, 2 * M_PI);
    cairo_fill(cairo_.get());
  }

 private:
  std::unique_ptr<cairo_t, FreeContext> cairo_;
};

bool IsDrawable(const Panel& panel, double y) {
  return std::isfinite(y) && (panel.scale != Panel::Scale::kLog || y > 0);
}

Axis YAxisOf(const Panel& panel, const Curve& smooth) {
  double low = INFINITY;
  double high = -INFINITY;
  // A mean over zeros can be below every value that a logarithmic axis shows.
  for (const Curve* curve : {&panel.curve, &smooth}) {
    for (const Point& point : *curve) {
      if (!IsDrawable(panel, point.y)) continue;
      low = std::min(low, point.y);
      high = std::max(high, point.y);
    }
  }
  if (panel.scale == Panel::Scale::kLog) return Axis::Log(std::max(low, high * kLeastShown), high);
  const double room = kPadding * (high - low);
  if (panel.scale == Panel::Scale::kPercent) {
    return Axis::Percent(std::max(low - room, 0.0), std::min(high + room, 1.0), 5);
  }
  // An axis of what is never negative does not go below zero.
  return Axis::Linear(low >= 0 ? std::max(low - room, 0.0) : low - room, high + room, 5);
}

// The place of a curve in `plot`.
Curve Placed(const Curve& curve, const Axis& x, const Axis& y, const Box& plot) {
  Curve placed;
  for (const Point& point : curve) {
    placed.push_back({plot.x + plot.width * x.Place(point.x), plot.y + plot.height * (1 - y.Place(point.y))});
  }
  return placed;
}

void DrawAxes(Pen& pen, const Axis& x, const Axis& y, const Box& plot) {
  const double bottom = plot.y + plot.height;
  for (const Tick& tick : y.ticks()) {
    const double at = bottom - plot.height * y.Place(tick.value);
    pen.Line(plot.x, at, plot.x + plot.width, at, kGrid, 1);
    pen.Text(tick.label, plot.x - 7, at + kFont * 0.36, Anchor::kRight, kFont, kGrey);
  }
  for (const Tick& tick : x.ticks()) {
    const double at = plot.x + plot.width * x.Place(tick.value);
    pen.Line(at, plot.y, at, bottom, kGrid, 1);
    pen.Line(at, bottom, at, bottom + 4, kGrey, 1);
    pen.Text(tick.label, at, bottom + 4 + kFont, Anchor::kCentre, kFont, kGrey);
  }
  pen.Line(plot.x, bottom, plot.x + plot.width, bottom, kGrey, 1);
  pen.Line(plot.x, plot.y, plot.x, bottom, kGrey, 1);
  pen.Text("step", plot.x + plot.width, bottom + 4 + 2.1 * kFont, Anchor::kRight, kFont * 0.92, kGrey);
}

void DrawCurve(Pen& pen, const Panel& panel, const Curve& smooth, const Axis& x, const Axis& y, const Box& plot) {
  const auto buckets = static_cast<size_t>(plot.width * kScale);
  const Curve points = Placed(Thinned(panel.curve, buckets), x, y, plot);
  pen.Curve(points, panel.colour, panel.smooth ? 0.28 : 1, panel.smooth ? 1 : kLine, plot);
  pen.Curve(Placed(Thinned(smooth, buckets), x, y, plot), panel.colour, 1, kLine, plot);
  // A single point is no line.
  if (panel.markers || panel.curve.size() == 1) {
    for (const Point& point : points) pen.Dot(point, 3, panel.colour);
  }
  if (!panel.last_label.empty() && !points.empty()) {
    // Below the curve where there is room, so that neither hides the other.
    const Point& last = points.back();
    const bool low = last.y > plot.y + plot.height - 26;
    pen.Text(panel.last_label, std::max(last.x, plot.x + 60), last.y + (low ? -9 : 19), Anchor::kRight, kFont * 1.08,
             panel.colour, true);
  }
}

void DrawPanel(Pen& pen, const Panel& panel, double last_x, const Box& box) {
  const Box plot = {box.x + kLeft, box.y + kAbove, box.width - kLeft - kRight, box.height - kAbove - kBelow};
  pen.Text(panel.title, plot.x, plot.y - 10, Anchor::kLeft, kFont * 1.12, panel.colour, true);
  const bool any = std::any_of(panel.curve.begin(), panel.curve.end(),
                               [&](const Point& point) { return IsDrawable(panel, point.y); });
  if (!any) {
    pen.Line(plot.x, plot.y + plot.height, plot.x + plot.width, plot.y + plot.height, kGrey, 1);
    pen.Text(panel.empty_note, plot.x + plot.width / 2, plot.y + plot.height / 2, Anchor::kCentre, kFont * 1.08, kGrey);
    return;
  }
  const Axis x = Axis::Steps(0, std::max(last_x, 1.0), static_cast<int>(plot.width / 80));
  const Curve smooth = panel.smooth ? Smoothed(panel.curve, kSmoothing) : Curve();
  const Axis y = YAxisOf(panel, smooth);
  DrawAxes(pen, x, y, plot);
  DrawCurve(pen, panel, smooth, x, y, plot);
}

cairo_status_t AppendTo(void* out, const unsigned char* bytes, unsigned int count) {
  static_cast<std::string*>(out)->append(reinterpret_cast<const char*>(bytes), count);
  return CAIRO_STATUS_SUCCESS;
}

}  // namespace

absl::StatusOr<std::string> DrawPng(const Picture& picture) {
  const std::unique_ptr<cairo_surface_t, FreeSurface> surface(cairo_image_surface_create(
      CAIRO_FORMAT_RGB24, static_cast<int>(kWidth * kScale), static_cast<int>(kHeight * kScale)));
  Pen pen(surface.get());
  pen.Fill({0, 0, kWidth, kHeight}, {1, 1, 1});
  pen.Text(picture.title, kMargin + kLeft, 32, Anchor::kLeft, 18, kInk, true);
  pen.Text(picture.subtitle, kMargin + kLeft, 54, Anchor::kLeft, 13, kGrey);

  const size_t rows = 1 + (picture.below.size() + 1) / 2;
  const double row = (kHeight - kHeader - kMargin) / static_cast<double>(rows);
  const double column = (kWidth - 2 * kMargin) / 2;
  DrawPanel(pen, picture.top, picture.last_x, {kMargin, kHeader, 2 * column, row});
  for (size_t i = 0; i < picture.below.size(); ++i) {
    const double x = kMargin + static_cast<double>(i % 2) * column;
    const size_t row_index = 1 + i / 2;
    const double y = kHeader + static_cast<double>(row_index) * row;
    DrawPanel(pen, picture.below[i], picture.last_x, {x, y, column, row});
  }
  std::string png;
  const cairo_status_t status = cairo_surface_write_to_png_stream(surface.get(), AppendTo, &png);
  if (status != CAIRO_STATUS_SUCCESS) {
    return Error(absl::StatusCode::kInternal, "cannot draw the picture: {}", cairo_status_to_string(status));
  }
  return png;
}

}  // namespace shardmax
