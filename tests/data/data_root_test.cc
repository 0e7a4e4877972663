#include "worker/data/data_root.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/data/temp_folder.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

// base/x.npy, root/x.npy, root/sub/y.npy, root2/z.npy, secret.npy
class DataRootsTest : public ::testing::Test {
 protected:
  DataRootsTest() {
    for (const char* name : {"base", "root", "root/sub", "root2"}) fs::create_directory(folder_.path(name));
    for (const char* name : {"base/x.npy", "root/x.npy", "root/sub/y.npy", "root2/z.npy", "secret.npy"}) {
      folder_.Write(name, name);
    }
  }

  DataRoots Make(const std::vector<std::string>& roots) const {
    absl::StatusOr<DataRoots> made = DataRoots::Make(roots, folder_.path("base"));
    EXPECT_TRUE(made.ok()) << made.status();
    return *std::move(made);
  }

  std::string Resolved(const DataRoots& roots, const std::string& path) const {
    const absl::StatusOr<std::string> resolved = roots.Resolve("train.dataset.features", path);
    return resolved.ok() ? *resolved : Message(resolved.status());
  }

  std::string Outside(const std::string& path) const {
    return "train.dataset.features: " + path + " is outside the data roots (" + folder_.path("root") + ")";
  }

  const TempFolder folder_;
};

TEST_F(DataRootsTest, WithoutRootsEveryFileIsAllowed) {
  EXPECT_EQ(Resolved(Make({}), folder_.path("secret.npy")), folder_.path("secret.npy"));
  EXPECT_EQ(Resolved(Make({}), "../secret.npy"), folder_.path("secret.npy"));
}

TEST_F(DataRootsTest, WithoutRootsRelativePathsStartAtTheJobFile) {
  EXPECT_EQ(Resolved(Make({}), "x.npy"), folder_.path("base/x.npy"));
}

TEST_F(DataRootsTest, WithoutRootsTheCurrentFolderComesSecond) {
  const fs::path before = fs::current_path();
  fs::current_path(folder_.path("root"));
  EXPECT_EQ(Resolved(Make({}), "x.npy"), folder_.path("base/x.npy"));
  EXPECT_EQ(Resolved(Make({}), "sub/y.npy"), folder_.path("root/sub/y.npy"));
  fs::current_path(before);
}

TEST_F(DataRootsTest, RelativePathsAreLookedForInEachRoot) {
  const DataRoots roots = Make({folder_.path("root"), folder_.path("root2")});
  EXPECT_EQ(Resolved(roots, "x.npy"), folder_.path("root/x.npy"));
  EXPECT_EQ(Resolved(roots, "z.npy"), folder_.path("root2/z.npy"));
  EXPECT_EQ(Resolved(roots, "./sub/../sub//y.npy"), folder_.path("root/sub/y.npy"));
  EXPECT_EQ(Resolved(roots, folder_.path("root2/z.npy")), folder_.path("root2/z.npy"));
}

TEST_F(DataRootsTest, AFolderMayBeResolved) {
  EXPECT_EQ(Resolved(Make({folder_.path("root")}), "sub"), folder_.path("root/sub"));
}

TEST_F(DataRootsTest, RefusesDotDotOutOfTheRoot) {
  EXPECT_EQ(Resolved(Make({folder_.path("root")}), "../secret.npy"), Outside("../secret.npy"));
  EXPECT_EQ(Resolved(Make({folder_.path("root")}), "sub/../../secret.npy"), Outside("sub/../../secret.npy"));
}

TEST_F(DataRootsTest, RefusesAbsolutePathOutsideTheRoot) {
  const absl::Status status = Make({folder_.path("root")}).Resolve("f", folder_.path("secret.npy")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Resolved(Make({folder_.path("root")}), folder_.path("secret.npy")), Outside(folder_.path("secret.npy")));
  // A name that only begins like the root's.
  EXPECT_EQ(Resolved(Make({folder_.path("root")}), folder_.path("root2/z.npy")), Outside(folder_.path("root2/z.npy")));
}

TEST_F(DataRootsTest, RefusesLinksOutOfTheRoot) {
  fs::create_symlink(folder_.path("secret.npy"), folder_.path("root/link.npy"));
  fs::create_directory_symlink(folder_.path("root2"), folder_.path("root/folder"));
  EXPECT_EQ(Resolved(Make({folder_.path("root")}), "link.npy"), Outside("link.npy"));
  EXPECT_EQ(Resolved(Make({folder_.path("root")}), "folder/z.npy"), Outside("folder/z.npy"));
  // ".." after a link is the parent of what the link points to.
  EXPECT_EQ(Resolved(Make({folder_.path("root")}), "folder/../secret.npy"), Outside("folder/../secret.npy"));
}

TEST_F(DataRootsTest, FollowsLinksThatStayInside) {
  fs::create_symlink("sub/y.npy", folder_.path("root/link.npy"));
  EXPECT_EQ(Resolved(Make({folder_.path("root")}), "link.npy"), folder_.path("root/sub/y.npy"));
}

TEST_F(DataRootsTest, ARootMayBeALink) {
  fs::create_directory_symlink(folder_.path("root"), folder_.path("data"));
  const DataRoots roots = Make({folder_.path("data")});
  EXPECT_EQ(Resolved(roots, "x.npy"), folder_.path("root/x.npy"));
  EXPECT_EQ(Resolved(roots, folder_.path("data/x.npy")), folder_.path("root/x.npy"));
}

TEST_F(DataRootsTest, DoesNotTellWhetherAFileOutsideExists) {
  EXPECT_EQ(Resolved(Make({folder_.path("root")}), folder_.path("none.npy")), Outside(folder_.path("none.npy")));
}

TEST_F(DataRootsTest, MissingFileSaysWhereItWasLookedFor) {
  const absl::Status status = Make({}).Resolve("f", "none.npy").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Message(status), "f: none.npy: no such file in " + folder_.path("base") + " or the current folder");
  EXPECT_EQ(Message(Make({folder_.path("root"), folder_.path("root2")}).Resolve("f", "none.npy").status()),
            "f: none.npy: no such file in " + folder_.path("root") + ", " + folder_.path("root2"));
  EXPECT_EQ(Message(Make({}).Resolve("f", "/none.npy").status()), "f: /none.npy: no such file");
}

TEST_F(DataRootsTest, RefusesEmptyPathAndZeroByte) {
  EXPECT_EQ(Message(Make({}).Resolve("f", "").status()), "f is empty, a path is needed");
  EXPECT_EQ(Message(Make({}).Resolve("f", std::string("x.npy\0y", 7)).status()),
            "f holds a zero byte: \"x.npy\\x00y\"");
}

TEST_F(DataRootsTest, ALoopOfLinksIsAnError) {
  fs::create_symlink("b", folder_.path("root/a"));
  fs::create_symlink("a", folder_.path("root/b"));
  EXPECT_THAT(Resolved(Make({folder_.path("root")}), "a"), HasSubstr("train.dataset.features: a: "));
}

TEST_F(DataRootsTest, RefusesARootThatIsNoFolder) {
  EXPECT_EQ(Message(DataRoots::Make({folder_.path("none")}, folder_.path()).status()),
            "data root " + folder_.path("none") + ": No such file or directory");
  EXPECT_EQ(Message(DataRoots::Make({folder_.path("secret.npy")}, folder_.path()).status()),
            "data root " + folder_.path("secret.npy") + " is not a folder");
}

}  // namespace
}  // namespace shardmax
