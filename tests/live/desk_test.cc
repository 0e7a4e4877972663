#include "worker/live/desk.h"

#include <gmock/gmock.h>

#include "worker/base/status.h"
#include "worker/live/step_answers.h"
#include "worker/live/wire.h"

namespace shardmax {
namespace {

using testing::HasSubstr;

// Keeps what it is sent.
class Link final : public TrainerLink {
 public:
  void Send(SharedMessage message) override { inbox.push_back(std::move(message)); }
  void Close(const absl::Status& status) override {
    if (!closed.has_value()) closed = status;
  }

  v1::HeadMessage Next() {
    if (inbox.empty()) {
      ADD_FAILURE() << "nothing was sent";
      return {};
    }
    const v1::HeadMessage message = *inbox.front();
    inbox.erase(inbox.begin());
    return message;
  }

  std::vector<SharedMessage> inbox;
  std::optional<absl::Status> closed;
};

class Counts final : public LiveObserver {
 public:
  void OnTrainers(int connected) override { trainers = connected; }
  void OnReceived(int64_t /*bytes*/) override {}
  void OnSent(int64_t /*bytes*/) override {}
  void OnRefused(absl::StatusCode /*code*/) override { ++refused; }
  void OnResent() override { ++resent; }
  void OnWaited(double /*seconds*/) override {}

  int trainers = 0, refused = 0, resent = 0;
};

// Trainers 2 and 3 of 4 on rank 1 of 2.
class DeskTest : public testing::Test {
 protected:
  DeskTest() {
    desk_.SetEndpoints({"a:1", "b:2"});
    Open(5);
  }

  void Open(int64_t steps_done) {
    desk_.Open({.id = "job-1",
                .name = "job",
                .attempt = 2,
                .shape = {.num_classes = 9, .dim = 2, .max_rows = 8},
                .trainers = 4,
                .total_steps = 100,
                .rank = 1,
                .ranks = 2},
               steps_done);
  }

  std::shared_ptr<Link> Come(int trainer, bool says_received = true) {
    auto link = std::make_shared<Link>();
    v1::TrainerHello hello;
    hello.set_trainer(trainer);
    hello.set_says_received(says_received);
    const absl::Status status = desk_.Connect(hello, link);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(link->Next().has_welcome());
    return link;
  }

  absl::Status Greet(int trainer, const std::string& job) {
    v1::TrainerHello hello;
    hello.set_trainer(trainer);
    hello.set_job(job);
    return desk_.Connect(hello, std::make_shared<Link>());
  }

  static v1::TrainerMessage StepMessage(int32_t step, float value = 1) {
    v1::TrainerMessage message;
    v1::StepRequest& request = *message.mutable_step();
    request.set_step(step);
    request.set_rows(1);
    request.set_type(v1::WIRE_FLOAT32);
    const std::vector<float> features = {value, 2};
    request.set_features(EncodeValues(features, v1::WIRE_FLOAT32));
    request.set_labels(std::string(4, '\0'));
    return message;
  }

  void Bring(const std::shared_ptr<Link>& link, int32_t step, float value = 1) {
    EXPECT_TRUE(desk_.Handle(link, StepMessage(step, value)).ok());
  }

  void AskToLoad(const std::shared_ptr<Link>& link, int32_t step) {
    v1::TrainerMessage message;
    message.mutable_load()->set_step(step);
    EXPECT_TRUE(desk_.Handle(link, message).ok());
  }

  // Makes the step that was offered; the gradients are 1, 2, 3, 4.
  void Make(bool last = false) {
    const auto steps = desk_.Take();
    const std::vector<float> gradients = {1, 2, 3, 4};
    const v1::StepMetrics metrics;
    desk_.Answer(MakeAnswers({.metrics = metrics}, steps, {gradients.data(), 2, 2}), last);
  }

  static void ExpectRefusal(const std::shared_ptr<Link>& link, absl::StatusCode code, const std::string& text,
                            int32_t steps_done) {
    const v1::HeadMessage message = link->Next();
    ASSERT_TRUE(message.has_refusal()) << message.ShortDebugString();
    EXPECT_EQ(message.refusal().code(), static_cast<int>(code));
    EXPECT_THAT(message.refusal().message(), HasSubstr(text));
    EXPECT_EQ(message.refusal().steps_done(), steps_done);
  }

