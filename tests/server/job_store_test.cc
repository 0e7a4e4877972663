#include "server/job_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <limits>

#include "server/moment.h"
#include "server/schema.h"
#include "tests/data/temp_folder.h"
#include "tests/server/job_records.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kNewest = std::numeric_limits<int64_t>::max();

class JobStoreTest : public ::testing::Test {
 protected:
  std::unique_ptr<JobStore> Open(int64_t newest_lines = 10'000) {
    auto store = JobStore::Open(file_, newest_lines);
    EXPECT_TRUE(store.ok()) << store.status();
    return *std::move(store);
  }

  static JobRecord Add(JobStore& store, const std::string& name, const std::string& key = "") {
    JobRecord record = PendingJob(name);
    record.submit_key = key;
    record.submit_digest = "d";
    EXPECT_TRUE(store.Add(record, "/jobs").ok());
    return record;
  }

  static std::vector<std::string> Ids(const absl::StatusOr<std::vector<JobRecord>>& records) {
    EXPECT_TRUE(records.ok()) << records.status();
    std::vector<std::string> ids;
    for (const JobRecord& record : *records) ids.push_back(record.job.id());
    return ids;
  }

  TempFolder folder_;
  const std::string file_ = folder_.path("shardmax.db");
};

TEST_F(JobStoreTest, AJobComesBackAsItWasWritten) {
  JobRecord record;
  {
    const auto store = Open();
    record = Add(*store, "glyphs", "key");
    Assign(record, {"p", "s1", 2}, 2'000'000);
    record.job.mutable_progress()->set_step(7);
    record.job.mutable_progress()->set_loss(0.25);
    record.job.set_total_steps(100);
    record.job.set_checkpoint_step(5);
    record.job.set_stop_requested(true);
    ASSERT_TRUE(store->Update(record).ok());
    ASSERT_TRUE(store->Commit().ok());
  }
  const auto store = Open();
  const auto found = store->Find("glyphs");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->job.DebugString(), record.job.DebugString());
  EXPECT_EQ(found->job.id(), "glyphs-1");
  EXPECT_EQ(found->job.folder(), "/jobs/glyphs-1");
  EXPECT_EQ(found->session, "s1");
  EXPECT_EQ(found->pending_since_us, record.pending_since_us);
  EXPECT_EQ(found->submit_key, "key");
}

TEST_F(JobStoreTest, ANameMeansTheNewestJobAndAnIdGoesBeforeAName) {
  const auto store = Open();
  Add(*store, "a");
  Add(*store, "a");
  Add(*store, "a-1");
  EXPECT_EQ(store->Find("a")->job.id(), "a-2");
  EXPECT_EQ(store->Find("a-1")->job.id(), "a-1");
  EXPECT_EQ(store->Find("a-1-3")->job.id(), "a-1-3");
  const absl::Status missing = store->Find("b\n").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Message(missing), "there is no job with the id or name \"b\\x0a\"");
}

TEST_F(JobStoreTest, TheNumberOfADeletedJobIsNeverGivenAgain) {
  {
    const auto store = Open();
    Add(*store, "a");
    ASSERT_TRUE(store->Remove(Add(*store, "a")).ok());
    ASSERT_TRUE(store->Commit().ok());
  }
  EXPECT_EQ(Add(*Open(), "a").job.id(), "a-3");
}

TEST_F(JobStoreTest, AKeyIsUsedOnceByEachOwner) {
  const auto store = Open();
  Add(*store, "a", "key");
  JobRecord again = PendingJob("b");
  again.submit_key = "key";
  EXPECT_EQ(store->Add(again, "/jobs").code(), absl::StatusCode::kAlreadyExists);
  again.job.set_owner("ann");
  EXPECT_TRUE(store->Add(again, "/jobs").ok());
  EXPECT_EQ((*store->FindSubmit("ann", "key"))->job.name(), "b");
  EXPECT_EQ((*store->FindSubmit("", "key"))->job.name(), "a");
  EXPECT_FALSE(store->FindSubmit("", "other")->has_value());
  Add(*store, "no-key");
  EXPECT_FALSE(store->FindSubmit("", "")->has_value());
}

TEST_F(JobStoreTest, PagesStayWhereTheyAreWhenJobsAreAdded) {
  const auto store = Open();
  for (int i = 0; i < 5; ++i) Add(*store, "a");
  const auto first = store->List({}, kNewest, 2);
  EXPECT_THAT(Ids(first), ElementsAre("a-5", "a-4"));
  Add(*store, "a");
  const auto second = store->List({}, first->back().sequence, 2);
  EXPECT_THAT(Ids(second), ElementsAre("a-3", "a-2"));
  EXPECT_THAT(Ids(store->List({}, second->back().sequence, 2)), ElementsAre("a-1"));
  EXPECT_FALSE(second->front().job.has_spec());
}

TEST_F(JobStoreTest, ListsByStateNameAndPool) {
  const auto store = Open();
  Add(*store, "a");
  JobRecord running = Add(*store, "b");
  Assign(running, {"p", "s", 1}, 0);
  ASSERT_TRUE(store->Update(running).ok());
  Add(*store, "b");
  EXPECT_THAT(Ids(store->List({.states = {v1::RUNNING}}, kNewest, 9)), ElementsAre("b-2"));
  EXPECT_THAT(Ids(store->List({.states = {v1::RUNNING, v1::PENDING}}, kNewest, 9)), ElementsAre("b-3", "b-2", "a-1"));
  EXPECT_THAT(Ids(store->List({.name = "b"}, kNewest, 9)), ElementsAre("b-3", "b-2"));
  EXPECT_THAT(Ids(store->List({.pool = "p"}, kNewest, 9)), ElementsAre("b-2"));
  EXPECT_THAT(Ids(store->List({.states = {v1::FAILED}}, kNewest, 9)), IsEmpty());
  EXPECT_EQ((*store->CountByState())[v1::PENDING], 2);
  EXPECT_EQ((*store->CountByState())[v1::RUNNING], 1);
  EXPECT_EQ((*store->CountByState())[v1::FAILED], 0);
}

