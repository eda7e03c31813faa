// Clients: their lives, what they publish and withdraw, and what they are told.
#include <algorithm>
#include <utility>

#include "test/sim/world.h"

namespace cms::sim {

using namespace std::chrono_literals;
using wire::ReceiptLevel;

namespace {

constexpr std::size_t kPublishCountMax = 400;  // Of one client.

}  // namespace

// The publisher's memory. Reading it may fail, as if it were a file that somebody altered.
class World::Source : public broker::BlobSource {
 public:
  Source(World& world, Client& client, Published& published)
      : world_(world), client_(client), published_(published) {
    client_.source_bytes += published_.size_bytes;
  }
  ~Source() override {
    client_.source_bytes -= published_.size_bytes;
    published_.source_alive = false;
    ++client_.record->freed_count;
  }
  Result<broker::ChunkView> view(std::uint64_t offset_bytes, std::size_t size_bytes) override {
    CMS_ASSERT(offset_bytes + size_bytes <= published_.size_bytes);
    const std::uint32_t fail_per_10k = world_.faults_on_ ? world_.scenario_.source_fail_per_10k : 0;
    if (fail_per_10k != 0 && world_.prng_.chance(fail_per_10k, 10000)) {
      published_.source_failed = true;
      return make_error(Code::kSourceChanged, "the virtual source was altered");
    }
    return broker::ChunkView{content_at(published_.content, offset_bytes), size_bytes, nullptr};
  }
  std::uint64_t memory_bytes() const override {
    return world_.plant_ == Plant::kMemoryUncounted ? 0 : published_.size_bytes;
  }

