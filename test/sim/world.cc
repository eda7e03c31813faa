#include "test/sim/world.h"

#include <algorithm>
#include <cstdio>
#include <utility>

namespace cms::sim {

using namespace std::chrono_literals;
using wire::ReceiptLevel;

namespace {

constexpr std::uint64_t kEventCountMax = 20'000'000;  // Far beyond any healthy run.
constexpr std::size_t kPublishCountMax = 400;         // Of one client.
constexpr Duration kSettleTimeMax = 60s;
constexpr std::uint16_t kFirstPort = 7600;

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

World::World(std::uint64_t seed, Plant plant, bool verbose)
    : scenario_(make_scenario(seed)), plant_(plant), verbose_(verbose), prng_(seed), store_(ledger_) {}

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
  queue_.after(around(prng_, 200ms), [this] { start_cms(); });
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    start_client(slot);
  }
  schedule_faults();
  const Instant heal_at = queue_.now() + scenario_.fault_time;
  while (queue_.run_next(heal_at)) {
    if (queue_.run_count() > kEventCountMax) violated("too many events: something runs in circles");
  }
  heal();
  run_until_settled("after the faults");
  for (const Slot& slot : slots_) {
    Client& client = client_of(slot);
    for (ProgramId i = 0; i < scenario_.program_count; ++i) publish(client, slot.first_program + i, 1000);
  }
  run_until_settled("after one more checkpoint of each program");
}

// ---- clients

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
  connect_control(client);
  connect_notify(client);
  step_client(client,
              [&](broker::EcuCore& core, broker::Effects& effects) { core.start(queue_.now(), effects); });
}

void World::kill_client(Client& client) {
  if (client.core == nullptr) return;
  if (verbose_) trace("end of " + client.record->name);
  const auto listening = listening_.find(client.port);
  if (listening != listening_.end() && listening->second == client.index) listening_.erase(listening);
  client.core.reset();
  break_control(client);
  break_notify(client);
  std::vector<core::LinkId> ids;
  for (const auto& [id, link] : links_) {
    if (link.client == client.index) ids.push_back(id);
  }
  for (const core::LinkId id : ids) break_link(id);
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
    if (verbose_) trace(client.record->name + " withdraws program " + std::to_string(program_id));
    const Status status = core.withdraw(queue_.now(), request_id, program_id, effects);
    if (!status.ok()) violated("a withdrawal was refused: " + status.error().message());
  });
}

World::Client* World::random_client() {
  Client& client = client_of(slots_[prng_.below(slots_.size())]);
  return client.core == nullptr || client.leaving ? nullptr : &client;
}

// ---- the cmsd

void World::start_cms() {
  if (cms_ != nullptr) return;
  ++cms_start_count_;
  if (verbose_) trace("cmsd starts, for the " + std::to_string(cms_start_count_) + ". time");
  core::CmsCoreConfig config;
  config.name = "a";
  config.pull_budget_bytes = scenario_.pull_budget_bytes;
  config.seed = prng_.next();
  cms_ = std::make_unique<core::CmsCore>(config);
  stored_seen_ = 0;
  listed_.clear();
  workers_ = std::make_unique<StoreWorkers>(
      queue_, prng_, scenario_, store_, store_faults_, plant_, [this](const StoreWorkers::Answer& answer) {
        step_cms([&](core::CmsCore& core, core::Effects& effects) { answer(core, queue_.now(), effects); });
      });
  arm_cms();
  workers_->probe();
}

void World::crash_cms() {
  if (cms_ == nullptr) return;
  if (verbose_) trace("cmsd dies");
  cms_.reset();
  workers_.reset();
  cms_timer_ = Timer{};
  links_.clear();
  for (Client& client : clients_) {
    if (client.core == nullptr) continue;
    break_control(client);
    break_notify(client);
  }
  check_kept();
  queue_.after(around(prng_, scenario_.cms_down_max / 2), [this] { start_cms(); });
}

// ---- faults

template <typename What>
void World::recur(MeanTime every, What what) {
  if (every == MeanTime{}) return;
  queue_.after(around(prng_, every), [this, every, what] {
    if (!faults_on_) return;
    what();
    recur(every, what);
  });
}

