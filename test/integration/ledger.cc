#include "test/integration/ledger.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include <nlohmann/json.hpp>

#include "test/integration/leases.h"

namespace cms::test {
namespace {

using nlohmann::json;

constexpr const char* kOriginMac = "02:00:00:00:00:09";

// $1 is the folder, $2 the ECU, $3 ledger_program, $4 what to do. A program's process is known by its program_id here.
constexpr const char* kCommand = R"sh(
mkdir -p "$1/$2" && cd "$1/$2" || exit 1
stop() {
  pid=$(cat "pid-$RESTORE_NEW_PROGRAM_ID")
  kill -STOP "$pid"
  until grep -q '^State:.T' "/proc/$pid/status"; do :; done
}
case "$4" in
  prepare) cat >"prepared-$RESTORE_ID" ;;
  go)
    "$3" "$1/ledger" "$RESTORE_LINEAGE" "$2/$RESTORE_OWNER_EPOCH" "$(cat "prepared-$RESTORE_ID")" >/dev/null 2>&1 &
    echo $! >"pid-$RESTORE_NEW_PROGRAM_ID" ;;
  stop) stop ;;
  freeze)
    stop
    grep "^$RESTORE_LINEAGE $2/$RESTORE_OWNER_EPOCH " "$1/ledger" | tail -n 1 | cut -d ' ' -f 3 ;;
  resume | thaw) kill -CONT "$(cat "pid-$RESTORE_NEW_PROGRAM_ID")" ;;
esac
)sh";

EcuProcess::Options on_host(const Host& host) {
  EcuProcess::Options options;
  options.bulk_host = host.address;
  options.launcher = host.launcher;
  return options;
}
EcuProcess::Options options_of(const Host& host, const std::string& command) {
  EcuProcess::Options options = on_host(host);
  options.arguments = {"--guarded", "--restore-command", command};
  return options;
}

}  // namespace

// ---- the ledger

Ledger::Ledger(const TempDir& dir) : folder_(dir / "counting") {
  std::filesystem::create_directories(folder_);
  std::ofstream(folder_ + "/command") << kCommand;
}

std::string Ledger::command_of(const std::string& ecu_mac) const {
  return "sh " + folder_ + "/command " + folder_ + " " + ecu_mac + " " + program_path("ledger_program");
}

std::vector<Ledger::Line> Ledger::lines() const {
  std::vector<Line> lines;
  std::ifstream file(folder_ + "/ledger");
  for (std::string text; std::getline(file, text);) {
    Line line;
    Duration::rep at_ns = 0;
    if (std::istringstream(text) >> line.lineage >> line.copy >> line.count >> at_ns) {
      line.at = Instant(Duration(at_ns));
      lines.push_back(line);
    }
  }
  return lines;
}

std::map<std::string, std::vector<std::string>> Ledger::copies() const {
  std::map<std::string, std::vector<std::string>> copies;
  for (const Line& line : lines()) {
    auto& of = copies[line.lineage];
    if (of.empty() || of.back() != line.copy) of.push_back(line.copy);
  }
  return copies;
}

void Ledger::expect_single(std::uint64_t stored) const {
  for (const auto& [lineage, copies] : copies()) {
    std::string text;
    for (const std::string& copy : copies) text += copy + " ";
    EXPECT_EQ(std::set<std::string>(copies.begin(), copies.end()).size(), copies.size())
        << lineage << " ran twice at a time: " << text;
  }
  std::map<std::pair<std::string, std::string>, std::uint64_t> last;
  for (const Line& line : lines()) {
    const auto [of, is_first] = last.emplace(std::pair(line.lineage, line.copy), stored);
    EXPECT_GT(line.count, of->second) << line.lineage << " as " << line.copy << (is_first ? ", first" : "");
    of->second = line.count;
  }
}

void Ledger::expect_moved(const std::string& lineage) const {
  const std::vector<std::string> copies = this->copies()[lineage];
  ASSERT_EQ(copies.size(), 2U) << lineage;
  std::uint64_t last = 0;
  for (const Line& line : lines()) {
    if (line.lineage != lineage) continue;
    if (line.copy == copies[1]) {
      EXPECT_EQ(line.count, last + 1) << lineage << " as " << line.copy;
      return;
    }
    last = line.count;
  }
}

// ---- an ECU

CountingEcu::CountingEcu(const TempDir& dir, const Ledger& ledger, const std::string& cms,
                         const std::string& ecu_mac, const Host& host)
    : process_(dir, cms, ecu_mac, options_of(host, ledger.command_of(ecu_mac))) {
  // (Each of them is a target: it says so when it is ready.)
  EXPECT_FALSE(process_.wait_for_event("ready", kPatience).is_null()) << ecu_mac;
  const std::string pid = std::to_string(guard().pid());
  std::ifstream children("/proc/" + pid + "/task/" + pid + "/children");
  EXPECT_TRUE(children >> broker_) << "the guard has no child";
}

