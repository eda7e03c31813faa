// What the workers of the cmsd do on the NAS, step by step, with anything between two steps: claim_worker.cc,
// lineage_gate.cc and retention of cms/daemon.
#include <algorithm>
#include <utility>

#include "test/sim/claims_world.h"

namespace cms::sim {

using namespace std::chrono_literals;
using core::RestoreCore;
using core::StoredWord;
using storage::BlobName;
using wire::ClaimKind;
using wire::ClaimRecord;

namespace {

constexpr std::size_t kOfferedMax = 2;  // As claim_worker.cc.
constexpr int kStoreTriesMax = 40;

Error away() { return make_error(Code::kUnavailable, "the NAS does not answer"); }

}  // namespace

bool ClaimsWorld::store_fails(const Cms& cms) {
  return queue_.now() < std::max(cms.away_until, cms.unanswered_until) ||
         percent(scenario_.store_fail_percent);
}

void ClaimsWorld::note_head(Cms& cms, const ClaimRecord& head) {
  ClaimRecord& known = cms.known_heads[head.lineage];
  if (known.slot < head.slot) known = head;
}

void ClaimsWorld::read_head(Cms& cms, const Lineage& lineage, HeadThen then) {
  cms_after(cms, store_delay(), [this, &cms, lineage, then = std::move(then)] {
    if (store_fails(cms)) return then(away());
    const ClaimRecord* seen = nas_.head(lineage);
    if (seen == nullptr) return then(std::optional<ClaimRecord>{});
    cms_after(cms, store_delay(), [this, &cms, then, head = *seen] {
      const bool made = plant_ == ClaimsPlant::kReadNotDurable || nas_.sync(head);
      if (!made || store_fails(cms)) return then(away());
      note_head(cms, head);
      then(std::optional<ClaimRecord>(head));
    });
  });
}

// ---- appends: LINK, COMMIT, and replies that get lost

bool ClaimsWorld::link_claim(const ClaimRecord& record) {
  if (!nas_.link(record)) return false;
  if (record.kind == ClaimKind::kClaim) note_step(Step::kClaimed);
  if (record.kind == ClaimKind::kAct) note_step(Step::kActing);
  if (record.kind == ClaimKind::kDone) note_step(Step::kDone);
  return true;
}

void ClaimsWorld::carry_out_one(Cms& cms, const core::SettleAppend& effect) {
  cms_after(cms, store_delay(), [this, &cms, effect] {
    const auto found = cms.unresolved.find(effect.attempt);
    if (found == cms.unresolved.end()) violated("an attempt is settled that nobody knows");
    Pending& pending = *found->second;
    const ClaimRecord record = pending.record;
    if (store_fails(cms)) return appended(cms, record, RestoreCore::AppendEnd::kUnresolved, effect.attempt);
    pending.draft_there = false;
    const ClaimRecord* there = nas_.record(record.lineage, record.slot);
    if (there == nullptr) {
      cms.unresolved.erase(found);
      return answer(cms, [&](RestoreCore& core, Instant now, core::RestoreEffects& effects) {
        core.on_appended(now, record.lineage, away(), 0, effects);
      });
    }
    const bool won = there->uid == record.uid;
    cms_after(cms, store_delay(), [this, &cms, record, won, attempt = effect.attempt] {
      if (won && !nas_.sync(record)) {
        return appended(cms, record, RestoreCore::AppendEnd::kUnresolved, attempt);
      }
      cms.unresolved.erase(attempt);
      appended(cms, record, won ? RestoreCore::AppendEnd::kWon : RestoreCore::AppendEnd::kLost, 0);
    });
  });
}

void ClaimsWorld::appended(Cms& cms, const ClaimRecord& record, RestoreCore::AppendEnd end,
                           std::uint64_t attempt) {
  if (end == RestoreCore::AppendEnd::kWon) {
    note_head(cms, record);
    if (plant_ == ClaimsPlant::kBaseForgotten && record.kind == ClaimKind::kDone) {
      for (const BlobName& name : nas_.list(record.lineage)) {
        if (name.owner_epoch < record.slot) nas_.remove(name);
      }
    }
  }
  answer(cms, [&](RestoreCore& core, Instant now, core::RestoreEffects& effects) {
    core.on_appended(now, record.lineage, end, attempt, effects);
  });
}

void ClaimsWorld::leave_unresolved(Cms& cms, const ClaimRecord& record, bool draft_there) {
  const std::uint64_t attempt = ++last_attempt_;
  const auto pending = std::make_shared<Pending>(Pending{record, draft_there});
  cms.unresolved[attempt] = pending;
  if (draft_there) {  // A LINK that is still under way: done late, or never. It does not die with its sender.
    queue_.after(random_delay(4s), [this, pending] {
      if (pending->draft_there) (void)link_claim(pending->record);
    });
  }
  cms_after(cms, 100ms + store_delay(), [this, &cms, record, attempt] {
    appended(cms, record, RestoreCore::AppendEnd::kUnresolved, attempt);
  });
}

void ClaimsWorld::append(Cms& cms, const ClaimRecord& asked) {
  ClaimRecord record = asked;
  if (plant_ == ClaimsPlant::kOwnerNotCompared) {
    if (const ClaimRecord* below = nas_.record(record.lineage, record.slot - 1)) {
      if (record.kind != ClaimKind::kDone) record.owner = below->owner;
      if (record.kind != ClaimKind::kDone) record.base = below->base;
    }
  }
  cms_after(cms, store_delay(), [this, &cms, record] {
    if (verbose_) trace("cms " + cms.name + " appends " + describe(record));
    if (queue_.now() < cms.away_until) return leave_unresolved(cms, record, prng_.chance(1, 2));
    if (queue_.now() < cms.unanswered_until) {
      (void)link_claim(record);
      return leave_unresolved(cms, record, false);
    }
    if (percent(scenario_.store_fail_percent)) {
      return answer(cms, [&](RestoreCore& core, Instant now, core::RestoreEffects& effects) {
        core.on_appended(now, record.lineage, away(), 0, effects);
      });
    }
    if (percent(scenario_.unresolved_percent)) {
      const bool linked = prng_.chance(1, 2) && link_claim(record);
      return leave_unresolved(cms, record, !linked);
    }
    if (!link_claim(record)) {
      if (plant_ == ClaimsPlant::kLostSlotRetried) {
        ClaimRecord again = record;
        ++again.slot;
        return append(cms, again);
      }
      return cms_after(cms, store_delay(),
                       [this, &cms, record] { appended(cms, record, RestoreCore::AppendEnd::kLost, 0); });
    }
    if (plant_ == ClaimsPlant::kWonBeforeSync) {
      appended(cms, record, RestoreCore::AppendEnd::kWon, 0);
      return cms_after(cms, 100ms + store_delay(), [this, record] { (void)nas_.sync(record); });
    }
    cms_after(cms, store_delay(), [this, &cms, record, life = nas_.life()] {
      if (life != nas_.life() && !nas_.holds(record)) return leave_unresolved(cms, record, true);
      (void)nas_.sync(record);
      cms_after(cms, store_delay(),
                [this, &cms, record] { appended(cms, record, RestoreCore::AppendEnd::kWon, 0); });
    });
  });
}

// ---- what can be restored

void ClaimsWorld::list_durably(Cms& cms, const Lineage& lineage, ListThen then) {
  const std::vector<BlobName> names = nas_.list(lineage);
  if (plant_ == ClaimsPlant::kListedNotDurable) return then(names);
  cms_after(cms, store_delay(), [this, names, then = std::move(then)] {
    std::vector<BlobName> durable;
    for (const BlobName& name : names) {
      if (nas_.sync(name)) durable.push_back(name);
    }
    then(durable);
  });
}

void ClaimsWorld::carry_out_one(Cms& cms, const core::FindCheckpoint& asked) {
  cms_after(cms, store_delay(), [this, &cms, asked] { find(cms, asked); });
}

void ClaimsWorld::find(Cms& cms, const core::FindCheckpoint& asked) {
  const Lineage lineage = asked.head.lineage;
  const auto tell = [this, &cms, lineage](const Result<RestoreCore::Found>& found) {
    cms_after(cms, store_delay(), [this, &cms, lineage, found] {
      answer(cms, [&](RestoreCore& core, Instant now, core::RestoreEffects& effects) {
        core.on_found(now, lineage, found, effects);
      });
    });
  };
  if (store_fails(cms)) return tell(away());
  const auto choose = [this, asked, tell](std::vector<BlobName> listed) {
    if (plant_ == ClaimsPlant::kFormerEpochRestored) {
      for (BlobName& name : listed) {
        name.owner_epoch = asked.head.owner.owner_epoch;
        name.checkpoint.program = asked.head.owner.program;
      }
    }
    std::vector<BlobName> best = core::restorable(asked.head, listed);
    if (asked.exact && plant_ != ClaimsPlant::kMovedFromOlder) {
      best = core::named_last(asked.head, listed, *asked.exact);
    }
    if (best.empty()) return tell(make_error(Code::kNotFound, "nothing is stored"));
    best.erase(std::unique(best.begin(), best.end(),
                           [](const BlobName& a, const BlobName& b) { return a.checkpoint == b.checkpoint; }),
               best.end());
    if (best.size() > kOfferedMax) best.resize(kOfferedMax);
    const std::size_t chosen = std::min(asked.skip, best.size() - 1);
    BlobName real = best[chosen];
    if (plant_ == ClaimsPlant::kFormerEpochRestored) {
      for (const BlobName& name : nas_.list(asked.head.lineage)) {
        if (name.uid == real.uid) real = name;
      }
    }
    const StoredBlob* blob = nas_.find(real);
    if (blob == nullptr) return tell(make_error(Code::kUnavailable, "it has just gone"));
    RestoreCore::Found found;
    found.name = best[chosen];
    found.session = blob->session;
    found.notification = blob->notification;
    found.older = best.size() - 1 - chosen;
    tell(found);
  };
  if (plant_ == ClaimsPlant::kListedBeforeClaim) {
    const auto listed = cms.listed.find(lineage);
    if (listed != cms.listed.end()) {
      const std::vector<BlobName> names = listed->second;
      cms.listed.erase(listed);
      return choose(names);
    }
  }
  list_durably(cms, lineage, choose);
}

// ---- checkpoints that come in

void ClaimsWorld::store(Cms& cms, Publication publication) {
  cms_after(cms, store_delay(), [this, &cms, publication] {
    if (store_fails(cms)) return retry_store(cms, publication);
    if (nas_.find(publication.blob.name) == nullptr) nas_.rename(publication.blob);
    cms_after(cms, store_delay(), [this, &cms, publication] {
      if (store_fails(cms) || !nas_.sync(publication.blob.name)) return retry_store(cms, publication);
      ask_word(cms, publication);
    });
  });
}

void ClaimsWorld::retry_store(Cms& cms, Publication publication) {
  if (++publication.tries > kStoreTriesMax) return;
  cms_after(cms, 300ms, [this, &cms, publication] { store(cms, publication); });
}

// The gate of cmsd: GENESIS where there is no log; then a look at the next slot, and the log when it is taken.
void ClaimsWorld::ask_word(Cms& cms, Publication publication) {
  cms_after(cms, store_delay(), [this, &cms, publication] {
    const BlobName& name = publication.blob.name;
    const auto again = [this, &cms, publication] {
      Publication next = publication;
      if (++next.tries > kStoreTriesMax) return;
      cms_after(cms, 250ms, [this, &cms, next] { ask_word(cms, next); });
    };
    if (store_fails(cms)) return again();
    const auto known = cms.known_heads.find(name.lineage);
    if (known == cms.known_heads.end() && nas_.head(name.lineage) == nullptr && name.owner_epoch == 0) {
      const core::Stamp stamp{cms.me, ++last_uid_, 1};
      const ClaimRecord first =
          core::genesis(stamp, name.lineage, publication.blob.session, name.checkpoint.program.program_id,
                        publication.blob.notification.policies.on_isolation,
                        publication.blob.notification.policies.on_loss);
      if (nas_.link(first)) {
        return cms_after(cms, store_delay(), [this, &cms, first, again] {
          if (nas_.sync(first)) note_head(cms, first);
          again();
        });
      }
    }
    const bool looks = plant_ != ClaimsPlant::kStoredWithoutLook || known == cms.known_heads.end();
    if (!looks ||
        (known != cms.known_heads.end() && nas_.record(name.lineage, known->second.slot + 1) == nullptr)) {
      return judge(cms, publication, known->second);
    }
    read_head(cms, name.lineage,
              [this, &cms, publication, again](const Result<std::optional<ClaimRecord>>& head) {
                if (!head.ok() || !*head) return again();
                judge(cms, publication, *head);
              });
  });
}

void ClaimsWorld::judge(Cms& cms, const Publication& publication, const std::optional<ClaimRecord>& head) {
  const StoredWord word = core::stored_word(&*head, publication.blob.name);
  cms_after(cms, store_delay(), [this, &cms, publication, word, head] {
    const BlobName& name = publication.blob.name;
    switch (word) {
      case StoredWord::kWait: {
        Publication next = publication;
        if (++next.tries <= kStoreTriesMax)
          cms_after(cms, 250ms, [this, &cms, next] { ask_word(cms, next); });
        return;
      }
      case StoredWord::kFenced:
        if (verbose_) trace("cms " + cms.name + " fences " + to_string(name.checkpoint));
        nas_.remove(name);
        if (scenario_.leases)
          tell_fenced(cms, name.checkpoint.program, name.lineage, head->owner.owner_epoch);
        return fence(*publication.copy);
      case StoredWord::kSay: break;
    }
    if (verbose_) {
      trace("cms " + cms.name + " says STORED of " + to_string(name.checkpoint) + ", epoch " +
            std::to_string(name.owner_epoch) + ", state " + std::to_string(publication.blob.state()));
    }
    const bool first = name.owner_epoch > 0 && cms.known_heads.count(name.lineage) != 0 &&
                       !ledger_.has_stored(cms.known_heads.at(name.lineage));
    ledger_.on_stored(name, nas_.head(name.lineage));
    if (first) remove_some(cms, name.lineage, true);
  });
}

// ---- removal

// Lists, then reads the head, then removes, with anything in between. Without `garbage_only` also all that
// retention may take.
void ClaimsWorld::remove_some(Cms& cms, const Lineage& lineage, bool garbage_only) {
  cms_after(cms, store_delay(), [this, &cms, lineage, garbage_only] {
    if (store_fails(cms)) return;
    list_durably(cms, lineage, [this, &cms, lineage, garbage_only](const std::vector<BlobName>& listed) {
      read_head(cms, lineage,
                [this, &cms, listed, garbage_only](const Result<std::optional<ClaimRecord>>& read) {
                  if (!read.ok() || !*read) return;
                  ClaimRecord head = **read;
                  if (plant_ == ClaimsPlant::kRemoverIgnoresClaim) head.kind = ClaimKind::kRelease;
                  std::vector<BlobName> gone = core::garbage(&head, listed);
                  if (!garbage_only) {
                    gone = listed;
                    for (const BlobName& stays : core::must_stay(&head, listed)) {
                      gone.erase(std::remove_if(gone.begin(), gone.end(),
                                                [&](const BlobName& name) { return name.uid == stays.uid; }),
                                 gone.end());
                    }
                  }
                  for (const BlobName& name : gone) {
                    cms_after(cms, store_delay(), [this, name] { nas_.remove(name); });
                  }
                });
    });
  });
}

}  // namespace cms::sim
