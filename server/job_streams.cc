#include "server/job_streams.h"

#include <functional>
#include <utility>
#include <vector>

#include "rpc/bytes.h"
#include "server/export_file.h"
#include "server/metrics_file.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

constexpr int32_t kLinesAtOnce = 200;

// A stream that is fed piece by piece: the next piece is fetched when the one before is sent, and, at the end of what
// there is, when there is news. The loop's thread alone uses it.
class PiecewiseStream : public std::enable_shared_from_this<PiecewiseStream> {
 public:
  PiecewiseStream(const ServiceParts& parts, JobRecord record, bool follow, std::shared_ptr<StreamCall> call)
      : parts_(parts), record_(std::move(record)), follow_(follow), call_(std::move(call)) {}
  virtual ~PiecewiseStream() = default;

  void Start(News news) {
    call_->SetOnDrained([self = shared_from_this()] {
      self->parts_.loop.Post([self] {
        self->busy_ = false;
        self->Pump();
      });
    });
    if (follow_) {
      parts_.feed.Follow(record_.job.id(), news, call_, [self = std::weak_ptr(shared_from_this())] {
        if (const auto alive = self.lock()) alive->Pump();
      });
    }
    Pump();
  }

 protected:
  // Fetches what comes next and has Fetched() called, with nothing at the end of what there is.
  virtual void Fetch() = 0;

  void Fetched(const absl::StatusOr<std::vector<grpc::ByteBuffer>>& pieces) {
    if (!pieces.ok()) return call_->End(pieces.status());
    if (!pieces->empty()) return call_->Write(*pieces);  // Drained, it comes back.
    if (!follow_ || was_final_) return call_->End(absl::OkStatus());
    busy_ = false;
    if (std::exchange(again_, false)) Pump();
  }

  ServiceParts parts_;
  JobRecord record_;

 private:
  void Pump() {
    if (call_->ended()) return;
    if (busy_) {
      again_ = true;
      return;
    }
    busy_ = true;
    again_ = false;
    // The state is looked at before the data: what a final job has written is all there.
    const auto record = parts_.controller.Find(record_.job.id());
    was_final_ = !record.ok() || IsFinal(record->job.state());
    Fetch();
  }

  const bool follow_;
  std::shared_ptr<StreamCall> call_;
  bool busy_ = false;
  bool again_ = false;
  bool was_final_ = false;
};

class LogStream : public PiecewiseStream {
 public:
  LogStream(const ServiceParts& parts, JobRecord record, const v1::StreamLogsRequest& request,
            std::shared_ptr<StreamCall> call)
      : PiecewiseStream(parts, std::move(record), request.follow(), std::move(call)),
        after_(request.after_sequence()) {}

 private:
  void Fetch() override {
    const auto lines = parts_.controller.Lines(record_, after_, kLinesAtOnce);
    if (!lines.ok()) return Fetched(lines.status());
    std::vector<grpc::ByteBuffer> pieces;
    for (const v1::LogLine& line : *lines) pieces.push_back(ToBytes(line));
    if (!lines->empty()) after_ = lines->back().sequence();
    Fetched(pieces);
  }

  int64_t after_;
};

class MetricsStream : public PiecewiseStream {
 public:
  MetricsStream(const ServiceParts& parts, JobRecord record, const v1::StreamMetricsRequest& request,
                std::shared_ptr<StreamCall> call)
      : PiecewiseStream(parts, std::move(record), request.follow(), std::move(call)),
        file_(record_.job.folder() + "/metrics.jsonl", request.after_step()) {}

 private:
  void Fetch() override {
    parts_.blocking.Post([self = std::static_pointer_cast<MetricsStream>(shared_from_this())] {
      const auto steps = self->file_.Next();
      absl::StatusOr<std::vector<grpc::ByteBuffer>> pieces = std::vector<grpc::ByteBuffer>();
      if (!steps.ok()) {
        pieces = steps.status();
      } else {
        for (const v1::StepMetrics& step : *steps) pieces->push_back(ToBytes(step));
      }
      self->parts_.loop.Post([self, pieces = std::move(pieces)] { self->Fetched(pieces); });
    });
  }

  MetricsFile file_;  // One blocking thread at a time.
};

// Sends chunk after chunk, each read when the one before is sent.
void SendChunk(const std::shared_ptr<ExportFile>& file, const std::shared_ptr<StreamCall>& call) {
  if (call->ended()) return;
  auto chunk = file->Next();
  if (!chunk.ok()) return call->End(chunk.status());
  if (chunk->data().empty()) return call->End(absl::OkStatus());
  call->Write(ToBytes(*chunk));
}

}  // namespace

void StartLogStream(const ServiceParts& parts, const v1::StreamLogsRequest& request, std::shared_ptr<StreamCall> call) {
  auto record = parts.controller.Find(request.job());
  if (!record.ok()) return call->End(record.status());
  std::make_shared<LogStream>(parts, *std::move(record), request, std::move(call))->Start(News::kLines);
}

void StartMetricsStream(const ServiceParts& parts, const v1::StreamMetricsRequest& request,
                        std::shared_ptr<StreamCall> call) {
  auto record = parts.controller.Find(request.job());
  if (!record.ok()) return call->End(record.status());
  std::make_shared<MetricsStream>(parts, *std::move(record), request, std::move(call))->Start(News::kProgress);
}

void StartExport(const ServiceParts& parts, const v1::Job& job, int32_t step, std::shared_ptr<StreamCall> call) {
  parts.blocking.Post([parts, job, step, call = std::move(call)] {
    auto opened = ExportFile::Open(job, step);
    if (!opened.ok()) return call->End(opened.status());
    auto file = std::make_shared<ExportFile>(*std::move(opened));
    call->SetOnDrained([parts, file, call] { parts.blocking.Post([file, call] { SendChunk(file, call); }); });
    SendChunk(file, call);
  });
}

}  // namespace shardmax
