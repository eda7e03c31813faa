// The NAS goes away and comes back under two cmsd that pull: killed and restarted, standing still, behind
// a network that swallows everything, or not there yet. Nothing that was said STORED is missing or torn,
// everything else is STORED soon after the NAS is back, no cmsd is restarted, and the status tells.
#include <gtest/gtest.h>
#include <sys/types.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <functional>

#include "test/integration/nfs_fleet.h"

namespace cms::test {
namespace {

constexpr std::size_t kSmallBytes = 4096;
constexpr std::size_t kMediumBytes = std::size_t{1} << 20;
constexpr std::size_t kLargeBytes = std::size_t{kSlowBuild ? 2 : 8} << 20;

// Quickly made, so that all are published before many are STORED, and different at every 8 bytes.
std::vector<std::uint64_t> words_of(std::uint64_t program_id, std::uint64_t generation,
                                    std::size_t size_bytes) {
  std::vector<std::uint64_t> words(size_bytes / sizeof(std::uint64_t));
  std::uint64_t word = program_id << 48 | generation << 40;
  for (std::uint64_t& one : words) one = ++word * 0x9e3779b97f4a7c15U;
  return words;
}

// Programs of several ECUs that publish together, the large ones among the small ones.
class Crowd {
 public:
  explicit Crowd(const std::string& endpoints) {
    for (int i = 1; i <= 4; ++i) {
      publishers_.push_back(std::make_unique<Publisher>(endpoints, "02:00:00:00:00:0" + std::to_string(i),
                                                        std::uint64_t{1} << 30));
    }
    for (std::uint64_t id = 1; id <= 100; ++id) {
      const std::size_t size_bytes = id % 10 == 0 ? kLargeBytes : id % 10 <= 3 ? kMediumBytes : kSmallBytes;
      programs_.push_back({publishers_[id / 10 % publishers_.size()].get(), id, size_bytes});
    }
  }

  void publish() {
    ++generation_;
    for (Program& one : programs_) one.words = words_of(one.id, generation_, one.size_bytes);
    for (Program& one : programs_) {
      rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
      checkpoint.source = RTCR_SOURCE_COPY;
      checkpoint.program_id = one.id;
      checkpoint.data = one.words.data();
      checkpoint.size_bytes = one.size_bytes;
      ASSERT_EQ(rtcr_publish(one.publisher->client(), &checkpoint, &one.seq), RTCR_OK) << rtcr_last_error();
    }
  }
  std::size_t count() const { return programs_.size(); }
  std::size_t stored_count() const {
    std::size_t count = 0;
    for (const Program& one : programs_) count += is_stored(one) ? 1 : 0;
    return count;
  }
  // Returns when so many of the first ones are STORED.
  testing::AssertionResult wait_for_first(std::size_t count) const {
    for (std::size_t i = 0; i < count; ++i) {
      if (programs_[i].publisher->wait(programs_[i].seq, RTCR_STORED, kPatience.count()) != RTCR_OK)
        return testing::AssertionFailure() << programs_[i].id << ": " << rtcr_last_error();
    }
    return testing::AssertionSuccess();
  }
  // Whether any is STORED within `timeout`.
  bool wait_for_any(milliseconds timeout) const {
    const auto start = TestClock::now();
    for (const Program& one : programs_) {
      const auto left = std::max(timeout - since(start), milliseconds(0));
      if (one.publisher->wait(one.seq, RTCR_STORED, left.count()) == RTCR_OK) return true;
    }
    return false;
  }
  void expect_all_stored(TestClock::time_point back_at, const std::function<std::string()>& log) const {
    for (const Program& one : programs_) {
      const auto left = std::max(kBackMax - since(back_at), milliseconds(0));
      ASSERT_EQ(one.publisher->wait(one.seq, RTCR_STORED, left.count()), RTCR_OK)
          << one.publisher->key(one.id) << " of " << one.size_bytes << " bytes is not STORED after "
          << since(back_at).count() << " ms, " << stored_count() << " of " << count() << " are\n"
          << log();
    }
  }
  void expect_there() const {
    for (const Program& one : programs_) {
      int status = RTCR_OK;
      const auto bytes = one.publisher->fetch_newest(one.id, one.size_bytes, status);
      ASSERT_EQ(status, RTCR_OK) << one.publisher->key(one.id) << " is missing: " << rtcr_last_error();
      ASSERT_TRUE(is_of(one, bytes)) << one.publisher->key(one.id) << " is torn";
    }
  }
  // Each from one of the two, by cms-admin.
  void expect_there_from_each(Fleet& fleet, const std::string& file) const {
    for (const Program& one : programs_) {
      const auto bytes = get_newest(fleet[one.id % 2], one.publisher->key(one.id), file);
      ASSERT_TRUE(bytes.has_value() && is_of(one, *bytes))
          << one.publisher->key(one.id) << " from " << fleet[one.id % 2].name();
    }
  }

