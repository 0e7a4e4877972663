#include <optional>
#include <utility>

#include "client/cpp/connection.h"
#include "client/cpp/follow.h"
#include "client/cpp/new_file.h"
#include "client/cpp/weight_encoder.h"
#include "shardmax/client.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

// The file of an export as chunks come in.
class Download {
 public:
  Download(NewFile file, std::string path, WeightFormat format, const Client::OnBytes& on_bytes)
      : file_(std::move(file)), path_(std::move(path)), format_(format), on_bytes_(on_bytes) {}

  // The stream begins, for the first time or again.
  void Begin() {
    bytes_ = 0;
    total_bytes_ = 0;
    first_ = true;
    encoder_.emplace(format_, path_, [this](std::string_view bytes) {
      file_bytes_ += static_cast<int64_t>(bytes.size());
      return file_.Append(bytes);
    });
    file_bytes_ = 0;
    status_.Update(file_.Restart());
  }

  // False when the file cannot be written.
  bool Add(const v1::ExportChunk& chunk) {
    if (std::exchange(first_, false)) total_bytes_ = chunk.total_bytes();
    if (status_.ok()) status_ = encoder_->Add(chunk.data());
    bytes_ += static_cast<int64_t>(chunk.data().size());
    if (status_.ok() && on_bytes_) on_bytes_(bytes_, total_bytes_);
    return status_.ok();
  }

  absl::StatusOr<int64_t> Publish() {
    if (status_.ok() && bytes_ != total_bytes_) {
      status_ = Error(absl::StatusCode::kDataLoss, "the server sent {} bytes of {}", bytes_, total_bytes_);
    }
    if (status_.ok()) status_ = encoder_->End();
    if (status_.ok()) status_ = file_.Publish();
    if (!status_.ok()) return status_;
    return file_bytes_;
  }

 private:
  NewFile file_;
  std::string path_;
  WeightFormat format_;
  const Client::OnBytes& on_bytes_;
  std::optional<WeightEncoder> encoder_;  // Of this try.
  absl::Status status_;
  int64_t file_bytes_ = 0;
  int64_t bytes_ = 0;  // That came.
  int64_t total_bytes_ = 0;
  bool first_ = true;
};

}  // namespace

absl::StatusOr<Client::Exported> Client::ExportCheckpoint(const std::string& job, int32_t step, const std::string& path,
                                                          const OnBytes& on_bytes, const StreamOptions& stream,
                                                          WeightFormat format) {
  // The newest may be another one after a break.
  SHARDMAX_ASSIGN_OR_RETURN(const v1::CheckpointInfo info, GetCheckpoint(job, step, {.stop = stream.stop}));
  SHARDMAX_ASSIGN_OR_RETURN(NewFile file, NewFile::Create(path));
  Download download(std::move(file), path, format, on_bytes);
  v1::ExportCheckpointRequest request;
  request.set_job(info.job());
  request.set_step(info.step());
  SHARDMAX_RETURN_IF_ERROR(FollowStream<v1::ExportChunk>(
      *connection_, stream, info.job(),
      [&](grpc::ClientContext& context) {
        download.Begin();
        return connection_->jobs->ExportCheckpoint(&context, request);
      },
      [&](const v1::ExportChunk& chunk) { return download.Add(chunk); }, [](bool ended_ok) { return ended_ok; }));
  SHARDMAX_ASSIGN_OR_RETURN(const int64_t bytes, download.Publish());
  return Exported{.step = info.step(), .bytes = bytes};
}

}  // namespace shardmax
