// 200 rounds of kill -9 at random moments, of either of two cmsd and of publishers, from a seed:
// nothing that was said STORED is missing from either cmsd, nothing is torn, and whoever lives has its
// checkpoint STORED within 3 s.
//
// CMS_TEST_SEED=N repeats a run as far as real processes can be repeated; CMS_TEST_ROUNDS=N makes it
// longer or shorter.
#include <gtest/gtest.h>
#include <atomic>
#include <csignal>
#include <fstream>
#include <thread>

#include "test/integration/fleet.h"

namespace cms::test {
namespace {

// A sanitizer makes a start of cmsd, and so a round, many times slower; 40 rounds still meet every
// kind of kill.
constexpr std::uint64_t kRounds = kSlowBuild ? 40 : 200;
// A round is mostly waiting for a death to be noticed, so several fleets take their share at once.
constexpr std::uint64_t kLanes = kSlowBuild ? 2 : 5;
constexpr std::uint64_t kLivePrograms = 6;
constexpr std::uint64_t kFirstOfProcesses = 100;
constexpr std::uint64_t kProcessPrograms = 2;

std::uint64_t number_from_environment(const char* name, std::uint64_t fallback) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : fallback;
}

struct Program {
  std::uint64_t id = 0;
  std::string key;
  std::vector<std::size_t> sizes;  // Of generation 1, 2, …
  std::uint64_t stored = 0;        // The newest generation that was said STORED.
  std::uint64_t generation() const { return sizes.size(); }
};

// Programs in this process: they live through all rounds.
struct Live {
  std::unique_ptr<Publisher> publisher;
  std::vector<Program> programs;
};

struct Outstanding {
  Live* live = nullptr;
  Program* program = nullptr;
  std::uint64_t generation = 0;
  std::uint64_t seq = 0;
  TestClock::time_point published_at;
};

struct Running {
  Program* program = nullptr;
  std::string file;
  std::unique_ptr<Process> process;
  bool killed = false;
};

class Lane {
 public:
  Lane(std::uint64_t number, std::uint64_t seed) : prng_(seed * 1000 + number), fleet_(dir_) {
    for (int i = 0; i < 2; ++i) {
      const std::string ecu_mac = "02:00:00:00:00:0" + std::to_string(i + 1);
      Live live;
      live.publisher = std::make_unique<Publisher>(fleet_.endpoints(), ecu_mac);
      for (std::uint64_t id = 1; id <= kLivePrograms / 2; ++id)
        live.programs.push_back(Program{id, live.publisher->key(id), {}});
      lives_.push_back(std::move(live));
    }
    for (std::uint64_t i = 0; i < kProcessPrograms; ++i) {
      const std::uint64_t id = kFirstOfProcesses + i;
      of_processes_.push_back(Program{id, kProcessMac + ("/" + std::to_string(id)), {}});
    }
  }

  void run(std::uint64_t rounds) {
    for (std::uint64_t round = 0; round < rounds && !testing::Test::HasFailure(); ++round) {
      SCOPED_TRACE("round " + std::to_string(round) + ", last kill: " + last_kill_);
      run_round(round);
    }
    bring_back();
    std::vector<Program*> all;
    for (Live& live : lives_) {
      for (Program& program : live.programs) all.push_back(&program);
    }
    for (Program& program : of_processes_) all.push_back(&program);
    for (Program* program : all) expect_there(*program);
    EXPECT_TRUE(indexes_agree(fleet_, 1));
  }

  milliseconds longest() const { return longest_; }
  int kills_of_cmsd() const { return kills_of_cmsd_; }
  int kills_of_publishers() const { return kills_of_publishers_; }

 private:
  static constexpr const char* kProcessMac = "02:00:00:00:00:09";