TEST_F(JobStoreTest, KeepsTheNewestLinesOfAJobAndTheirNumbers) {
  const auto store = Open(3);
  const JobRecord record = Add(*store, "a");
  const JobRecord other = Add(*store, "b");
  for (int i = 1; i <= 5; ++i) {
    v1::LogLine line;
    line.set_text("line " + std::to_string(i));
    line.set_attempt(1);
    ASSERT_TRUE(store->AddLine(record, line, i).ok());
    EXPECT_EQ(line.sequence(), i);
  }
  const auto lines = store->Lines(record.sequence, 0, 10);
  ASSERT_EQ(lines->size(), 3u);
  EXPECT_EQ(lines->front().text(), "line 3");
  EXPECT_EQ(store->Lines(record.sequence, 3, 1)->front().sequence(), 4);
  EXPECT_EQ(*store->LastWorkerLine(record, 1), 5);
  EXPECT_EQ(*store->LastWorkerLine(record, 2), 0);
  EXPECT_THAT(*store->Lines(other.sequence, 0, 10), IsEmpty());
  ASSERT_TRUE(store->Remove(record).ok());
  EXPECT_THAT(*store->Lines(record.sequence, 0, 10), IsEmpty());
}

TEST_F(JobStoreTest, WhatWasCommittedIsThereAfterAKillAndNothingElse) {
  // A real process that dies without closing anything.
  const pid_t child = fork();
  if (child == 0) {
    auto store = JobStore::Open(file_);
    if (!store.ok()) _exit(1);
    JobRecord kept = PendingJob("kept");
    if (!(*store)->Add(kept, "/jobs").ok() || !(*store)->Commit().ok()) _exit(2);
    JobRecord lost = PendingJob("lost");
    if (!(*store)->Add(lost, "/jobs").ok()) _exit(3);
    raise(SIGKILL);
  }
  int how = 0;
  ASSERT_EQ(waitpid(child, &how, 0), child);
  ASSERT_TRUE(WIFSIGNALED(how)) << WEXITSTATUS(how);
  const auto store = Open();
  EXPECT_THAT(Ids(store->InState(v1::PENDING)), ElementsAre("kept-1"));
}

TEST_F(JobStoreTest, AFullDiskUndoesTheTransactionAndLeavesTheRest) {
  const auto store = Open();
  Add(*store, "a");
  ASSERT_TRUE(store->Commit().ok());
  // SQLite's own limit stands for the disk's: the same code, SQLITE_FULL.
  ASSERT_TRUE(store->database().Execute("PRAGMA max_page_count = 1").ok());
  absl::Status full;
  for (int i = 0; full.ok() && i < 1000; ++i) {
    JobRecord record = PendingJob("b", "train { dataset { features: '" + std::string(4000, 'x') + "' } }");
    full = store->Add(record, "/jobs");
  }
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(full), HasSubstr(file_));
  store->Rollback();
  EXPECT_THAT(Ids(store->InState(v1::PENDING)), ElementsAre("a-1"));
  ASSERT_TRUE(store->database().Execute("PRAGMA max_page_count = 1000000").ok());
  EXPECT_EQ(Add(*store, "c").job.id(), "c-2");
  EXPECT_TRUE(store->Commit().ok());
}

TEST_F(JobStoreTest, AnOlderSchemaIsMigratedWithItsJobs) {
  {
    auto database = Database::Open(file_);
    ASSERT_TRUE(database.ok()) << database.status();
    ASSERT_TRUE(Migrate(*database, 1).ok());
    ASSERT_TRUE(database
                    ->Execute("INSERT INTO jobs VALUES (7, 'old-7', 'old', 'ann', 3, 'done', 2, 1, 'p', '', 2, 10, 10, "
                              "20, 30, x'', 5, 5, 0, '/jobs/old-7', '', '', x'')")
                    .ok());
  }
  const auto store = Open();
  const auto found = store->Find("old");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->job.state(), v1::SUCCEEDED);
  EXPECT_EQ(found->job.owner(), "ann");
  EXPECT_EQ(ToUnixMicros(found->job.finished()), 30);
  v1::LogLine line;
  EXPECT_TRUE(store->AddLine(*found, line, 0).ok()) << "the table that version 2 brought";
  EXPECT_EQ(Add(*store, "new").job.id(), "new-8");
}

TEST_F(JobStoreTest, AFileOfANewerServerIsRefusedAndLeftAlone) {
  {
    auto database = Database::Open(file_);
    ASSERT_TRUE(database->Execute("PRAGMA user_version = 99").ok());
  }
  const absl::Status status = JobStore::Open(file_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status), HasSubstr("has schema 99"));
  auto database = Database::Open(file_);
  Query version(*database, "PRAGMA user_version");
  ASSERT_TRUE(version.Next());
  EXPECT_EQ(version.Int(0), 99);
}

TEST_F(JobStoreTest, AFileThatIsNoDatabaseIsRefused) {
  folder_.Write("shardmax.db", std::string(5000, 'x'));
  const absl::Status status = JobStore::Open(file_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(Message(status), HasSubstr(file_));
}

TEST_F(JobStoreTest, TheDatabaseIsForItsUserAlone) {
  Open();
  EXPECT_EQ(std::filesystem::status(file_).permissions() & std::filesystem::perms::all,
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

}  // namespace
}  // namespace shardmax