 private:
  struct Program {
    Publisher* publisher = nullptr;
    std::uint64_t id = 0;
    std::size_t size_bytes = 0;
    std::uint64_t seq = 0;
    std::vector<std::uint64_t> words{};  // What was published last.
  };
  static bool is_of(const Program& one, const std::vector<std::uint8_t>& bytes) {
    return bytes.size() == one.size_bytes && std::memcmp(bytes.data(), one.words.data(), bytes.size()) == 0;
  }
  static bool is_stored(const Program& one) {
    return one.publisher->wait(one.seq, RTCR_STORED, 0) == RTCR_OK;
  }

  std::vector<std::unique_ptr<Publisher>> publishers_;
  std::vector<Program> programs_;
  std::uint64_t generation_ = 0;
};

Fleet::Options fleet_on(const std::string& url) {
  Fleet::Options options;
  options.store_urls = {url, url};
  options.arguments = {"--keep-latest", "1"};
  return options;
}

std::array<pid_t, 2> pids_of(Fleet& fleet) { return {fleet[0].process().pid(), fleet[1].process().pid()}; }

testing::AssertionResult comes_to_say(const CmsdProcess& cmsd, const std::string& text) {
  const auto start = TestClock::now();
  auto said = says(problems_of(status_of(cmsd)), text);
  while (!said && since(start) < kPatience) said = says(problems_of(status_of(cmsd)), text);
  return said;
}

// Kills the NAS at `moment` while all publish, and brings it back when both have noticed.
void kill_the_nas(Ganesha& ganesha, Fleet& fleet, Crowd& crowd,
                  const std::function<testing::AssertionResult()>& moment) {
  crowd.publish();
  ASSERT_TRUE(moment()) << fleet.log();
  ganesha.kill9();
  const auto killed_at = TestClock::now();
  const std::size_t stored_at_death = crowd.stored_count();
  EXPECT_LT(stored_at_death, crowd.count()) << "it was not killed in the middle";
  for (std::size_t i = 0; i < 2; ++i) {
    const auto status = wait_for_store_state(fleet[i], "unavailable");
    EXPECT_TRUE(status["store"]["since_s"].is_number()) << status.dump(1);
    EXPECT_TRUE(says(problems_of(status), "nothing can be stored: unavailable: "));
    EXPECT_TRUE(says(problems_of(status), "cmsd goes on by itself"));
    EXPECT_TRUE(comes_to_say(fleet[i], "wait with their publishers"));  // It may hear of them only now.
  }
  const milliseconds noticed = since(killed_at);
  const Status restarted = ganesha.restart();
  ASSERT_TRUE(restarted.ok()) << restarted.error().message();
  const auto back_at = TestClock::now();
  crowd.expect_all_stored(back_at, [&] { return fleet.log(); });
  std::printf("STORED at its death %zu, status of both after %lld ms, all STORED %lld ms after its return\n",
              stored_at_death, static_cast<long long>(noticed.count()),
              static_cast<long long>(since(back_at).count()));
  crowd.expect_there();
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(problems_of(wait_for_store_state(fleet[i], "ok")).find("nothing can be stored"),
              std::string::npos);
  }
}

// What was under way when it went is removed when it is back, not at the next start of a cmsd.
void expect_nothing_left(const Ganesha& ganesha) {
  const auto start = TestClock::now();
  std::size_t files = 0;
  do {
    files = 0;
    for (const auto& life : std::filesystem::directory_iterator(ganesha.export_path() + "/tmp"))
      files += static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(life.path()), {}));
  } while (files > 0 && since(start) < kPatience);
  EXPECT_EQ(files, 0U);
}

