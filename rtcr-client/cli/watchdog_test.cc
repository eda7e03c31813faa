// The watchdog as enforcer: when it is kicked, what of a driver is refused, and what the guard makes of it. The devices
// are fakes: a real one would reset the host.
#include "rtcr-client/cli/watchdog.h"

#include <gtest/gtest.h>
#include <linux/watchdog.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <new>
#include <optional>
#include <thread>

#include "rtcr-client/cli/arguments.h"

namespace cms::cli {
namespace {

namespace fs = std::filesystem;
using std::chrono::duration_cast;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

// Far ahead of the kernel's clock, whose timers a kick uses.
const Instant kStart = BootClock::now() + std::chrono::hours(1);

// ---- when to kick

LeaseTerms nothing_runs_until(Instant end) { return {end, kNever}; }
LeaseTerms enforced_from(Instant end) { return {end, end}; }

TEST(WatchdogRuleTest, WithoutALeaseAndWithNothingToStopItIsKicked) {
  EXPECT_EQ(kick_allowed_until(kStart, LeaseTerms{}, seconds(2)), kNever);
}

TEST(WatchdogRuleTest, WhatIsToStopHasBeenEndedATenthLessThanASecondAfterTheLease) {
  const Instant end = kStart + seconds(5);
  // Of T_stop, 1 s, a clock that is slow by a tenth counts 0.9 s.
  const auto until = [&](Duration timeout) {
    return duration_cast<milliseconds>(kick_allowed_until(kStart, enforced_from(end), timeout) - kStart);
  };
  EXPECT_EQ(until(seconds(1)), milliseconds(4900));
  EXPECT_EQ(until(seconds(2)), milliseconds(3900));
  EXPECT_EQ(until(seconds(4)), milliseconds(1900));
}

TEST(WatchdogRuleTest, AfterTheLeaseItIsNotKickedWhileSomethingMayRun) {
  const Instant end = kStart + seconds(5);
  const LeaseTerms ended{kNever, end};
  EXPECT_LT(kick_allowed_until(end + seconds(1), ended, seconds(2)), end);
  EXPECT_EQ(kick_allowed_until(end + seconds(1), LeaseTerms{}, seconds(2)), kNever) << "all stands still";
}

TEST(WatchdogRuleTest, TheEndOfAFormerLeaseCountsAlsoWhileTheNextOneLives) {
  const LeaseTerms both{kStart + seconds(9), kStart + seconds(1)};
  EXPECT_LT(kick_allowed_until(kStart, both, seconds(2)), kStart);
}

// Else a program that is started just before the end would be covered only by a kick of before that.
TEST(WatchdogRuleTest, WhileALeaseLivesItIsAsIfSomethingRan) {
  const Instant end = kStart + seconds(5);
  const LeaseTerms idle = nothing_runs_until(end);
  EXPECT_EQ(kick_allowed_until(kStart, idle, seconds(2)),
            kick_allowed_until(kStart, enforced_from(end), seconds(2)));
  EXPECT_EQ(kick_allowed_until(end, idle, seconds(2)), kNever) << "whether the broker has said so or not";
}

TEST(WatchdogRuleTest, OfALeaseThereMustBeTimeToKick) {
  EXPECT_EQ(watchdog_timeout_max(seconds(5)), seconds(4));
  EXPECT_EQ(watchdog_timeout_max(seconds(3)), seconds(2));
  EXPECT_EQ(watchdog_timeout_max(milliseconds(1100)), seconds(1));
  EXPECT_EQ(watchdog_timeout_max(seconds(1)), seconds(0));
}

// ---- devices

struct FakeDriver {
  std::uint32_t options = WDIOF_SETTIMEOUT | WDIOF_KEEPALIVEPING | WDIOF_MAGICCLOSE;
  bool is_watchdog = true;
  bool tells_timeout = true;
  int timeout = 60;                                                                 // Before it is set.
  std::function<std::optional<int>(int)> take = [](int wanted) { return wanted; };  // nullopt: EINVAL
  std::function<void()> on_kick = [] {};
};
// Lies in memory that a forked guard shares with its test.
struct Seen {
  std::atomic<int> kicks{0};
  std::atomic<Duration::rep> last_kick_ns{0};
  std::atomic<int> disarms{0};
  std::atomic<int> closes{0};
};

class FakeDevice final : public WatchdogDevice {
 public:
  FakeDevice(FakeDriver driver, Seen& seen) : driver_(std::move(driver)), seen_(seen) {}
  ~FakeDevice() override { FakeDevice::close(); }