  void run_round(std::uint64_t round) {
    if (down_ && round >= back_at_) bring_back();
    // One dies at a time: the other is not still on its way up.
    for (std::size_t i = 0; i < 2; ++i) {
      if (down_ != i) fleet_.wait_for_store(i);
    }
    std::vector<Outstanding> outstanding;
    std::vector<Running> running;
    for (std::uint64_t count = 2 + prng_.below(3); count > 0; --count) outstanding.push_back(publish());
    for (Program& program : of_processes_) {
      if (prng_.chance(1, 2)) running.push_back(publish_by_process(program));
    }
    if (prng_.chance(1, 2)) outstanding.push_back(publish());

    // A random moment, or as soon as all is over.
    const auto moment = static_cast<std::int64_t>(prng_.below(60));
    const Outstanding& last = outstanding.back();
    (void)last.live->publisher->wait(last.seq, RTCR_REPLICATED, moment);
    auto killed_at = TestClock::time_point{};
    const bool of_publisher = !running.empty() && (down_ || prng_.chance(2, 5));
    if (of_publisher) {
      Running& victim = running[prng_.below(running.size())];
      victim.process->signal(SIGKILL);
      victim.killed = true;
      ++kills_of_publishers_;
      last_kill_ = "the publisher of " + victim.program->key;
    } else if (!down_) {
      killed_at = TestClock::now();
      kill_one(round);
    }

    for (const Outstanding& one : outstanding) expect_stored(one, std::max(killed_at, one.published_at));
    for (Running& one : running) expect_ended(one);
    for (std::size_t i = 0; i < 2; ++i) {
      expect_there(*outstanding[prng_.below(outstanding.size())].program);
      if (!running.empty()) expect_there(*running[prng_.below(running.size())].program);
    }
  }

  // Most are small, a few large: from 4 KiB to 4 MiB.
  std::size_t any_size() {
    const std::uint64_t least = 4096ULL << prng_.below(10);
    return least + prng_.below(least);
  }

  Outstanding publish() {
    Live& live = lives_[prng_.below(lives_.size())];
    Program& program = live.programs[prng_.below(live.programs.size())];
    program.sizes.push_back(any_size());
    const auto now = TestClock::now();
    const std::uint64_t seq = live.publisher->publish(program.id, program.generation(), program.sizes.back());
    return Outstanding{&live, &program, program.generation(), seq, now};
  }