void expect_as_before(Fleet& fleet, const std::array<pid_t, 2>& pids) {
  EXPECT_EQ(pids_of(fleet), pids);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(fleet[i].process().running());
    EXPECT_EQ(fleet[i].count_in_log("is ready on port base"), 1U);
  }
}

TEST(NfsOutageTest, NasKilledInTheMiddleOfManyPullsLosesNothing) {
  const TempDir dir{memory_or_tmp()};
  const auto ganesha = start_ganesha();
  ASSERT_NE(ganesha, nullptr);
  Fleet fleet(dir, fleet_on(ganesha->url()));
  const auto pids = pids_of(fleet);
  Crowd crowd(fleet.endpoints());
  for (const std::size_t count : {std::size_t{1}, std::size_t{60}}) {
    SCOPED_TRACE("killed when the first " + std::to_string(count) + " are STORED");
    kill_the_nas(*ganesha, fleet, crowd, [&] { return crowd.wait_for_first(count); });
    if (HasFailure()) return;
  }
  expect_as_before(fleet, pids);
  expect_nothing_left(*ganesha);
  EXPECT_TRUE(indexes_agree(fleet, crowd.count()));
  crowd.expect_there_from_each(fleet, dir / "back");
}

TEST(NfsOutageTest, NasKilledAtAStepOfPublishingLosesNothing) {
  const TempDir dir{memory_or_tmp()};
  const auto ganesha = start_ganesha();
  ASSERT_NE(ganesha, nullptr);
  const auto proxy = start_proxy(*ganesha);
  ASSERT_NE(proxy, nullptr);
  Fleet fleet(dir, fleet_on(proxy->url()));
  for (std::size_t i = 0; i < 2; ++i)  // Or the calls of their self-tests would be counted.
    ASSERT_TRUE(fleet[i].wait_for_log("the store can be trusted with claims", 1, kPatience)) << fleet.log();
  const auto pids = pids_of(fleet);
  Crowd crowd(fleet.endpoints());
  struct Moment {
    Procedure procedure;
    std::size_t count;
  };
  for (const auto& [procedure, count] :
       {Moment{Procedure::kLink, 3}, Moment{Procedure::kWrite, 60}, Moment{Procedure::kCommit, 70}}) {
    SCOPED_TRACE("killed at call " + std::to_string(count) + " of " + to_string(procedure));
    proxy->reset_counts();
    kill_the_nas(*ganesha, fleet, crowd, [&, procedure = procedure, count = count]() {
      return proxy->wait_for_calls(procedure, count, kPatience)
                 ? testing::AssertionSuccess()
                 : testing::AssertionFailure() << "no such call";
    });
    if (HasFailure()) return;
  }
  expect_as_before(fleet, pids);
  expect_nothing_left(*ganesha);
  EXPECT_TRUE(indexes_agree(fleet, crowd.count()));
}

// ---- it stands still, or cannot be reached

// While `stop` holds publishers keep what they have, after `go_on` all of it is STORED.
void stand_still(Fleet& fleet, Crowd& crowd, const std::function<void()>& stop,
                 const std::function<void()>& go_on) {
  crowd.publish();
  ASSERT_TRUE(crowd.wait_for_first(1));
  stop();
  crowd.publish();
  // What is to be shown is that nothing comes, so this waits its time.
  EXPECT_FALSE(crowd.wait_for_any(std::chrono::seconds(2)));
  for (std::size_t i = 0; i < 2; ++i) EXPECT_TRUE(status_of(fleet[i]).is_object());
  EXPECT_EQ(crowd.stored_count(), 0U);
  go_on();
  const auto back_at = TestClock::now();
  crowd.expect_all_stored(back_at, [&] { return fleet.log(); });
  std::printf("all STORED %lld ms after its return\n", static_cast<long long>(since(back_at).count()));
  crowd.expect_there();
}