void CountingEcu::listen(milliseconds patience) {
  for (std::string line = guard().read_line(patience); !line.empty();
       line = guard().read_line(milliseconds(0))) {
    const json said = json::parse(line, nullptr, false);
    if (said.is_object()) events_.insert(said.value("event", ""));
    log_ += line + "\n";
  }
}

std::size_t CountingEcu::count(const std::string& event) const { return events_.count(event); }
std::string CountingEcu::log() const { return log_; }

// ---- all

// A program comes to the ECU by a move: a restore is what starts its process.
void CountingEcus::begin_programs() {
  EcuProcess::Options options = on_host(hosts_[kMac]);
  // Guarded: what another one publishes is never restored by itself.
  options.arguments = {"--guarded", "--on-isolation", "stop", "--on-loss", "restore"};
  std::ofstream(dir_ / "state") << kStored << "\n";
  for (std::uint64_t id = 1; id <= kPrograms; ++id)
    options.arguments.insert(options.arguments.end(),
                             {"--program", std::to_string(id) + "=" + (dir_ / "state")});
  EcuProcess origin(dir_, fleet_.endpoints(), kOriginMac, options);
  std::multiset<std::string> said;
  ASSERT_FALSE(origin
                   .wait_for([&](const json& line) {
                     said.insert(line.value("level", line.value("event", "")));
                     return said.count("REPLICATED") >= kPrograms && said.count("resumed") >= kPrograms;
                   })
                   .is_null())
      << log();
  for (std::uint64_t id = 1; id <= kPrograms; ++id) {
    const auto moved = fleet_[1].admin(
        {"migrate", std::string(kOriginMac) + "/" + std::to_string(id), "--to", kMac, "--timeout", "60s"});
    ASSERT_EQ(moved.exit_code, 0) << moved.output << moved.errors << log();
  }
  origin.process().signal(SIGTERM);
  EXPECT_EQ(origin.process().wait(), 0);
  // Each has a checkpoint of its own there, and the state of before goes.
  ASSERT_TRUE(until([this] { return ecu_->count("running") == kPrograms; })) << log();
}

testing::AssertionResult CountingEcus::is_leased(const std::string& ecu_mac) {
  for (const std::size_t i : {0U, 1U}) {
    if (const auto leased = comes_to(fleet_[i], ecu_mac, "leased"); !leased) return leased;
  }
  return testing::AssertionSuccess();
}

std::unique_ptr<CountingEcu> CountingEcus::start(const char* ecu_mac) {
  return std::make_unique<CountingEcu>(dir_, ledger_, fleet_.endpoints(), ecu_mac, hosts_[ecu_mac]);
}

void CountingEcus::begin() {
  ecu_ = start(kMac);
  ASSERT_TRUE(is_leased(kMac)) << log();
  ASSERT_NO_FATAL_FAILURE(begin_programs());
  first_ = start(kFirstMac);
  second_ = start(kSecondMac);
  for (const char* ecu_mac : {kMac, kFirstMac, kSecondMac}) ASSERT_TRUE(is_leased(ecu_mac)) << log();
  ASSERT_TRUE(go_on(0)) << log();
}

bool CountingEcus::until(const std::function<bool()>& reached) {
  for (const auto start = TestClock::now(); since(start) < kPatience;) {
    for (CountingEcu* ecu : {ecu_.get(), first_.get(), second_.get()}) {
      if (ecu != nullptr) ecu->listen(milliseconds(ecu == ecu_.get() ? 20 : 0));
    }
    if (reached()) return true;
  }
  return false;
}

bool CountingEcus::until_passed(Instant at) {
  return until([at] { return BootClock::now() >= at; });
}

testing::AssertionResult CountingEcus::go_on(std::size_t elsewhere) {
  const Instant now = BootClock::now();
  std::size_t going = 0;
  std::size_t moved = 0;
  const auto all_go_on = [&] {
    std::set<std::string> alive;
    for (const Ledger::Line& line : ledger_.lines()) {
      if (line.at > now) alive.insert(line.lineage);
    }
    going = alive.size();
    moved = 0;
    bool once = true;
    for (const auto& [lineage, copies] : ledger_.copies()) {
      moved += copies.size() > 1 ? 1 : 0;
      once = once && copies.size() <= 2;
    }
    return going == kPrograms && moved == elsewhere && once;
  };
  if (until(all_go_on)) return testing::AssertionSuccess();
  return testing::AssertionFailure() << going << " of " << kPrograms << " go on, " << moved
                                     << " of them elsewhere\n"
                                     << log();
}

std::string CountingEcus::log() const {
  std::string text = fleet_.log();
  for (const CountingEcu* ecu : {ecu_.get(), first_.get(), second_.get()}) {
    if (ecu != nullptr) text += "an ECU:\n" + ecu->log();
  }
  for (const auto& [lineage, copies] : ledger_.copies()) {
    text += lineage + ":";
    for (const std::string& copy : copies) text += " " + copy;
    text += "\n";
  }
  return text;
}

}  // namespace cms::test
