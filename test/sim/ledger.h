#pragma once
// The ledger is what the simulator knows and no part of the system does: every checkpoint that was
// ever published, its bytes, and what its publisher was told. The invariants on receipts are here.
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/ids.h"
#include "broker/core/ecu_core.h"
#include "schemas/messages.h"

namespace cms::sim {

// An invariant does not hold; ends the run.
class Violation : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
[[noreturn]] void violated(const std::string& what);

inline constexpr std::uint32_t kChunkSizeBytes = wire::kChunkSizeBytesMin;

// One start of one client; publishes as one session once it has its incarnation.
struct ClientRecord;

struct Published {
  ClientRecord* client = nullptr;
  ProgramKey program{};
  Seq seq = 0;
  std::uint64_t size_bytes = 0;
  std::uint64_t content = 0;  // Which bytes; see content_at.
  wire::Release release = wire::Release::kReplicated;
  bool source_alive = true;
  bool told_stored = false;
  Version stored_as{};  // As last told.
  Incarnation final_incarnation = 0;
  bool durable = false;
  std::optional<wire::ReceiptLevel> final_level;
  Code final_code = Code::kOk;
  std::uint32_t spoiled_chunks = 0;  // Chunks of it that the network altered.
  bool source_failed = false;        // Its file was altered while it was read.
};

struct ClientRecord {
  EcuMac ecu_mac{};
  std::uint64_t nonce = 0;
  std::string name;
  Incarnation incarnation = 0;
  Incarnation floor = 0;                    // It must get an incarnation above this one.
  std::uint64_t started_at = 0;             // In steps of the ledger's own count.
  std::uint64_t ended_at = 0;               // 0: it lives.
  std::deque<Published> published;          // By seq; the first has seq 1.
  std::size_t final_count = 0;              // Of final receipts.
  std::size_t freed_count = 0;              // Of sources that were destroyed.
  std::map<ProgramId, Seq> withdraw_asked;  // Up to which seq.
  std::set<ProgramId> lost_to_ended;        // One was superseded by a client that had ended before.

  Published* find(Seq seq) { return seq == 0 || seq > published.size() ? nullptr : &published[seq - 1]; }
};

// The bytes of a blob from a chunk boundary on, at least one chunk of them. All blobs share one
// buffer of noise; which part of it a chunk shows depends on blob and place, so that a chunk in the
// wrong blob or place does not compare equal.
const void* content_at(std::uint64_t content, std::uint64_t offset_bytes);

class Ledger {
 public:
  // `several_cms`: one of them may not have heard yet what another gave away.
  explicit Ledger(bool several_cms) : several_cms_(several_cms) {}

  ClientRecord& start_client(EcuMac ecu_mac, std::uint64_t nonce);
  void end_client(ClientRecord& client) { client.ended_at = ++step_count_; }
  // Invariant: an incarnation is unique on its ECU and above all that were given before the client
  // started; with several CMS, above all that were durable and known to every CMS by then.
  void set_incarnation(ClientRecord& client, Incarnation incarnation);
  Published& publish(ClientRecord& client, ProgramId program_id, std::uint64_t size_bytes,
                     wire::Release release);
  // nullptr: never published under this identity.
  Published* find(const CheckpointId& checkpoint);
  Published* find(const SessionId& session, Seq seq);
  // The version that its publisher knows it by; incarnation 0 while it has none.
  static Version version_of(const Published& published) {
    return Version{published.final_level ? published.final_incarnation : published.client->incarnation,
                   published.seq};
  }
  // The client of `other` had ended when that of `published` started.
  static bool ended_before(const Published& other, const Published& published) {
    return other.client->ended_at != 0 && other.client->ended_at < published.client->started_at;
  }

  // Something of this incarnation became durable.
  void note_durable(EcuMac ecu_mac, Incarnation incarnation) { durable_[ecu_mac].insert(incarnation); }
  // Every CMS knows this incarnation or a larger one.
  void note_known(EcuMac ecu_mac, Incarnation incarnation);
  Incarnation newest_durable(EcuMac ecu_mac) const;
  // A tombstone became durable.
  void note_withdrawn(const ProgramKey& program, const Version& up_to);
  // The publisher was told that its withdrawal is done.
  void note_withdraw_answered(const ProgramKey& program, const Version& up_to);
  // What an answer to a withdrawal up to there covers: of a session that had published nothing,
  // everything of older sessions.
  static Version covered_by(const Version& up_to);
  const std::map<ProgramKey, Version>& withdraw_answered() const { return withdraw_answered_; }

  // Invariants: the checkpoint exists, has no final receipt yet; what was superseded has a successor;
  // what was dropped has a reason that really came up. What STORED means is checked by the store.
  void on_receipt(ClientRecord& client, const broker::ReceiptEvent& event);
  // After a step of a client: a blob is freed by its final receipt and by nothing else.
  static void check_freed(const ClientRecord& client);
  // Everything healed: every blob of a living client has come to its end, or what is missing. Not
  // `all_live`: what is STORED may wait for a replica for ever.
  std::optional<std::string> unfinished(const ClientRecord& client, bool all_live) const;
  // Of the newest checkpoint of each program that had to be stored. Call when nothing is unfinished.
  void check_newest_stored(const ClientRecord& client) const;

  const std::deque<ClientRecord>& clients() const { return clients_; }

 private:
  bool is_withdrawn(const Published& published) const;

  std::deque<ClientRecord> clients_;
  std::map<SessionId, ClientRecord*> sessions_;
  const bool several_cms_;
  std::map<EcuMac, std::set<Incarnation>> durable_;
  std::map<EcuMac, Incarnation> floor_;
  std::map<ProgramKey, std::vector<const Published*>> of_program_;
  std::map<ProgramKey, Version> withdrawn_;
  std::map<ProgramKey, Version> withdraw_answered_;
  std::uint64_t content_count_ = 0;
  std::uint64_t step_count_ = 0;
};

std::string to_string(const Published& published);

}  // namespace cms::sim
