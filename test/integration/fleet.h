#pragma once
// Two real cmsd that share one store and know each other, and what tests of them ask.
#include <array>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/sanitized.h"
#include "test/support/cmsd_process.h"
#include "test/support/publisher.h"

namespace cms::test {

#if CMS_SANITIZED
inline constexpr bool kSlowBuild = true;
#else
inline constexpr bool kSlowBuild = false;
#endif

using TestClock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// What is promised: 3 s from the death of a cmsd to STORED. A sanitizer makes everything several times
// slower, and then the bound is that much larger.
inline constexpr milliseconds kTakenOverMax = std::chrono::seconds(3) * (kSlowBuild ? 5 : 1);
// No promise: when a test that waits for something gives up.
inline constexpr milliseconds kPatience = std::chrono::seconds(kSlowBuild ? 90 : 30);

inline milliseconds since(TestClock::time_point start) {
  return std::chrono::duration_cast<milliseconds>(TestClock::now() - start);
}

// Where a program runs.
struct Host {
  std::string address = "127.0.0.1";
  std::vector<std::string> launcher{};  // Stands before the program and becomes it: `ip netns exec NAME`.
};

class Fleet {
 public:
  struct Options {
    std::vector<std::string> arguments{};       // Of each.
    std::array<std::string, 2> crash_points{};  // Of the first start of each.
    std::array<Host, 2> hosts{};
    std::array<std::string, 2> peer_hosts{};    // Where each is reached by the other; empty: on its host.
    std::array<std::uint16_t, 2> port_bases{};  // 0: free ones.
    std::array<std::string, 2> store_urls{};    // Empty: a directory that both share.
  };
  explicit Fleet(const TempDir& dir) : Fleet(dir, Options{}) {}
  // Returns when each hears the other and has the store.
  Fleet(const TempDir& dir, const Options& options);

  CmsdProcess& operator[](std::size_t i) { return *cmsds_[i]; }
  // Starts it again, and returns when it and the other hear each other and it has the store.
  void start(std::size_t i, const std::string& crash_point = "");
  // Until this start of it, which runs, has the store.
  void wait_for_store(std::size_t i) const;
  // For --cms and rtcr_options.cms.
  std::string endpoints() const { return cmsds_[0]->endpoint() + "," + cmsds_[1]->endpoint(); }
  std::string log() const;

 private:
  std::array<std::unique_ptr<CmsdProcess>, 2> cmsds_;
};

// Which of the two, "a" 0 and "b" 1, pulls this program as long as both live.
std::size_t puller_of(const std::string& key);
// The first program_id from `from` of this ECU that this one pulls.
std::uint64_t program_pulled_by(std::size_t which, const std::string& ecu_mac, std::uint64_t from = 1);

// Publishes until each of the two has pulled something: then each is known to the other as one that may be
// named for pulls.
void wait_until_both_pull(Fleet& fleet, Publisher& publisher);

// A number of `counters` in the status; nullopt: no answer.
std::optional<std::uint64_t> counter_of(const CmsdProcess& cmsd, const std::string& name);

enum class Facts {
  kInNames,  // Only what a blob's name tells, as an index that was rebuilt has it.
  kAll,      // All but the age.
};
// What its index has, of every checkpoint by key; nothing in motion. nullopt: no answer.
std::optional<std::map<std::string, std::string>> index_of(const CmsdProcess& cmsd, Facts facts);
// Waits until both say the same of at least `count` checkpoints.
testing::AssertionResult indexes_agree(Fleet& fleet, std::size_t count, Facts facts = Facts::kInNames);

// Until this cmsd holds a record of that life of a member for stale. False: not before long.
bool wait_until_stale(const CmsdProcess& cmsd, const std::string& name);

// The newest checkpoint of a program as cms-admin gets it; nullopt: it cannot.
std::optional<std::vector<std::uint8_t>> get_newest(const CmsdProcess& cmsd, const std::string& key,
                                                    const std::string& file);

}  // namespace cms::test