void World::schedule_faults() {
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    // Most stop before the faults do: what goes wrong with a last checkpoint, no later one hides.
    const Instant publish_until = queue_.now() + around(prng_, scenario_.fault_time);
    recur(scenario_.publish_interval, [this, slot, publish_until] {
      if (queue_.now() < publish_until) publish(client_of(slots_[slot]));
    });
    recur(scenario_.client_restart_every, [this, slot] { restart_client(slot); });
    recur(scenario_.control_break_every, [this, slot] { break_control(client_of(slots_[slot])); });
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
    step_cms([&](core::CmsCore& core, core::Effects& effects) { (void)core.retire(program, effects); });
  });
  recur(scenario_.bulk_break_every, [this] {
    if (links_.empty()) return;
    auto it = links_.begin();
    std::advance(it, prng_.below(links_.size()));
    break_link(it->first);
  });
  recur(scenario_.malformed_every, [this] { break_something(); });
  recur(scenario_.cms_crash_every, [this] { crash_cms(); });
  recur(scenario_.outage_every, [this] {
    if (store_faults_.outage) return;
    constexpr Code kCodes[] = {Code::kUnavailable, Code::kNoSpace, Code::kIo, Code::kReadOnly};
    store_faults_.outage = kCodes[prng_.below(std::size(kCodes))];
    if (verbose_) trace("the store fails: " + std::string(cms::to_string(*store_faults_.outage)));
    // Short ones may go unnoticed by the probe.
    const Duration until_noticed = around(prng_, 300ms);
    queue_.after(until_noticed, [this] {
      if (store_faults_.outage && cms_ != nullptr) workers_->probe();
    });
    queue_.after(around(prng_, scenario_.outage_max / 2), [this] { store_faults_.outage.reset(); });
  });
}

// A frame that cannot be decoded arrives.
void World::break_something() {
  const Error error = make_error(Code::kProtocol, "the simulator sent nonsense");
  Client* client = random_client();
  const std::uint64_t dice = prng_.below(3);
  if (client == nullptr || cms_ == nullptr) return;
  if (dice == 0) {
    const core::PeerId peer =
        "c" + std::to_string(client->index) + "." + std::to_string(client->control.generation);
    step_cms([&](core::CmsCore& core, core::Effects& effects) {
      core.on_malformed_control(queue_.now(), peer, "10.0.0.1", error, effects);
    });
  } else if (dice == 1 && !links_.empty()) {
    const core::LinkId link = links_.rbegin()->first;
    step_cms([&](core::CmsCore& core, core::Effects& effects) {
      core.on_malformed_bulk(queue_.now(), link, error, effects);
    });
  } else {
    step_cms([&](core::CmsCore& core, core::Effects& effects) {
      core.on_malformed_notify(queue_.now(), "10.0.0.1", error, effects);
    });
  }
}

void World::heal() {
  if (verbose_) trace("everything heals");
  faults_on_ = false;
  store_faults_ = StoreFaults{};
  for (Client& client : clients_) client.stalled_until = Instant{};
}

std::optional<std::string> World::unsettled() const {
  if (cms_ == nullptr) return "the cmsd is down";
  for (const Slot& slot : slots_) {
    const Client& client = clients_[slot.client];
    if (client.core == nullptr || client.leaving) return "a client is down";
    if (!client.withdrawals.empty()) return client.record->name + " waits for the answer to a withdrawal";
    if (auto unfinished = ledger_.unfinished(*client.record))
      return *unfinished + "; " + describe_cms(client);
  }
  if (cms_->transfer_count() != 0) return std::to_string(cms_->transfer_count()) + " transfers go on";
  if (cms_->in_flight_bytes() != 0) return std::to_string(cms_->in_flight_bytes()) + " bytes in flight";
  if (workers_->job_count() != 0) return std::to_string(workers_->job_count()) + " jobs with the store";
  for (const auto& [key, program] : cms_->programs()) {
    if (program.pending) return "the CMS still wants a checkpoint of " + cms::to_string(key);
  }
  return std::nullopt;
}

// What the CMS makes of a client's programs; for whoever reads a failure.
std::string World::describe_cms(const Client& client) const {
  const SessionId id{client.record->ecu_mac, client.core->incarnation()};
  const auto session = cms_->sessions().find(id);
  if (session == cms_->sessions().end()) return "the CMS has no session " + cms::to_string(id);
  std::string text = "the CMS has applied seq " + std::to_string(session->second.applied_seq);
  for (const ProgramId program_id : session->second.programs) {
    const core::CmsCore::Program& program = cms_->programs().at(ProgramKey{id.ecu_mac, program_id});
    text += "; program " + std::to_string(program_id);
    if (program.known != core::CmsCore::Program::Known::kYes) text += " not looked up";
    if (program.pending) text += " waits for " + std::to_string(program.pending->notification.seq);
    if (program.transfer != 0) text += " is pulled";
  }
  return text + "; " + std::to_string(cms_->queued_count()) + " are queued";
}