  Counts counts_;
  LiveDesk desk_{&counts_};
};

TEST_F(DeskTest, DescribesTheJobToEverybody) {
  desk_.SetCheckpoints({2, 4});
  const auto description = desk_.Describe();
  ASSERT_TRUE(description.ok());
  EXPECT_EQ(description->ShortDebugString(),
            "job: \"job-1\" attempt: 2 num_classes: 9 dim: 2 max_rows: 8 trainers: 4 total_steps: 100 steps_done: 5 "
            "checkpoint_steps: 2 checkpoint_steps: 4 endpoints: \"a:1\" endpoints: \"b:2\"");
}

TEST_F(DeskTest, SeatsTheTrainersOfItsRankAlone) {
  EXPECT_TRUE(Greet(3, "").ok());
  EXPECT_TRUE(Greet(3, "job").ok());
  EXPECT_TRUE(Greet(3, "job-1").ok());
  EXPECT_EQ(Greet(3, "job-2"), absl::FailedPreconditionError("the job here is job-1, not the one that was asked for"));
  EXPECT_EQ(Greet(1, ""), absl::FailedPreconditionError("this is rank 1: trainer 1 of 4 connects to rank 0 at a:1"));
  for (const int trainer : {-1, 4}) {
    EXPECT_THAT(Message(Greet(trainer, "")), HasSubstr("the job has trainers 0 to 3"));
  }
  EXPECT_EQ(counts_.trainers, 1);
}

TEST_F(DeskTest, MakesAStepOfAllAndGivesEachItsRows) {
  const auto a = Come(2);
  const auto b = Come(3);
  EXPECT_EQ(counts_.trainers, 2);
  Bring(b, 5);
  EXPECT_EQ(desk_.Offer().brought, 1);
  desk_.Withdraw(kNoLoad);
  Bring(a, 5);
  desk_.Await(LiveDesk::Clock::now() + std::chrono::minutes(10));  // Returns at once.
  const RankNotice notice = desk_.Offer();
  EXPECT_EQ(notice.trainers, 2);
  EXPECT_EQ(notice.brought, 2);
  EXPECT_EQ(notice.rows, 2);
  Make();
  for (const auto& [link, values] :
       std::vector<std::pair<std::shared_ptr<Link>, std::vector<float>>>{{a, {1, 2}}, {b, {3, 4}}}) {
    const v1::StepReply reply = link->Next().step();
    EXPECT_EQ(reply.step(), 5);
    EXPECT_EQ(reply.feature_gradients(), EncodeValues(values, v1::WIRE_FLOAT32));
  }
  EXPECT_EQ(desk_.Describe()->steps_done(), 6);
  EXPECT_EQ(desk_.Offer().brought, 0);
}

TEST_F(DeskTest, AnswersAStepThatIsSentAgainFromMemory) {
  auto a = Come(2);
  const auto b = Come(3);
  Bring(a, 5);
  Bring(b, 5);
  desk_.Offer();
  Make();
  const std::string answer = a->Next().SerializeAsString();
  desk_.Disconnect(a);
  a = Come(2);
  Bring(a, 5);
  EXPECT_EQ(a->Next().SerializeAsString(), answer);
  EXPECT_EQ(counts_.resent, 1);
  Bring(a, 5, 7);
  ExpectRefusal(a, absl::StatusCode::kFailedPrecondition, "step 5 has been made with other bytes", 6);
  Bring(a, 4);
  ExpectRefusal(a, absl::StatusCode::kFailedPrecondition, "the head waits for step 6, not 4", 6);
  EXPECT_EQ(desk_.Offer().brought, 0) << "none of these is a step to make";
}

TEST_F(DeskTest, KeepsTheLastAnswerUntilAllSayThatTheyHaveIt) {
  auto a = Come(2);
  const auto b = Come(3);
  v1::TrainerMessage received;
  received.mutable_received();
  EXPECT_THAT(Message(desk_.Handle(a, received)), HasSubstr("no last answer yet"));
  Bring(a, 5);
  Bring(b, 5);
  desk_.Offer();
  Make(/*last=*/true);
  const auto now = LiveDesk::Clock::now();
  EXPECT_EQ(desk_.AwaitReceived(now), 2);
  const std::string answer = a->Next().SerializeAsString();
  desk_.Disconnect(a);
  EXPECT_TRUE(desk_.Handle(b, received).ok());
  EXPECT_EQ(b->closed, absl::OkStatus());
  EXPECT_EQ(desk_.AwaitReceived(now), 1);
  a = Come(2);
  Bring(a, 5);
  EXPECT_EQ(a->Next().SerializeAsString(), answer);
  Bring(a, 6);
  ExpectRefusal(a, absl::StatusCode::kFailedPrecondition, "the job has made its last step", 6);
  AskToLoad(a, 2);
  ExpectRefusal(a, absl::StatusCode::kFailedPrecondition, "the job has made its last step", 6);
  EXPECT_TRUE(desk_.Handle(a, received).ok());
  EXPECT_EQ(desk_.AwaitReceived(now + std::chrono::minutes(10)), 0);  // Returns at once.
  EXPECT_EQ(counts_.trainers, 0);
}

TEST_F(DeskTest, WaitsAfterTheLastAnswerOnlyForTrainersThatAnnounceToSayThatTheyHaveIt) {
  const auto a = Come(2);
  const auto b = Come(3, /*says_received=*/false);
  AskToLoad(a, 2);
  AskToLoad(b, 2);
  desk_.Offer();
  desk_.AnswerLoad(2);  // What was announced stays.
  Bring(a, 2);
  Bring(b, 2);
  desk_.Offer();
  Make(/*last=*/true);
  EXPECT_EQ(desk_.AwaitReceived(LiveDesk::Clock::now()), 1);
  desk_.Disconnect(a);
  EXPECT_EQ(desk_.AwaitReceived(LiveDesk::Clock::now()), 1) << "it may come again";
}

TEST_F(DeskTest, DropsTheStepOfATrainerThatGoes) {
  const auto a = Come(2);
  Bring(a, 5);
  desk_.Disconnect(a);
  EXPECT_EQ(desk_.Offer().brought, 0);
  EXPECT_EQ(counts_.trainers, 0);
}

TEST_F(DeskTest, KeepsTheStepOfATrainerThatGoesWhileTheRanksAgree) {
  auto a = Come(2);
  const auto b = Come(3);
  Bring(a, 5);
  Bring(b, 5);
  EXPECT_EQ(desk_.Offer().brought, 2);
  desk_.Disconnect(a);
  a = Come(2);
  Bring(a, 5, 7);
  ExpectRefusal(a, absl::StatusCode::kFailedPrecondition, "with other bytes", 5);
  Bring(a, 5);
  EXPECT_TRUE(a->inbox.empty());
  Make();
  EXPECT_TRUE(a->Next().has_step());
}

TEST_F(DeskTest, RefusesWhoRunsAhead) {
  const auto a = Come(2);
  Bring(a, 6);
  ExpectRefusal(a, absl::StatusCode::kFailedPrecondition, "the head waits for step 5, not 6", 5);
  Bring(a, 5);
  Bring(a, 6);
  ExpectRefusal(a, absl::StatusCode::kFailedPrecondition, "step 5 of this trainer is not answered yet", 5);
  EXPECT_EQ(desk_.Offer().brought, 1);
  EXPECT_EQ(counts_.refused, 2);
}

TEST_F(DeskTest, LetsAllSendARefusedStepAgain) {
  const auto a = Come(2);
  const auto b = Come(3);
  Bring(a, 5);
  Bring(b, 5, std::numeric_limits<float>::infinity());
  const RankNotice notice = desk_.Offer();
  EXPECT_EQ(notice.brought, 2) << "what is wrong is told once all are there";
  const absl::Status status = notice.verdict.From(1);
  EXPECT_THAT(Message(status), HasSubstr("rank 1: trainer 3: features row 0: column 0 is inf"));
  desk_.Refuse(status);
  for (const auto& link : {a, b}) {
    ExpectRefusal(link, absl::StatusCode::kInvalidArgument, "trainer 3", 5);
    Bring(link, 5);
  }
  EXPECT_EQ(desk_.Offer().brought, 2);
}

TEST_F(DeskTest, GivesTheSeatToTheNewestStream) {
  const auto old = Come(2);
  Bring(old, 5);
  const auto fresh = Come(2);
  ASSERT_TRUE(old->closed.has_value());
  EXPECT_TRUE(absl::IsAlreadyExists(*old->closed));
  EXPECT_EQ(desk_.Offer().brought, 0) << "the new one has not sent it";
  desk_.Withdraw(kNoLoad);
  Bring(old, 5);
  desk_.Disconnect(old);
  EXPECT_EQ(desk_.Offer().connected, 1);
  EXPECT_EQ(counts_.trainers, 1);
}

TEST_F(DeskTest, LoadsOnceAllAskForTheSame) {
  const auto a = Come(2);
  const auto b = Come(3);
  Bring(a, 5);
  AskToLoad(b, 4);
  ExpectRefusal(a, absl::StatusCode::kAborted, "checkpoint after step 4: load it too", 4);
  RankNotice notice = desk_.Offer();
  EXPECT_EQ(notice.load, 4);
  EXPECT_EQ(notice.loads, 1);
  EXPECT_EQ(notice.brought, 0);
  desk_.Withdraw(4);
  AskToLoad(a, 2);
  ExpectRefusal(b, absl::StatusCode::kAborted, "after step 2", 2);
  AskToLoad(b, 2);
  notice = desk_.Offer();
  EXPECT_EQ(notice.load, 2);
  EXPECT_EQ(notice.loads, 2);
  desk_.AnswerLoad(2);
  for (const auto& link : {a, b}) EXPECT_EQ(link->Next().load().step(), 2);
  EXPECT_EQ(desk_.Describe()->steps_done(), 2);
  Bring(a, 2);
  EXPECT_EQ(desk_.Offer().brought, 1);
}

TEST_F(DeskTest, HearsOfALoadOfAnotherRank) {
  const auto a = Come(2);
  Bring(a, 5);
  desk_.Offer();
  desk_.Withdraw(3);
  ExpectRefusal(a, absl::StatusCode::kAborted, "after step 3", 3);
  Bring(a, 5);
  ExpectRefusal(a, absl::StatusCode::kAborted, "after step 3", 3);
  desk_.Offer();
  desk_.Withdraw(kNoLoad);  // The other has gone.
  Bring(a, 5);
  EXPECT_EQ(desk_.Offer().brought, 1);
}

TEST_F(DeskTest, ForgetsTheLoadOfATrainerThatGoes) {
  const auto a = Come(2);
  const auto b = Come(3);
  AskToLoad(b, 4);
  desk_.Disconnect(b);
  Bring(a, 5);
  EXPECT_TRUE(a->inbox.empty());
  EXPECT_EQ(desk_.Offer().load, kNoLoad);
}

TEST_F(DeskTest, SaysThatThereIsNoSuchCheckpointAndChangesNothing) {
  const auto a = Come(2);
  const auto b = Come(3);
  AskToLoad(a, 4);
  AskToLoad(b, 4);
  desk_.Offer();
  desk_.RefuseLoad(absl::NotFoundError("no checkpoint of step 4"));
  for (const auto& link : {a, b}) ExpectRefusal(link, absl::StatusCode::kNotFound, "of step 4", 5);
  Bring(a, 5);
  EXPECT_EQ(desk_.Offer().brought, 1);
}

TEST_F(DeskTest, WaitsNoLongerThanItIsTold) {
  Come(2);
  const auto start = LiveDesk::Clock::now();
  desk_.Await(start + std::chrono::milliseconds(20));
  EXPECT_GE(LiveDesk::Clock::now(), start + std::chrono::milliseconds(20));
}

TEST_F(DeskTest, ClosesStreamsWithTheJobAndSeatsThemInTheNext) {
  const auto a = Come(2);
  desk_.Close(absl::UnavailableError("over"));
  EXPECT_EQ(a->closed, absl::UnavailableError("over"));
  EXPECT_EQ(desk_.Describe().status(), absl::FailedPreconditionError("no live job runs here"));
  EXPECT_EQ(Greet(2, ""), absl::FailedPreconditionError("no live job runs here"));
  Bring(a, 5);
  EXPECT_TRUE(a->inbox.empty());
  Open(7);
  Bring(Come(2), 7);
  EXPECT_EQ(desk_.Offer().brought, 1);
}

TEST_F(DeskTest, AsksTrainersToComeAgainWhileAJobIsPrepared) {
  desk_.Close(absl::OkStatus());
  desk_.Expect();
  EXPECT_TRUE(absl::IsUnavailable(desk_.Describe().status()));
  EXPECT_TRUE(absl::IsUnavailable(Greet(2, "")));
  Open(0);
  EXPECT_TRUE(Greet(2, "").ok());
}

TEST_F(DeskTest, LimitsMessagesToWhatTheJobCanUse) {
  EXPECT_EQ(desk_.MaxMessageBytes(), (64U << 10) + 8 * (2 * 4 + 4));
  desk_.Close(absl::OkStatus());
  EXPECT_EQ(desk_.MaxMessageBytes(), 64U << 10);
}

TEST_F(DeskTest, TellsRatesThatDiffer) {
  const auto a = Come(2);
  const auto b = Come(3);
  v1::TrainerMessage message = StepMessage(5);
  message.mutable_step()->set_lr(0.1);
  EXPECT_TRUE(desk_.Handle(a, message).ok());
  message.mutable_step()->set_lr(0.2);
  EXPECT_TRUE(desk_.Handle(b, message).ok());
  EXPECT_THAT(Message(desk_.Offer().verdict.From(1)), HasSubstr("lr is 0.1 of trainer 2, but 0.2 of trainer 3"));
}

}  // namespace
}  // namespace shardmax
