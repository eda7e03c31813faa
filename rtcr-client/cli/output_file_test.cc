#include "rtcr-client/cli/output_file.h"

#include <gtest/gtest.h>

#include <sys/stat.h>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace cms::cli {
namespace {

namespace fs = std::filesystem;

class OutputFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "output_file_test_XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  static std::string content_of(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream content;
    content << file.rdbuf();
    return content.str();
  }
  std::size_t file_count() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  fs::path folder_{};
};

TEST_F(OutputFileTest, AppearsOnlyWhenItIsFinished) {
  const fs::path path = folder_ / "checkpoint";
  auto file = OutputFile::create(path);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE((*file)->write("state", 5).ok());
  EXPECT_FALSE(fs::exists(path));
  ASSERT_TRUE((*file)->finish().ok());
  EXPECT_EQ(content_of(path), "state");
  EXPECT_EQ(file_count(), 1U);
  EXPECT_EQ(fs::status(path).permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

TEST_F(OutputFileTest, LeavesTheOldOneAndNothingElseWhenItIsGivenUp) {
  const fs::path path = folder_ / "checkpoint";
  std::ofstream(path) << "old";
  {
    auto file = OutputFile::create(path);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE((*file)->write("half", 4).ok());
  }
  EXPECT_EQ(content_of(path), "old");
  EXPECT_EQ(file_count(), 1U);
}

TEST_F(OutputFileTest, ReplacesTheFileThatALinkNamesNotTheLink) {
  std::ofstream(folder_ / "real") << "old";
  fs::create_symlink(folder_ / "real", folder_ / "link");
  auto file = OutputFile::create(folder_ / "link");
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE((*file)->write("new", 3).ok());
  ASSERT_TRUE((*file)->finish().ok());
  EXPECT_TRUE(fs::is_symlink(folder_ / "link"));
  EXPECT_EQ(content_of(folder_ / "real"), "new");
}

TEST_F(OutputFileTest, WritesToADeviceAndDoesNotReplaceIt) {
  auto file = OutputFile::create("/dev/null");
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE((*file)->write("x", 1).ok());
  ASSERT_TRUE((*file)->finish().ok());
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST_F(OutputFileTest, SaysWhereItCannotBeMade) {
  const auto file = OutputFile::create(folder_ / "absent" / "checkpoint");
  ASSERT_FALSE(file.ok());
  EXPECT_NE(file.error().message().find("absent/checkpoint"), std::string::npos);
}

}  // namespace
}  // namespace cms::cli