void World::run_until_settled(const char* when) {
  const Instant deadline = queue_.now() + kSettleTimeMax;
  while (queue_.now() < deadline) {
    const Instant pause_end = queue_.now() + 500ms;
    while (queue_.run_next(pause_end)) {
      if (queue_.run_count() > kEventCountMax) violated("too many events: something runs in circles");
    }
    if (unsettled()) continue;
    for (const Slot& slot : slots_) ledger_.check_newest_stored(*clients_[slot.client].record);
    check_kept();
    return;
  }
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(kSettleTimeMax).count();
  violated("not settled " + std::to_string(seconds) + " s " + when + ": " + unsettled().value_or("?"));
}

// ---- steps

void World::end_step(Client& client, broker::Effects& effects) {
  ledger_.set_incarnation(*client.record, client.core->incarnation());
  carry_out(client, effects);
  check_client(client);
  arm(client);
}

void World::end_step(core::Effects& effects) {
  carry_out(effects);
  check_cms();
  arm_cms();
}

void World::carry_out(Client& client, broker::Effects& effects) {
  for (broker::Effect& effect : effects) {
    if (auto* control = std::get_if<broker::SendControl>(&effect)) {
      if (control->cms == 0) send_to_cms(client, std::move(control->message));
    } else if (auto* notify = std::get_if<broker::SendNotify>(&effect)) {
      send_notify(client, notify->message);
    } else if (auto* chunk = std::get_if<broker::SendChunk>(&effect)) {
      send_from_link(client, chunk->peer, chunk->header, chunk->bytes);
    } else if (auto* failed = std::get_if<broker::SendTransferError>(&effect)) {
      send_from_link(client, failed->peer, failed->error, {});
    } else if (auto* reconnect = std::get_if<broker::ReconnectControl>(&effect)) {
      if (reconnect->cms != 0) continue;
      client.backlog.clear();
      break_control(client);
    } else if (std::holds_alternative<broker::ReconnectNotify>(effect)) {
      break_notify(client);
    } else if (auto* receipt = std::get_if<broker::ReceiptEvent>(&effect)) {
      if (verbose_) {
        trace(client.record->name + " program " + std::to_string(receipt->program_id) + " seq " +
              std::to_string(receipt->seq) + (receipt->final ? ": at last " : ": ") +
              std::string(wire::to_string(receipt->level)) + " " + receipt->reason);
      }
      ledger_.on_receipt(*client.record, *receipt);
      if (receipt->level == ReceiptLevel::kStored || receipt->level == ReceiptLevel::kReplicated) {
        store_.check_kept(CheckpointId{ProgramKey{client.record->ecu_mac, receipt->program_id},
                                       Version{client.core->incarnation(), receipt->seq}});
      }
    } else if (auto* done = std::get_if<broker::WithdrawDone>(&effect)) {
      const auto asked = client.withdrawals.find(done->request_id);
      if (asked == client.withdrawals.end()) violated("a withdrawal was answered twice, or never asked");
      const auto [program_id, seq] = asked->second;
      client.withdrawals.erase(asked);
      if (done->code != Code::kOk) violated("a withdrawal was refused: " + done->context);
      if (verbose_) trace(client.record->name + ": program " + std::to_string(program_id) + " is withdrawn");
      ledger_.note_withdraw_answered(ProgramKey{client.record->ecu_mac, program_id},
                                     Version{client.core->incarnation(), seq});
    } else if (auto* event = std::get_if<broker::CmsEvent>(&effect)) {
      constexpr const char* kWords[] = {" is live", " is silent", " refuses us: "};
      if (verbose_) {
        trace(client.record->name + ": CMS " + std::to_string(event->cms) +
              kWords[static_cast<std::size_t>(event->kind)] + event->text);
      }
    }
  }
}

// What a planted bug swallows.
bool World::lets_pass(const core::SendControl& effect) {
  if (plant_ == Plant::kForgetListAfterGap && std::holds_alternative<wire::List>(effect.message.body)) {
    return listed_.insert(effect.peer).second;
  }
  return true;
}

