#include "base/crash_point.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

namespace cms {
namespace {

void walk(int rounds) {
  for (int round = 0; round < rounds; ++round) CMS_CRASH_POINT("base_test.walked");
}

// The status of a child that arms `spec` and walks `rounds` times past the place.
int status_of_walk(const char* spec, int rounds) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (!arm_crash_point(spec)) ::_exit(2);
    walk(rounds);
    ::_exit(0);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

TEST(CrashPoint, KillsAtTheNthPassageOnly) {
  const int died = status_of_walk("base_test.walked:3", 3);
  EXPECT_TRUE(WIFSIGNALED(died));
  EXPECT_EQ(WTERMSIG(died), SIGKILL);
  const int lived = status_of_walk("base_test.walked:3", 2);
  EXPECT_TRUE(WIFEXITED(lived));
  EXPECT_EQ(WEXITSTATUS(lived), 0);
  EXPECT_TRUE(WIFSIGNALED(status_of_walk("base_test.walked", 1)));
}

TEST(CrashPoint, StopsThereUntilItIsContinued) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (!arm_crash_point("base_test.walked:2:stop")) ::_exit(2);
    walk(3);
    ::_exit(7);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, WUNTRACED), child);
  ASSERT_TRUE(WIFSTOPPED(status));
  ::kill(child, SIGCONT);
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 7) << "it goes on where it stood, and is not stopped again";
}

TEST(CrashPoint, RefusesUnknownNamesAndBadCounts) {
  EXPECT_FALSE(arm_crash_point("base_test.nowhere"));
  EXPECT_FALSE(arm_crash_point("base_test.walked:0"));
  EXPECT_FALSE(arm_crash_point("base_test.walked:x"));
  EXPECT_FALSE(arm_crash_point("base_test.walked:1:halt"));
  EXPECT_FALSE(arm_crash_point(":stop"));
  walk(1);  // nothing is armed after a refusal
  EXPECT_TRUE(arm_crash_point(""));
}

TEST(CrashPoint, NamesAreListedWithoutBeingPassed) {
  EXPECT_THAT(crash_point_names(), testing::Contains("base_test.walked"));
}

}  // namespace
}  // namespace cms
