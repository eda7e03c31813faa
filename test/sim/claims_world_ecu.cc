// The ECUs of the world of claims: sessions that begin and end, RestoreTarget with an RTCR behind it, and programs
// that publish.
#include <algorithm>
#include <utility>

#include "base/digest.h"
#include "test/sim/claims_world.h"

namespace cms::sim {

using namespace std::chrono_literals;

namespace {

constexpr char kBytes[64] = {};  // Of every blob.

}  // namespace

// ---- sessions

void ClaimsWorld::boot(Ecu& ecu) {
  ++ecu.boots;
  ecu.session = SessionId{ecu.ecu_mac, scenario_.leases ? 0 : ecu.session.incarnation + 1};
  ecu.state = Ecu::State::kUp;
  ecu.lost = false;
  ecu.target = std::make_unique<broker::RestoreTarget>(broker::RestoreTargetConfig{});
  ecu.frozen = std::make_unique<broker::FrozenPrograms>();
  ecu.last_seq = 0;
  ecu.wakes_at = kNever;
  if (verbose_) trace("ecu " + to_string(ecu.session) + " boots");
  if (scenario_.leases) return boot_guarded(ecu);
  for (std::size_t cms = 0; cms < cms_.size(); ++cms) hello(ecu, cms, random_delay(1s));
  beat(ecu);
}

void ClaimsWorld::power_off(Ecu& ecu) {
  if (ecu.state == Ecu::State::kDown) return;
  if (verbose_) trace("ecu " + to_string(ecu.session) + " is off");
  ecu.state = Ecu::State::kDown;
  ecu.down_at = queue_.now();
  if (ecu.guarded) {
    for (const auto& [program_id, program] : ecu.guarded->programs.all())
      ecu.guarded->gone.push_back(wire::OwnedProgram{program_id, program.lineage, program.owner_epoch, {}});
    kill_broker(ecu);
  }
  ecu.target.reset();
  ecu.frozen.reset();
  ecu.restores.clear();
  ecu.goes.clear();
  ecu.prepared_claims.clear();
  for (Copy& copy : ledger_.copies()) {
    if (is_of(ecu, copy)) copy.running = false;
  }
}

ClaimsWorld::Ecu& ClaimsWorld::ecu_of(EcuMac ecu_mac) {
  for (Ecu& ecu : ecus_) {
    if (ecu.ecu_mac == ecu_mac) return ecu;
  }
  violated("no such ECU");
}

bool ClaimsWorld::lives(const SessionId& session) const {
  for (const Ecu& ecu : ecus_) {
    if (ecu.session == session) return ecu.state != Ecu::State::kDown;
  }
  return false;
}

// It connects to a CMS, and says who it is until that is heard.
void ClaimsWorld::hello(Ecu& ecu, std::size_t number, Duration delay) {
  Cms& cms = cms_[number];
  const SessionId session = ecu.session;
  queue_.after(delay, [this, &ecu, &cms, number, session] {
    if (!(ecu.session == session) || ecu.state == Ecu::State::kDown || cms.core == nullptr) return;
    if (queue_.now() < cms.paused_until || percent(scenario_.drop_percent)) return hello(ecu, number, 300ms);
    cms.sessions[ecu.ecu_mac] = session;
  });
}

// ---- commands and reports; each has its own delay

void ClaimsWorld::command(std::size_t cms, const SessionId& target, const wire::ControlBody& body) {
  const int count = percent(scenario_.repeat_percent) ? 2 : 1;
  for (int i = 0; i < count; ++i) {
    if (percent(scenario_.drop_percent)) continue;
    const Duration delay = i == 0 ? random_delay(scenario_.net_delay_max) : random_delay(2s);
    queue_.after(delay, [this, cms, target, body] {
      Ecu& ecu = ecu_of(target.ecu_mac);
      if (ecu.state != Ecu::State::kDown && ecu.session == target) obey(ecu, cms, body);
    });
  }
}

void ClaimsWorld::obey(Ecu& ecu, std::size_t cms, const wire::ControlBody& body) {
  const auto number = static_cast<broker::CmsIndex>(cms);
  const Instant now = local(ecu);
  if (const auto* prepare = std::get_if<wire::Prepare>(&body)) {
    step_ecu(ecu, [&](broker::RestoreTarget& target, broker::RestoreEffects& effects) {
      const auto restored = target.find_restored(prepare->claim.lineage);
      const bool stands_still = restored && !restored->goes && stands_still_here(ecu, restored->program_id);
      target.on_prepare(now, number, *prepare, stands_still, effects);
    });
  } else if (const auto* go = std::get_if<wire::Go>(&body)) {
    broker::RestoreEffects effects;
    ecu.target->on_go(now, number, *go, effects);
    bool refused = false;
    for (const broker::RestoreEffect& effect : effects) {
      const auto* told = std::get_if<broker::SendReport>(&effect);
      refused = refused || (told != nullptr && told->report.state == wire::RestoreState::kRefused);
      const auto* run = std::get_if<broker::RunProgram>(&effect);
      if (run == nullptr) continue;
      ledger_.on_go_obeyed(ecu.session, *go, nas_.record(go->claim.lineage, go->act_slot),
                           nas_.record(go->claim.lineage, go->act_slot + 1));
      ecu.goes[run->id] = *go;
      if (ecu.guarded) {
        ecu.guarded->goes.insert(run->id);
        replace_still(ecu, go->claim.lineage);
      }
    }
    if (plant_ == ClaimsPlant::kQueuedGoExecuted && refused) obey_queued_go(ecu, *go);
    carry_out(ecu, effects);
  } else if (const auto* freeze = std::get_if<wire::Freeze>(&body)) {
    obey_freeze(ecu, number, *freeze);
  } else if (const auto* thaw = std::get_if<wire::Thaw>(&body)) {
    obey_thaw(ecu, number, *thaw);
  } else if (const auto* discard = std::get_if<wire::Discard>(&body)) {
    step_ecu(ecu, [&](broker::RestoreTarget& target, broker::RestoreEffects& effects) {
      target.on_discard(now, number, *discard, effects);
    });
  }
}

// kQueuedGoExecuted: what was once prepared for a claim is run by its Go, whatever was said since.
void ClaimsWorld::obey_queued_go(Ecu& ecu, const wire::Go& go) {
  const auto prepared = ecu.prepared_claims.find(go.claim.uid);
  if (prepared == ecu.prepared_claims.end()) return;
  const broker::RestoreInfo info = prepared->second;
  ecu.prepared_claims.erase(prepared);
  queue_.after(random_delay(scenario_.ecu_delay_max), [this, &ecu, go, info, session = ecu.session] {
    if (!lives(session)) return;
    for (const Copy& copy : ledger_.copies()) {
      if (copy.running && copy.session == session && copy.owner_epoch == go.act_slot + 1) return;
    }
    ledger_.start_restored(session, ecu.next_program++, go, info.notification.taken_at_us);
  });
}

void ClaimsWorld::report(Ecu& ecu, const broker::SendReport& effect) {
  if (ecu.guarded) return say(ecu, effect.cms, effect.report);
  Cms& cms = cms_[effect.cms];
  const int count = percent(scenario_.repeat_percent) ? 2 : 1;
  for (int i = 0; i < count; ++i) {
    if (percent(scenario_.drop_percent)) continue;
    const Duration delay = i == 0 ? random_delay(scenario_.net_delay_max) : random_delay(2s);
    cms_after(cms, delay,
              [this, &cms, from = ecu.session, told = effect.report] { on_report(cms, from, told); });
  }
}

// ---- what RestoreTarget wants done

void ClaimsWorld::carry_out(Ecu& ecu, broker::RestoreEffects& effects) {
  for (const broker::RestoreEffect& effect : effects) {
    if (const auto* told = std::get_if<broker::SendReport>(&effect)) {
      report(ecu, *told);
    } else if (const auto* receive = std::get_if<broker::ReceiveBlob>(&effect)) {
      ecu.restores[receive->id] = receive->info;
    } else if (const auto* bulk = std::get_if<broker::SendBulk>(&effect)) {
      if (const auto* fetch = std::get_if<wire::Fetch>(&bulk->message)) serve(ecu, bulk->link, *fetch);
    } else if (const auto* prepare = std::get_if<broker::PrepareProgram>(&effect)) {
      prepare_program(ecu, prepare->id);
    } else if (const auto* run = std::get_if<broker::RunProgram>(&effect)) {
      run_program(ecu, run->id);
    } else if (const auto* discard = std::get_if<broker::DiscardRestore>(&effect)) {
      ecu.restores.erase(discard->id);
    } else if (const auto* fenced = std::get_if<broker::FenceProgram>(&effect)) {
      stop_copy(ecu, fenced->program_id);
    }
  }
  const Instant wakes_at = ecu.target->next_deadline();
  if (wakes_at >= ecu.wakes_at) return;
  ecu.wakes_at = wakes_at;
  to_broker_at(ecu, wakes_at, [this, &ecu] {
    ecu.wakes_at = kNever;
    step_ecu(ecu, [&](broker::RestoreTarget& target, broker::RestoreEffects& todo) {
      target.on_time(local(ecu), todo);
    });
  });
}

// A CMS sends the blob, in one chunk; when it lives, and has it.
void ClaimsWorld::serve(Ecu& ecu, const broker::BulkLink& link, const wire::Fetch& fetch) {
  if (percent(scenario_.drop_percent)) return;
  Cms& cms = cms_[link.cms];
  cms_after(cms, random_delay(scenario_.net_delay_max) + store_delay(),
            [this, &ecu, link, fetch, life = life_of(ecu)] {
              const StoredBlob* blob = nas_.find(fetch.checkpoint);
              const std::size_t size_bytes = blob == nullptr ? 0 : blob->name.size_bytes;
              to_broker(ecu, life, random_delay(scenario_.net_delay_max),
                        [this, &ecu, link, fetch, size_bytes, found = blob != nullptr] {
                          step_ecu(ecu, [&](broker::RestoreTarget& target, broker::RestoreEffects& effects) {
                            if (!found) {
                              return target.on_bulk(
                                  local(ecu), link,
                                  wire::TransferError{fetch.transfer_id, Code::kNotFound, "it has gone"}, {},
                                  effects);
                            }
                            wire::Chunk chunk;
                            chunk.transfer_id = fetch.transfer_id;
                            chunk.size_bytes = static_cast<std::uint32_t>(size_bytes);
                            chunk.digest = digest_of(kBytes, size_bytes);
                            chunk.version = fetch.checkpoint.version;
                            chunk.blob_size_bytes = size_bytes;
                            chunk.chunk_size_bytes = wire::kChunkSizeBytes;
                            chunk.last = true;
                            chunk.blob_digest = blob_digest_of({chunk.digest});
                            target.on_bulk(local(ecu), link, chunk,
                                           broker::ChunkView{kBytes, size_bytes, nullptr}, effects);
                          });
                        });
            });
}

void ClaimsWorld::prepare_program(Ecu& ecu, broker::RestoreId id) {
  const bool fails = percent(scenario_.refuse_percent) || !is_awaited(ecu, ecu.restores.at(id));
  to_broker(ecu, life_of(ecu), random_delay(scenario_.ecu_delay_max), [this, &ecu, id, fails] {
    if (!fails) {
      const auto info = ecu.restores.find(id);
      if (info != ecu.restores.end()) ecu.prepared_claims[info->second.claim.uid] = info->second;
    }
    step_ecu(ecu, [&](broker::RestoreTarget& target, broker::RestoreEffects& effects) {
      target.on_prepared(local(ecu), id, fails ? make_error(Code::kIo, "cannot be restored") : ok_status(),
                         effects);
    });
  });
}

// The program runs first, and is told then; between the two the ECU may die.
void ClaimsWorld::run_program(Ecu& ecu, broker::RestoreId id) {
  const bool fails = percent(scenario_.refuse_percent);
  const wire::Go go = ecu.goes.at(id);
  const broker::RestoreInfo info = ecu.restores.at(id);
  const std::uint64_t state = info.notification.taken_at_us;
  in_rtcr(ecu, ecu.boots, random_delay(scenario_.ecu_delay_max),
          [this, &ecu, id, fails, go, info, state, life = life_of(ecu), session = ecu.session] {
            Result<ProgramId> program_id = make_error(Code::kIo, "does not run");
            if (!fails && is_awaited(ecu, info)) {
              program_id = info.restarts ? *info.restarts : ecu.next_program++;
              if (info.restarts) ecu.guarded->awaited.erase(*info.restarts);
              if (verbose_) {
                trace("ecu " + to_string(session) + " runs " + std::to_string(*program_id) +
                      " for the ACT in slot " + std::to_string(go.act_slot) + ", from state " +
                      std::to_string(state));
              }
              const wire::ClaimRecord* act = nas_.record(go.claim.lineage, go.act_slot);
              if (act != nullptr && act->uid == go.act_uid) ledger_.check_restored(*act, state);
              Copy& copy =
                  ledger_.start_restored(session, *program_id, go, state, is_held(ecu, go.on_isolation));
              copy.boot = ecu.boots;
              if (ecu.guarded) begin_guarded_copy(ecu, copy, go, info, life);
              publish_by_and_by(copy);
            }
            to_broker(ecu, life, random_delay(scenario_.ecu_delay_max / 4), [this, &ecu, id, program_id] {
              step_ecu(ecu, [&](broker::RestoreTarget& target, broker::RestoreEffects& effects) {
                target.on_running(local(ecu), id, program_id, effects);
                if (ecu.guarded) note_restored(ecu, id, program_id);
              });
            });
          });
}

void ClaimsWorld::stop_copy(Ecu& ecu, ProgramId program_id) {
  for (Copy& copy : ledger_.copies()) {
    if (is_of(ecu, copy) && copy.program_id == program_id) copy.running = false;
  }
  ecu.frozen->on_program_ended(program_id);
}

// Its publisher is told FENCED, and the program stopped.
void ClaimsWorld::fence(Copy& copy) {
  if (scenario_.leases) return;  // Its CMS tells its session.
  queue_.after(random_delay(scenario_.net_delay_max), [this, &copy] {
    if (!copy.running) return;
    copy.running = false;
    Ecu& ecu = ecu_of(copy.session.ecu_mac);
    if (!lives(copy.session)) return;
    ecu.target->on_program_ended(copy.program_id);
    ecu.frozen->on_program_ended(copy.program_id);
  });
}

// ---- checkpoints

void ClaimsWorld::publish_by_and_by(Copy& copy) {
  queue_.after(random_delay(2 * scenario_.publish_every), [this, &copy] {
    if (!copy.running) return;
    if (copy.executes()) publish(copy);
    publish_by_and_by(copy);
  });
}

bool ClaimsWorld::publish(Copy& copy) {
  Ecu& ecu = ecu_of(copy.session.ecu_mac);
  if (ecu.guarded && !may_publish(ecu, copy)) return false;
  copy.last_seq = ++ecu.last_seq;
  StoredBlob blob;
  blob.session = copy.session;
  blob.name.lineage = copy.lineage;
  blob.name.owner_epoch = copy.owner_epoch;
  blob.name.checkpoint = CheckpointId{copy.key(), Version{copy.session.incarnation, copy.last_seq}};
  blob.name.size_bytes = 1 + prng_.below(sizeof(kBytes));
  blob.notification.program_id = copy.program_id;
  blob.notification.seq = copy.last_seq;
  blob.notification.lineage = copy.lineage;
  blob.notification.owner_epoch = copy.owner_epoch;
  blob.notification.size_bytes = blob.name.size_bytes;
  blob.notification.chunk_size_bytes = wire::kChunkSizeBytes;
  blob.notification.taken_at_us = ++copy.state;
  blob.notification.real_time.deadline_us = prng_.below(3) * 1000;
  blob.notification.policies = copy.policies;
  copy.last_incarnation = copy.session.incarnation;
  offer(copy, blob);
  return true;
}

// Some CMS pull it; what is frozen is offered until one of them has it.
void ClaimsWorld::offer(Copy& copy, const StoredBlob& blob) {
  Publication publication;
  publication.copy = &copy;
  publication.blob = blob;
  const std::size_t first = prng_.below(cms_.size());
  const std::size_t count = percent(scenario_.both_pull_percent) ? 2 : 1;
  for (std::size_t i = 0; i < count; ++i) {
    Cms& cms = cms_[(first + i) % cms_.size()];
    publication.blob.name.uid = prng_.next() | 1;
    if (percent(scenario_.drop_percent)) continue;
    // It is pulled while its publisher lives.
    cms_after(cms, random_delay(scenario_.net_delay_max), [this, &cms, publication]() mutable {
      if (can_pull(cms, publication)) store(cms, publication);
    });
  }
  if (copy.frozen) offer_again(copy, blob);
}

void ClaimsWorld::offer_again(Copy& copy, const StoredBlob& blob) {
  queue_.after(1s, [this, &copy, blob] {
    const bool newest = copy.last_seq == blob.name.checkpoint.version.seq;
    if (scenario_.leases) {
      if (copy.running && copy.frozen && newest) offer_frozen(copy, blob);
      return;
    }
    if (!copy.running || !copy.frozen || !newest || !lives(copy.session)) return;
    if (nas_.find(blob.name.checkpoint) == nullptr) return offer(copy, blob);
    offer_again(copy, blob);  // It is not durable yet, perhaps.
  });
}

}  // namespace cms::sim
