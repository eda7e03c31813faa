// The cmsd: their lives, their steps, and the invariants on what they say and know.
#include <algorithm>
#include <limits>
#include <utility>

#include "test/sim/world.h"

namespace cms::sim {

using namespace std::chrono_literals;
using wire::ReceiptLevel;

// ---- life

void World::start_cms(Cms& cms) {
  if (cms.core != nullptr) return;
  ++cms.start_count;
  if (verbose_) trace("cmsd " + cms.name + " starts, for the " + std::to_string(cms.start_count) + ". time");
  core::CmsCoreConfig config;
  config.name = cms.name;
  config.pull_budget_bytes = scenario_.pull_budget_bytes;
  config.seed = prng_.next();
  config.incarnation = prng_.next() | 1;
  config.peer_count = scenario_.cms_count - 1;
  config.pull_every = scenario_.pull_every || plant_ == Plant::kBothPull;
  cms.core = std::make_unique<core::CmsCore>(config);
  cms.stored_seen = 0;
  cms.listed.clear();
  cms.workers = std::make_unique<StoreWorkers>(
      queue_, prng_, scenario_, store_, cms.index, store_faults_, plant_,
      [this, &cms](const StoreWorkers::Answer& answer) {
        step_cms(cms,
                 [&](core::CmsCore& core, core::Effects& effects) { answer(core, queue_.now(), effects); });
      });
  connect_peers(cms);
  arm(cms);
  cms.workers->probe();
}

void World::crash_cms(Cms& cms, Duration down) {
  if (cms.core == nullptr) return;
  if (verbose_) trace("cmsd " + cms.name + " dies");
  cms.pulled_bytes += cms.core->counters().pulled_bytes;
  cms.core.reset();
  cms.workers.reset();
  cms.timer = Timer{};
  cms.links.clear();
  for (Client& client : clients_) {
    if (client.core == nullptr) continue;
    break_control(client, cms);
    break_notify(client, cms);
  }
  for (Cms& other : cms_) {
    if (&other == &cms) continue;
    break_channel(other, cms, true);
    break_channel(cms, other, prng_.chance(1, 2));  // What it said last may still arrive.
  }
  if (scenario_.index_lost_percent != 0 && prng_.chance(scenario_.index_lost_percent, 100)) {
    if (verbose_) trace("the index of cmsd " + cms.name + " is lost");
    note_known_incarnations();
    cms.index.lose();
    cms.withdraw_answered.clear();
  }
  check_kept();
  if (plant_ == Plant::kDeadPeerBeats) beat_on(cms);
  queue_.after(down, [this, &cms] { start_cms(cms); });
}

void World::arm(Cms& cms) {
  const Instant deadline = cms.core->next_deadline();
  if (cms.timer.at && *cms.timer.at <= deadline) return;
  cms.timer.at = deadline;
  queue_.at(deadline, [this, &cms, start = cms.start_count, number = ++cms.timer.number] {
    if (cms.core == nullptr || cms.start_count != start || cms.timer.number != number) return;
    cms.timer.at.reset();
    if (queue_.now() < cms.core->next_deadline()) {
      arm(cms);
      return;
    }
    const auto us =
        std::chrono::duration_cast<std::chrono::microseconds>(queue_.now().time_since_epoch()).count();
    step_cms(cms, [&](core::CmsCore& core, core::Effects& effects) {
      core.on_time(queue_.now(), static_cast<std::uint64_t>(us) + cms.wall_ahead_us, effects);
    });
  });
}

// ---- steps

void World::end_step(Cms& cms, core::Effects& effects) {
  cms.core->tell_peers(effects);
  carry_out(cms, effects);
  check_cms(cms);
  arm(cms);
}

void World::carry_out(Cms& cms, core::Effects& effects) {
  const bool stored_now = cms.core->counters().stored != cms.stored_seen;
  cms.stored_seen = cms.core->counters().stored;
  for (core::Effect& effect : effects) {
    if (auto* control = std::get_if<core::SendControl>(&effect)) {
      if (on_control_sent(cms, *control, stored_now))
        send_to_client(cms, control->peer, std::move(control->message));
    } else if (auto* open = std::get_if<core::OpenLink>(&effect)) {
      open_link(cms, *open);
    } else if (auto* close = std::get_if<core::CloseLink>(&effect)) {
      const auto it = cms.links.find(close->link);
      if (it == cms.links.end()) violated("a bulk connection was closed twice");
      if (it->second.connection.stuck) cms.dead_ports.insert(it->second.port);
      cms.links.erase(it);
    } else if (auto* bulk = std::get_if<core::SendBulk>(&effect)) {
      if (const auto* fetch = std::get_if<wire::Fetch>(&bulk->message)) {
        const Published* published = ledger_.find(fetch->checkpoint);
        if (published == nullptr)
          violated("a fetch of " + cms::to_string(fetch->checkpoint) + ", which was never published");
        fetched_[fetch->checkpoint] = published->size_bytes;
      }
      send_to_link(cms, bulk->link, std::move(bulk->message));
    } else if (auto* peer = std::get_if<core::SendPeer>(&effect)) {
      send_to_peers(cms, peer->message);
    } else if (auto* gave_up = std::get_if<core::GiveUp>(&effect)) {
      violated("cmsd " + cms.name + " gave up: " + gave_up->reason);
    } else if (auto* log = std::get_if<core::LogEvent>(&effect)) {
      if (verbose_) trace("cmsd " + cms.name + ": " + log->text);
    } else {
      std::visit(
          [&](auto& work) {
            if constexpr (requires { cms.workers->run(work); }) cms.workers->run(work);
          },
          effect);
    }
  }
}

bool World::on_control_sent(Cms& cms, core::SendControl& effect, bool stored_now) {
  wire::ControlMessage& message = effect.message;
  if (plant_ == Plant::kForgetListAfterGap && std::holds_alternative<wire::List>(message.body)) {
    return cms.listed.insert(effect.peer).second;
  }
  if (auto* receipt = std::get_if<wire::Receipt>(&message.body)) {
    const bool repeated = receipt->level == ReceiptLevel::kStored && !stored_now;
    if (plant_ == Plant::kLostReceiptNeverRepeated && repeated) return false;
    return on_receipt_sent(cms, effect, *receipt);
  }
  const auto* answer = std::get_if<wire::WithdrawAnswer>(&message.body);
  if (answer != nullptr && answer->code == Code::kOk) {
    const Client& client = clients_[cms.control_peers.at(effect.peer)];
    const auto [program_id, seq] = client.withdrawn_by.at(answer->request_id);
    Version& answered = cms.withdraw_answered[ProgramKey{client.record->ecu_mac, program_id}];
    answered = std::max(answered, Ledger::covered_by(Version{message.incarnation, seq}));
  }
  return true;
}

bool World::on_receipt_sent(Cms& cms, const core::SendControl& effect, wire::Receipt& receipt) {
  const auto peer = cms.control_peers.find(effect.peer);
  if (peer == cms.control_peers.end()) violated("a receipt for nobody: " + effect.peer);
  const SessionId session{clients_[peer->second].record->ecu_mac, effect.message.incarnation};
  if (plant_ == Plant::kAckWrongSeq && receipt.level == ReceiptLevel::kStored && receipt.seq > 1)
    --receipt.seq;
  if (plant_ == Plant::kNewerNotTold) receipt.newer = Version{};
  const Published* published = ledger_.find(session, receipt.seq);
  if (published == nullptr || published->program.program_id != receipt.program_id) {
    violated("a receipt for program " + std::to_string(receipt.program_id) + " seq " +
             std::to_string(receipt.seq) + " of session " + cms::to_string(session) +
             ", which was never published");
  }
  if (receipt.level != ReceiptLevel::kStored) return true;
  const CheckpointId checkpoint{published->program, Version{session.incarnation, published->seq}};
  // This planted bug is in what the peers are told.
  if (plant_ == Plant::kPeerEventBeforeDurable && cms.index.newer_count(checkpoint) == 0 &&
      !cms.index.has(checkpoint)) {
    return false;
  }
  store_.check_may_say_stored(checkpoint);
  if (!cms.index.has(checkpoint) && cms.index.newer_count(checkpoint) < kKeepLatest &&
      !store_.is_withdrawn(checkpoint)) {
    violated("cmsd " + cms.name + " said STORED for " + cms::to_string(checkpoint) +
             ", which is not in its index");
  }
  Version& said = said_stored_[published->program];
  said = std::max(said, checkpoint.version);
  return true;
}

// ---- invariants

void World::check_cms(const Cms& cms) {
  const std::uint64_t budget_bytes = scenario_.pull_budget_bytes;
  if (cms.core->in_flight_bytes() > budget_bytes || cms.workers->untaken_bytes() > budget_bytes) {
    violated("memory: cmsd " + cms.name + " has " + std::to_string(cms.core->in_flight_bytes()) +
             " bytes in flight, " + std::to_string(cms.workers->untaken_bytes()) +
             " wait for the store, the budget is " + std::to_string(budget_bytes));
  }
  cms.workers->check_windows();
  std::uint64_t reserved_bytes = 0;
  for (const auto& [id, transfer] : cms.core->transfers()) reserved_bytes += transfer.reserved_bytes;
  if (reserved_bytes != cms.core->in_flight_bytes()) violated("the CMS lost count of the bytes in flight");
  for (const auto& [key, program] : cms.core->programs()) {
    if (program.withdrawn && program.newest_stored && *program.newest_stored <= *program.withdrawn) {
      violated("the CMS takes a withdrawn checkpoint of " + cms::to_string(key) + " for current");
    }
  }
  check_withdrawn(cms);
}

void World::check_withdrawn(const Cms& cms) const {
  for (const auto& [program, up_to] : cms.withdraw_answered) {
    const std::optional<Version> current = cms.index.newest_version(program);
    if (current && *current <= up_to) {
      violated("resurrected: " + cms::to_string(CheckpointId{program, *current}) + " is current, but " +
               cms::to_string(CheckpointId{program, up_to}) + " and everything older was withdrawn");
    }
    const std::optional<Version> tombstone = store_.tombstone(program);
    if (!tombstone || *tombstone < up_to) {
      violated("the withdrawal of " + cms::to_string(CheckpointId{program, up_to}) +
               " was answered but is not durable");
    }
  }
}

void World::check_kept() const {
  for (const auto& [program, version] : said_stored_) store_.check_kept(CheckpointId{program, version});
  for (const ClientRecord& client : ledger_.clients()) {
    for (const Published& published : client.published) {
      if (published.told_stored) {
        store_.check_kept(CheckpointId{published.program, published.stored_as});
      }
    }
  }
}

// While all is well everybody knows at once.
void World::note_known_incarnations() {
  for (const Slot& slot : slots_) {
    Incarnation known_to_all = std::numeric_limits<Incarnation>::max();
    if (scenario_.kind == Kind::kFaulty || scenario_.kind == Kind::kCut) {
      for (const Cms& cms : cms_)
        known_to_all = std::min(known_to_all, cms.index.max_incarnation(slot.ecu_mac));
    }
    ledger_.note_known(slot.ecu_mac, known_to_all);
  }
}

// After healing: what is yet to come.
std::optional<std::string> World::unsettled(const Cms& cms) const {
  const std::string name = "cmsd " + cms.name;
  if (cms.core == nullptr) return name + " is down";
  const core::CmsCore& core = *cms.core;
  if (core.transfer_count() != 0)
    return std::to_string(core.transfer_count()) + " transfers of " + name + " go on";
  if (core.in_flight_bytes() != 0)
    return name + " has " + std::to_string(core.in_flight_bytes()) + " bytes in flight";
  if (cms.workers->job_count() != 0)
    return name + " has " + std::to_string(cms.workers->job_count()) + " jobs with the store";
  for (const auto& [key, program] : core.programs()) {
    if (program.pending) return name + " still wants a checkpoint of " + cms::to_string(key);
  }
  return disagrees(cms);
}

// Where the index differs from the store, or from what was promised.
std::optional<std::string> World::disagrees(const Cms& cms) const {
  const std::string whose = "the index of cmsd " + cms.name + ": ";
  for (const auto& [program, version] : said_stored_) {
    const CheckpointId stored{program, version};
    if (store_.is_withdrawn(stored)) continue;
    const std::optional<storage::BlobName> newest = cms.index.newest(program);
    if (!newest || newest->checkpoint.version < version)
      return whose + cms::to_string(stored) + " was STORED, but is not in it";
    if (!store_.has(*newest))
      return whose + cms::to_string(newest->checkpoint) + " is current, but not in the store";
  }
  for (const Slot& slot : slots_) {
    const Incarnation durable = ledger_.newest_durable(slot.ecu_mac);
    if (cms.index.max_incarnation(slot.ecu_mac) < durable)
      return whose + "it does not know incarnation " + std::to_string(durable) + " of " +
             cms::to_string(slot.ecu_mac);
  }
  for (const auto& [program, up_to] : ledger_.withdraw_answered()) {
    const std::optional<Version> withdrawn = cms.index.withdrawn(program);
    const std::optional<Version> current = cms.index.newest_version(program);
    if (!withdrawn || *withdrawn < up_to || (current && *current <= up_to))
      return whose + "it does not know that " + cms::to_string(CheckpointId{program, up_to}) +
             " was withdrawn";
  }
  return std::nullopt;
}

// What a CMS makes of a client's programs; for whoever reads a failure.
std::string World::describe(const Cms& cms, const Client& client) const {
  const SessionId id{client.record->ecu_mac, client.core->incarnation()};
  const auto session = cms.core->sessions().find(id);
  if (session == cms.core->sessions().end())
    return "cmsd " + cms.name + " has no session " + cms::to_string(id);
  std::string text = "cmsd " + cms.name + " has applied seq " + std::to_string(session->second.applied_seq);
  for (const ProgramId program_id : session->second.programs) {
    const core::CmsCore::Program& program = cms.core->programs().at(ProgramKey{id.ecu_mac, program_id});
    text += "; program " + std::to_string(program_id);
    if (program.known != core::CmsCore::Program::Known::kYes) text += " not looked up";
    if (program.pending) text += " waits for " + std::to_string(program.pending->notification.seq);
    if (program.transfer != 0) text += " is pulled";
  }
  return text + "; " + std::to_string(cms.core->queued_count()) + " are queued";
}

}  // namespace cms::sim
