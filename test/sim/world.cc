#include "test/sim/world.h"

#include <algorithm>
#include <cstdio>
#include <utility>

namespace cms::sim {

using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t kEventCountMax = 20'000'000;  // Far beyond any healthy run.
constexpr Duration kSettleTimeMax = 60s;
constexpr Duration kTakeOverMax = 3s;
constexpr Duration kLife = 5s;  // Of a client behind a cut.
constexpr Duration kSecondHeard = 500ms;
constexpr std::uint64_t kHourUs = 3'600'000'000;

}  // namespace

World::World(std::uint64_t seed, Plant plant, bool verbose)
    : scenario_(make_scenario(seed)),
      plant_(plant),
      verbose_(verbose),
      prng_(seed),
      ledger_(scenario_.cms_live_count > 1),
      store_(ledger_) {}

World::~World() = default;

void World::trace(const std::string& line) const {
  const auto us =
      std::chrono::duration_cast<std::chrono::microseconds>(queue_.now().time_since_epoch() - 1h).count();
  std::printf("%4lld.%06lld  %s\n", static_cast<long long>(us / 1000000),
              static_cast<long long>(us % 1000000), line.c_str());
}

void World::run() {
  for (std::size_t ecu = 0; ecu < scenario_.ecu_count; ++ecu) {
    for (std::size_t session = 0; session < scenario_.sessions_per_ecu; ++session) {
      Slot slot;
      slot.ecu_mac = EcuMac{0x020000000001 + ecu};
      slot.first_program = scenario_.shared_programs ? 0 : session * 100;
      slot.port = static_cast<std::uint16_t>(kFirstPort + slots_.size());
      slots_.push_back(slot);
    }
  }
  store_faults_.fail_per_10k = scenario_.store_fail_per_10k;
  for (std::size_t number = 0; number < scenario_.cms_live_count; ++number) {
    Cms& cms = cms_.emplace_back(number, std::string(1, static_cast<char>('a' + number)), store_);
    cms.channels.resize(scenario_.cms_live_count);
    cms.wall_ahead_us = number * kHourUs;
    const Duration late = number == 0 ? Duration{} : around(prng_, scenario_.late_join_max / 2);
    queue_.after(around(prng_, 200ms) + late, [this, &cms] { start_cms(cms); });
  }
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    start_client(slot);
  }
  schedule_faults();
  run_until(queue_.now() + scenario_.fault_time);
  heal();
  run_until_settled("after the faults");
  if (scenario_.kind == Kind::kQuiet) check_pulled_once();
  if (scenario_.kind == Kind::kTakeOver) crash_puller();
  if (scenario_.kind == Kind::kCut) restart_behind_a_cut();
  const int rounds = scenario_.kind == Kind::kCut ? 2 : 1;
  for (int round = 0; round < rounds; ++round) {
    for (const Slot& slot : slots_) {
      Client& client = client_of(slot);
      for (ProgramId i = 0; i < scenario_.program_count; ++i) publish(client, slot.first_program + i, 1000);
    }
    run_until_settled("after one more checkpoint of each program");
  }
}

void World::run_until(Instant until) {
  while (queue_.run_next(until)) {
    if (queue_.run_count() > kEventCountMax) violated("too many events: something runs in circles");
  }
}

World::Client* World::random_client() {
  Client& client = client_of(slots_[prng_.below(slots_.size())]);
  return client.core == nullptr || client.leaving ? nullptr : &client;
}

World::Cms* World::random_cms() {
  Cms& cms = cms_[prng_.below(cms_.size())];
  return cms.core == nullptr ? nullptr : &cms;
}

// ---- promises that hold while all is well

// Invariant: of all that was pulled hardly anything was pulled twice.
void World::check_pulled_once() const {
  std::uint64_t needed_bytes = 0;
  for (const auto& [checkpoint, size_bytes] : fetched_) needed_bytes += size_bytes;
  std::uint64_t pulled_bytes = 0;
  for (const Cms& cms : cms_) pulled_bytes += cms.core->counters().pulled_bytes;
  if (pulled_bytes > needed_bytes + needed_bytes / 10) {
    violated("pulled twice: " + std::to_string(pulled_bytes) + " bytes were pulled by all CMS together, " +
             std::to_string(needed_bytes) + " were needed");
  }
}

