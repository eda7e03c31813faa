#include "cms/core/claim_log.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"

namespace cms::core {
namespace {

using storage::BlobName;
using wire::ClaimKind;
using wire::ClaimRecord;

constexpr std::size_t kNewestKept = 2;

// Whether a record of this kind may follow one of that kind; nothing follows RETIRE.
bool may_follow(ClaimKind head, ClaimKind next) {
  switch (next) {
    case ClaimKind::kGenesis: return false;
    case ClaimKind::kClaim: return head != ClaimKind::kAct && head != ClaimKind::kRetire;
    case ClaimKind::kAct:
    case ClaimKind::kRelease: return head == ClaimKind::kClaim;
    case ClaimKind::kDone:
    case ClaimKind::kAbort: return head == ClaimKind::kAct;
    case ClaimKind::kRetire: return !is_open(head) && head != ClaimKind::kRetire;
  }
  return false;
}

Status refuse(const ClaimRecord* head, const ClaimRecord& next, const std::string& rule) {
  const std::string after =
      head == nullptr ? "an empty log"
                      : std::string(to_string(head->kind)) + " in slot " + std::to_string(head->slot);
  return make_error(Code::kInvalidArgument, std::string(to_string(next.kind)) + " in slot " +
                                                std::to_string(next.slot) + " of lineage " +
                                                to_string(next.lineage) + " after " + after + ": " + rule);
}

ClaimRecord next_record(const Stamp& stamp, const ClaimRecord& head, ClaimKind kind) {
  ClaimRecord next;
  next.kind = kind;
  next.lineage = head.lineage;
  next.slot = head.slot + 1;
  next.uid = stamp.uid;
  next.writer = stamp.writer.name;
  next.writer_incarnation = stamp.writer.incarnation;
  next.written_at_us = stamp.wall_us;
  next.owner = head.owner;
  next.base = head.base;
  next.on_isolation = head.on_isolation;
  next.on_loss = head.on_loss;
  next.attempts = head.attempts;
  return next;
}

ClaimRecord proper(const ClaimRecord* head, ClaimRecord next) {
  CMS_ASSERT(check_successor(head, next).ok());
  return next;
}

bool is_blob_of(const BlobName& name, const Lineage& lineage) {
  return name.kind == storage::EntryKind::kBlob && name.lineage == lineage;
}

bool newer(const BlobName& a, const BlobName& b) {
  if (a.checkpoint.version != b.checkpoint.version) return b.checkpoint.version < a.checkpoint.version;
  return a.uid < b.uid;  // The same one, stored twice: all take the same of them.
}

std::vector<BlobName> of_owner(const ClaimRecord& head, const std::vector<BlobName>& listed) {
  std::vector<BlobName> own;
  std::copy_if(listed.begin(), listed.end(), std::back_inserter(own), [&](const BlobName& name) {
    return is_blob_of(name, head.lineage) && name.owner_epoch == head.owner.owner_epoch &&
           name.checkpoint.program == head.owner.program;
  });
  std::sort(own.begin(), own.end(), newer);
  return own;
}

}  // namespace

bool is_open(ClaimKind kind) { return kind == ClaimKind::kClaim || kind == ClaimKind::kAct; }

Status check_successor(const ClaimRecord* head, const ClaimRecord& next) {
  if (head == nullptr) {
    if (next.kind != ClaimKind::kGenesis) return refuse(head, next, "a log begins with GENESIS");
    if (next.slot != 1) return refuse(head, next, "a log begins in slot 1");
    return ok_status();
  }
  if (!may_follow(head->kind, next.kind)) return refuse(head, next, "may not follow it");
  if (next.lineage != head->lineage) return refuse(head, next, "of another lineage");
  if (next.slot != head->slot + 1) return refuse(head, next, "not the next slot");
  if (next.uid == head->uid) return refuse(head, next, "its uid is used already");
  if (next.on_isolation != head->on_isolation || next.on_loss != head->on_loss) {
    return refuse(head, next, "other policies");
  }
  if (next.kind != ClaimKind::kDone) {
    if (!(next.owner == head->owner)) return refuse(head, next, "another owner");
    if (next.base != head->base) return refuse(head, next, "another base");
  }
  const bool same_writer = next.writer == head->writer && next.writer_incarnation == head->writer_incarnation;
  switch (next.kind) {
    case ClaimKind::kClaim:
      if (next.claim_slot != next.slot) return refuse(head, next, "does not name its own slot");
      if (next.attempts != head->attempts + 1 && (next.attempts != 1 || head->kind != ClaimKind::kDone)) {
        return refuse(head, next, "attempts are not one more");
      }
      return ok_status();
    case ClaimKind::kAct:
      if (!same_writer) return refuse(head, next, "only who claimed may say ACT");
      if (next.claim_slot != head->claim_slot || next.reason != head->reason) {
        return refuse(head, next, "of another claim");
      }
      if (next.attempts != head->attempts) return refuse(head, next, "attempts differ");
      if (!next.checkpoint) return refuse(head, next, "names no checkpoint");
      if (next.checkpoint != head->base && (next.checkpoint->owner_epoch != head->owner.owner_epoch ||
                                            next.checkpoint->checkpoint.program != head->owner.program)) {
        return refuse(head, next, "its checkpoint is neither the owner's nor the base");
      }
      return ok_status();
    case ClaimKind::kDone:
      if (next.owner.program.ecu_mac != head->target.ecu_mac ||
          next.owner.incarnation != head->target.incarnation) {
        return refuse(head, next, "the owner is not the target of ACT");
      }
      if (next.owner.owner_epoch != next.slot) return refuse(head, next, "owner_epoch is not its slot");
      if (next.base != head->checkpoint) return refuse(head, next, "the base is not the checkpoint of ACT");
      if (next.attempts != head->attempts) return refuse(head, next, "attempts differ");
      return ok_status();
    case ClaimKind::kRelease:
      if (!same_writer) return refuse(head, next, "only who claimed may release");
      if (head->attempts > 0 && next.attempts == head->attempts - 1) return ok_status();  // Nobody was asked.
      break;
    case ClaimKind::kAbort:
      if (next.proof == wire::AbortProof::kNone) return refuse(head, next, "without a proof");
      break;
    case ClaimKind::kGenesis:
    case ClaimKind::kRetire: break;
  }
  if (next.attempts != head->attempts) return refuse(head, next, "attempts differ");
  return ok_status();
}

ClaimRecord genesis(const Stamp& stamp, const Lineage& lineage, const SessionId& session,
                    ProgramId program_id, wire::OnIsolation on_isolation, wire::OnLoss on_loss) {
  ClaimRecord first;
  first.lineage = lineage;
  first.owner = wire::ClaimOwner{ProgramKey{session.ecu_mac, program_id}, session.incarnation, 0};
  first.on_isolation = on_isolation;
  first.on_loss = on_loss;
  ClaimRecord next = next_record(stamp, first, ClaimKind::kGenesis);
  return proper(nullptr, std::move(next));
}

ClaimRecord claim(const Stamp& stamp, const ClaimRecord& head, wire::ClaimReason reason,
                  bool has_own_checkpoint) {
  ClaimRecord next = next_record(stamp, head, ClaimKind::kClaim);
  next.reason = reason;
  next.claim_slot = next.slot;
  next.attempts = has_own_checkpoint && head.kind == ClaimKind::kDone ? 1 : head.attempts + 1;
  return proper(&head, std::move(next));
}

ClaimRecord act(const Stamp& stamp, const ClaimRecord& head, const SessionId& target,
                const wire::ClaimBlob& checkpoint) {
  ClaimRecord next = next_record(stamp, head, ClaimKind::kAct);
  next.reason = head.reason;
  next.claim_slot = head.claim_slot;
  next.target = target;
  next.checkpoint = checkpoint;
  return proper(&head, std::move(next));
}

ClaimRecord done(const Stamp& stamp, const ClaimRecord& head, ProgramId program_id) {
  ClaimRecord next = next_record(stamp, head, ClaimKind::kDone);
  next.owner =
      wire::ClaimOwner{ProgramKey{head.target.ecu_mac, program_id}, head.target.incarnation, next.slot};
  next.base = head.checkpoint;
  return proper(&head, std::move(next));
}

ClaimRecord release(const Stamp& stamp, const ClaimRecord& head, bool untried, std::string why) {
  ClaimRecord next = next_record(stamp, head, ClaimKind::kRelease);
  if (untried) --next.attempts;
  next.text = std::move(why);
  return proper(&head, std::move(next));
}

ClaimRecord abort(const Stamp& stamp, const ClaimRecord& head, wire::AbortProof proof, std::string why) {
  ClaimRecord next = next_record(stamp, head, ClaimKind::kAbort);
  next.proof = proof;
  next.text = std::move(why);
  return proper(&head, std::move(next));
}

ClaimRecord retire(const Stamp& stamp, const ClaimRecord& head, std::string why) {
  ClaimRecord next = next_record(stamp, head, ClaimKind::kRetire);
  next.text = std::move(why);
  return proper(&head, std::move(next));
}

Turn turn_of(const ClaimRecord* head, const Writer& me, bool writer_lives) {
  if (head == nullptr) return Turn::kUnbegun;
  switch (head->kind) {
    case ClaimKind::kGenesis:
    case ClaimKind::kDone:
    case ClaimKind::kRelease:
    case ClaimKind::kAbort: return Turn::kNobodys;
    case ClaimKind::kClaim:
      if (head->writer == me.name && head->writer_incarnation == me.incarnation) return Turn::kMine;
      return writer_lives ? Turn::kOthers : Turn::kOrphaned;
    case ClaimKind::kAct: return Turn::kFinish;
    case ClaimKind::kRetire: return Turn::kEnded;
  }
  return Turn::kEnded;
}

Status check_replaces(const ClaimRecord* head, const wire::ClaimOwner& replaces) {
  if (head == nullptr) {
    return make_error(Code::kNotFound, "nothing is known of an owner: nothing of it was ever STORED");
  }
  if (head->kind == ClaimKind::kRetire) {
    return make_error(Code::kWithdrawn, "lineage " + to_string(head->lineage) + " has ended: " + head->text);
  }
  if (head->owner == replaces) return ok_status();
  return make_error(Code::kFenced, "lineage " + to_string(head->lineage) + " is owned by " +
                                       to_string(head->owner.program) + " (owner_epoch " +
                                       std::to_string(head->owner.owner_epoch) + "), no longer by " +
                                       to_string(replaces.program) + " (owner_epoch " +
                                       std::to_string(replaces.owner_epoch) + ")");
}

Epoch judge_epoch(const ClaimRecord* head, const ProgramKey& program, OwnerEpoch owner_epoch) {
  if (head == nullptr) return owner_epoch == 0 ? Epoch::kCurrent : Epoch::kReadLog;
  if (owner_epoch > head->owner.owner_epoch) return Epoch::kReadLog;
  if (head->kind == ClaimKind::kRetire || owner_epoch < head->owner.owner_epoch) return Epoch::kFenced;
  return program == head->owner.program ? Epoch::kCurrent : Epoch::kFenced;
}

std::vector<BlobName> restorable(const ClaimRecord& head, const std::vector<BlobName>& listed) {
  if (head.kind == ClaimKind::kRetire) return {};
  std::vector<BlobName> own = of_owner(head, listed);
  if (!own.empty() || !head.base) return own;
  const auto base = std::find_if(listed.begin(), listed.end(), [&](const BlobName& name) {
    return is_blob_of(name, head.lineage) && claim_blob_of(name) == *head.base;
  });
  if (base != listed.end()) own.push_back(*base);
  return own;
}

std::vector<BlobName> named_last(const ClaimRecord& head, const std::vector<BlobName>& listed,
                                 const Version& last) {
  std::vector<BlobName> own = of_owner(head, listed);
  own.erase(std::remove_if(own.begin(), own.end(),
                           [&](const BlobName& name) { return name.checkpoint.version != last; }),
            own.end());
  return own;
}

StoredWord stored_word(const ClaimRecord* head, const BlobName& blob) {
  if (head == nullptr) return blob.owner_epoch == 0 ? StoredWord::kSay : StoredWord::kWait;
  if (blob.owner_epoch > head->owner.owner_epoch) return StoredWord::kWait;  // Not the head any more.
  if (head->base == claim_blob_of(blob)) return StoredWord::kSay;
  if (judge_epoch(head, blob.checkpoint.program, blob.owner_epoch) != Epoch::kCurrent) {
    return StoredWord::kFenced;
  }
  return is_open(head->kind) ? StoredWord::kWait : StoredWord::kSay;
}

std::vector<BlobName> must_stay(const ClaimRecord* head, const std::vector<BlobName>& listed) {
  if (head == nullptr || is_open(head->kind)) return listed;
  if (head->kind == ClaimKind::kRetire) return {};
  std::vector<BlobName> stay;
  std::size_t distinct = 0;
  const std::vector<BlobName> candidates = restorable(*head, listed);
  for (const BlobName& name : candidates) {
    const bool again = !stay.empty() && stay.back().checkpoint == name.checkpoint;
    if (!again && ++distinct > kNewestKept) break;
    if (!again) stay.push_back(name);
  }
  return stay;
}

std::vector<BlobName> garbage(const ClaimRecord* head, const std::vector<BlobName>& listed) {
  std::vector<BlobName> gone;
  if (head == nullptr || is_open(head->kind)) return gone;
  const bool ended = head->kind == ClaimKind::kRetire;
  if (!ended && of_owner(*head, listed).empty()) return gone;
  std::copy_if(listed.begin(), listed.end(), std::back_inserter(gone), [&](const BlobName& name) {
    return is_blob_of(name, head->lineage) && (ended || name.owner_epoch < head->owner.owner_epoch);
  });
  return gone;
}

wire::ClaimBlob claim_blob_of(const BlobName& name) {
  return wire::ClaimBlob{name.checkpoint, name.owner_epoch, name.uid};
}

}  // namespace cms::core
