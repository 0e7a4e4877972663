// The calls that make, find, stop and delete jobs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/server/server_fixture.h"

namespace shardmax {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class JobsTest : public ServerFixture {
 protected:
  JobsTest() { StartServer(); }

  grpc::Status Refused(const v1::JobSpec& spec) {
    v1::SubmitJobRequest request;
    *request.mutable_spec() = spec;
    v1::Job job;
    return TrySubmit(request, &job);
  }

  v1::ListJobsResponse List(const v1::ListJobsRequest& request, grpc::Status* status = nullptr) {
    grpc::ClientContext context;
    Prepare(context);
    v1::ListJobsResponse response;
    const grpc::Status ended = jobs_->ListJobs(&context, request, &response);
    if (status != nullptr) {
      *status = ended;
    } else {
      EXPECT_TRUE(ended.ok()) << ended.error_message();
    }
    return response;
  }

  static std::vector<std::string> Ids(const v1::ListJobsResponse& response) {
    std::vector<std::string> ids;
    for (const v1::Job& job : response.jobs()) ids.push_back(job.id());
    return ids;
  }

  grpc::Status Delete(const std::string& job) {
    grpc::ClientContext context;
    Prepare(context);
    v1::DeleteJobRequest request;
    request.set_job(job);
    v1::DeleteJobResponse response;
    return jobs_->DeleteJob(&context, request, &response);
  }
};

TEST_F(JobsTest, ASubmittedJobIsResolvedAndSurvivesTheServer) {
  const v1::Job job = Submit(Spec("glyphs"));
  EXPECT_EQ(job.id(), "glyphs-1");
  EXPECT_EQ(job.state(), v1::PENDING);
  EXPECT_EQ(job.reason(), "waits for a pool");
  EXPECT_EQ(job.folder(), options_.state_dir + "/jobs/glyphs-1");
  EXPECT_EQ(job.spec().train().loss().scale(), 32);
  EXPECT_EQ(job.spec().train().dataset().labels(), folder_.path("data/y.npy"));
  EXPECT_TRUE(job.has_submitted());
  StopServer();
  StartServer();
  EXPECT_EQ(Get("glyphs").DebugString(), job.DebugString());
  EXPECT_EQ(Submit(Spec("glyphs")).id(), "glyphs-2");
}

TEST_F(JobsTest, AllMistakesOfASpecAreToldTogether) {
  const grpc::Status status =
      Refused(Spec("../up",
                   "max_restarts: -1 train { dim: 0 dataset { features: '../x.npy' labels: 'no.npy' } "
                   "init { weights: '/etc/passwd' } }"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const std::string text = status.error_message();
  EXPECT_THAT(text, HasSubstr("name is \"../up\""));
  EXPECT_THAT(text, HasSubstr("max_restarts is -1"));
  EXPECT_THAT(text, HasSubstr("train.dim is 0"));
  EXPECT_THAT(text, HasSubstr("train.dataset.features: ../x.npy is outside the data roots"));
  EXPECT_THAT(text, HasSubstr("train.dataset.labels: no.npy: no such file in"));
  EXPECT_THAT(text, HasSubstr("train.init.weights: /etc/passwd is outside the data roots"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 5);
  EXPECT_TRUE(List({}).jobs().empty());
}

TEST_F(JobsTest, NoLinkLeadsOutOfTheDataRoots) {
  folder_.Write("secret.npy", "secret");
  std::filesystem::create_symlink(folder_.path("secret.npy"), folder_.path("data/link.npy"));
  std::filesystem::create_directory_symlink(folder_.path(), folder_.path("data/up"));
  std::filesystem::create_symlink(folder_.path("data/x.npy"), folder_.path("data/inside.npy"));
  for (const char* path : {"link.npy", "up/secret.npy", "./../secret.npy"}) {
    const grpc::Status status = Refused(Spec("a", std::string("train { dataset { features: '") + path + "' } }"));
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << path;
    EXPECT_THAT(status.error_message(), HasSubstr("is outside the data roots")) << path;
  }
  const v1::Job job = Submit(Spec("a", "train { dataset { features: 'inside.npy' } }"));
  EXPECT_EQ(job.spec().train().dataset().features(), folder_.path("data/x.npy")) << "links are resolved";
}

TEST_F(JobsTest, WeightsMayComeFromAnotherJobsFolderButDataMayNot) {
  const std::string folder = options_.state_dir + "/jobs/a-1/checkpoints/step-00000010";
  std::filesystem::create_directories(folder);
  Submit(Spec("b", "train { init { weights: '" + folder + "' } }"));
  EXPECT_THAT(Refused(Spec("b", "train { dataset { features: '" + folder + "' } }")).error_message(),
              HasSubstr("is outside the data roots"));
}

TEST_F(JobsTest, AnEvaluationIsAcceptedWithItsFilesAndRuns) {
  v1::JobSpec spec;
  spec.set_name("e");
  spec.mutable_evaluate()->set_embeddings("x.npy");
  spec.mutable_evaluate()->set_identities("../y.npy");
  spec.mutable_evaluate()->mutable_verification();
  EXPECT_THAT(Refused(spec).error_message(), HasSubstr("evaluate.identities: ../y.npy is outside"));
  spec.mutable_evaluate()->set_identities("y.npy");
  const v1::Job job = Submit(spec);
  EXPECT_EQ(job.spec().evaluate().embeddings(), folder_.path("data/x.npy"));
  auto pool = NewPool("p", "s", 4);
  EXPECT_TRUE(pool->AwaitAssignment().has_value());
}

TEST_F(JobsTest, TheSameKeyMakesOneJob) {
  v1::SubmitJobRequest request;
  *request.mutable_spec() = Spec("a");
  request.set_idempotency_key("k");
  v1::Job first;
  v1::Job second;
  ASSERT_TRUE(TrySubmit(request, &first).ok());
  // Also when the files are gone meanwhile: what counts is that the job is there.
  std::filesystem::remove(folder_.path("data/x.npy"));
  ASSERT_TRUE(TrySubmit(request, &second).ok());
  EXPECT_EQ(first.id(), second.id());
  EXPECT_EQ(List({}).jobs_size(), 1);
  request.mutable_spec()->set_priority(3);
  const grpc::Status differs = TrySubmit(request, &second);
  EXPECT_EQ(differs.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_THAT(differs.error_message(), HasSubstr("idempotency_key \"k\" was used for job a-1, whose spec differs"));
  request.set_idempotency_key("k\n");
  EXPECT_EQ(TrySubmit(request, &second).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  request.set_idempotency_key(std::string(129, 'k'));
  EXPECT_THAT(TrySubmit(request, &second).error_message(), HasSubstr("up to 128 printable ASCII characters"));
}

TEST_F(JobsTest, ThousandSubmitsAtOnceWithOneKeyMakeOneJob) {
  v1::SubmitJobRequest request;
  *request.mutable_spec() = Spec("a");
  request.set_idempotency_key("k");
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 125; ++n) {
        v1::Job job;
        EXPECT_TRUE(TrySubmit(request, &job).ok());
        EXPECT_EQ(job.id(), "a-1");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(List({}).jobs_size(), 1);
}

TEST_F(JobsTest, PagesCoverEveryJobOnceWhileOthersAreAdded) {
  for (int i = 0; i < 5; ++i) Submit(Spec("a"));
  v1::ListJobsRequest request;
  request.set_page_size(2);
  v1::ListJobsResponse page = List(request);
  EXPECT_THAT(Ids(page), ElementsAre("a-5", "a-4"));
  Submit(Spec("late"));
  request.set_page_token(page.next_page_token());
  page = List(request);
  EXPECT_THAT(Ids(page), ElementsAre("a-3", "a-2"));
  request.set_page_token(page.next_page_token());
  page = List(request);
  EXPECT_THAT(Ids(page), ElementsAre("a-1"));
  EXPECT_EQ(page.next_page_token(), "");
  EXPECT_FALSE(page.jobs(0).has_spec());

  grpc::Status status;
  request.set_page_token("x");
  List(request, &status);
  EXPECT_EQ(status.error_message(), "page_token \"x\" is not one that this server gave");
  request.Clear();
  request.set_page_size(1001);
  List(request, &status);
  EXPECT_EQ(status.error_message(), "page_size is 1001: allowed is 0 to 1000");
  request.Clear();
  request.add_states(static_cast<v1::JobState>(77));
  List(request, &status);
  EXPECT_EQ(status.error_message(), "states has 77, which is no state of a job");
  request.Clear();
  request.set_name("late");
  EXPECT_THAT(Ids(List(request)), ElementsAre("late-6"));
}

TEST_F(JobsTest, APendingJobStopsAtOnceAndIsNotPlaced) {
  Submit(Spec("a"));
  const v1::Job stopped = Stop("a");
  EXPECT_EQ(stopped.state(), v1::STOPPED);
  EXPECT_TRUE(stopped.has_finished());
  EXPECT_EQ(Stop("a").state(), v1::STOPPED) << "again is no error";
  auto pool = NewPool("p", "s");
  EXPECT_TRUE(pool->GetsNo(v1::ServerMessage::kAssignment));
}

TEST_F(JobsTest, DeletingForgetsTheJobItsLinesAndItsFolder) {
  const v1::Job job = Submit(Spec("a"));
  const grpc::Status early = Delete("a");
  EXPECT_EQ(early.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(early.error_message(), "job a-1 is PENDING: stop it before you delete it");
  Stop("a");
  std::filesystem::create_directories(job.folder() + "/checkpoints/step-00000010");
  // A link in the folder is removed, not followed.
  std::filesystem::create_directory_symlink(folder_.path("data"), job.folder() + "/link");
  ASSERT_TRUE(Delete("a").ok());
  grpc::ClientContext context;
  v1::GetJobRequest request;
  request.set_job("a-1");
  v1::Job gone;
  const grpc::Status status = jobs_->GetJob(&context, request, &gone);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "there is no job with the id or name \"a-1\"");
  EXPECT_TRUE(Eventually([&] { return std::filesystem::is_empty(options_.state_dir + "/jobs"); }));
  EXPECT_TRUE(std::filesystem::exists(folder_.path("data/x.npy")));
  EXPECT_EQ(Submit(Spec("a")).id(), "a-2");
}

TEST_F(JobsTest, WhatAnInterruptedDeleteLeftIsRemovedAtTheStart) {
  StopServer();
  std::filesystem::create_directories(options_.state_dir + "/jobs/.deleted-a-1/checkpoints");
  StartServer();
  EXPECT_TRUE(Eventually([&] { return std::filesystem::is_empty(options_.state_dir + "/jobs"); }));
}

TEST_F(JobsTest, UrgentJobsGoFirstAndThoseThatFitNowhereWait) {
  Submit(Spec("big", "min_ranks: 8"));
  Submit(Spec("plain"));
  Submit(Spec("urgent", "priority: 7"));
  auto pool = NewPool("p", "s");
  const auto first = pool->AwaitAssignment();
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->job(), "urgent-3");
  pool->SendEnded("urgent-3", 1, v1::JobEnded::OUTCOME_SUCCEEDED);
  const auto second = pool->AwaitAssignment();
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second->job(), "plain-2");
  EXPECT_EQ(Get("big").reason(), "waits for a pool of at least 8 ranks");
}

}  // namespace
}  // namespace shardmax