// Invariant: when one dies while it pulls, the other has what it pulled within three seconds.
void World::crash_puller() {
  std::vector<const Published*> waiting;
  for (const Slot& slot : slots_) {
    Client& client = client_of(slot);
    for (ProgramId i = 0; i < scenario_.program_count; ++i) {
      publish(client, slot.first_program + i, prng_.below(scenario_.blob_bytes_max));
      waiting.push_back(&client.record->published.back());
    }
  }
  run_until(queue_.now() + around(prng_, 5ms));
  crash_cms(cms_[prng_.below(cms_.size())], 20s);
  run_until(queue_.now() + kTakeOverMax);
  for (const Published* published : waiting) {
    const bool replaced = published->final_level == wire::ReceiptLevel::kSuperseded;  // Shared programs.
    if (!published->told_stored && !replaced)
      violated(to_string(*published) + " is not stored 3 s after a CMS died");
  }
}

// No client reaches this CMS for so long.
void World::cut_off(Cms& cms, Duration duration) {
  cms.cut_off_until = queue_.now() + duration;
  for (Client& client : clients_) {
    if (client.core == nullptr) continue;
    break_control(client, cms);
    break_notify(client, cms);
  }
}

// The clients live a life that one CMS does not hear of, neither from them nor from its peer, and then
// are given their next incarnations by just that one. What they publish is the newest all the same.
void World::restart_behind_a_cut() {
  const std::size_t unaware = prng_.below(cms_.size());
  for (Cms& cms : cms_) {
    for (PeerChannel& channel : cms.channels) channel.cut_until = queue_.now() + 4 * kLife;
  }
  const auto restart_all = [this](std::size_t unheard, Duration unheard_for) {
    for (std::size_t slot = 0; slot < slots_.size(); ++slot) kill_client(client_of(slots_[slot]));
    cut_off(cms_[unheard], unheard_for);
    for (std::size_t slot = 0; slot < slots_.size(); ++slot) start_client(slot);
    for (const Slot& slot : slots_) {
      for (ProgramId i = 0; i < scenario_.program_count; ++i)
        publish(client_of(slot), slot.first_program + i, prng_.below(scenario_.blob_bytes_max));
    }
    run_until(queue_.now() + kLife);
  };
  restart_all(unaware, kLife);
  restart_all(unaware, kLife);  // Two, so that its count of incarnations is surely behind.
  restart_all(1 - unaware, kSecondHeard);
  heal();
  run_until_settled("after lives behind a cut");
}

// ---- faults

void World::schedule_faults() {
  const Instant publish_from = queue_.now() + scenario_.publish_from;
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    // Most stop before the faults do: what goes wrong with a last checkpoint, no later one hides.
    const Instant publish_until = queue_.now() + around(prng_, scenario_.fault_time);
    recur(scenario_.publish_interval, [this, slot, publish_from, publish_until] {
      const Instant now = queue_.now();
      if (now >= publish_from && now < publish_until) publish(client_of(slots_[slot]));
    });
    recur(scenario_.client_restart_every, [this, slot] { restart_client(slot); });
    recur(scenario_.control_break_every,
          [this, slot] { break_control(client_of(slots_[slot]), cms_[prng_.below(cms_.size())]); });
    recur(scenario_.stall_every,
          [this, slot] { client_of(slots_[slot]).stalled_until = queue_.now() + around(prng_, 4s); });
  }
  recur(scenario_.withdraw_every, [this] {
    if (Client* client = random_client()) withdraw(*client);
  });
  recur(scenario_.retire_every, [this] {
    const Slot& slot = slots_[prng_.below(slots_.size())];
    const ProgramKey program{slot.ecu_mac, slot.first_program + prng_.below(scenario_.program_count)};
    if (verbose_) trace("an operator retires " + cms::to_string(program));
    if (Cms* cms = random_cms()) {
      step_cms(*cms,
               [&](core::CmsCore& core, core::Effects& effects) { (void)core.retire(program, effects); });
    }
  });
  recur(scenario_.pin_every, [this] {
    const std::set<ProgramKey> programs = store_.programs();
    if (programs.empty()) return;
    const auto program =
        std::next(programs.begin(), static_cast<std::ptrdiff_t>(prng_.below(programs.size())));
    const std::vector<storage::BlobName> blobs = store_.blobs(*program);
    if (!blobs.empty()) store_.pin(blobs.back().checkpoint);
  });
  recur(scenario_.bulk_break_every, [this] {
    Cms* cms = random_cms();
    if (cms == nullptr || cms->links.empty()) return;
    auto it = cms->links.begin();
    std::advance(it, prng_.below(cms->links.size()));
    break_link(*cms, it->first);
  });
  recur(scenario_.malformed_every, [this] { break_something(); });
  for (Cms& cms : cms_) {
    recur(scenario_.cms_crash_every,
          [this, &cms] { crash_cms(cms, around(prng_, scenario_.cms_down_max / 2)); });
  }
  schedule_peer_faults();
  recur(scenario_.outage_every, [this] {
    if (store_faults_.outage) return;
    constexpr Code kCodes[] = {Code::kUnavailable, Code::kNoSpace, Code::kIo, Code::kReadOnly};
    store_faults_.outage = kCodes[prng_.below(std::size(kCodes))];
    if (verbose_) trace("the store fails: " + std::string(cms::to_string(*store_faults_.outage)));
    // Short ones may go unnoticed by the probe.
    const Duration until_noticed = around(prng_, 300ms);
    queue_.after(until_noticed, [this] {
      for (Cms& cms : cms_) {
        if (store_faults_.outage && cms.core != nullptr) cms.workers->probe();
      }
    });
    queue_.after(around(prng_, scenario_.outage_max / 2), [this] { store_faults_.outage.reset(); });
  });
}

