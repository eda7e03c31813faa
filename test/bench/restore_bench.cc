// How fast the programs of a lost ECU run again: from `cms-admin ecu failed` until each runs on one of two targets, and
// where that time goes; and what three cmsd that are told of one loss at once do beside one. Real cmsd, and real ECUs
// (`rtcr ecu`), on a directory and on a NAS, a Ganesha on loopback.
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include <nlohmann/json.hpp>

#include "base/time.h"
#include "test/bench/bench.h"
#include "test/integration/ecu_process.h"
#include "test/support/cmsd_process.h"
#include "test/support/ganesha.h"
#include "test/support/temp_dir.h"

namespace cms::bench {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kPatience{120};

[[noreturn]] void fail(const std::string& what) {
  std::cerr << "restore_bench: " << what << '\n';
  std::exit(1);
}

double wall_ms() { return static_cast<double>(wall_time_us()) / 1e3; }

// ---- who takes part

// So many cmsd that know each other, on one store.
class Cmsds {
 public:
  // `store_url`: empty for a directory of their own.
  Cmsds(const test::TempDir& dir, std::size_t count, const std::string& store_url) {
    const std::vector<std::uint16_t> bases = test::free_port_bases(count);
    for (std::size_t i = 0; i < count; ++i) {
      test::CmsdProcess::Options options;
      options.name = name_of(i);
      options.port_base = bases[i];
      options.store_url = store_url;
      options.make_store = i == 0;
      for (std::size_t other = 0; other < count; ++other) {
        if (other == i) continue;
        options.arguments.insert(options.arguments.end(),
                                 {"--peer", "tcp://127.0.0.1:" + std::to_string(bases[other])});
      }
      cmsds_.push_back(std::make_unique<test::CmsdProcess>(dir, options));
    }
    for (std::size_t i = 0; i < count; ++i) {
      const auto& cmsd = cmsds_[i];
      if (!cmsd->process().running()) fail("cmsd did not start: " + cmsd->log());
      if (!cmsd->wait_for_log("the store is ready")) fail("no store: " + cmsd->log());
      for (std::size_t other = 0; other < count; ++other) {
        if (other != i && !cmsd->wait_for_log("peer " + name_of(other) + " at "))
          fail("no peer: " + cmsd->log());
      }
    }
  }
  std::size_t count() const { return cmsds_.size(); }
  const test::CmsdProcess& operator[](std::size_t i) const { return *cmsds_[i]; }
  std::string endpoints() const {
    std::string endpoints;
    for (const auto& cmsd : cmsds_) endpoints += (endpoints.empty() ? "" : ",") + cmsd->endpoint();
    return endpoints;
  }

 private:
  static std::string name_of(std::size_t i) { return {static_cast<char>('a' + i)}; }
  std::vector<std::unique_ptr<test::CmsdProcess>> cmsds_;
};

// Two ECUs that take restores. What they print is read as it comes, by a thread for each.
class Targets {
 public:
  Targets(const test::TempDir& dir, const std::string& cms) {
    test::EcuProcess::Options options;
    options.is_target = true;
    for (const char* ecu_mac : {"02:00:00:00:00:11", "02:00:00:00:00:12"})
      ecus_.push_back(std::make_unique<test::EcuProcess>(dir, cms, ecu_mac, options));
    for (const auto& ecu : ecus_) {
      if (ecu->wait_for_event("ready").is_null()) fail(ecu->ecu_mac() + " was not ready");
    }
    for (const auto& ecu : ecus_) readers_.emplace_back([this, &ecu = *ecu] { read(ecu); });
  }
  ~Targets() {
    ending_ = true;
    for (std::thread& reader : readers_) reader.join();
  }
  Targets(const Targets&) = delete;
  Targets& operator=(const Targets&) = delete;

  // False: not so many of that ECU ran in time.
  bool wait_running(const std::string& lost, std::size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return running_[lost].size() >= count; });
  }
  // When each program of that ECU ran, by program_id.
  std::multimap<std::uint64_t, double> running_wall_ms(const std::string& lost) {
    const std::lock_guard lock(mutex_);
    return running_[lost];
  }
  // The bytes of each restored program as they lie at the targets, by the key that it had.
  std::multimap<ProgramKey, std::string> restored() const {
    std::multimap<ProgramKey, std::string> paths;
    for (const auto& ecu : ecus_) {
      for (const auto& [from, name] : ecu->restored()) paths.emplace(from, ecu->restore_dir() + "/" + name);
    }
    return paths;
  }

 private:
  void read(test::EcuProcess& ecu) {
    while (!ending_ && ecu.process().running()) {
      (void)ecu.wait_for(
          [this](const nlohmann::json& line) {
            if (line.value("event", "") == "running") {
              const double now = wall_ms();
              const std::lock_guard lock(mutex_);
              running_[line.value("from_ecu_mac", "")].emplace(
                  line.value("from_program_id", std::uint64_t{0}), now);
              changed_.notify_all();
            }
            return ending_.load();
          },
          std::chrono::milliseconds(100));
    }
  }

  std::vector<std::unique_ptr<test::EcuProcess>> ecus_;
  std::atomic<bool> ending_{false};
  std::mutex mutex_;  // Guards running_.
  std::condition_variable changed_;
  std::map<std::string, std::multimap<std::uint64_t, double>> running_;  // By the lost ECU.
  std::vector<std::thread> readers_;
};