  Result<std::uint32_t> options() override {
    if (!driver_.is_watchdog) return error_from_errno(ENOTTY, "/dev/fake: WDIOC_GETSUPPORT");
    return driver_.options;
  }
  Status set_timeout(seconds timeout) override {
    const auto taken = driver_.take(static_cast<int>(timeout.count()));
    if (!taken) return error_from_errno(EINVAL, "/dev/fake: WDIOC_SETTIMEOUT");
    driver_.timeout = *taken;
    return ok_status();
  }
  Result<seconds> timeout() override {
    if (!driver_.tells_timeout) return error_from_errno(EOPNOTSUPP, "/dev/fake: WDIOC_GETTIMEOUT");
    return seconds(driver_.timeout);
  }
  Status kick() override {
    driver_.on_kick();
    seen_.last_kick_ns = BootClock::now().time_since_epoch().count();
    ++seen_.kicks;
    return ok_status();
  }
  Status disarm() override {
    ++seen_.disarms;
    return ok_status();
  }
  void close() override {
    if (!std::exchange(closed_, true)) ++seen_.closes;
  }

 private:
  FakeDriver driver_;
  Seen& seen_;
  bool closed_ = false;
};

Result<std::unique_ptr<Watchdog>> start(const FakeDriver& driver, Seen& seen,
                                        Duration lease_length = kLeaseLength) {
  return Watchdog::start(std::make_unique<FakeDevice>(driver, seen), "/dev/fake", lease_length);
}
seconds timeout_of(const FakeDriver& driver) {
  Seen seen;
  const auto watchdog = start(driver, seen);
  EXPECT_TRUE(watchdog.ok()) << watchdog.error().message();
  return watchdog.ok() ? (*watchdog)->timeout() : seconds(0);
}
// It is closed then, and off.
std::string refusal_of(const FakeDriver& driver, Code code, Duration lease_length = kLeaseLength) {
  Seen seen;
  const auto watchdog = start(driver, seen, lease_length);
  EXPECT_FALSE(watchdog.ok());
  if (watchdog.ok()) return "";
  EXPECT_EQ(watchdog.error().code, code);
  EXPECT_EQ(seen.closes, 1);
  EXPECT_EQ(seen.disarms, driver.is_watchdog ? 1 : 0);
  return watchdog.error().message();
}
void expect_says(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

TEST(WatchdogDriverTest, ItHasTheTimeoutThatTheDriverHasTaken) {
  EXPECT_EQ(timeout_of(FakeDriver{}), seconds(2));
  FakeDriver coarse;
  coarse.take = [](int wanted) { return (wanted + 3) / 4 * 4; };
  EXPECT_EQ(timeout_of(coarse), seconds(4));
  FakeDriver picky;
  picky.take = [](int wanted) { return wanted < 4 ? std::nullopt : std::optional(wanted); };
  EXPECT_EQ(timeout_of(picky), seconds(4));
  FakeDriver fixed;
  fixed.take = [](int) { return std::nullopt; };
  fixed.timeout = 3;
  EXPECT_EQ(timeout_of(fixed), seconds(3));
}

TEST(WatchdogDriverTest, WhatIsTooLongIsRefusedWithTheNumbersAndSwitchedOff) {
  FakeDriver coarse;
  coarse.take = [](int) { return 10; };
  const std::string text = refusal_of(coarse, Code::kLimit);
  expect_says(text, "/dev/fake: its timeout is 10 s; ");
  expect_says(text, "a run lease of 5.0 s");
  expect_says(text, "within 5.9 s");
  expect_says(text, "1 to 4 s are allowed");
  FakeDriver fixed;
  fixed.take = [](int) { return std::nullopt; };
  expect_says(refusal_of(fixed, Code::kLimit), "its timeout is 60 s, and it takes no other");
  FakeDriver none;
  none.take = [](int) { return 0; };
  expect_says(refusal_of(none, Code::kLimit), "its timeout is 0 s");
  FakeDriver just_too_long;
  just_too_long.take = [](int) { return 5; };
  refusal_of(just_too_long, Code::kLimit);
}

TEST(WatchdogDriverTest, ALeaseThatLeavesNoWholeSecondIsRefused) {
  const std::string text = refusal_of(FakeDriver{}, Code::kLimit, seconds(1));
  expect_says(text, "a run lease of 1.0 s");
  expect_says(text, "less than 1 s");
}

TEST(WatchdogDriverTest, WhatDoesNotBiteForAGuardThatIsKilledIsRefused) {
  FakeDriver forgiving;
  forgiving.options = WDIOF_SETTIMEOUT | WDIOF_KEEPALIVEPING;
  expect_says(refusal_of(forgiving, Code::kUnsupported), "WDIOF_MAGICCLOSE");
  FakeDriver alarm;
  alarm.options |= WDIOF_ALARMONLY;
  expect_says(refusal_of(alarm, Code::kUnsupported), "WDIOF_ALARMONLY");
  FakeDriver silent;
  silent.tells_timeout = false;
  expect_says(refusal_of(silent, Code::kUnsupported), "WDIOC_GETTIMEOUT");
}

TEST(WatchdogDriverTest, WhatIsNoWatchdogIsNotWrittenTo) {
  FakeDriver other;
  other.is_watchdog = false;
  expect_says(refusal_of(other, Code::kInvalidArgument), "it is no watchdog");
}

class WatchdogPathTest : public testing::Test {
 protected:
  WatchdogPathTest() {
    std::string name = testing::TempDir() + "watchdog_test_XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  ~WatchdogPathTest() override { fs::remove_all(folder_); }
  static Error refusal_of(const std::string& path) {
    const auto opened = Watchdog::open(path);
    EXPECT_FALSE(opened.ok()) << path;
    return opened.ok() ? Error{} : opened.error();
  }
  fs::path folder_{};
};

TEST_F(WatchdogPathTest, FilesAndFifosAreNoneAndStayAsTheyAre) {
  const std::string file = folder_ / "file";
  std::ofstream(file) << "mine";
  EXPECT_EQ(refusal_of(file).code, Code::kInvalidArgument);
  expect_says(refusal_of(file).message(), file + ": not a character device, such as /dev/watchdog");
  std::ifstream back(file);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(back), {}), "mine");
  const std::string fifo = folder_ / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(refusal_of(fifo).code, Code::kInvalidArgument);
  EXPECT_EQ(refusal_of(folder_).code, Code::kInvalidArgument);
}

TEST_F(WatchdogPathTest, ACharacterDeviceThatIsNoneIsRefused) {
  const Error error = refusal_of("/dev/null");
  EXPECT_EQ(error.code, Code::kInvalidArgument);
  expect_says(error.message(), "/dev/null: WDIOC_GETSUPPORT: it is no watchdog");
}

TEST_F(WatchdogPathTest, WhatIsMissingOrForbiddenSaysSo) {
  const std::string missing = folder_ / "missing";
  EXPECT_EQ(refusal_of(missing).code, Code::kNotFound);
  expect_says(refusal_of(missing).message(), missing);
  const std::string closed = folder_ / "closed";
  fs::create_directory(closed);
  std::ofstream(closed + "/file") << "";
  fs::permissions(closed, fs::perms::none);
  const bool is_root = ::geteuid() == 0;
  ASSERT_EQ(::seteuid(is_root ? 65534 : ::geteuid()), 0);  // Root may do all.
  const Error error = refusal_of(closed + "/file");
  ASSERT_EQ(::seteuid(is_root ? 0 : ::geteuid()), 0);
  EXPECT_EQ(error.code, Code::kPermission);
  expect_says(error.message(), closed + "/file");
}

// ---- the arithmetic, in virtual time

// What an ECU and its watchdog go through; each by its own clock, which is `rate` of real time.
class Bitten {
 public:
  Bitten(seconds timeout, double watchdog_rate) : rate_(watchdog_rate) {
    FakeDriver driver;
    driver.take = [timeout](int) { return static_cast<int>(timeout.count()); };
    watchdog_ = std::move(start(driver, seen_)).value();
  }
  // Runs by the ECU's clock for so long; `lease_at`: what the guard is told.
  void run(Duration duration, const std::function<LeaseTerms(Instant now)>& lease_at) {
    for (const Instant end = now_ + duration; now_ < end; now_ += milliseconds(5)) {
      if (now_ - kicked_at_ > bites_after()) ++bites_;
      const int before = seen_.kicks;
      (void)watchdog_->look(now_, lease_at(now_));
      if (seen_.kicks != before) kicked_at_ = now_;
    }
  }
  Instant now() const { return now_; }
  int bites() const { return bites_; }
  Instant kicked_at() const { return kicked_at_; }
  Duration bites_after() const { return duration_cast<Duration>(watchdog_->timeout() / rate_); }

