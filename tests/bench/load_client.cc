// Puts load on a shardmax-server and measures what it feels; load.py runs it. Unlike shardmax::Client it tries nothing
// twice: every failure counts.
//
//   load_client queue  --server=HOST:PORT --spec=FILE --jobs=N            submits N jobs, 16 at a time
//   load_client submit --server=HOST:PORT --spec=FILE --rate=R --seconds=S  R submits a second, whatever they take
//   load_client watch  --server=HOST:PORT --job=ID --watchers=N --seconds=S   N connections, a watcher on each
//
// Prints one JSON object. A latency is counted from the moment at which its submit was due, so that a server that
// stalls is charged for all that had to wait.
#include <grpcpp/create_channel.h>
#include <grpcpp/support/client_callback.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/cpp/shardmax/client.h"
#include "rpc/channel.h"
#include "shardmax/v1/control.grpc.pb.h"

namespace shardmax {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string server = kDefaultServer;
  std::string spec;
  std::string job;
  int jobs = 1000;
  int watchers = 100;
  double rate = 50;
  double seconds = 60;
};

// One connection of its own: channels with the same arguments would share one.
std::unique_ptr<v1::JobService::Stub> Connect(const std::string& server) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return v1::JobService::NewStub(grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments));
}

// Submits that are under way, and how long they took.
class Submits {
 public:
  Submits(const std::string& server, v1::JobSpec spec) : stub_(Connect(server)), spec_(std::move(spec)) {}

  void Start(Clock::time_point due) {
    auto call = std::make_shared<Call>();
    *call->request.mutable_spec() = spec_;
    call->context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    {
      std::lock_guard lock(mutex_);
      ++under_way_;
    }
    stub_->async()->SubmitJob(&call->context, &call->request, &call->job,
                              [this, call, due](const grpc::Status& status) { Ended(status, Clock::now() - due); });
  }

  void WaitForFewerThan(int under_way) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return under_way_ < under_way; });
  }

  nlohmann::json Report() {
    WaitForFewerThan(1);
    std::sort(latencies_ms_.begin(), latencies_ms_.end());
    const auto at = [&](double share) {
      return latencies_ms_.empty() ? 0.0 : latencies_ms_[static_cast<size_t>(share * (latencies_ms_.size() - 1))];
    };
    return {{"submits", latencies_ms_.size()},
            {"failed", failed_},
            {"first_failure", first_failure_},
            {"p50_ms", at(0.5)},
            {"p99_ms", at(0.99)},
            {"max_ms", at(1)}};
  }

 private:
  struct Call {
    grpc::ClientContext context;
    v1::SubmitJobRequest request;
    v1::Job job;
  };

  void Ended(const grpc::Status& status, Clock::duration latency) {
    std::lock_guard lock(mutex_);
    latencies_ms_.push_back(std::chrono::duration<double, std::milli>(latency).count());
    if (!status.ok() && failed_++ == 0) first_failure_ = status.error_message();
    --under_way_;
    changed_.notify_all();
  }

  const std::unique_ptr<v1::JobService::Stub> stub_;
  const v1::JobSpec spec_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<double> latencies_ms_;
  int under_way_ = 0;
  int failed_ = 0;
  std::string first_failure_;
};

class Watcher : public grpc::ClientReadReactor<v1::Job> {
 public:
  Watcher(const std::string& server, const std::string& job) : stub_(Connect(server)) {
    request_.set_job(job);
    stub_->async()->WatchJob(&context_, &request_, this);
    StartRead(&job_);
    StartCall();
  }

  // Ends the stream and waits for that. Whether it was still open, and the messages that came.
  std::pair<bool, int> Stop() {
    context_.TryCancel();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_; });
    return {status_.error_code() == grpc::StatusCode::CANCELLED, messages_};
  }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;
    {
      std::lock_guard lock(mutex_);
      ++messages_;
    }
    StartRead(&job_);
  }

  void OnDone(const grpc::Status& status) override {
    std::lock_guard lock(mutex_);
    status_ = status;
    done_ = true;
    changed_.notify_all();
  }

  const std::unique_ptr<v1::JobService::Stub> stub_;
  grpc::ClientContext context_;
  v1::WatchJobRequest request_;
  v1::Job job_;
  std::mutex mutex_;
  std::condition_variable changed_;
  grpc::Status status_;
  int messages_ = 0;
  bool done_ = false;
};

nlohmann::json Queue(const Options& options, const v1::JobSpec& spec) {
  Submits submits(options.server, spec);
  for (int i = 0; i < options.jobs; ++i) {
    submits.WaitForFewerThan(16);
    submits.Start(Clock::now());
  }
  return submits.Report();
}

nlohmann::json Submit(const Options& options, const v1::JobSpec& spec) {
  Submits submits(options.server, spec);
  const Clock::time_point start = Clock::now();
  for (int i = 0; i < options.rate * options.seconds; ++i) {
    const auto due =
        start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(i / options.rate));
    std::this_thread::sleep_until(due);
    submits.Start(due);
  }
  nlohmann::json report = submits.Report();
  report["seconds"] = std::chrono::duration<double>(Clock::now() - start).count();
  return report;
}

nlohmann::json Watch(const Options& options) {
  std::vector<std::unique_ptr<Watcher>> watchers;
  for (int i = 0; i < options.watchers; ++i) watchers.push_back(std::make_unique<Watcher>(options.server, options.job));
  std::this_thread::sleep_for(std::chrono::duration<double>(options.seconds));
  int open = 0;
  int messages = 0;
  int fewest = 1 << 30;
  for (const auto& watcher : watchers) {
    const auto [was_open, count] = watcher->Stop();
    open += was_open ? 1 : 0;
    messages += count;
    fewest = std::min(fewest, count);
  }
  return {{"watchers", options.watchers}, {"open_at_the_end", open}, {"messages", messages}, {"fewest", fewest}};
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Puts load on a shardmax-server.", "load_client");
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--server", options.server);
  CLI::App* queue = app.add_subcommand("queue", "Submit many jobs");
  queue->add_option("--spec", options.spec)->required();
  queue->add_option("--jobs", options.jobs);
  CLI::App* submit = app.add_subcommand("submit", "Submit at a steady rate");
  submit->add_option("--spec", options.spec)->required();
  submit->add_option("--rate", options.rate);
  submit->add_option("--seconds", options.seconds);
  CLI::App* watch = app.add_subcommand("watch", "Watch a job many times over");
  watch->add_option("--job", options.job)->required();
  watch->add_option("--watchers", options.watchers);
  watch->add_option("--seconds", options.seconds);
  CLI11_PARSE(app, argc, argv);

  nlohmann::json report;
  if (watch->parsed()) {
    report = Watch(options);
  } else {
    const auto spec = LoadJobSpec(options.spec);
    if (!spec.ok()) {
      std::fprintf(stderr, "load_client: %s\n", std::string(spec.status().message()).c_str());
      return 2;
    }
    report = queue->parsed() ? Queue(options, *spec) : Submit(options, *spec);
  }
  std::printf("%s\n", report.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace shardmax

int main(int argc, char** argv) {
  return shardmax::Main(argc, argv);
}
