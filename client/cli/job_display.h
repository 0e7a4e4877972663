// The progress of one job, as it goes.
#pragma once

#include <optional>
#include <string>

#include "client/cli/eta.h"
#include "client/cli/terminal.h"
#include "shardmax/v1/control.pb.h"

namespace shardmax {

// A bar that is drawn over on a terminal; elsewhere a line when something other than numbers changes, and every few
// seconds. Not thread-safe.
class JobDisplay {
 public:
  explicit JobDisplay(const Terminal& terminal) : terminal_(terminal) {}
  ~JobDisplay();
  JobDisplay(const JobDisplay&) = delete;
  JobDisplay& operator=(const JobDisplay&) = delete;

  // `now_s` as of Eta.
  void Show(const v1::Job& job, double now_s);

  // A line of its own.
  void Note(const std::string& text);

 private:
  void DrawBar(const v1::Job& job, double now_s);
  void PrintLine(const v1::Job& job, double now_s);
  void ClearBar();

  Terminal terminal_;
  Eta eta_;
  std::string last_change_;
  std::optional<double> next_s_;
  bool bar_drawn_ = false;
};

}  // namespace shardmax