// ---- one loss

constexpr std::array kStages{"told → its programs are known",
                             "→ claimed",
                             "→ placed",
                             "→ pulled and prepared",
                             "→ ACT",
                             "→ running",
                             "→ DONE"};

struct Loss {
  double running_s = 0;  // From the call until the last program ran.
  double done_s = 0;     // Until the last DONE was durable.
  double ended_s = 0;    // Until each cms-admin had returned.
  std::array<Samples, kStages.size()> stages_ms;
  Samples restored_by_one;  // How many each cmsd that was told brought to DONE.
};

// The milliseconds since 1970 with which a line of cmsd's log begins: 2026-11-29T12:00:00.123+0000.
double wall_ms_of(const std::string& line) {
  std::tm day{};
  const char* rest = ::strptime(line.c_str(), "%Y-%m-%dT%H:%M:%S", &day);
  if (rest == nullptr || *rest != '.') fail("no time in '" + line + "'");
  std::tm zone{};
  if (::strptime(rest + 4, "%z", &zone) == nullptr) fail("no time zone in '" + line + "'");
  return static_cast<double>(::timegm(&day) - zone.tm_gmtoff) * 1e3 + std::atof(rest + 1);
}

// The line of its log in which a cmsd says that it knows what the lost ECU owned; its times count from there.
double known_wall_ms(const test::CmsdProcess& cmsd, const std::string& lost) {
  const std::string log = cmsd.log();
  const std::size_t at = log.find("ECU " + lost + ": ");
  if (at == std::string::npos) fail(cmsd.name() + " was not told of the loss");
  return wall_ms_of(log.substr(log.rfind('\n', at) + 1));
}

