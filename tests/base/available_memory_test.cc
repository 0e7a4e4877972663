#include "worker/base/available_memory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace shardmax {
namespace {

namespace fs = std::filesystem;

// A system of files as the kernel shows it.
class AvailableMemoryTest : public ::testing::Test {
 protected:
  AvailableMemoryTest() : root_(fs::path(::testing::TempDir()) / "shardmax-memory") {
    fs::remove_all(root_);
    Write("proc/meminfo", "MemTotal:       24000 kB\nMemFree:          100 kB\nMemAvailable:   20000 kB\n");
  }
  ~AvailableMemoryTest() override { fs::remove_all(root_); }

  void Write(const std::string& path, const std::string& content) const {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << content;
  }
  void Limit(const std::string& group, const std::string& max, const std::string& used,
             const std::string& cached) const {
    Write("sys/fs/cgroup" + group + "/memory.max", max + "\n");
    Write("sys/fs/cgroup" + group + "/memory.current", used + "\n");
    Write("sys/fs/cgroup" + group + "/memory.stat", "anon 5\ninactive_file " + cached + "\n");
  }
  int64_t Bytes() const { return AvailableMemoryBytes(root_); }

  const fs::path root_;
};

TEST_F(AvailableMemoryTest, IsWhatTheSystemSaysWhereNothingIsLimited) {
  EXPECT_EQ(Bytes(), 20'000 * 1024);
  Write("proc/self/cgroup", "1:cpu:/x\n0::/\n");
  EXPECT_EQ(Bytes(), 20'000 * 1024);
  Write("proc/self/cgroup", "0::/a/b\n");
  Limit("/a/b", "max", "7", "1");
  EXPECT_EQ(Bytes(), 20'000 * 1024);
}

TEST_F(AvailableMemoryTest, IsWhatTheTightestGroupLeaves) {
  Write("proc/self/cgroup", "0::/a/b\n");
  Limit("/a/b", "10000000", "4000000", "1000000");
  EXPECT_EQ(Bytes(), 7'000'000);
  Limit("/a", "9000000", "8000000", "500000");
  EXPECT_EQ(Bytes(), 1'500'000);
  Limit("", "9000000", "8999999", "0");
  EXPECT_EQ(Bytes(), 1);
  Limit("", "9000000", "9500000", "0");
  EXPECT_EQ(Bytes(), 0);
}

TEST_F(AvailableMemoryTest, IsNothingWhereTheSystemDoesNotSay) {
  fs::remove_all(root_);
  EXPECT_EQ(Bytes(), 0);
}

TEST(MachineId, IsTheSameForEveryCall) {
  EXPECT_EQ(MachineId(), MachineId());
}

}  // namespace
}  // namespace shardmax