 private:
  World& world_;
  Client& client_;
  Published& published_;
};

// ---- life

void World::start_client(std::size_t slot_index) {
  Slot& slot = slots_[slot_index];
  Client& client = clients_.emplace_back();
  client.index = clients_.size() - 1;
  client.slot = slot_index;
  slot.client = client.index;
  // ECUs bind the first free port: mostly the one of the client before.
  if (prng_.chance(1, 2)) slot.port = static_cast<std::uint16_t>(kFirstPort + slots_.size() + client.index);
  client.port = slot.port;
  listening_[client.port] = client.index;
  note_known_incarnations();
  const std::uint64_t nonce = prng_.next();
  client.record = &ledger_.start_client(slot.ecu_mac, nonce);
  if (verbose_) trace("start " + client.record->name);

  broker::EcuCoreConfig config;
  config.ecu_mac = slot.ecu_mac;
  config.nonce = nonce;
  config.bulk_port = client.port;
  config.software = "cms_sim";
  config.cms_count = scenario_.cms_count;
  config.memory_budget_bytes = scenario_.memory_budget_bytes;
  client.core = std::make_unique<broker::EcuCore>(config);
  client.control.resize(cms_.size());
  client.notify.resize(cms_.size());
  for (Cms& cms : cms_) {
    connect_control(client, cms);
    connect_notify(client, cms);
  }
  step_client(client,
              [&](broker::EcuCore& core, broker::Effects& effects) { core.start(queue_.now(), effects); });
}

void World::kill_client(Client& client) {
  if (client.core == nullptr) return;
  if (verbose_) trace("end of " + client.record->name);
  const auto listening = listening_.find(client.port);
  if (listening != listening_.end() && listening->second == client.index) listening_.erase(listening);
  client.core.reset();
  ledger_.end_client(*client.record);
  for (Cms& cms : cms_) {
    break_control(client, cms);
    break_notify(client, cms);
    std::vector<core::LinkId> ids;
    for (const auto& [id, link] : cms.links) {
      if (link.client == client.index) ids.push_back(id);
    }
    for (const core::LinkId id : ids) break_link(cms, id);
  }
}

void World::restart_client(std::size_t slot_index) {
  const std::size_t index = slots_[slot_index].client;
  Client& client = clients_[index];
  if (client.core == nullptr || client.leaving) return;
  Duration until_dead{};
  if (prng_.chance(1, 2)) {
    step_client(client, [&](broker::EcuCore& core, broker::Effects& effects) { core.stop(effects); });
    client.leaving = true;
    until_dead = 200ms;  // So that BYE leaves.
  }
  const Duration until_new = around(prng_, 1s);
  queue_.after(until_dead, [this, index] { kill_client(clients_[index]); });
  queue_.after(until_dead + until_new, [this, slot_index] { start_client(slot_index); });
}

void World::publish(Client& client) {
  if (client.core == nullptr || client.leaving || client.record->published.size() >= kPublishCountMax) return;
  std::uint64_t size_bytes = 0;
  const std::uint64_t dice = prng_.below(20);
  if (dice < 2) {
    size_bytes = 0;
  } else if (dice < 9) {
    size_bytes = 1 + prng_.below(kChunkSizeBytes);
  } else if (dice < 12) {
    size_bytes = kChunkSizeBytes * (1 + prng_.below(4));
  } else if (dice < 18) {
    size_bytes = prng_.below(8 * kChunkSizeBytes);
  } else {
    size_bytes = prng_.below(scenario_.blob_bytes_max * 5 / 4);  // Some do not fit a tiny budget.
  }
  const ProgramId program_id = slots_[client.slot].first_program + prng_.below(scenario_.program_count);
  publish(client, program_id, size_bytes);
}

void World::publish(Client& client, ProgramId program_id, std::uint64_t size_bytes) {
  step_client(client, [&](broker::EcuCore& core, broker::Effects& effects) {
    const wire::Release release = prng_.chance(1, 2) ? wire::Release::kStored : wire::Release::kReplicated;
    Published& published = ledger_.publish(*client.record, program_id, size_bytes, release);
    if (verbose_) trace("publish " + to_string(published));
    wire::Notification notification;
    notification.program_id = program_id;
    notification.seq = published.seq;
    notification.size_bytes = size_bytes;
    notification.chunk_size_bytes = kChunkSizeBytes;
    notification.policies.release = release;
    core.publish(queue_.now(), notification, std::make_unique<Source>(*this, client, published), effects);
  });
}

void World::withdraw(Client& client) {
  const ProgramId program_id = slots_[client.slot].first_program + prng_.below(scenario_.program_count);
  step_client(client, [&](broker::EcuCore& core, broker::Effects& effects) {
    const std::uint64_t request_id = ++client.request_count;
    client.record->withdraw_asked[program_id] = core.last_seq();
    client.withdrawals[request_id] = {program_id, core.last_seq()};
    client.withdrawn_by[request_id] = {program_id, core.last_seq()};
    if (verbose_) trace(client.record->name + " withdraws program " + std::to_string(program_id));
    const Status status = core.withdraw(queue_.now(), request_id, program_id, effects);
    if (!status.ok()) violated("a withdrawal was refused: " + status.error().message());
  });
}

// ---- steps

void World::end_step(Client& client, broker::Effects& effects) {
  const Incarnation former = client.record->incarnation;
  ledger_.set_incarnation(*client.record, client.core->incarnation());
  if (verbose_ && former != 0 && former != client.record->incarnation) {
    trace(client.record->name + " goes by incarnation " + std::to_string(client.record->incarnation) +
          " now, no more by " + std::to_string(former));
  }
  carry_out(client, effects);
  check_client(client);
  arm(client);
}

void World::carry_out(Client& client, broker::Effects& effects) {
  for (broker::Effect& effect : effects) {
    if (auto* control = std::get_if<broker::SendControl>(&effect)) {
      if (control->cms < cms_.size()) send_to_cms(client, cms_[control->cms], std::move(control->message));
    } else if (auto* notify = std::get_if<broker::SendNotify>(&effect)) {
      send_notify(client, notify->message);
    } else if (auto* chunk = std::get_if<broker::SendChunk>(&effect)) {
      send_from_link(client, chunk->peer, chunk->header, chunk->bytes);
    } else if (auto* failed = std::get_if<broker::SendTransferError>(&effect)) {
      send_from_link(client, failed->peer, failed->error, {});
    } else if (auto* reconnect = std::get_if<broker::ReconnectControl>(&effect)) {
      if (reconnect->cms >= cms_.size()) continue;
      client.control[reconnect->cms].backlog.clear();
      break_control(client, cms_[reconnect->cms]);
    } else if (std::holds_alternative<broker::ReconnectNotify>(effect)) {
      for (Cms& cms : cms_) break_notify(client, cms);
    } else if (auto* receipt = std::get_if<broker::ReceiptEvent>(&effect)) {
      on_told(client, *receipt);
    } else if (auto* done = std::get_if<broker::WithdrawDone>(&effect)) {
      on_withdraw_done(client, *done);
    } else if (auto* event = std::get_if<broker::CmsEvent>(&effect)) {
      constexpr const char* kWords[] = {" is live", " is silent", " refuses us: "};
      if (verbose_) {
        trace(client.record->name + ": CMS " + std::to_string(event->cms) +
              kWords[static_cast<std::size_t>(event->kind)] + event->text);
      }
    }
  }
}

void World::on_told(Client& client, const broker::ReceiptEvent& receipt) {
  if (verbose_) {
    trace(client.record->name + " program " + std::to_string(receipt.program_id) + " seq " +
          std::to_string(receipt.seq) + (receipt.final ? ": at last " : ": ") +
          std::string(wire::to_string(receipt.level)) + " " + receipt.reason);
  }
  ledger_.on_receipt(*client.record, receipt);
  if (receipt.level == ReceiptLevel::kStored || receipt.level == ReceiptLevel::kReplicated) {
    store_.check_kept(CheckpointId{ProgramKey{client.record->ecu_mac, receipt.program_id},
                                   Version{receipt.incarnation, receipt.seq}});
  }
}

void World::on_withdraw_done(Client& client, const broker::WithdrawDone& done) {
  const auto asked = client.withdrawals.find(done.request_id);
  if (asked == client.withdrawals.end()) violated("a withdrawal was answered twice, or never asked");
  const auto [program_id, seq] = asked->second;
  client.withdrawals.erase(asked);
  if (done.code != Code::kOk) violated("a withdrawal was refused: " + done.context);
  if (verbose_) trace(client.record->name + ": program " + std::to_string(program_id) + " is withdrawn");
  ledger_.note_withdraw_answered(ProgramKey{client.record->ecu_mac, program_id},
                                 Version{client.core->incarnation(), seq});
}

void World::check_client(const Client& client) {
  const broker::EcuCore& core = *client.core;
  Ledger::check_freed(*client.record);
  if (core.last_seq() != client.record->published.size()) violated(client.record->name + " skipped a seq");
  if (core.held_memory_bytes() > scenario_.memory_budget_bytes ||
      client.source_bytes > scenario_.memory_budget_bytes) {
    violated("memory: " + client.record->name + " holds " + std::to_string(client.source_bytes) +
             " bytes, counts " + std::to_string(core.held_memory_bytes()) + ", may hold " +
             std::to_string(scenario_.memory_budget_bytes));
  }
}

void World::arm(Client& client) {
  const Instant deadline = client.core->next_deadline();
  if (deadline == kNever || (client.timer.at && *client.timer.at <= deadline)) return;
  client.timer.at = deadline;
  queue_.at(deadline, [this, index = client.index, number = ++client.timer.number] {
    Client& waiting = clients_[index];
    if (waiting.core == nullptr || waiting.timer.number != number) return;
    waiting.timer.at.reset();
    if (queue_.now() < waiting.core->next_deadline()) {
      arm(waiting);
      return;
    }
    step_client(waiting, [&](broker::EcuCore& core, broker::Effects& effects) {
      core.on_time(queue_.now(), effects);
    });
  });
}

}  // namespace cms::sim
