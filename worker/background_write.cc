#include "worker/background_write.h"

#include <sys/resource.h>
#include <unistd.h>

#include <string>
#include <utility>

namespace shardmax {
namespace {

// Of the scheduler's scale, where each step is worth about a quarter: beside a thread that computes without a pause it
// gets 6 % of a processor.
constexpr int kNicer = 12;

void GiveWay() {
  const auto thread = static_cast<id_t>(::gettid());
  const int before = ::getpriority(PRIO_PROCESS, thread);
  ::setpriority(PRIO_PROCESS, thread, before + kNicer);  // At most the lowest there is.
}

}  // namespace

BackgroundWrite::BackgroundWrite(std::unique_ptr<CheckpointWrite> write, ShardSnapshot snapshot)
    : write_(std::move(write)), snapshot_(std::move(snapshot)), thread_([this] { Work(); }) {}

BackgroundWrite::~BackgroundWrite() {
  given_up_ = true;
  if (thread_.joinable()) thread_.join();
}

CheckpointWrite& BackgroundWrite::Await() {
  if (thread_.joinable()) thread_.join();
  return *write_;
}

void BackgroundWrite::Work() {
  GiveWay();
  write_->WriteShard([this](const std::string& name, Range classes, MatrixView<float> rows) {
    return given_up_ ? absl::CancelledError("the checkpoint was given up") : snapshot_.ReadRows(name, classes, rows);
  });
  done_ = true;
}

}  // namespace shardmax
