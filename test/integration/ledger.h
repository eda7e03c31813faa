#pragma once
// Guarded ECUs whose programs are processes that count (ledger_program.cc), and the ledger into which all copies of them
// write: whether a program ever ran twice, or went back behind what was STORED, is read there.
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/time.h"
#include "test/integration/ecu_process.h"
#include "test/integration/fleet.h"

namespace cms::test {

class Ledger {
 public:
  struct Line {
    std::string lineage;
    std::string copy;  // ECU_MAC/OWNER_EPOCH
    std::uint64_t count = 0;
    Instant at{};
  };
  // Files are made in `dir`.
  explicit Ledger(const TempDir& dir);

  // For --restore-command of this ECU.
  std::string command_of(const std::string& ecu_mac) const;
  std::vector<Line> lines() const;
  // The copies of each program, in the order in which they began.
  std::map<std::string, std::vector<std::string>> copies() const;
  // No copy has a line after one of its successor; each counts up, from above `stored` on.
  void expect_single(std::uint64_t stored) const;
  // Its second copy went on exactly where the first one had stopped.
  void expect_moved(const std::string& lineage) const;

 private:
  const std::string folder_;
};

// `rtcr ecu --guarded` that runs such programs, and what it has said so far.
class CountingEcu {
 public:
  CountingEcu(const TempDir& dir, const Ledger& ledger, const std::string& cms, const std::string& ecu_mac,
              const Host& host);

  Process& guard() { return process_.process(); }
  pid_t broker() const { return broker_; }
  // What it has said meanwhile; waits so long for a first line.
  void listen(milliseconds patience);
  std::size_t count(const std::string& event) const;
  std::string log() const;

 private:
  EcuProcess process_;
  pid_t broker_ = 0;
  std::multiset<std::string> events_;
  std::string log_;
};

// An ECU that runs all programs, and two that could take them; all leased by both cmsd.
class CountingEcus {
 public:
  static constexpr const char* kMac = "02:00:00:00:00:01";
  static constexpr const char* kFirstMac = "02:00:00:00:00:11";
  static constexpr const char* kSecondMac = "02:00:00:00:00:12";
  static constexpr std::uint64_t kPrograms = 3;
  static constexpr std::uint64_t kStored = 1000;  // The state that is STORED of each.

  // `hosts`: by ecu_mac, where that is not the one of all.
  CountingEcus(const TempDir& dir, Fleet& fleet, std::map<std::string, Host> hosts = {})
      : dir_(dir), fleet_(fleet), hosts_(std::move(hosts)), ledger_(dir) {}
  // The programs come to their ECU through the second cmsd: no point of the first one is passed.
  void begin();

  const Ledger& ledger() const { return ledger_; }
  CountingEcu& ecu() { return *ecu_; }
  // Listens to all until then. False: not before long.
  bool until(const std::function<bool()>& reached);
  bool until_passed(Instant at);
  // Until each program has a line that is younger than now, and so many of them are a second copy, the others the first.
  testing::AssertionResult go_on(std::size_t elsewhere);
  bool any_restored() const { return first_->count("running") + second_->count("running") > 0; }
  void expect_single() const { ledger_.expect_single(kStored); }
  std::string log() const;

 private:
  void begin_programs();
  std::unique_ptr<CountingEcu> start(const char* ecu_mac);
  testing::AssertionResult is_leased(const std::string& ecu_mac);

  const TempDir& dir_;
  Fleet& fleet_;
  std::map<std::string, Host> hosts_;
  const Ledger ledger_;
  std::unique_ptr<CountingEcu> ecu_;
  std::unique_ptr<CountingEcu> first_;
  std::unique_ptr<CountingEcu> second_;
};

}  // namespace cms::test
