#pragma once
// What the records of a lineage's claim log allow: which record may follow which, what a CMS may do with
// the head it has just read, who is fenced, what can be restored, when STORED may be said and what may be
// removed. docs/adr/0010-claim-log.md has the reasons; test/model has these rules checked.
//
// A record says the whole state after it, so `head`, the record in the highest slot, read from the store
// and never from the index, is all that is asked for; nullptr: the log is empty. A record in the log was
// checked by check_successor before it was appended.
//
// Threads: pure functions; no I/O, no clock.
#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "schemas/claim_record.h"
#include "storage/blob_store.h"

namespace cms::core {

// One life of a cmsd.
struct Writer {
  std::string name;
  std::uint64_t incarnation = 0;
};

// What each new record has of its own.
struct Stamp {
  Writer writer;
  std::uint64_t uid = 0;  // Random, never 0.
  std::uint64_t wall_us = 0;
};

// Whether `next` may stand in the slot after `head`. kInvalidArgument: names the rule that it breaks. Asked
// before every append; what it lets pass may still lose the slot to another.
Status check_successor(const wire::ClaimRecord* head, const wire::ClaimRecord& next);

// ---- the next record; each asserts what check_successor asks for
wire::ClaimRecord genesis(const Stamp& stamp, const Lineage& lineage, const SessionId& session,
                          ProgramId program_id, wire::OnIsolation on_isolation, wire::OnLoss on_loss);
// `has_own_checkpoint`: something was STORED since the owner became it, so that the count of attempts
// begins anew after its DONE. Over any other record it goes on.
wire::ClaimRecord claim(const Stamp& stamp, const wire::ClaimRecord& head, wire::ClaimReason reason,
                        bool has_own_checkpoint);
wire::ClaimRecord act(const Stamp& stamp, const wire::ClaimRecord& head, const SessionId& target,
                      const wire::ClaimBlob& checkpoint);
// After the target's durable answer; `program_id` is the one that the program has there.
wire::ClaimRecord done(const Stamp& stamp, const wire::ClaimRecord& head, ProgramId program_id);
// `untried`: no target was asked, so that the attempt does not count.
wire::ClaimRecord release(const Stamp& stamp, const wire::ClaimRecord& head, bool untried, std::string why);
wire::ClaimRecord abort(const Stamp& stamp, const wire::ClaimRecord& head, wire::AbortProof proof,
                        std::string why);
wire::ClaimRecord retire(const Stamp& stamp, const wire::ClaimRecord& head, std::string why);

// ---- what a CMS may do with a lineage
// CLAIM and ACT: where the program goes on is not decided.
bool is_open(wire::ClaimKind kind);

enum class Turn : std::uint8_t {
  kNobodys,   // No claim is open: whoever has a reason may append CLAIM.
  kMine,      // The open claim is this life's: prepare, then ACT or RELEASE. Also one that it does not
              // remember having won: an append that was settled late.
  kOthers,    // Another's claim, which lives: wait.
  kOrphaned,  // Another's claim, whose life has ended: CLAIM may be appended over it.
  kFinish,    // ACT: everybody may send GO to its target, and append DONE, or ABORT with a proof.
  kEnded,     // RETIRE: nothing, ever.
  kUnbegun,   // Empty: only GENESIS.
};
// `writer_lives`: as the members' records have it, of the life that wrote `head`.
Turn turn_of(const wire::ClaimRecord* head, const Writer& me, bool writer_lives);

// Whether the owner that a reason to claim is about is the owner still. kFenced: it is not, the program has
// moved on; kWithdrawn: the lineage has ended; kNotFound: the log is empty.
Status check_replaces(const wire::ClaimRecord* head, const wire::ClaimOwner& replaces);

// ---- fencing
enum class Epoch : std::uint8_t {
  kCurrent,
  kFenced,   // Somebody else owns it by now, or nobody for good: the sender must stop the program.
  kReadLog,  // Larger than what `head` says: it is not the head any more.
};
// Of what `program` sends under `owner_epoch`. The owner is compared, never the slot of the head: a claim
// that is open fences nobody.
Epoch judge_epoch(const wire::ClaimRecord* head, const ProgramKey& program, OwnerEpoch owner_epoch);

// ---- checkpoints. `listed` is what the store has of the lineage, listed after `head` was read, and made durable
// (BlobStore::make_durable): a name that is only listed may not last, and must not let another go.
// What may be restored, the best first: those of the owner, the newest first; while it has none, what it
// was restored from.
std::vector<storage::BlobName> restorable(const wire::ClaimRecord& head,
                                          const std::vector<storage::BlobName>& listed);

// Of these the one that the source of a planned move named as its last; none: it is not stored (yet).
std::vector<storage::BlobName> named_last(const wire::ClaimRecord& head,
                                          const std::vector<storage::BlobName>& listed, const Version& last);

enum class StoredWord : std::uint8_t {
  kSay,     // Whoever restores the program from now on finds it.
  kWait,    // A claim is open that may have overlooked it: ask again when that has ended.
  kFenced,  // Its owner is none any more, and the new one was restored from another.
};
// `head` was read after the blob's name was durable.
StoredWord stored_word(const wire::ClaimRecord* head, const storage::BlobName& blob);

// What the claim rules forbid to remove: everything while a claim is open; else the two newest of the
// owner, and what it was restored from while it has none of its own. Retention asks, and so does whoever
// removes superseded blobs; pins are not known here.
std::vector<storage::BlobName> must_stay(const wire::ClaimRecord* head,
                                         const std::vector<storage::BlobName>& listed);
// What nobody will ever restore: blobs of former owners, once the present one has a checkpoint of its own.
std::vector<storage::BlobName> garbage(const wire::ClaimRecord* head,
                                       const std::vector<storage::BlobName>& listed);

wire::ClaimBlob claim_blob_of(const storage::BlobName& name);

}  // namespace cms::core
