#pragma once
// ClaimStore takes the atomic steps on which claims and leases stand: logs of immutable records in
// numbered slots, each given away once for ever (put-if-absent), and the members' records. It does not
// know what a record means: cms/core does. docs/formats/claims.md has the bytes and the names.
//
// How a slot is given away (docs/adr/0010-claim-log.md): a record is written and synced under a private
// name, linked to the name of the slot, and the private name removed. A link that is done late finds
// nothing to link. So after the removal has been confirmed the slot says for ever who won, whatever became
// of the link's reply. What a link returned is a hint and never the answer.
//
// Threads: every call blocks on I/O; never call from a loop. One instance may be used from several
//   threads at once. It is to be destroyed before the BlobStore of the same options.
// Errors: any call may return kUnavailable (not reached, or no answer: the NAS may be away; retry), kIo,
//   kPermission, kReadOnly; others are listed at the call.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "storage/blob_store.h"

namespace cms::storage {

// Whose log: a lineage's says who owns it, a guarded ECU's which session of it lives.
struct LogId {
  enum class Kind : std::uint8_t { kLineage, kEcu };
  Kind kind = Kind::kLineage;
  Id128 id{};  // The lineage; for an ECU its ecu_mac in `low`.
};
bool operator==(const LogId& a, const LogId& b);
bool operator<(const LogId& a, const LogId& b);
LogId log_of(const Lineage& lineage);
LogId log_of(EcuMac ecu_mac);
std::string to_string(const LogId& log);  // For people: "the log of lineage …", "the log of ECU …".

inline constexpr std::uint32_t kLogShardCount = 256;
// Which list_logs a log is in: of a lineage the 8 highest bits, of an ECU the 8 lowest.
std::uint32_t log_shard_of(const LogId& log);

using Slot = std::uint64_t;                          // From 1; 0: none.
inline constexpr std::size_t kRecordBytesMax = 960;  // With the frame around it 1024, one write.
inline constexpr std::size_t kMemberBytesMax =
    17 * 1024 - 64;  // A member's; with the frame 17 KiB, one write.

struct LogSlot {
  LogId log{};
  Slot slot = 0;
};

// One of many to be appended.
struct Append {
  LogId log{};
  Slot slot = 0;
  std::string record;
};

// What became of an append. An Error instead means: not appended, and never will be by this call.
struct Appended {
  enum class End : std::uint8_t {
    kWon,         // The slot holds this record, durably.
    kLost,        // The slot holds another's record.
    kUnresolved,  // Not known yet. The caller acts as if it had lost, and calls settle() until it is known.
  };
  End end = End::kUnresolved;
  std::uint64_t attempt = 0;  // Of kUnresolved: what settle() wants.
};

struct LogRecord {
  LogId log{};
  Slot slot = 0;
  std::string bytes;  // As appended.
};

// A member of the fleet's CMS as its file in nodes/ shows it. Liveness is read from the change of what it
// writes, never from a time.
struct MemberFile {
  std::string node;
  std::uint64_t node_incarnation = 0;
  Result<std::string> bytes;  // As written; kCorrupt: torn or altered, to be treated as "has not grown".
};

// One thing that claims need of a store, tried.
struct StoreTrait {
  std::string name;  // "hard links"
  bool holds = false;
  std::string detail;  // What was done and seen; for an operator.
};
struct SelfTest {
  std::vector<StoreTrait> traits;
  // The store's own clock less ours, by the time it gave to a file written just now. For people: no
  // decision is made by it. Not known for a directory on this host, whose clock is ours.
  bool clock_known = false;
  std::int64_t clock_ahead_ms = 0;

  bool trusted_with_claims() const;  // There are traits, and all hold.
};

class ClaimStore {
 public:
  virtual ~ClaimStore() = default;

  // Finds its places in a store that a BlobStore of the same options has opened, and makes those that a
  // store of an older cmsd lacks; idempotent; again after kUnavailable. kNotFound: there is no store.
  // kForeign: it is another fleet's than at the first opening. kNoSpace, kQuota.
  virtual Status open_store() = 0;

  // Tries what claims stand on, in our private directory and the logs' place: an exclusive create refuses
  // a second one; a hard link is made, refuses a second one, and cannot be made from a removed file; a
  // rename crosses directories; what was synced is said to be synced by the same life of the server. A
  // trait that does not hold is a finding and no Error. kNoSpace, kQuota: it could not be tried.
  virtual Result<SelfTest> self_test() = 0;