// Each program is at one target, once, with the bytes that were published.
void check_each_once(const std::string& lost, const std::string& programs, Targets& targets,
                     std::size_t count) {
  const auto bytes_of = [](const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  const auto running = targets.running_wall_ms(lost);
  const auto restored = targets.restored();
  if (running.size() != count) {
    fail("the lost ECU had " + std::to_string(count) + " programs, and " + std::to_string(running.size()) +
         " were started");
  }
  for (std::uint64_t id = 1; id <= count; ++id) {
    const ProgramKey key{*parse_ecu_mac(lost), id};
    if (restored.count(key) != 1 || running.count(id) != 1) {
      fail("program " + to_string(key) + " runs " + std::to_string(running.count(id)) +
           " times, and lies at the targets " + std::to_string(restored.count(key)) + " times");
    }
    if (bytes_of(restored.find(key)->second) != bytes_of(programs + "/" + std::to_string(id)))
      fail("program " + to_string(key) + " has other bytes than were published");
  }
}

// What this cmsd tells of its restores; those that others brought to DONE are left out.
void add_restores(const test::CmsdProcess& cmsd, const std::string& lost, double told,
                  const std::multimap<std::uint64_t, double>& running, Loss& loss) {
  const auto answer = cmsd.admin({"--timeout", "30s", "--output", "json", "restores", "--ecu-mac", lost});
  const auto json = nlohmann::json::parse(answer.output, nullptr, false);
  if (!json.is_object()) fail("cms-admin restores: " + answer.errors);
  if (json.at("shown") != json.at("count")) fail("cms-admin restores does not show all");
  const double known = known_wall_ms(cmsd, lost);
  double count = 0;
  for (const auto& restore : json.at("restores")) {
    if (restore.at("started_ms").is_null()) continue;
    ++count;
    const double done = known + restore.at("took_ms").get<double>();
    loss.done_s = std::max(loss.done_s, (done - told) / 1e3);
    if (restore.at("claimed_ms").is_null() || restore.at("prepared_ms").is_null())
      continue;  // Begun by another.
    double before = known;
    loss.stages_ms[0].add(known - told);
    std::size_t stage = 1;
    for (const char* step : {"claimed_ms", "placed_ms", "prepared_ms", "acted_ms"}) {
      const double at = known + restore.at(step).get<double>();
      loss.stages_ms[stage++].add(at - before);
      before = at;
    }
    const std::string program = restore.at("program");
    const double ran = running.find(std::stoull(program.substr(program.find('/') + 1)))->second;
    loss.stages_ms[stage++].add(ran - before);
    loss.stages_ms[stage].add(done - ran);
  }
  loss.restored_by_one.add(count);
}

// So many cmsd on one store, and two targets. They stand for all losses of a benchmark.
class Fleet {
 public:
  Fleet(std::size_t cmsd_count, const std::string& store_url)
      : cmsds_(dir_, cmsd_count, store_url), targets_(dir_, cmsds_.endpoints()) {}

  std::size_t size() const { return cmsds_.count(); }
  // A new ECU with so many programs is lost, and the first `told_count` cmsd are told at once.
  Loss lose_ecu(std::size_t told_count, std::size_t count, std::uint64_t size_bytes) {
    char text[18];
    std::snprintf(text, sizeof(text), "02:00:00:01:00:%02x", static_cast<unsigned>(++lost_count_ & 0xffU));
    const std::string lost = text;
    test::EcuProcess::Options programs;
    programs.program_count = count;
    programs.size_bytes = size_bytes;
    {
      test::EcuProcess ecu(dir_, cmsds_.endpoints(), lost, programs);
      if (!ecu.wait_for_receipts(size() > 1 ? "REPLICATED" : "STORED", count, kPatience))
        fail("not all programs were stored");
      ecu.kill();
    }
    settle(dir_.path());

    std::vector<std::unique_ptr<test::Process>> tellers;
    const double told = wall_ms();
    for (std::size_t i = 0; i < told_count; ++i) {
      tellers.push_back(std::make_unique<test::Process>(
          std::vector<std::string>{test::program_path("cms-admin"), "--cms", cmsds_[i].admin(), "--timeout",
                                   "120s", "--output", "json", "ecu", "failed", lost}));
    }
    Loss loss;
    for (const auto& teller : tellers) {
      (void)teller->output();  // More than a pipe holds: until its end.
      if (teller->wait(kPatience) != 0) fail("'cms-admin ecu failed' failed");
      loss.ended_s = (wall_ms() - told) / 1e3;
    }
    if (!targets_.wait_running(lost, count)) fail("not all programs run");
    check_each_once(lost, dir_ / ("programs-" + lost), targets_, count);
    const auto running = targets_.running_wall_ms(lost);
    for (const auto& [id, at] : running) loss.running_s = std::max(loss.running_s, (at - told) / 1e3);
    for (std::size_t i = 0; i < told_count; ++i) add_restores(cmsds_[i], lost, told, running, loss);
    return loss;
  }

 private:
  const test::TempDir dir_;
  const Cmsds cmsds_;
  Targets targets_;
  std::size_t lost_count_ = 0;
};

// ---- tables

// Where stores are made, each for one fleet.
class Places {
 public:
  explicit Places(std::string nas_url, std::string export_path)
      : nas_url_(std::move(nas_url)), export_path_(std::move(export_path)) {}
  static constexpr std::array kNames{"directory", "NAS"};
  std::string new_store(std::size_t place) {
    if (place == 0) return {};
    const std::string name = "store-" + std::to_string(++count_);
    fs::create_directory(export_path_ + "/" + name);
    std::string url = nas_url_;
    return url.insert(url.find('?'), "/" + name);
  }

 private:
  const std::string nas_url_;
  const std::string export_path_;
  std::size_t count_ = 0;
};

// Sides of one kind of loss, which take turns.
struct Side {
  std::size_t place = 0;
  std::shared_ptr<Fleet> fleet{};
  std::size_t told = 1;
  std::vector<Loss> losses{};
  template <typename Number>
  Samples samples(Number number) const {
    Samples all;
    for (const Loss& loss : losses) all.add(number(loss));
    return all;
  }
};

void take_turns(std::vector<Side>& sides, std::size_t count, std::uint64_t size_bytes, std::size_t repeats) {
  for (std::size_t turn = 0; turn < repeats; ++turn) {
    for (Side& side : sides) side.losses.push_back(side.fleet->lose_ecu(side.told, count, size_bytes));
  }
}

std::vector<Table> measure_loss(Places& places, std::size_t count, std::uint64_t size_bytes,
                                std::size_t repeats) {
  std::vector<Side> sides;
  for (std::size_t place = 0; place < Places::kNames.size(); ++place) {
    const auto fleet = std::make_shared<Fleet>(2, places.new_store(place));
    for (const std::size_t told : {1, 2}) sides.push_back({place, fleet, told});
  }
  take_turns(sides, count, size_bytes, repeats);
  const std::string what = std::to_string(count) + " programs of " + size_text(size_bytes);
  Table whole("An ECU with " + what + " is lost, two cmsd, two targets: seconds from 'ecu failed'",
              {"store", "told", "all run, median", "min", "max", "all DONE, median", "cms-admin ends"});
  Table stages("The same, of each program: milliseconds", {"store, told", "stage", "median", "p99", "max"});
  for (const Side& side : sides) {
    const std::string told = side.told == 1 ? "one of two" : "both";
    const Samples running = side.samples([](const Loss& loss) { return loss.running_s; });
    whole.add({Places::kNames[side.place], told, running.median(), running.min(), running.max(),
               side.samples([](const Loss& loss) { return loss.done_s; }).median(),
               side.samples([](const Loss& loss) { return loss.ended_s; }).median()});
    for (std::size_t stage = 0; stage < kStages.size(); ++stage) {
      Samples ms;
      for (const Loss& loss : side.losses) ms.add(loss.stages_ms[stage]);
      stages.add({std::string(Places::kNames[side.place]) + ", " + told, kStages[stage], ms.median(),
                  ms.percentile(99), ms.max()});
    }
  }
  return {whole, stages};
}

Table measure_contention(Places& places, std::size_t count, std::uint64_t size_bytes, std::size_t repeats) {
  std::vector<Side> sides;
  for (std::size_t place = 0; place < Places::kNames.size(); ++place) {
    for (const std::size_t cmsds : {1, 3})
      sides.push_back({place, std::make_shared<Fleet>(cmsds, places.new_store(place)), cmsds});
  }
  take_turns(sides, count, size_bytes, repeats);
  Table table("An ECU with " + std::to_string(count) + " programs of " + size_text(size_bytes) +
                  " is lost, each cmsd is told at once",
              {"store", "with", "all DONE s", "min", "max", "DONE/s", "it / one's", "cms-admin ends s",
               "DONE by each, least", "most"});
  double one = 0;
  for (const Side& side : sides) {
    const Samples done = side.samples([](const Loss& loss) { return loss.done_s; });
    const double rate = static_cast<double>(count) / done.median();
    if (side.told == 1) one = rate;
    table.add({Places::kNames[side.place], side.told == 1 ? "one cmsd" : "three cmsd", done.median(),
               done.min(), done.max(), rate, rate / one,
               side.samples([](const Loss& loss) { return loss.ended_s; }).median(),
               side.samples([](const Loss& loss) { return loss.restored_by_one.min(); }).min(),
               side.samples([](const Loss& loss) { return loss.restored_by_one.max(); }).max()});
  }
  return table;
}

struct Counts {
  std::size_t repeats = 3;
  std::size_t programs = 100;
  std::uint64_t size_kib = 1024;
  std::size_t lineages = 1000;
};

int run(Options options, Counts counts, const std::set<std::string>& only) {
  if (options.tiny) counts = {1, 4, 64, 20};
  begin(options);
  const test::TempDir dir;
  test::Ganesha::Options server;
  server.export_path = dir / "export";
  fs::create_directory(server.export_path);
  const auto ganesha = test::Ganesha::start(server);
  if (!ganesha.ok()) fail(ganesha.error().message());
  Places places((*ganesha)->url(), server.export_path);
  std::vector<Table> tables;
  if (only.empty() || only.count("loss") != 0)
    tables = measure_loss(places, counts.programs, counts.size_kib * kKiB, counts.repeats);
  if (only.empty() || only.count("contention") != 0)
    tables.push_back(measure_contention(places, counts.lineages, 4 * kKiB, (counts.repeats + 2) / 3));
  finish(options, tables);
  return 0;
}

}  // namespace
}  // namespace cms::bench

int main(int argc, char** argv) {
  CLI::App app("How fast the programs of a lost ECU run again");
  cms::bench::Options options;
  cms::bench::add_options(app, options);
  cms::bench::Counts counts;
  app.add_option("--repeats", counts.repeats, "losses of each row; a third of it where all cmsd are told")
      ->check(CLI::Range(1, 100));
  app.add_option("--programs", counts.programs, "of the ECU that is lost")->check(CLI::Range(1, 2000));
  app.add_option("--size", counts.size_kib, "of each of these, in KiB")->check(CLI::Range(1, 1048576));
  app.add_option("--lineages", counts.lineages, "small programs of the ECU of which all are told")
      ->check(CLI::Range(1, 2000));
  std::set<std::string> only;
  app.add_option("--only", only, "loss, contention; both when not given")
      ->delimiter(',')
      ->check(CLI::IsMember({"loss", "contention"}));
  CLI11_PARSE(app, argc, argv);
  return cms::bench::run(options, counts, only);
}
