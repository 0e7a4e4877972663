// Watching, logs, metrics, checkpoints and exports.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/checkpoint/small_checkpoint.h"
#include "tests/server/server_fixture.h"
#include "tests/support/spawn_ranks.h"

namespace shardmax {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <typename Message>
struct Stream {
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<Message>> reader;

  // All that comes until the end, which is expected to be OK.
  std::vector<Message> Rest() {
    std::vector<Message> messages;
    for (Message message; reader->Read(&message);) messages.push_back(message);
    const grpc::Status status = reader->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    return messages;
  }
  Message Next() {
    Message message;
    EXPECT_TRUE(reader->Read(&message));
    return message;
  }
  grpc::Status End() {
    for (Message message; reader->Read(&message);) {
    }
    return reader->Finish();
  }
};

// Two ranks write the sample checkpoint of a step.
void WriteSmallCheckpoint(const std::string& checkpoints, int step) {
  SpawnRanks(2, [&](Communicator& comm) { EXPECT_TRUE(WriteSample(comm, checkpoints, step).ok()); });
}

class StreamsTest : public ServerFixture {
 protected:
  StreamsTest() { StartServer(); }

  std::unique_ptr<Stream<v1::Job>> Watch(const std::string& job) {
    auto stream = std::make_unique<Stream<v1::Job>>();
    Prepare(stream->context);
    v1::WatchJobRequest request;
    request.set_job(job);
    stream->reader = jobs_->WatchJob(&stream->context, request);
    return stream;
  }

  std::unique_ptr<Stream<v1::LogLine>> Follow(const std::string& job, int64_t after = 0) {
    auto stream = std::make_unique<Stream<v1::LogLine>>();
    Prepare(stream->context);
    v1::StreamLogsRequest request;
    request.set_job(job);
    request.set_follow(true);
    request.set_after_sequence(after);
    stream->reader = jobs_->StreamLogs(&stream->context, request);
    return stream;
  }

  std::unique_ptr<Stream<v1::StepMetrics>> Steps(const std::string& job, bool follow, int after = 0) {
    auto stream = std::make_unique<Stream<v1::StepMetrics>>();
    Prepare(stream->context);
    v1::StreamMetricsRequest request;
    request.set_job(job);
    request.set_follow(follow);
    request.set_after_step(after);
    stream->reader = jobs_->StreamMetrics(&stream->context, request);
    return stream;
  }

  std::unique_ptr<Stream<v1::ExportChunk>> Export(const std::string& job, int step = 0) {
    auto stream = std::make_unique<Stream<v1::ExportChunk>>();
    Prepare(stream->context);
    v1::ExportCheckpointRequest request;
    request.set_job(job);
    request.set_step(step);
    stream->reader = jobs_->ExportCheckpoint(&stream->context, request);
    return stream;
  }

  static std::string Line(int step) { return "{\"step\":" + std::to_string(step) + ",\"epoch\":0,\"loss\":0.5}\n"; }

  static std::vector<int> StepsOf(const std::vector<v1::StepMetrics>& metrics) {
    std::vector<int> steps;
    for (const v1::StepMetrics& step : metrics) steps.push_back(step.step());
    return steps;
  }

  // A job that runs on pool_.
  v1::Job RunJob() {
    const v1::Job job = Submit(Spec("a"));
    pool_ = NewPool("p", "s1");
    EXPECT_TRUE(pool_->AwaitAssignment().has_value());
    std::filesystem::create_directories(job.folder());
    return job;
  }