// A frame that cannot be decoded arrives.
void World::break_something() {
  const Error error = make_error(Code::kProtocol, "the simulator sent nonsense");
  Client* client = random_client();
  Cms* cms = random_cms();
  const std::uint64_t dice = prng_.below(4);
  if (client == nullptr || cms == nullptr) return;
  if (dice == 0) {
    const core::PeerId peer = "c" + std::to_string(client->index) + "." +
                              std::to_string(client->control[cms->number].connection.generation);
    step_cms(*cms, [&](core::CmsCore& core, core::Effects& effects) {
      core.on_malformed_control(queue_.now(), peer, "10.0.0.1", error, effects);
    });
  } else if (dice == 1 && !cms->links.empty()) {
    const core::LinkId link = cms->links.rbegin()->first;
    step_cms(*cms, [&](core::CmsCore& core, core::Effects& effects) {
      core.on_malformed_bulk(queue_.now(), link, error, effects);
    });
  } else if (dice == 2) {
    step_cms(*cms, [&](core::CmsCore& core, core::Effects& effects) {
      core.on_malformed_peer(queue_.now(), "10.0.1.9", error, effects);
    });
  } else {
    step_cms(*cms, [&](core::CmsCore& core, core::Effects& effects) {
      core.on_malformed_notify(queue_.now(), "10.0.0.1", error, effects);
    });
  }
}

void World::heal() {
  if (verbose_) trace("everything heals");
  faults_on_ = false;
  store_faults_ = StoreFaults{};
  for (Client& client : clients_) client.stalled_until = Instant{};
  for (Cms& cms : cms_) {
    for (PeerChannel& channel : cms.channels) channel.cut_until = Instant{};
  }
}

std::optional<std::string> World::unsettled() const {
  for (const Cms& cms : cms_) {
    if (cms.core == nullptr) return "cmsd " + cms.name + " is down";
  }
  for (const Slot& slot : slots_) {
    const Client& client = clients_[slot.client];
    if (client.core == nullptr || client.leaving) return "a client is down";
    if (!client.withdrawals.empty()) return client.record->name + " waits for the answer to a withdrawal";
    if (auto unfinished =
            ledger_.unfinished(*client.record, scenario_.cms_count == scenario_.cms_live_count)) {
      for (const Cms& cms : cms_) *unfinished += "; " + describe(cms, client);
      return unfinished;
    }
  }
  for (const Cms& cms : cms_) {
    if (auto why = unsettled(cms)) return why;
  }
  return std::nullopt;
}

void World::run_until_settled(const char* when) {
  const Instant deadline = queue_.now() + kSettleTimeMax;
  while (queue_.now() < deadline) {
    run_until(queue_.now() + 500ms);
    if (unsettled()) continue;
    for (const Slot& slot : slots_) ledger_.check_newest_stored(*clients_[slot.client].record);
    check_kept();
    return;
  }
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(kSettleTimeMax).count();
  violated("not settled " + std::to_string(seconds) + " s " + when + ": " + unsettled().value_or("?"));
}

}  // namespace cms::sim
