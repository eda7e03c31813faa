#include "base/result.h"

#include <cerrno>
#include <memory>

#include <gtest/gtest.h>

namespace cms {
namespace {

TEST(ResultTest, HoldsAValueOrAnError) {
  const Result<int> value = 7;
  ASSERT_TRUE(value.ok());
  EXPECT_TRUE(static_cast<bool>(value));
  EXPECT_EQ(*value, 7);

  const Result<int> error = make_error(Code::kNotFound, "blob 7");
  ASSERT_FALSE(error.ok());
  EXPECT_EQ(error.error().code, Code::kNotFound);
  EXPECT_EQ(error.error().context, "blob 7");
}

TEST(ResultTest, GivesAwayAValueThatOnlyMoves) {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(7);
  const std::unique_ptr<int> taken = std::move(result).value();
  EXPECT_EQ(*taken, 7);
}

TEST(StatusTest, IsOkUntilAnErrorSaysOtherwise) {
  EXPECT_TRUE(ok_status().ok());
  EXPECT_EQ(ok_status().code(), Code::kOk);
  const Status failed = make_error(Code::kNoSpace, "write");
  EXPECT_FALSE(failed.ok());
  EXPECT_EQ(failed.code(), Code::kNoSpace);
  EXPECT_EQ(failed.error().context, "write");
}

TEST(ResultDeathTest, StopsWhenTheWrongSideIsRead) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Result<int> value = 7;
  const Result<int> error = make_error(Code::kIo, "read");
  EXPECT_DEATH((void)value.error(), "");
  EXPECT_DEATH((void)error.value(), "");
  EXPECT_DEATH((void)ok_status().error(), "");
}

TEST(ErrorTest, MessageNamesCodeContextAndErrno) {
  EXPECT_EQ((Error{Code::kNoSpace, ENOSPC, "write /store/f"}).message(),
            "no space: write /store/f: No space left on device");
  EXPECT_EQ(make_error(Code::kFenced, "epoch 4 < 5").message(), "fenced: epoch 4 < 5");
  EXPECT_EQ(make_error(Code::kTimeout, "").message(), "timeout");
}

TEST(ErrorTest, ErrnoBecomesWhatTheCallerCanDo) {
  const auto code_of = [](int os_errno) { return error_from_errno(os_errno, "x").code; };
  EXPECT_EQ(code_of(ENOSPC), Code::kNoSpace);
  EXPECT_EQ(code_of(EDQUOT), Code::kQuota);
  EXPECT_EQ(code_of(ENOENT), Code::kNotFound);
  EXPECT_EQ(code_of(EEXIST), Code::kAlreadyExists);
  EXPECT_EQ(code_of(EROFS), Code::kReadOnly);
  EXPECT_EQ(code_of(EACCES), Code::kPermission);
  EXPECT_EQ(code_of(EPERM), Code::kPermission);
  EXPECT_EQ(code_of(EIO), Code::kIo);
  EXPECT_EQ(error_from_errno(EIO, "x").os_errno, EIO);
}

// The numbers cross the wire and stand in logs: a change here breaks peers of other versions.
TEST(CodeTest, NumbersAreForEver) {
  const Code codes[] = {
      Code::kOk,         Code::kInvalidArgument, Code::kNotFound,    Code::kAlreadyExists, Code::kUnavailable,
      Code::kIo,         Code::kNoSpace,         Code::kQuota,       Code::kCorrupt,       Code::kReadOnly,
      Code::kPermission, Code::kForeign,         Code::kUnsupported, Code::kLimit,         Code::kSuperseded,
      Code::kFenced,     Code::kSourceChanged,   Code::kTimeout,     Code::kCancelled,     Code::kProtocol,
      Code::kWithdrawn,  Code::kPublisherGone};
  int number = 0;
  for (const Code code : codes) {
    EXPECT_EQ(static_cast<int>(code), number) << to_string(code);
    EXPECT_NE(to_string(code), "unknown code") << number;
    ++number;
  }
  EXPECT_EQ(to_string(static_cast<Code>(number)), "unknown code");
}

}  // namespace
}  // namespace cms