  std::unique_ptr<ScriptedPool> pool_;
};

TEST_F(StreamsTest, AWatcherSeesTheJobToItsEnd) {
  const std::string id = Submit(Spec("a")).id();
  const auto watch = Watch("a");
  const v1::Job first = watch->Next();
  EXPECT_EQ(first.state(), v1::PENDING);
  EXPECT_TRUE(first.has_spec());
  pool_ = NewPool("p", "s1");
  ASSERT_TRUE(pool_->AwaitAssignment().has_value());
  const v1::Job second = watch->Next();
  EXPECT_EQ(second.state(), v1::RUNNING);
  EXPECT_FALSE(second.has_spec());
  pool_->SendProgress(id, 1, 5, 10);
  EXPECT_EQ(watch->Next().progress().step(), 5);
  pool_->SendEnded(id, 1, v1::JobEnded::OUTCOME_SUCCEEDED, "done");
  const std::vector<v1::Job> rest = watch->Rest();
  ASSERT_FALSE(rest.empty());
  EXPECT_EQ(rest.back().state(), v1::SUCCEEDED);
  EXPECT_EQ(rest.back().reason(), "done");
  EXPECT_EQ(Watch("a")->Rest().size(), 1u) << "of a final job there is one message";
}

TEST_F(StreamsTest, AWatcherGetsAFewOfManyStepsAndTheNewestInTheEnd) {
  const std::string id = RunJob().id();
  const auto watch = Watch("a");
  watch->Next();
  for (int step = 1; step <= 2000; ++step) pool_->SendProgress(id, 1, step, 2000);
  int messages = 0;
  for (int step = 0; step < 2000; ++messages) step = watch->Next().progress().step();
  EXPECT_LT(messages, 500);
}

TEST_F(StreamsTest, WatchingAnUnknownJobIsAnError) {
  const grpc::Status status = Watch("nothing")->End();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(StreamsTest, AShutdownEndsStreamsWithUnavailable) {
  RunJob();
  const auto watch = Watch("a");
  watch->Next();
  const auto log = Follow("a");
  log->Next();
  std::thread shutdown([this] { server_->Shutdown(); });
  for (const grpc::Status& status : {watch->End(), log->End(), pool_->AwaitEnd()}) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_EQ(status.error_message(), "the server shuts down; jobs go on: connect again");
  }
  shutdown.join();
}

TEST_F(StreamsTest, AFollowedLogGoesOnUntilTheJobEnds) {
  const std::string id = RunJob().id();
  const auto log = Follow("a");
  EXPECT_EQ(log->Next().text(), "submitted; waits for a pool");
  EXPECT_EQ(log->Next().text(), "runs on pool p (2 ranks), attempt 1");
  pool_->SendLog(id, 1, 1, "hello");
  const v1::LogLine hello = log->Next();
  EXPECT_EQ(hello.text(), "hello");
  EXPECT_EQ(hello.source(), "p");
  EXPECT_EQ(hello.attempt(), 1);
  pool_->SendEnded(id, 1, v1::JobEnded::OUTCOME_SUCCEEDED, "done");
  const std::vector<v1::LogLine> rest = log->Rest();
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_EQ(rest[0].text(), "done");
  EXPECT_EQ(rest[0].sequence(), 4);
  EXPECT_EQ(Follow("a", 3)->Rest().size(), 1u);
}

TEST_F(StreamsTest, ALongLogArrivesWholeAndInOrder) {
  const std::string id = RunJob().id();
  for (int number = 1; number <= 1000; ++number) pool_->SendLog(id, 1, number, std::to_string(number));
  ASSERT_TRUE(Eventually([&] { return Log("a").back().text() == "1000"; }));
  const std::vector<v1::LogLine> lines = Log("a");
  ASSERT_EQ(lines.size(), 1002u);
  for (int number = 1; number <= 1000; ++number) {
    EXPECT_EQ(lines[static_cast<size_t>(number) + 1].text(), std::to_string(number));
  }
}

TEST_F(StreamsTest, MetricsAreReadFromTheJobsFolder) {
  const v1::Job job = RunJob();
  EXPECT_TRUE(Steps("a", false)->Rest().empty()) << "there is no file yet";
  std::ofstream file(job.folder() + "/metrics.jsonl");
  for (int step = 1; step <= 3000; ++step) file << Line(step);
  file << "{\"step\": 30";  // Being written.
  file.flush();
  const auto all = Steps("a", false)->Rest();
  ASSERT_EQ(all.size(), 3000u);
  EXPECT_EQ(all.back().step(), 3000);
  EXPECT_EQ(all.back().loss(), 0.5);
  EXPECT_THAT(StepsOf(Steps("a", false, 2998)->Rest()), ElementsAre(2999, 3000));
}

TEST_F(StreamsTest, FollowedMetricsGiveEachStepOnceAlthoughAResumedJobWritesSomeAgain) {
  const v1::Job job = RunJob();
  const std::string path = job.folder() + "/metrics.jsonl";
  std::ofstream(path) << Line(1) << Line(2) << Line(3);
  const auto steps = Steps("a", true);
  EXPECT_EQ(steps->Next().step(), 1);
  EXPECT_EQ(steps->Next().step(), 2);
  EXPECT_EQ(steps->Next().step(), 3);
  // As a resumed job does: cut, then the same steps and more, in lines of another length.
  std::filesystem::resize_file(path, Line(1).size());
  std::ofstream(path, std::ios::app) << "{\"step\":2,\"epoch\":0,\"loss\":0.25,\"lr\":1}\n" << Line(3) << Line(4);
  pool_->SendProgress(job.id(), 1, 4, 10);
  EXPECT_EQ(steps->Next().step(), 4);
  std::ofstream(path, std::ios::app) << Line(5);
  pool_->SendEnded(job.id(), 1, v1::JobEnded::OUTCOME_SUCCEEDED);
  EXPECT_THAT(StepsOf(steps->Rest()), ElementsAre(5));
}

TEST_F(StreamsTest, CheckpointsAreListedFoundAndExported) {
  const v1::Job job = RunJob();
  const std::string checkpoints = job.folder() + "/checkpoints";
  for (const int step : {10, 20}) WriteSmallCheckpoint(checkpoints, step);
  std::filesystem::create_directories(checkpoints + "/step-00000030");  // Damaged: empty.
  std::filesystem::create_directories(checkpoints + "/.tmp-step-00000040");

  grpc::ClientContext context;
  Prepare(context);
  v1::ListCheckpointsRequest request;
  request.set_job("a");
  v1::ListCheckpointsResponse list;
  ASSERT_TRUE(jobs_->ListCheckpoints(&context, request, &list).ok());
  ASSERT_EQ(list.checkpoints_size(), 2);
  EXPECT_EQ(list.checkpoints(0).step(), 20);
  EXPECT_EQ(list.checkpoints(0).job(), job.id());
  EXPECT_EQ(list.checkpoints(0).folder(), checkpoints + "/step-00000020");
  EXPECT_GT(list.checkpoints(0).bytes(), 0);
  EXPECT_TRUE(list.checkpoints(0).has_written());
  EXPECT_EQ(list.checkpoints(1).step(), 10);

  const auto get = [&](int step, v1::CheckpointInfo* info) {
    grpc::ClientContext get_context;
    Prepare(get_context);
    v1::GetCheckpointRequest get_request;
    get_request.set_job("a");
    get_request.set_step(step);
    return jobs_->GetCheckpoint(&get_context, get_request, info);
  };
  v1::CheckpointInfo info;
  ASSERT_TRUE(get(0, &info).ok());
  EXPECT_EQ(info.step(), 20);
  EXPECT_EQ(get(15, &info).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(get(15, &info).error_message(), "job a-1 has no checkpoint of step 15");
  EXPECT_EQ(get(-1, &info).error_code(), grpc::StatusCode::INVALID_ARGUMENT);

  const std::vector<v1::ExportChunk> chunks = Export("a", 10)->Rest();
  ASSERT_FALSE(chunks.empty());
  EXPECT_EQ(chunks[0].step(), 10);
  std::string bytes;
  for (const v1::ExportChunk& chunk : chunks) bytes += chunk.data();
  EXPECT_EQ(chunks[0].total_bytes(), static_cast<int64_t>(bytes.size()));
  const auto file = SafetensorsFile::Open(folder_.Write("export.safetensors", bytes));
  ASSERT_TRUE(file.ok()) << file.status();
  const int64_t classes = info.manifest().num_classes();
  const int64_t dim = info.manifest().dim();
  ASSERT_TRUE(file->CheckMatrix("weight", classes, dim).ok());
  std::vector<float> exported(static_cast<size_t>(classes * dim));
  std::vector<float> stored(exported.size());
  ASSERT_TRUE(file->ReadRows("weight", {0, classes}, {exported.data(), classes, dim}).ok());
  const auto reader = CheckpointReader::Open(checkpoints + "/step-00000010");
  ASSERT_TRUE(reader->Read("weight", {0, classes}, {stored.data(), classes, dim}).ok());
  EXPECT_EQ(exported, stored);
}

TEST_F(StreamsTest, ADamagedCheckpointIsNotExported) {
  const v1::Job job = RunJob();
  WriteSmallCheckpoint(job.folder() + "/checkpoints", 10);
  const std::string folder = job.folder() + "/checkpoints/step-00000010";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors") continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('\x7f');
    break;
  }
  const grpc::Status status = Export("a")->End();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_THAT(status.error_message(), HasSubstr(folder));
  EXPECT_THAT(status.error_message(), HasSubstr("the file is damaged"));
}

TEST_F(StreamsTest, StreamsBeyondTheLimitsAreRefusedUntilOthersEnd) {
  StopServer();
  options_.limits.streams_of_one = 3;
  StartServer();
  Submit(Spec("a"));
  std::vector<std::unique_ptr<Stream<v1::Job>>> watches;
  for (int i = 0; i < 3; ++i) {
    watches.push_back(Watch("a"));
    watches.back()->Next();
  }
  const grpc::Status refused = Watch("a")->End();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("has 3 streams open, the limit"));
  EXPECT_EQ(Metric("shardmax_rpc_streams{method=\"JobService/WatchJob\"}"), 3);
  watches.back()->context.TryCancel();
  EXPECT_EQ(watches.back()->End().error_code(), grpc::StatusCode::CANCELLED);
  watches.pop_back();
  EXPECT_TRUE(Eventually([&] { return Metric("shardmax_rpc_streams{method=\"JobService/WatchJob\"}") == 2; }));
  EXPECT_EQ(Watch("a")->Next().state(), v1::PENDING);
}

}  // namespace
}  // namespace shardmax
