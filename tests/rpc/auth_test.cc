#include "rpc/auth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "tests/data/temp_folder.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// Of the token "abc".
constexpr char kAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

std::string MessageOf(const std::string& text) {
  const auto entries = ParseTokens(text, "tokens");
  EXPECT_EQ(entries.status().code(), absl::StatusCode::kInvalidArgument);
  return Message(entries.status());
}

TEST(ParseTokensTest, ReadsRolesNamesAndComments) {
  const auto entries = ParseTokens(std::string("# team\n\nadmin ann ") + kAbc + " # her laptop\r\n", "tokens");
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 1u);
  EXPECT_EQ(entries->front().role, Role::kAdmin);
  EXPECT_EQ(entries->front().name, "ann");
  EXPECT_EQ(entries->front().hash[0], 0xba);
  EXPECT_EQ(entries->front().hash[31], 0xad);
}

TEST(ParseTokensTest, MistakesNameTheLineAndNeverRepeatWhatMayBeAToken) {
  const std::string good = std::string("viewer v ") + kAbc + "\n";
  EXPECT_EQ(MessageOf(good + "root ann " + kAbc),
            "tokens, line 2: the role \"root\" is none of viewer, submitter, admin, worker");
  EXPECT_THAT(MessageOf("viewer a/b " + std::string(kAbc)), HasSubstr("tokens, line 1: the name \"a/b\" is not"));
  EXPECT_EQ(MessageOf("viewer ann"), "tokens, line 1: give ROLE NAME SHA256HEX");
  EXPECT_EQ(MessageOf(good + good), "tokens, line 2: this hash stands in a line before");
  EXPECT_THAT(MessageOf("viewer ann smx_secret"), Not(HasSubstr("secret")));
  EXPECT_THAT(MessageOf("viewer ann smx_secret"), HasSubstr("not 64 hexadecimal digits"));
  EXPECT_EQ(MessageOf("# nobody\n"), "tokens: holds no token, so nobody could call");
}

TEST(MakeTokenTest, MakesRandomTokensThatTheirLineAdmits) {
  const auto first = MakeToken("submitter:ann");
  const auto second = MakeToken("submitter:ann");
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_THAT(first->token, StartsWith("smx_"));
  EXPECT_EQ(first->token.size(), 4u + 43u) << "256 bits in base64";
  EXPECT_NE(first->token, second->token);
  EXPECT_THAT(first->line, StartsWith("submitter ann "));
  EXPECT_THAT(first->line, Not(HasSubstr(first->token)));
  TempFolder folder;
  const auto authenticator = Authenticator::Make(folder.Write("tokens", first->line + "\n"));
  ASSERT_TRUE(authenticator.ok()) << authenticator.status();
  const std::string bearer = "Bearer " + first->token;
  const std::string_view value = bearer;
  const auto caller = (*authenticator)->Admit(&value, Need::kSubmit);
  ASSERT_TRUE(caller.ok()) << caller.status();
  EXPECT_EQ(caller->name, "ann");
}

TEST(MakeTokenTest, RefusesWhatIsNotARoleAndAName) {
  EXPECT_THAT(Message(MakeToken("ann").status()), HasSubstr("is not ROLE:NAME"));
  EXPECT_THAT(Message(MakeToken("root:ann").status()), HasSubstr("none of viewer"));
  EXPECT_THAT(Message(MakeToken("admin:").status()), HasSubstr("the name \"\""));
}

class AuthenticatorTest : public ::testing::Test {
 protected:
  AuthenticatorTest() {
    for (const char* role : {"viewer", "submitter", "admin", "worker"}) {
      const auto token = MakeToken(std::string(role) + ":" + role);
      tokens_[role] = token->token;
      text_ += token->line + "\n";
    }
    file_ = folder_.Write("tokens", text_);
    authenticator_ = *Authenticator::Make(file_);
  }

  absl::StatusCode Code(std::optional<std::string> authorization, Need need) {
    if (!authorization) return authenticator_->Admit(nullptr, need).status().code();
    const std::string_view value = *authorization;
    return authenticator_->Admit(&value, need).status().code();
  }

  TempFolder folder_;
  std::string text_;
  std::string file_;
  std::map<std::string, std::string> tokens_;
  std::unique_ptr<Authenticator> authenticator_;
};

TEST_F(AuthenticatorTest, EachRoleMayDoWhatItIsFor) {
  const std::map<std::string, std::vector<Need>> allowed = {{"viewer", {Need::kView}},
                                                            {"submitter", {Need::kView, Need::kSubmit}},
                                                            {"admin", {Need::kView, Need::kSubmit}},
                                                            {"worker", {Need::kPool}}};
  for (const auto& [role, needs] : allowed) {
    for (const Need need : {Need::kView, Need::kSubmit, Need::kPool}) {
      const bool may = std::count(needs.begin(), needs.end(), need) != 0;
      EXPECT_EQ(Code("Bearer " + tokens_[role], need),
                may ? absl::StatusCode::kOk : absl::StatusCode::kPermissionDenied)
          << role << " " << static_cast<int>(need);
    }
  }
}

TEST_F(AuthenticatorTest, OnlyAWholeValidTokenAuthenticates) {
  const std::string token = tokens_["admin"];
  const auto refused = absl::StatusCode::kUnauthenticated;
  EXPECT_EQ(Code(std::nullopt, Need::kView), refused);
  EXPECT_EQ(Code("", Need::kView), refused);
  EXPECT_EQ(Code(token, Need::kView), refused);
  EXPECT_EQ(Code("Basic " + token, Need::kView), refused);
  EXPECT_EQ(Code("Bearer ", Need::kView), refused);
  EXPECT_EQ(Code("Bearer " + token.substr(1), Need::kView), refused);
  EXPECT_EQ(Code("Bearer " + token + "x", Need::kView), refused);
  EXPECT_EQ(Code("Bearer " + std::string(100'000, 'x'), Need::kView), refused);
}

TEST_F(AuthenticatorTest, AFileThatIsReadAgainChangesWhoMayCall) {
  const std::string bearer = "Bearer " + tokens_["viewer"];
  const std::string_view value = bearer;
  const Caller caller = *authenticator_->Admit(&value, Need::kView);
  EXPECT_TRUE(authenticator_->StillValid(caller));
  folder_.Write("tokens", "nonsense\n");
  EXPECT_EQ(authenticator_->Reload().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Code(bearer, Need::kView), absl::StatusCode::kOk) << "the tokens of before stay";
  folder_.Write("tokens", text_.substr(text_.find('\n') + 1));
  ASSERT_TRUE(authenticator_->Reload().ok());
  EXPECT_EQ(Code(bearer, Need::kView), absl::StatusCode::kUnauthenticated);
  EXPECT_FALSE(authenticator_->StillValid(caller));
  EXPECT_EQ(Code("Bearer " + tokens_["admin"], Need::kView), absl::StatusCode::kOk);
}

TEST(CallerTest, OwnersAndAdminsMayChangeAJob) {
  EXPECT_TRUE((Caller{.name = "ann", .role = Role::kSubmitter}).MayChange("ann"));
  EXPECT_FALSE((Caller{.name = "ann", .role = Role::kSubmitter}).MayChange("bob"));
  EXPECT_FALSE((Caller{.name = "ann", .role = Role::kSubmitter}).MayChange(""));
  EXPECT_TRUE((Caller{.name = "ann", .role = Role::kAdmin}).MayChange("bob"));
  EXPECT_TRUE((Caller{.anonymous = true}).MayChange("bob"));
}

}  // namespace
}  // namespace shardmax
