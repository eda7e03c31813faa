// cms_sim: runs seeds of the simulator; README.md here says how to use it.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <string>
#include <vector>

#include "test/sim/claims_world.h"
#include "test/sim/world.h"

namespace cms::sim {
namespace {

volatile std::uint64_t current_seed = 0;  // For the handler.

// A broken CMS_ASSERT ends the process; say with which seed.
void on_abort(int) {
  char digits[24];
  std::size_t count = 0;
  std::uint64_t rest = current_seed;
  do {
    digits[sizeof(digits) - ++count] = static_cast<char>('0' + rest % 10);
    rest /= 10;
  } while (rest != 0);
  constexpr char kText[] = "seed ";
  (void)!::write(STDERR_FILENO, kText, sizeof(kText) - 1);
  (void)!::write(STDERR_FILENO, digits + sizeof(digits) - count, count);
  (void)!::write(STDERR_FILENO, ": an assertion failed\n", 22);
}

struct Totals {
  std::uint64_t passed_count = 0;
  std::uint64_t failed_count = 0;
  std::uint64_t event_count = 0;
  std::array<std::uint64_t, kOccasionSteps.size()>
      made_counts{};  // In the world of links: where links were cut.
};

// What is to be run of each seed.
struct Choice {
  enum class Kind { kCheckpoints, kClaims, kLeases, kLinks } kind = Kind::kCheckpoints;
  Plant plant = Plant::kNone;
  ClaimsPlant claims_plant = ClaimsPlant::kNone;
  bool verbose = false;

  bool planted() const { return plant != Plant::kNone || claims_plant != ClaimsPlant::kNone; }
};

template <typename AnyWorld>
bool run_world(std::uint64_t seed, AnyWorld& world, Totals& totals) {
  std::string what;
  try {
    world.run();
  } catch (const std::exception& error) {  // Also what a core's map.at() throws.
    what = error.what();
  }
  totals.event_count += world.event_count();
  if (what.empty()) {
    ++totals.passed_count;
    return true;
  }
  ++totals.failed_count;
  std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed), what.c_str());
  return false;
}

bool run_seed(std::uint64_t seed, const Choice& choice, Totals& totals) {
  current_seed = seed;
  if (choice.kind == Choice::Kind::kLinks) {
    ClaimsWorld world(seed, make_links_scenario(seed), choice.claims_plant, choice.verbose);
    const bool passed = run_world(seed, world, totals);
    if (!passed) std::printf("  %s\n", describe(links_case(seed)).c_str());
    if (world.cuts_made()) ++totals.made_counts.at((seed - 1) / kCutsCount);
    return passed;
  }
  if (choice.kind != Choice::Kind::kCheckpoints) {
    const bool leases = choice.kind == Choice::Kind::kLeases;
    ClaimsWorld world(seed, leases ? make_leases_scenario(seed) : make_claims_scenario(seed),
                      choice.claims_plant, choice.verbose);
    return run_world(seed, world, totals);
  }
  World world(seed, choice.plant, choice.verbose);
  return run_world(seed, world, totals);
}

// Of a run of all cases: whether each step came about, so that links were cut there.
bool all_steps_came(const Totals& totals) {
  bool all = true;
  for (std::size_t i = 0; i < kOccasionSteps.size(); ++i) {
    std::printf("%5llu of %llu  %s\n", static_cast<unsigned long long>(totals.made_counts[i]),
                static_cast<unsigned long long>(kCutsCount), to_string(kOccasionSteps[i]).c_str());
    all = all && totals.made_counts[i] > 0;
  }
  if (!all) std::printf("a step at which links were to be cut never came about\n");
  return all;
}

template <typename Infos>
void print_plants(const Infos& infos) {
  for (const auto& info : infos) {
    std::printf("%-28s %s\n", std::string(info.name).c_str(), std::string(info.what).c_str());
  }
}

int read_regressions(const std::string& path, std::vector<std::uint64_t>& seeds) {
  std::ifstream file(path);
  if (!file) {
    std::fprintf(stderr, "cms_sim: cannot read %s, the seeds that once failed\n", path.c_str());
    return 2;
  }
  for (std::string line; std::getline(file, line);) {
    line = line.substr(0, line.find_first_of(" #"));
    if (line.empty()) continue;
    const Result<std::uint64_t> seed = parse_u64(line);
    if (!seed.ok()) {
      std::fprintf(stderr,
                   "cms_sim: %s: '%s' is not a seed; allowed: one decimal number a line, then a # comment\n",
                   path.c_str(), line.c_str());
      return 2;
    }
    seeds.push_back(*seed);
  }
  return 0;
}