  Running publish_by_process(Program& program) {
    program.sizes.push_back(any_size());
    Running running;
    running.program = &program;
    running.file = dir_ / (std::to_string(program.id) + "-" + std::to_string(program.generation()));
    const auto bytes = blob_of(program.id, program.generation(), program.sizes.back());
    std::ofstream(running.file, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    running.process = std::make_unique<Process>(
        std::vector<std::string>{program_path("rtcr"), "publish", "--cms", fleet_.endpoints(), "--ecu-mac",
                                 kProcessMac, "--program", std::to_string(program.id), "--bulk-host",
                                 "127.0.0.1", "--timeout", "60s", "--output", "json", running.file});
    return running;
  }

  void kill_one(std::uint64_t round) {
    const std::size_t victim = prng_.below(2);
    const bool at_once = prng_.chance(1, 2);
    const bool without_index = prng_.chance(1, 4);
    fleet_[victim].kill();
    ++kills_of_cmsd_;
    last_kill_ = fleet_[victim].name() + (at_once ? ", back at once" : ", back later") +
                 (without_index ? ", without its index" : "");
    if (without_index) std::filesystem::remove_all(fleet_[victim].index_path());
    if (at_once) {
      fleet_[victim].start();
    } else {
      down_ = victim;
      back_at_ = round + 1 + prng_.below(3);
    }
  }

  void bring_back() {
    if (!down_) return;
    fleet_[*down_].start();
    down_.reset();
  }

  void expect_stored(const Outstanding& one, TestClock::time_point from) {
    const auto left = std::max(kTakenOverMax - since(from), milliseconds(0));
    int status = one.live->publisher->wait(one.seq, RTCR_STORED, left.count());
    const std::string what = one.program->key + " generation " + std::to_string(one.generation) + " of " +
                             std::to_string(one.program->generation());
    if (status == RTCR_E_TIMEOUT) {
      status = one.live->publisher->wait(one.seq, RTCR_STORED, kPatience.count());
      ADD_FAILURE() << what << " was not STORED for " << since(from).count() << " ms after " << last_kill_
                    << "\n"
                    << fleet_.log();
    }
    longest_ = std::max(longest_, since(from));
    if (status == RTCR_OK) {
      one.program->stored = std::max(one.program->stored, one.generation);
    } else {
      EXPECT_EQ(status, RTCR_E_SUPERSEDED) << what << ": " << rtcr_last_error();
      EXPECT_LT(one.generation, one.program->generation()) << what << " is the newest";
    }
  }

  // What a publisher had printed before it died was said.
  void expect_ended(Running& one) {
    const std::string said = one.process->output();
    const int code = one.process->wait();
    if (said.find("\"STORED\"") != std::string::npos) one.program->stored = one.program->generation();
    if (!one.killed) {
      EXPECT_EQ(code, 0) << one.program->key << " after " << last_kill_ << ": " << said << "\n"
                         << fleet_.log();
    }
    std::filesystem::remove(one.file);
  }

  // Of every cmsd that runs: the newest that was said STORED, or a newer one, and no other bytes ever.
  void expect_there(const Program& program) {
    for (std::size_t i = 0; i < 2; ++i) {
      if (down_ == i || program.stored == 0) continue;
      const auto start = TestClock::now();
      std::uint64_t found = 0;
      do {
        const auto bytes = get_newest(fleet_[i], program.key, dir_ / "back");
        if (!bytes) continue;
        const auto generation = generation_of(program, *bytes);
        ASSERT_TRUE(generation.has_value()) << program.key << " from " << fleet_[i].name() << " is torn";
        found = *generation;
      } while (found < program.stored && since(start) < kPatience);
      ASSERT_GE(found, program.stored)
          << program.key << " is missing from " << fleet_[i].name() << " after " << last_kill_ << "\n"
          << fleet_[i].admin({"show", program.key}).output << "\n"
          << fleet_.log();
    }
  }

  static std::optional<std::uint64_t> generation_of(const Program& program,
                                                    const std::vector<std::uint8_t>& bytes) {
    for (std::uint64_t generation = program.generation(); generation > 0; --generation) {
      if (program.sizes[generation - 1] == bytes.size() &&
          blob_of(program.id, generation, bytes.size()) == bytes)
        return generation;
    }
    return std::nullopt;
  }

  Prng prng_;
  TempDir dir_{memory_or_tmp()};
  Fleet fleet_;
  std::vector<Live> lives_;
  std::vector<Program> of_processes_;
  std::optional<std::size_t> down_;
  std::uint64_t back_at_ = 0;
  std::string last_kill_ = "none";
  milliseconds longest_{0};
  int kills_of_cmsd_ = 0;
  int kills_of_publishers_ = 0;
};

TEST(RandomKillTest, NothingStoredIsLostAndNobodyWaitsLong) {
  const std::uint64_t seed = number_from_environment("CMS_TEST_SEED", random_u64() % 1000000);
  const std::uint64_t rounds = number_from_environment("CMS_TEST_ROUNDS", kRounds);
  std::printf("CMS_TEST_SEED=%llu CMS_TEST_ROUNDS=%llu\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(rounds));
  std::fflush(stdout);
  std::atomic<std::int64_t> longest_ms{0};
  std::atomic<int> kills_of_cmsd{0};
  std::atomic<int> kills_of_publishers{0};
  std::vector<std::thread> threads;
  for (std::uint64_t number = 0; number < kLanes; ++number) {
    threads.emplace_back([&, number] {
      SCOPED_TRACE("CMS_TEST_SEED=" + std::to_string(seed) + ", lane " + std::to_string(number));
      Lane lane(number, seed);
      lane.run((rounds + kLanes - 1) / kLanes);
      std::int64_t longest = longest_ms;
      while (longest < lane.longest().count() &&
             !longest_ms.compare_exchange_weak(longest, lane.longest().count())) {
      }
      kills_of_cmsd += lane.kills_of_cmsd();
      kills_of_publishers += lane.kills_of_publishers();
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::printf("kills: %d of cmsd, %d of publishers; longest from a kill to STORED: %lld ms\n",
              kills_of_cmsd.load(), kills_of_publishers.load(), static_cast<long long>(longest_ms.load()));
  EXPECT_GT(kills_of_cmsd, 0);
  EXPECT_GT(kills_of_publishers, 0);
}

}  // namespace
}  // namespace cms::test
