#include "test/integration/fleet.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "cms/core/peers.h"

namespace cms::test {
namespace {

constexpr std::array<const char*, 2> kNames{"a", "b"};

std::string heard(std::size_t other) { return std::string("peer ") + kNames[other] + " at "; }

}  // namespace

Fleet::Fleet(const TempDir& dir, const Options& options) {
  const std::vector<std::uint16_t> free = free_port_bases(2);
  for (std::size_t i = 0; i < 2; ++i) {
    const std::size_t other = 1 - i;
    const auto base = [&](std::size_t of) {
      return options.port_bases[of] != 0 ? options.port_bases[of] : free[of];
    };
    CmsdProcess::Options one;
    one.name = kNames[i];
    one.port_base = base(i);
    one.crash_point = options.crash_points[i];
    one.store_url = options.store_urls[i];
    one.bind = options.hosts[i].address;
    one.launcher = options.hosts[i].launcher;
    const std::string& peer_host =
        options.peer_hosts[other].empty() ? options.hosts[other].address : options.peer_hosts[other];
    one.arguments = {"--peer", "tcp://" + peer_host + ":" + std::to_string(base(other))};
    one.arguments.insert(one.arguments.end(), options.arguments.begin(), options.arguments.end());
    cmsds_[i] = std::make_unique<CmsdProcess>(dir, one);
  }
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(cmsds_[i]->wait_for_log(heard(1 - i), 1, kPatience)) << log();
    wait_for_store(i);
  }
}

void Fleet::wait_for_store(std::size_t i) const {
  const std::size_t starts = cmsds_[i]->count_in_log("is ready on port base");
  EXPECT_TRUE(cmsds_[i]->wait_for_log("the store is ready", starts, kPatience)) << log();
}

void Fleet::start(std::size_t i, const std::string& crash_point) {
  const std::size_t other = 1 - i;
  const std::size_t by_it = cmsds_[i]->count_in_log(heard(other));
  const std::size_t by_other = cmsds_[other]->count_in_log(heard(i));
  cmsds_[i]->start(crash_point);
  EXPECT_TRUE(cmsds_[i]->wait_for_log(heard(other), by_it + 1, kPatience)) << log();
  EXPECT_TRUE(cmsds_[other]->wait_for_log(heard(i), by_other + 1, kPatience)) << log();
  wait_for_store(i);
}

std::string Fleet::log() const { return "a:\n" + cmsds_[0]->log() + "b:\n" + cmsds_[1]->log(); }

std::size_t puller_of(const std::string& key) {
  const std::size_t slash = key.find('/');
  const auto ecu_mac = parse_ecu_mac(key.substr(0, slash));
  const auto program_id = parse_u64(key.substr(slash + 1));
  CMS_ASSERT(ecu_mac.ok() && program_id.ok());
  const ProgramKey program{*ecu_mac, *program_id};
  return core::rendezvous_weight(kNames[0], program) > core::rendezvous_weight(kNames[1], program) ? 0 : 1;
}

std::uint64_t program_pulled_by(std::size_t which, const std::string& ecu_mac, std::uint64_t from) {
  while (puller_of(ecu_mac + "/" + std::to_string(from)) != which) ++from;
  return from;
}

void wait_until_both_pull(Fleet& fleet, Publisher& publisher) {
  const std::string key = publisher.key(0);
  const std::string ecu_mac = key.substr(0, key.find('/'));
  constexpr std::uint64_t kFirst = 1000000;  // None that a test uses.
  const auto start = TestClock::now();
  for (std::uint64_t generation = 1; since(start) < kPatience; ++generation) {
    std::size_t pulling = 0;
    for (std::size_t i = 0; i < 2; ++i) {
      const std::uint64_t seq = publisher.publish(program_pulled_by(i, ecu_mac, kFirst), generation, 4096);
      (void)publisher.wait(seq, RTCR_REPLICATED, kPatience.count());
    }
    for (std::size_t i = 0; i < 2; ++i)
      pulling += counter_of(fleet[i], "pulls_started").value_or(0) > 0 ? 1 : 0;
    if (pulling == 2) return;
  }
  ADD_FAILURE() << "one of the two pulls nothing\n" << fleet.log();
}

std::optional<std::uint64_t> counter_of(const CmsdProcess& cmsd, const std::string& name) {
  const auto status = cmsd.admin({"status", "--output", "json"});
  if (status.exit_code != 0) return std::nullopt;
  const auto json = nlohmann::json::parse(status.output, nullptr, false);
  if (json.is_discarded() || !json.contains("counters") || !json["counters"].contains(name))
    return std::nullopt;
  return json["counters"][name].get<std::uint64_t>();
}

std::optional<std::map<std::string, std::string>> index_of(const CmsdProcess& cmsd, Facts facts) {
  const auto listed = cmsd.admin({"checkpoints", "--all", "--output", "json"});
  if (listed.exit_code != 0) return std::nullopt;
  const auto json = nlohmann::json::parse(listed.output, nullptr, false);
  if (json.is_discarded()) return std::nullopt;
  std::map<std::string, std::string> rows;
  for (nlohmann::json row : json.at("checkpoints")) {
    const std::string state = row.at("state").get<std::string>();
    if (state != "current" && state != "stored") continue;
    row.erase("age_s");
    if (facts == Facts::kInNames) {
      for (const char* field :
           {"stored_at", "stored_at_us", "stored_bytes", "taken_at", "pause_us", "program_name"})
        row.erase(field);
    }
    rows[row.at("key").get<std::string>()] = row.dump();
  }
  return rows;
}

testing::AssertionResult indexes_agree(Fleet& fleet, std::size_t count, Facts facts) {
  const auto start = TestClock::now();
  std::optional<std::map<std::string, std::string>> a;
  std::optional<std::map<std::string, std::string>> b;
  do {
    a = index_of(fleet[0], facts);
    b = index_of(fleet[1], facts);
    if (a && a == b && a->size() >= count) return testing::AssertionSuccess();
  } while (since(start) < kPatience);
  auto failure = testing::AssertionFailure();
  failure << "a has " << (a ? a->size() : 0) << " checkpoints, b " << (b ? b->size() : 0) << "; at least "
          << count << " are expected";
  int shown = 0;
  for (const auto* from : {&a, &b}) {
    const auto* to = from == &a ? &b : &a;
    for (const auto& [key, row] : from->value_or(std::map<std::string, std::string>{})) {
      const auto it = *to ? (*to)->find(key) : decltype((*to)->find(key)){};
      if (*to && it != (*to)->end() && it->second == row) continue;
      if (++shown > 6) break;
      failure << "\nonly " << (from == &a ? "a" : "b") << ": " << row;
    }
  }
  return failure << "\n" << fleet.log();
}

bool wait_until_stale(const CmsdProcess& cmsd, const std::string& name) {
  const auto start = TestClock::now();
  while (since(start) < kPatience) {
    const auto peers = cmsd.admin({"peers", "--output", "json"});
    const auto json = nlohmann::json::parse(peers.output, nullptr, false);
    if (json.is_object()) {
      for (const auto& peer : json.at("peers")) {
        if (peer.value("name", "") == name && peer.at("record") == "stale") return true;
      }
    }
  }
  return false;
}

std::optional<std::vector<std::uint8_t>> get_newest(const CmsdProcess& cmsd, const std::string& key,
                                                    const std::string& file) {
  std::filesystem::remove(file);
  if (cmsd.admin({"get", key, "-o", file}).exit_code != 0) return std::nullopt;
  std::ifstream in(file, std::ios::binary);
  return std::vector<std::uint8_t>{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace cms::test