int run(int argc, char** argv) {
  CLI::App app(
      "Runs the cores under a virtual network, store and clock. Exit: 0 all seeds passed "
      "(with --plant: the bug was found), 1 not so, 2 usage.");
  std::uint64_t one_seed = 0;
  std::uint64_t start = 1;
  std::uint64_t count = 100;
  Choice choice;
  bool list_plants = false;
  std::string world = "checkpoints";
  std::string plant_name;
  std::string regressions;
  CLI::Option* seed_option = app.add_option("--seed", one_seed, "Run this one seed");
  CLI::Option* seed_count = app.add_option("--seeds", count, "How many seeds to run")->excludes(seed_option);
  app.add_option("--start", start, "The first of them")->excludes(seed_option);
  app.add_option("--world", world,
                 "What is simulated: checkpoints on their way to the store, claims and restores, these with "
                 "guarded ECUs and their run leases, or all cuts of links at each step of these")
      ->check(CLI::IsMember({"checkpoints", "claims", "leases", "links"}));
  app.add_option("--plant", plant_name, "Plant this bug; it must be found");
  app.add_option("--regressions", regressions, "A file of seeds to run first")->excludes(seed_option);
  app.add_flag("--verbose", choice.verbose, "Print what happens (one seed)")->needs(seed_option);
  app.add_flag("--list-plants", list_plants, "Print the bugs that can be planted");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const bool checkpoints = world == "checkpoints";
  if (world == "claims") choice.kind = Choice::Kind::kClaims;
  if (world == "leases") choice.kind = Choice::Kind::kLeases;
  if (world == "links") {
    choice.kind = Choice::Kind::kLinks;
    if (seed_count->count() == 0) count = kLinksCaseCount;
    const std::uint64_t last = seed_option->count() != 0 ? one_seed : start + count - 1;
    const std::uint64_t first = seed_option->count() != 0 ? one_seed : start;
    if (first < 1 || last > kLinksCaseCount) {
      std::fprintf(stderr, "cms_sim: the world of links has cases, not seeds: 1 to %llu\n",
                   static_cast<unsigned long long>(kLinksCaseCount));
      return 2;
    }
  }
  const auto& infos = world == "claims" ? claims_plants() : leases_plants();
  if (list_plants) {
    if (checkpoints) {
      print_plants(plants());
    } else {
      print_plants(infos);
    }
    return 0;
  }
  if (!plant_name.empty()) {
    choice.plant = checkpoints ? parse_plant(plant_name).value_or(Plant::kNone) : Plant::kNone;
    if (!checkpoints)
      choice.claims_plant = parse_claims_plant(infos, plant_name).value_or(ClaimsPlant::kNone);
    if (world == "links" && choice.claims_plant == ClaimsPlant::kNone)
      choice.claims_plant = parse_claims_plant(claims_plants(), plant_name).value_or(ClaimsPlant::kNone);
    if (!choice.planted()) {
      std::fprintf(stderr,
                   "cms_sim: no plant '%s' in the world of %s; --list-plants prints those there are\n",
                   plant_name.c_str(), world.c_str());
      return 2;
    }
  }
  std::vector<std::uint64_t> seeds;
  if (seed_option->count() != 0) {
    seeds.push_back(one_seed);
  } else {
    if (!regressions.empty()) {
      if (const int bad = read_regressions(regressions, seeds); bad != 0) return bad;
    }
    for (std::uint64_t i = 0; i < count; ++i) seeds.push_back(start + i);
  }

  std::signal(SIGABRT, on_abort);
  const auto begun_at = std::chrono::steady_clock::now();
  auto shown_at = begun_at;
  const bool terminal = ::isatty(STDERR_FILENO) != 0;
  Totals totals;
  for (std::size_t i = 0; i < seeds.size(); ++i) {
    const bool passed = run_seed(seeds[i], choice, totals);
    if (!passed && choice.planted()) {
      std::printf("found %s in seed %llu, the %zu. tried\n", plant_name.c_str(),
                  static_cast<unsigned long long>(seeds[i]), i + 1);
      return 0;
    }
    const auto now = std::chrono::steady_clock::now();
    if (terminal && now - shown_at >= std::chrono::seconds(1)) {
      shown_at = now;
      std::fprintf(stderr, "\r%zu of %zu seeds, %llu failed ", i + 1, seeds.size(),
                   static_cast<unsigned long long>(totals.failed_count));
    }
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun_at).count();
  if (terminal) std::fprintf(stderr, "\r");
  std::printf("%llu events in %.1f s (%.0f/s)\n", static_cast<unsigned long long>(totals.event_count),
              seconds, static_cast<double>(totals.event_count) / seconds);
  std::printf("%llu passed, %llu failed\n", static_cast<unsigned long long>(totals.passed_count),
              static_cast<unsigned long long>(totals.failed_count));
  if (choice.planted()) {
    std::printf("%s was not found\n", plant_name.c_str());
    return 1;
  }
  if (choice.kind == Choice::Kind::kLinks && seeds.size() == kLinksCaseCount && !all_steps_came(totals))
    return 1;
  return totals.failed_count == 0 ? 0 : 1;
}

}  // namespace
}  // namespace cms::sim

int main(int argc, char** argv) { return cms::sim::run(argc, argv); }