void World::on_receipt_sent(const core::SendControl& effect, wire::Receipt& receipt) {
  const auto peer = control_peers_.find(effect.peer);
  if (peer == control_peers_.end()) violated("a receipt for nobody: " + effect.peer);
  const SessionId session{clients_[peer->second].record->ecu_mac, effect.message.incarnation};
  if (plant_ == Plant::kAckWrongSeq && receipt.level == ReceiptLevel::kStored && receipt.seq > 1)
    --receipt.seq;
  const Published* published = ledger_.find(session, receipt.seq);
  if (published == nullptr || published->program.program_id != receipt.program_id) {
    violated("a receipt for program " + std::to_string(receipt.program_id) + " seq " +
             std::to_string(receipt.seq) + " of session " + cms::to_string(session) +
             ", which was never published");
  }
  if (receipt.level == ReceiptLevel::kStored) {
    store_.check_may_say_stored(CheckpointId{published->program, Ledger::version_of(*published)});
  }
}

void World::carry_out(core::Effects& effects) {
  const bool stored_now = cms_->counters().stored != stored_seen_;
  stored_seen_ = cms_->counters().stored;
  for (core::Effect& effect : effects) {
    if (auto* control = std::get_if<core::SendControl>(&effect)) {
      if (!lets_pass(*control)) continue;
      if (auto* receipt = std::get_if<wire::Receipt>(&control->message.body)) {
        const bool repeated = receipt->level == ReceiptLevel::kStored && !stored_now;
        if (plant_ == Plant::kLostReceiptNeverRepeated && repeated) continue;
        on_receipt_sent(*control, *receipt);
      }
      send_to_client(control->peer, std::move(control->message));
    } else if (auto* open = std::get_if<core::OpenLink>(&effect)) {
      open_link(*open);
    } else if (auto* close = std::get_if<core::CloseLink>(&effect)) {
      const auto it = links_.find(close->link);
      if (it == links_.end()) violated("a bulk connection was closed twice");
      if (it->second.connection.stuck) dead_ports_.insert(it->second.port);
      links_.erase(it);
    } else if (auto* bulk = std::get_if<core::SendBulk>(&effect)) {
      send_to_link(bulk->link, std::move(bulk->message));
    } else if (auto* log = std::get_if<core::LogEvent>(&effect)) {
      if (verbose_) trace("cmsd: " + log->text);
    } else {
      std::visit(
          [&](auto& work) {
            if constexpr (requires { workers_->run(work); }) workers_->run(work);
          },
          effect);
    }
  }
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

void World::check_cms() {
  const std::uint64_t budget_bytes = scenario_.pull_budget_bytes;
  if (cms_->in_flight_bytes() > budget_bytes || workers_->untaken_bytes() > budget_bytes) {
    violated("memory: the CMS has " + std::to_string(cms_->in_flight_bytes()) + " bytes in flight, " +
             std::to_string(workers_->untaken_bytes()) + " wait for the store, the budget is " +
             std::to_string(budget_bytes));
  }
  workers_->check_windows();
  std::uint64_t reserved_bytes = 0;
  for (const auto& [id, transfer] : cms_->transfers()) reserved_bytes += transfer.reserved_bytes;
  if (reserved_bytes != cms_->in_flight_bytes()) violated("the CMS lost count of the bytes in flight");
  for (const auto& [key, program] : cms_->programs()) {
    if (program.withdrawn && program.newest_stored && *program.newest_stored <= *program.withdrawn) {
      violated("the CMS takes a withdrawn checkpoint of " + cms::to_string(key) + " for current");
    }
  }
  store_.check_withdrawn();
}

void World::check_kept() const {
  for (const ClientRecord& client : ledger_.clients()) {
    for (const Published& published : client.published) {
      if (published.told_stored) {
        store_.check_kept(CheckpointId{published.program, Ledger::version_of(published)});
      }
    }
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

void World::arm_cms() {
  const Instant deadline = cms_->next_deadline();
  if (cms_timer_.at && *cms_timer_.at <= deadline) return;
  cms_timer_.at = deadline;
  queue_.at(deadline, [this, start = cms_start_count_, number = ++cms_timer_.number] {
    if (cms_ == nullptr || cms_start_count_ != start || cms_timer_.number != number) return;
    cms_timer_.at.reset();
    if (queue_.now() < cms_->next_deadline()) {
      arm_cms();
      return;
    }
    const auto us =
        std::chrono::duration_cast<std::chrono::microseconds>(queue_.now().time_since_epoch()).count();
    step_cms([&](core::CmsCore& core, core::Effects& effects) {
      core.on_time(queue_.now(), static_cast<std::uint64_t>(us), effects);
    });
  });
}

}  // namespace cms::sim