TEST(NfsOutageTest, NothingIsAcknowledgedWhileTheNasStandsStill) {
  const TempDir dir{memory_or_tmp()};
  const auto ganesha = start_ganesha();
  ASSERT_NE(ganesha, nullptr);
  const auto proxy = start_proxy(*ganesha);
  ASSERT_NE(proxy, nullptr);
  Fleet fleet(dir, fleet_on(proxy->url()));
  const auto pids = pids_of(fleet);
  Crowd crowd(fleet.endpoints());
  {
    SCOPED_TRACE("SIGSTOP");
    stand_still(
        fleet, crowd, [&] { ganesha->pause(); }, [&] { ganesha->resume(); });
  }
  {
    SCOPED_TRACE("blackhole");
    stand_still(
        fleet, crowd, [&] { proxy->blackhole(true); }, [&] { proxy->blackhole(false); });
  }
  expect_as_before(fleet, pids);
}

// ---- it hangs: nothing is refused, nothing is answered

// Between the first call without an answer and its deadline.
constexpr milliseconds kSaidWithin = std::chrono::seconds(3) * (kSlowBuild ? 3 : 1);
// No more than a service manager waits before it kills.
constexpr milliseconds kEndedWithin = std::chrono::seconds(10);

CmsdProcess::Options one_on(const std::string& url) {
  CmsdProcess::Options options;
  options.store_url = url;
  return options;
}

TEST(NfsHangTest, StatusSaysThatThereIsNoAnswerBeforeTheDeadlineAndEverythingGoesOn) {
  const TempDir dir{memory_or_tmp()};
  const auto ganesha = start_ganesha();
  ASSERT_NE(ganesha, nullptr);
  CmsdProcess cmsd(dir, one_on(ganesha->url()));
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  ASSERT_EQ(publisher.wait(publisher.publish(1, 1, kSmallBytes)), RTCR_OK) << cmsd.log();
  EXPECT_TRUE(status_of(cmsd)["store"]["no_answer_s"].is_null());
  ganesha->pause();
  const auto start = TestClock::now();
  nlohmann::json status;
  do {
    status = status_of(cmsd);
    ASSERT_TRUE(status.is_object());
    ASSERT_LT(since(start), kPatience);
  } while (status["store"]["no_answer_s"].is_null());
  const milliseconds said_after = since(start);
  EXPECT_LE(said_after, kSaidWithin + milliseconds(500)) << "and the time that status takes";
  EXPECT_EQ(status["store"]["state"], "ok") << "the deadline of its calls has not come";
  EXPECT_EQ(status["health"], "degraded");
  EXPECT_TRUE(says(problems_of(status), "no answer for"));
  EXPECT_TRUE(says(cmsd.admin({"status"}).output, ", no answer for "));
  const std::uint64_t seq = publisher.publish(2, 1, kMediumBytes);
  EXPECT_EQ(publisher.wait(seq, RTCR_PULLING, kPatience.count()), RTCR_OK) << "pulls go on with their credit";
  EXPECT_EQ(publisher.wait(seq, RTCR_STORED, 0), RTCR_E_TIMEOUT);
  ganesha->resume();
  EXPECT_EQ(publisher.wait(seq, RTCR_STORED, kBackMax.count()), RTCR_OK) << cmsd.log();
  const auto back_at = TestClock::now();
  do {
    status = status_of(cmsd);
    ASSERT_LT(since(back_at), kPatience);
  } while (!status["store"]["no_answer_s"].is_null());
  EXPECT_EQ(status["health"], "ok");
  std::printf("said after %lld ms\n", static_cast<long long>(said_after.count()));
}

