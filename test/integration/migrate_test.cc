// Programs are moved while their ECUs live: real cmsd, real ECUs (`rtcr ecu`), and whatever fails, one of source and
// target goes on, from the last step.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>

#include <nlohmann/json.hpp>

#include "test/integration/ecu_process.h"
#include "test/integration/fleet.h"
#include "test/integration/restored_once.h"

namespace cms::test {
namespace {

using nlohmann::json;

constexpr const char* kSource = "02:00:00:00:00:01";
constexpr const char* kFirst = "02:00:00:00:00:11";
constexpr const char* kSecond = "02:00:00:00:00:12";

EcuProcess::Options with_programs(std::uint64_t count) {
  EcuProcess::Options options;
  options.program_count = count;
  return options;
}
EcuProcess::Options as_target() {
  EcuProcess::Options options;
  options.is_target = true;
  return options;
}

std::unique_ptr<Process> admin(const CmsdProcess& cmsd, std::vector<std::string> arguments,
                               const std::string& timeout = "60s") {
  arguments.insert(arguments.begin(), {program_path("cms-admin"), "--cms", cmsd.admin(), "--timeout", timeout,
                                       "--output", "json"});
  return std::make_unique<Process>(arguments);
}

struct Moved {
  int exit_code = 0;
  json restore;  // What cms-admin said of the one program.
  std::string text;
};
Moved migrate(const CmsdProcess& cmsd, const std::string& key, const std::string& to,
              const std::string& timeout = "60s") {
  std::vector<std::string> arguments{"migrate", key};
  if (!to.empty()) arguments.insert(arguments.end(), {"--to", to});
  const auto process = admin(cmsd, arguments, timeout);
  Moved moved;
  moved.exit_code = process->wait();
  moved.text = process->output();
  const json answer = json::parse(moved.text, nullptr, false);
  if (answer.is_object() && answer.contains("restores") && !answer["restores"].empty()) {
    moved.restore = answer["restores"].front();
  }
  return moved;
}

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
// The program has taken a step.
void write_step(const std::string& path, int step) {
  std::ofstream(path + ".new", std::ios::binary) << "step " << step << "\n";
  std::filesystem::rename(path + ".new", path);
}

// What an ECU says of its programs, up to some event.
struct Lived {
  std::multiset<std::string> events;  // "running 3", "fenced 3", "frozen 3", "thawed 3"
  std::size_t count(const std::string& event, std::uint64_t program_id) const {
    return events.count(event + " " + std::to_string(program_id));
  }
  std::size_t count(const std::string& event) const {
    std::size_t found = 0;
    for (const std::string& one : events) found += one.rfind(event + " ", 0) == 0 ? 1 : 0;
    return found;
  }
};
// Reads until `enough`; false: not in time.
bool read_events(EcuProcess& ecu, Lived& lived, const std::function<bool()>& enough) {
  if (enough()) return true;
  return !ecu.wait_for(
                 [&](const json& line) {
                   lived.events.insert(line.value("event", "") + " " +
                                       std::to_string(line.value("program_id", std::uint64_t{0})));
                   return enough();
                 },
                 kPatience)
              .is_null();
}

int count_of(const char* variable, int without) {
  const char* given = std::getenv(variable);
  return given == nullptr ? without : std::atoi(given);
}

TEST(MigrateTest, ManyInARowLoseAndDoubleNoStep) {
  const int kMoves = count_of("CMS_TEST_MOVES", kSlowBuild ? 20 : 200);
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  EcuProcess::Options options = as_target();
  options.program_count = 1;
  EcuProcess first(dir, fleet.endpoints(), kFirst, options);
  EcuProcess second(dir, fleet.endpoints(), kSecond, as_target());
  ASSERT_TRUE(first.wait_for_receipts("REPLICATED", 1)) << fleet.log();
  ASSERT_FALSE(second.wait_for_event("ready").is_null());
  EcuProcess* ecus[] = {&first, &second};
  Lived lived[2];
  ProgramKey program{*parse_ecu_mac(kFirst), 1};
  std::string file = dir / ("programs-" + std::string(kFirst) + "/1");
  for (int step = 1; step <= kMoves; ++step) {
    write_step(file, step);
    EcuProcess& to = *ecus[step % 2];
    const Moved moved =
        migrate(fleet[static_cast<std::size_t>(step / 3 % 2)], to_string(program), to.ecu_mac());
    ASSERT_EQ(moved.exit_code, 0) << "step " << step << ": " << moved.text << fleet.log();
    const auto runs_as = moved.restore.value("runs_as", "");
    const auto slash = runs_as.find('/');
    ASSERT_NE(slash, std::string::npos) << moved.text;
    ASSERT_EQ(runs_as.substr(0, slash), to.ecu_mac());
    const ProgramId id = *parse_u64(runs_as.substr(slash + 1));
    file = to.restore_dir() + "/" + std::to_string(id) + "-" + to_string(program.ecu_mac) + "-" +
           std::to_string(program.program_id);
    ASSERT_EQ(read_text(file), "step " + std::to_string(step) + "\n") << file;
    program = ProgramKey{*parse_ecu_mac(to.ecu_mac()), id};
    // Its first checkpoint under the new key: the next move needs none, but it is published.
    const int at = step % 2;
    ASSERT_TRUE(read_events(to, lived[at], [&] {
      return lived[at].count("running") >= static_cast<std::size_t>((step + at) / 2);
    }));
  }
  for (int at = 0; at < 2; ++at) {
    EXPECT_EQ(lived[at].count("running"), static_cast<std::size_t>((kMoves + at) / 2));
    EXPECT_EQ(lived[at].count("thawed"), 0U);
  }
}

TEST(MigrateTest, AnRtcrAsksForItAndTheSourceIsToldThatItHasGone) {
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  EcuProcess source(dir, fleet.endpoints(), kSource, with_programs(2));
  EcuProcess target(dir, fleet.endpoints(), kFirst, as_target());
  ASSERT_TRUE(source.wait_for_receipts("REPLICATED", 2)) << fleet.log();
  ASSERT_FALSE(target.wait_for_event("ready").is_null());
  const auto request = [&](std::vector<std::string> more) {
    std::vector<std::string> command{program_path("rtcr"), "request-migration", "--cms",
                                     fleet.endpoints(),    "--ecu-mac",         kSource,
                                     "--program-id"};
    command.insert(command.end(), more.begin(), more.end());
    return std::make_unique<Process>(command);
  };
  const auto asked = request({"2", "--to", kFirst});
  EXPECT_EQ(asked->wait(), 0) << asked->output() << fleet.log();
  Lived lived;
  EXPECT_TRUE(read_events(source, lived, [&] { return lived.count("fenced", 2) > 0; })) << fleet.log();
  EXPECT_EQ(lived.count("frozen", 2), 1U);
  EXPECT_EQ(lived.count("thawed", 2), 0U);
  EXPECT_EQ(target.restored().size(), 1U);
  // It is not there any more.
  const auto again = request({"2"});
  EXPECT_EQ(again->wait(), 1) << again->output();
  const auto unknown = request({"9"});
  EXPECT_EQ(unknown->wait(), 1) << unknown->output();
}

TEST(MigrateTest, WithoutATargetNothingIsStoppedAndItIsSaidWhy) {
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  EcuProcess source(dir, fleet.endpoints(), kSource, with_programs(1));
  EcuProcess no_target(dir, fleet.endpoints(), kFirst, with_programs(1));
  ASSERT_TRUE(source.wait_for_receipts("REPLICATED", 1)) << fleet.log();
  ASSERT_TRUE(no_target.wait_for_receipts("REPLICATED", 1)) << fleet.log();
  const std::string key = std::string(kSource) + "/1";
  const Moved moved = migrate(fleet[0], key, "");
  EXPECT_EQ(moved.exit_code, 1) << moved.text;
  EXPECT_NE(moved.restore.value("why", "").find("no eligible target"), std::string::npos) << moved.text;
  EXPECT_EQ(migrate(fleet[1], std::string(kSecond) + "/1", "").exit_code, 1);  // No such ECU.
  // Then one comes; until then nothing was frozen.
  EcuProcess target(dir, fleet.endpoints(), kSecond, as_target());
  ASSERT_FALSE(target.wait_for_event("ready").is_null());
  EXPECT_EQ(migrate(fleet[0], key, "").exit_code, 0) << fleet.log();
  Lived lived;
  EXPECT_TRUE(read_events(source, lived, [&] { return lived.count("fenced", 1) > 0; }));
  EXPECT_EQ(lived.count("frozen", 1), 1U);
}

TEST(MigrateTest, ADrainIsCancelledHalfWayAndGoesOnLater) {
  const std::uint64_t kPrograms = kSlowBuild ? 30 : 100;
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  EcuProcess source(dir, fleet.endpoints(), kSource, with_programs(kPrograms));
  EcuProcess first(dir, fleet.endpoints(), kFirst, as_target());
  EcuProcess second(dir, fleet.endpoints(), kSecond, as_target());
  ASSERT_TRUE(source.wait_for_receipts("REPLICATED", kPrograms)) << fleet.log();
  ASSERT_FALSE(first.wait_for_event("ready").is_null());
  ASSERT_FALSE(second.wait_for_event("ready").is_null());
  const auto drain = admin(fleet[0], {"ecu", "drain", kSource});
  Lived lived;
  ASSERT_TRUE(read_events(source, lived, [&] { return lived.count("fenced") >= kPrograms / 4; }))
      << fleet.log();
  const auto cancel = admin(fleet[0], {"ecu", "drain", kSource, "--cancel"});
  EXPECT_EQ(cancel->wait(), 0) << cancel->output();
  EXPECT_EQ(drain->wait(), 1) << drain->output();  // Not all were moved.
  const json answer = json::parse(cancel->output(), nullptr, false);
  const auto moved = answer.value("done", std::size_t{0});
  EXPECT_GE(moved, kPrograms / 4);
  EXPECT_LT(moved, kPrograms);
  // What was frozen just then goes on, and what has gone is fenced: nothing in between.
  EXPECT_TRUE(read_events(source, lived,
                          [&] {
                            return lived.count("frozen") == lived.count("fenced") + lived.count("thawed") &&
                                   lived.count("fenced") == moved;
                          }))
      << lived.count("frozen") << " frozen, " << lived.count("fenced") << " fenced, " << lived.count("thawed")
      << " thawed, " << moved << " moved";
  EXPECT_EQ(first.restored().size() + second.restored().size(), moved);
  // The other CMS goes on.
  const auto again = admin(fleet[1], {"ecu", "drain", kSource, "--deadline", "2m"});
  EXPECT_EQ(again->wait(), 0) << again->output() << fleet.log();
  expect_each_once(kSource, {&first, &second}, kPrograms);
}

// ---- the CMS that moves it is killed

class MigratePointTest : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(AtEveryPoint, MigratePointTest, ::testing::ValuesIn(points_of_a_restore()),
                         name_of_point);

TEST_P(MigratePointTest, KilledThereOneOfSourceAndTargetGoesOn) {
  const TempDir dir{memory_or_tmp()};
  Fleet::Options options;
  options.crash_points[0] = GetParam();
  Fleet fleet(dir, options);
  EcuProcess source(dir, fleet.endpoints(), kSource, with_programs(1));
  EcuProcess target(dir, fleet.endpoints(), kFirst, as_target());
  ASSERT_TRUE(source.wait_for_receipts("REPLICATED", 1)) << fleet.log();
  ASSERT_FALSE(target.wait_for_event("ready").is_null());
  const std::string key = std::string(kSource) + "/1";
  EXPECT_NE(migrate(fleet[0], key, "", "2s").exit_code, 0);  // It gets no answer any more.
  EXPECT_EQ(fleet[0].wait(), 128 + SIGKILL) << "the point was not hit";
  Lived lived;
  const bool had_act = GetParam() == "restore.after_act" || GetParam().find("done") != std::string::npos;
  if (had_act) {
    EXPECT_TRUE(read_events(source, lived, [&] { return lived.count("fenced", 1) > 0; })) << fleet.log();
    EXPECT_EQ(lived.count("thawed", 1), 0U);
  } else {
    // The other ends the claim, if there is one: then the program can be moved by it.
    Moved moved;
    const auto start = TestClock::now();
    do {
      moved = migrate(fleet[1], key, "");
    } while (moved.exit_code != 0 && since(start) < 3 * kPatience);
    EXPECT_EQ(moved.exit_code, 0) << moved.text << fleet.log();
    EXPECT_TRUE(read_events(source, lived, [&] { return lived.count("fenced", 1) > 0; })) << fleet.log();
    // Frozen for the first claim, if that came so far, thawed by its end, and frozen for the second.
    EXPECT_EQ(lived.count("frozen", 1), 1 + lived.count("thawed", 1));
    EXPECT_EQ(lived.count("thawed", 1), GetParam() == "restore.before_act" ? 1U : 0U);
  }
  expect_each_once(kSource, {&target}, 1);
}

}  // namespace
}  // namespace cms::test
