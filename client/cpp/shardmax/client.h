// shardmax::Client: jobs, checkpoints and pools of one shardmax-server, from C++.
//
//   auto client = shardmax::Client::Create({.server = "head-node:7700", .tls_ca = "ca.pem", .token = token});
//   auto spec = shardmax::LoadJobSpec("job.textproto");
//   auto job = (*client)->Submit(*spec);
//   auto end = (*client)->Wait(job->id());  // end->state(): SUCCEEDED, FAILED or STOPPED
//
// What a call does and how it fails is written in shardmax/v1/control.proto; here is what the client adds.
//
// `job` is everywhere the id of a job, or a name, which means the newest job of that name.
//
// Deadlines. A call ends after its timeout at the latest, tries included, with DeadlineExceeded or with the error of
// the last try. A stream has none while it is connected; a server that is gone is noticed by keepalive within 20 s.
//
// Retries, only of Unavailable (nobody listens, or the connection broke), with exponential backoff and jitter:
//   reads           again until the timeout;
//   Submit          likewise: every submit has an idempotency key, so two tries make one job;
//   Stop            likewise: a name is first resolved to an id, and stopping twice is no error;
//   Delete, CheckpointNow
//                   are sent at most once, though they wait for a connection. Unavailable then means that it is unknown
//                   whether the call took effect: a second one could hit an older job of the same name, or write a
//                   second checkpoint;
//   streams         connect again and go on after the last message that was delivered: nothing twice, nothing lost.
//
// Errors are of the server, with its message; Unavailable and DeadlineExceeded name the address. Cancelled: the
// caller's stop token.
//
// Thread safety: all calls, from any thread. They block. Callbacks run on the calling thread and may use the client.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardmax/v1/control.pb.h"
#include "shardmax/v1/job.pb.h"

namespace shardmax {

struct ClientOptions {
  std::string server = "127.0.0.1:7700";  // HOST:PORT, or [IPv6]:PORT.
  // PEM file of the authorities that may have signed the server's certificate, or "system". Empty: no TLS.
  std::string tls_ca;
  // PEM files of the client's certificate and key, for mutual TLS: both or neither, and with tls_ca.
  std::string tls_cert;
  std::string tls_key;
  std::string token;  // Bearer token, as `shardmax-server --new_token` printed it. Empty: none.

  std::chrono::milliseconds timeout{30'000};  // Of a call that does not say otherwise.
  // Waits between tries: the first, doubled each time up to the longest, each made up to a quarter shorter at random.
  std::chrono::milliseconds first_backoff{100};
  std::chrono::milliseconds longest_backoff{1'000};
  // Told of every try that failed and will be repeated. May be empty.
  std::function<void(const absl::Status& why)> on_retry;
};

struct CallOptions {
  std::chrono::milliseconds timeout{0};  // 0: that of the client.
  std::stop_token stop;                  // Ends the call with Cancelled.
};

struct StreamOptions {
  std::stop_token stop;  // Ends the stream with Cancelled.
  // How long to try to reach a server that was reached before.
  std::chrono::milliseconds reconnect_for{600'000};
  // Told once for every time that the stream breaks, and when it is connected again. May be empty.
  std::function<void(const absl::Status& why)> on_break;
  std::function<void()> on_reconnect;
};

// Of exported weights.
enum class WeightFormat {
  kSafetensors,  // `weight`
  kNpy,
  kTorch,  // For torch.load: a state dict with `weight`.
};

// Called with each message of a stream; false ends the stream, with OK.
template <typename Message>
using OnMessage = std::function<bool(const Message&)>;

class ClientConnection;  // Not for users.

class Client {
 public:
  // Connects when the first call needs it. InvalidArgument, NotFound or PermissionDenied naming the option that is
  // wrong.
  static absl::StatusOr<std::unique_ptr<Client>> Create(ClientOptions options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // The queued job. An empty key becomes a random one; give one to make submits of several processes, or of several
  // runs of a program, one job.
  absl::StatusOr<v1::Job> Submit(const v1::JobSpec& spec, const std::string& idempotency_key = "",
                                 const CallOptions& call = {});
  absl::StatusOr<v1::Job> Get(const std::string& job, const CallOptions& call = {});
  // One page.
  absl::StatusOr<v1::ListJobsResponse> List(const v1::ListJobsRequest& request, const CallOptions& call = {});
  // All pages from that of `request` on, newest job first, at most `limit` jobs (0: all). The timeout is that of a
  // page.
  absl::StatusOr<std::vector<v1::Job>> ListAll(v1::ListJobsRequest request, int64_t limit = 0,
                                               const CallOptions& call = {});
  absl::StatusOr<v1::Job> Stop(const std::string& job, const CallOptions& call = {});
  absl::Status Delete(const std::string& job, const CallOptions& call = {});

  absl::Status CheckpointNow(const std::string& job, const CallOptions& call = {});
  absl::StatusOr<std::vector<v1::CheckpointInfo>> ListCheckpoints(const std::string& job, const CallOptions& call = {});
  // `step` 0: the newest.
  absl::StatusOr<v1::CheckpointInfo> GetCheckpoint(const std::string& job, int32_t step = 0,
                                                   const CallOptions& call = {});
  absl::StatusOr<std::vector<v1::Pool>> ListPools(const CallOptions& call = {});

  // The job now and whenever it changes, until a final state was delivered; the spec is in the first message only.
  // After a break the job as it then is comes next: states in between are not repeated.
  absl::Status Watch(const std::string& job, const OnMessage<v1::Job>& on_job, const StreamOptions& stream = {});
  // The job in its final state.
  absl::StatusOr<v1::Job> Wait(const std::string& job, const StreamOptions& stream = {});
  // Lines beyond `after_sequence`; with `follow` until the job is in a final state, else those that there are.
  absl::Status StreamLogs(const std::string& job, bool follow, const OnMessage<v1::LogLine>& on_line,
                          int64_t after_sequence = 0, const StreamOptions& stream = {});
  // Lines of metrics.jsonl beyond `after_step`; with `follow` until the job is in a final state. A job that starts
  // again from a checkpoint reports steps again.
  absl::Status StreamMetrics(const std::string& job, bool follow, const OnMessage<v1::StepMetrics>& on_step,
                             int32_t after_step = 0, const StreamOptions& stream = {});

  // What ExportCheckpoint wrote.
  struct Exported {
    int32_t step = 0;
    int64_t bytes = 0;
  };
  // Told of the bytes so far and in all. `bytes` falls back to 0 when a broken export begins again.
  using OnBytes = std::function<void(int64_t bytes, int64_t total_bytes)>;
  // Writes the weights [C, D] float32 of a checkpoint (`step` 0: the newest) to `path`: to a temporary file beside it,
  // which is renamed once it is complete and on the disk. A break begins again, with the same step. Errors of the file
  // name it; nothing is left behind.
  absl::StatusOr<Exported> ExportCheckpoint(const std::string& job, int32_t step, const std::string& path,
                                            const OnBytes& on_bytes = {}, const StreamOptions& stream = {},
                                            WeightFormat format = WeightFormat::kSafetensors);

 private:
  explicit Client(std::unique_ptr<ClientConnection> connection);
  std::unique_ptr<ClientConnection> connection_;
};

// SUCCEEDED, FAILED or STOPPED.
bool IsFinal(v1::JobState state);

// The spec in a file: textproto, or JSON if its name ends in ".json". InvalidArgument with every mistake, one a line;
// NotFound, PermissionDenied.
absl::StatusOr<v1::JobSpec> LoadJobSpec(const std::string& path);

}  // namespace shardmax