TEST(NfsHangTest, CmsdEndsSoonWhileACommitGetsNoAnswerAndNothingIsLost) {
  const TempDir dir{memory_or_tmp()};
  const auto ganesha = start_ganesha();
  ASSERT_NE(ganesha, nullptr);
  const auto proxy = start_proxy(*ganesha);
  ASSERT_NE(proxy, nullptr);
  CmsdProcess cmsd(dir, one_on(proxy->url()));
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  ASSERT_EQ(publisher.wait(publisher.publish(1, 1, kSmallBytes)), RTCR_OK) << cmsd.log();
  // A COMMIT has a minute.
  proxy->add(FaultRule{Procedure::kCommit, Way::kRequest, Fault{Fault::Action::kHold}, 0, 0});
  const std::uint64_t seq = publisher.publish(2, 1, kLargeBytes);
  ASSERT_TRUE(proxy->wait_for_held(1)) << cmsd.log();
  ganesha->pause();
  const auto start = TestClock::now();
  EXPECT_EQ(cmsd.terminate(), 0) << cmsd.log();
  const milliseconds ended_after = since(start);
  EXPECT_LE(ended_after, kEndedWithin) << cmsd.log();
  EXPECT_TRUE(says(cmsd.log(), "its calls are ended"));
  EXPECT_EQ(publisher.wait(seq, RTCR_STORED, 0), RTCR_E_TIMEOUT);
  ganesha->resume();
  ASSERT_TRUE(proxy->pass_all());
  cmsd.start();
  EXPECT_EQ(publisher.wait(seq), RTCR_OK) << cmsd.log();
  EXPECT_TRUE(get_newest(cmsd, publisher.key(2), dir / "back") == blob_of(2, 1, kLargeBytes));
  std::printf("ended after %lld ms\n", static_cast<long long>(ended_after.count()));
}

// ---- it is not there yet

// A cmsd that is started now says that its store is away, and takes it into use when `come` has returned.
void start_before_the_nas(const std::string& name, const std::string& url,
                          const std::function<void()>& come) {
  const TempDir dir{memory_or_tmp()};
  CmsdProcess::Options options;
  options.name = name;
  options.store_url = url;
  CmsdProcess cmsd(dir, options);
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  const std::uint64_t seq = publisher.publish(1, 1, kSmallBytes);
  const auto status = status_of(cmsd);
  ASSERT_TRUE(status.is_object());
  EXPECT_EQ(status["store"]["state"], "unavailable");
  EXPECT_TRUE(says(problems_of(status), "nothing can be stored"));
  EXPECT_EQ(publisher.wait(seq, RTCR_STORED, 0), RTCR_E_TIMEOUT);
  come();
  const auto back_at = TestClock::now();
  EXPECT_EQ(publisher.wait(seq, RTCR_STORED, kBackMax.count()), RTCR_OK) << cmsd.log();
  std::printf("%s: STORED %lld ms after it came\n", name.c_str(),
              static_cast<long long>(since(back_at).count()));
  EXPECT_EQ(get_newest(cmsd, publisher.key(1), dir / "back"), blob_of(1, 1, kSmallBytes));
  EXPECT_EQ(cmsd.terminate(), 0);
}

TEST(NfsOutageTest, CmsdStartedBeforeTheNasSaysSoAndComesUpWithIt) {
  const auto ganesha = start_ganesha();
  ASSERT_NE(ganesha, nullptr);
  const auto proxy = start_proxy(*ganesha);
  ASSERT_NE(proxy, nullptr);
  ganesha->kill9();
  start_before_the_nas("down", ganesha->url(), [&] { ASSERT_TRUE(ganesha->restart().ok()); });
  ganesha->pause();
  start_before_the_nas("still", ganesha->url(), [&] { ganesha->resume(); });
  proxy->blackhole(true);
  start_before_the_nas("swallowed", proxy->url(), [&] { proxy->blackhole(false); });
}

}  // namespace
}  // namespace cms::test