 private:
  const double rate_;
  Seen seen_;
  std::unique_ptr<Watchdog> watchdog_;
  Instant now_ = kStart;
  Instant kicked_at_ = kStart;
  int bites_ = 0;
};

// The lease of an ECU that beats each second, with every answer `late`, until the last beat at `last`.
LeaseTerms renewed(Instant now, Duration late, Instant last) {
  Instant sent = kStart + std::chrono::floor<seconds>(now - late - kStart);
  sent = std::min(sent, last);
  const Instant end = sent + seconds(5);
  return now < end ? enforced_from(end) : LeaseTerms{kNever, end};
}

TEST(WatchdogArithmeticTest, NeverBitesWhileAnswersComeInTime) {
  for (const seconds timeout : {seconds(1), seconds(2), seconds(3), seconds(4)}) {
    for (const double rate : {0.9, 1.0, 1.1}) {
      for (const milliseconds late : {milliseconds(5), milliseconds(300), milliseconds(800)}) {
        Bitten ecu(timeout, rate);
        ecu.run(seconds(30), [&](Instant now) { return renewed(now, late, kNever); });
        EXPECT_EQ(ecu.bites(), 0) << timeout.count() << " s, rate " << rate << ", " << late.count() << " ms";
      }
    }
  }
}

// Whatever the guard does: after its last kick it may be gone.
TEST(WatchdogArithmeticTest, HasBittenBeforeAnybodyMaySayLost) {
  for (const seconds timeout : {seconds(1), seconds(2), seconds(3), seconds(4)}) {
    Bitten ecu(timeout, 0.9);
    const Instant last = kStart + seconds(10);
    ecu.run(seconds(14), [&](Instant now) { return renewed(now, milliseconds(5), last); });
    // The ECU's clock and the watchdog's are both slow.
    const Duration bitten_at = duration_cast<Duration>((ecu.kicked_at() - last + timeout) * 1.1);
    EXPECT_GT(ecu.kicked_at(), last) << timeout.count();
    EXPECT_LE(bitten_at, milliseconds(6500)) << "(1+r) T_fence + T_stop";
    EXPECT_LT(bitten_at, milliseconds(7200)) << "(1-r) T_dead: the soonest bar";
  }
}

TEST(WatchdogArithmeticTest, TheLeaseMayEndAndTheGuardHasItsTurnFirst) {
  for (const double rate : {0.9, 1.0, 1.1}) {
    Bitten ecu(kWatchdogTimeout, rate);
    const Instant last = kStart + seconds(10);
    const Instant end = last + seconds(5);
    const auto stopped_after = [&](Duration patience) {
      return [&, patience](Instant now) {
        return now < end + patience ? renewed(now, milliseconds(5), last) : LeaseTerms{};
      };
    };
    ecu.run(seconds(30), stopped_after(kGuardPatience));
    EXPECT_EQ(ecu.bites(), 0) << "rate " << rate;
  }
}

TEST(WatchdogArithmeticTest, NothingToStopIsNoReasonToBite) {
  Bitten ecu(kWatchdogTimeout, 1.1);
  const Instant last = kStart + seconds(10);
  ecu.run(seconds(30),
          [&](Instant now) { return nothing_runs_until(renewed(now, milliseconds(5), last).enforce_at); });
  EXPECT_EQ(ecu.bites(), 0) << "the broker stands still, too: it has not even said that the lease is over";
}

// ---- in a guard

class WatchdogGuardTest : public testing::Test {
 protected:
  WatchdogGuardTest() {
    void* const memory =
        ::mmap(nullptr, sizeof(Seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(memory, MAP_FAILED);
    seen_ = new (memory) Seen;
  }
  ~WatchdogGuardTest() override { ::munmap(seen_, sizeof(Seen)); }

  // A process of its own, which ends with what it returns.
  static pid_t in_child(const std::function<int()>& run) {
    const pid_t pid = ::fork();
    EXPECT_GE(pid, 0);
    if (pid == 0) ::_exit(run());
    return pid;
  }
  pid_t guard(const std::function<int(GuardLink&)>& broker) const {
    return in_child([&] {
      auto watchdog = start(FakeDriver{}, *seen_);
      return run_with_guard(broker, watchdog->get());
    });
  }
  // How a process ended: its exit code, or 128 + the signal; -1: not before long.
  static int end_of(pid_t pid) {
    int status = 0;
    for (const Instant end = BootClock::now() + seconds(30); ::waitpid(pid, &status, WNOHANG) == 0;) {
      std::this_thread::yield();
      if (BootClock::now() < end) continue;
      ::kill(pid, SIGKILL);
      ::waitpid(pid, &status, 0);
      return -1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  void wait_for_kicks(int more) const {
    const int count = seen_->kicks + more;
    for (const Instant end = BootClock::now() + seconds(30); seen_->kicks < count && BootClock::now() < end;)
      std::this_thread::yield();
    EXPECT_GE(seen_->kicks, count);
  }

  Seen* seen_ = nullptr;
};

TEST_F(WatchdogGuardTest, IsKickedAndDisarmedWhenTheBrokerHasEndedInOrder) {
  const pid_t pid = guard([this](GuardLink&) {
    wait_for_kicks(3);
    return seen_->closes == 1 ? 7 : 8;
  });
  EXPECT_EQ(end_of(pid), 7) << "the broker has it open, too";
  EXPECT_GE(seen_->kicks, 3);
  EXPECT_EQ(seen_->disarms, 1);
  EXPECT_EQ(seen_->closes, 2);
}

TEST_F(WatchdogGuardTest, StaysArmedWhenSomethingIsLeftToBeEnforced) {
  const pid_t pid = guard([](GuardLink& link) {
    const Instant end = BootClock::now() + seconds(5);
    link.tell({end, end});
    return 0;
  });
  EXPECT_EQ(end_of(pid), 0);
  EXPECT_EQ(seen_->disarms, 0);
}

TEST_F(WatchdogGuardTest, StaysArmedWhenTheBrokerIsKilled) {
  const pid_t pid = guard([](GuardLink&) { return ::raise(SIGKILL); });
  EXPECT_EQ(end_of(pid), kExitFailed);
  EXPECT_EQ(seen_->disarms, 0);
}

TEST_F(WatchdogGuardTest, StaysArmedWhenTheGuardIsKilled) {
  std::array<int, 2> broker_lives{};
  ASSERT_EQ(::pipe(broker_lives.data()), 0);
  const pid_t pid = guard([](GuardLink&) { return ::pause(); });
  ::close(broker_lives[1]);
  wait_for_kicks(1);
  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  EXPECT_EQ(end_of(pid), 128 + SIGKILL);
  char byte = 0;
  EXPECT_EQ(::read(broker_lives[0], &byte, 1), 0) << "until the broker has ended";
  ::close(broker_lives[0]);
  EXPECT_EQ(seen_->disarms, 0);
}

TEST_F(WatchdogGuardTest, IsNotKickedAnyMoreWellBeforeTheEndOfALeaseThatNobodyRenews) {
  const Instant end = BootClock::now() + milliseconds(2500);
  const pid_t pid = guard([end](GuardLink& link) {
    link.tell({end, end});
    return ::pause();
  });
  EXPECT_EQ(end_of(pid), kExitFailed);
  EXPECT_GT(BootClock::now(), end + kGuardPatience);
  EXPECT_GT(seen_->kicks, 0);
  EXPECT_LE(Instant(Duration(seen_->last_kick_ns)), end + milliseconds(900) - seconds(2));
  EXPECT_EQ(seen_->disarms, 0);
}

// Stopped between its look at the clock and the kick, for longer than it may kick: that kick never comes, not even when
// it goes on in time for the watchdog.
TEST_F(WatchdogGuardTest, AKickThatWouldBeLateNeverComes) {
  const pid_t pid = in_child([this] {
    FakeDriver driver;
    driver.on_kick = [] { ::raise(SIGSTOP); };
    auto watchdog = start(driver, *seen_);
    const Instant now = BootClock::now();
    const Instant end = now + milliseconds(300) + seconds(2) - kBittenAfterLeaseMax;
    (void)(*watchdog)->look(now, {end, end});
    return 0;
  });
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, WUNTRACED), pid);
  ASSERT_TRUE(WIFSTOPPED(status)) << status;
  EXPECT_EQ(end_of(pid), 128 + SIGKILL) << "nobody has let it go on";
  EXPECT_EQ(seen_->kicks, 0);
}

TEST_F(WatchdogGuardTest, AKickInTimeLeavesTheGuardAlive) {
  const pid_t pid = in_child([this] {
    auto watchdog = start(FakeDriver{}, *seen_);
    const Instant now = BootClock::now();
    const Instant end = now + milliseconds(50) + seconds(2) - kBittenAfterLeaseMax;
    (void)(*watchdog)->look(now, {end, end});
    while (BootClock::now() < now + milliseconds(100)) std::this_thread::yield();
    return 0;
  });
  EXPECT_EQ(end_of(pid), 0);
  EXPECT_EQ(seen_->kicks, 1);
}

}  // namespace
}  // namespace cms::cli