  // Gives `slot` to this record unless it is taken. The caller has read slot - 1 durably (or slot is 1), so
  // that logs have no holes. May take several timeouts of a call. An unresolved attempt is kept by the store
  // until it is settled, or the store destroyed.
  // kInvalidArgument: slot is 0, the record empty or above kRecordBytesMax, or no ECU has that id. kNoSpace,
  // kQuota. kCorrupt: the slot is taken by a file that cannot be used; kUnsupported: by one of a newer
  // format, or the store has no hard links. kLimit: kUnresolvedMax attempts are unresolved or under way.
  virtual Result<Appended> append(const LogId& log, Slot slot, const std::string& record) = 0;
  // Each as append(), for the price of few: their steps are taken together, kAppendGroupMax at a time. In
  // order of `appends`, as many. Those of one log go one after the other, in their order; after one that was
  // not won none is begun for a higher slot of that log in this call, since that could leave a hole:
  // kUnavailable. May take several timeouts of a call for each group.
  virtual std::vector<Result<Appended>> append_many(const std::vector<Append>& appends) = 0;
  static constexpr std::size_t kAppendGroupMax = 128;
  // Of an unresolved attempt, by one thread at a time: as append. While the store is away it stays
  // kUnresolved; an Error says, as there, that it was not appended and never will be, and is told once.
  // kNotFound: no such attempt is unresolved.
  virtual Result<Appended> settle(std::uint64_t attempt) = 0;
  static constexpr std::size_t kUnresolvedMax = 1024;

  // The record of a slot. kNotFound: nobody has it. kCorrupt: its file cannot be used; the log must not be
  // appended to. kUnsupported: it is of a newer format. With kDurable the record is made sure of before
  // return: whoever acts on a slot that it did not win asks so, or a crash of the store's host could take
  // the record away again.
  enum class Read : std::uint8_t { kAsSeen, kDurable };
  virtual Result<LogRecord> read(const LogId& log, Slot slot, Read how) = 0;
  // The record in the highest slot. `hint`: a slot known to have been taken (0: none known); saves a
  // listing. kNotFound: the log is empty. kCorrupt, kUnsupported: as for read.
  virtual Result<LogRecord> head(const LogId& log, Slot hint, Read how) = 0;
  // Each as head(), side by side: `logs` with the hint of each, any number; in their order, as many.
  virtual std::vector<Result<LogRecord>> heads(const std::vector<LogSlot>& logs, Read how) = 0;
  // Whether anybody has the slot, by one call to the store; false for what can be no slot. No record is read,
  // and nothing is made durable: one that is seen may go again, one that is not was not there when asked.
  virtual Result<bool> has_slot(const LogId& log, Slot slot) = 0;
  // Each as has_slot(), side by side, any number; in their order, as many.
  virtual std::vector<Result<bool>> has_slots(const std::vector<LogSlot>& slots) = 0;
  // Calls `visit` for each log of a shard with its highest slot, in no order; opens nothing. Files that
  // are not ours to read are counted in *`unknown` (may be null). kInvalidArgument: no such shard.
  virtual Status list_logs(std::uint32_t log_shard, const std::function<void(const LogId&, Slot head)>& visit,
                           std::uint64_t* unknown) = 0;

  // Writes our member record, at most kMemberBytesMax, durable on return; replaces the former one, whichever is
  // longer. A late write of an earlier life cannot reach it: each life has its own file. One of our own that
  // was not answered may, and show the former record until the next write: so records carry a number. A write
  // that was done in part, or is being done, shows as kCorrupt, or as the former record, until the next one.
  // kInvalidArgument: it is empty or too long. kNoSpace, kQuota.
  virtual Status write_member(const std::string& record) = 0;
  // All members' records, the dead ones' too.
  virtual Result<std::vector<MemberFile>> list_members() = 0;
  // Of a life that has ended. Idempotent.
  virtual Status remove_member(const std::string& node, std::uint64_t node_incarnation) = 0;
};

// Of the place and node that `options` name (blob_store.h); shares nothing with the BlobStore but these.
// Errors as make_blob_store.
Result<std::unique_ptr<ClaimStore>> make_claim_store(const StoreOptions& options);

}  // namespace cms::storage
