#include "test/sim/ledger.h"

#include <algorithm>
#include <limits>

#include "base/prng.h"
#include "cms/core/cms_core.h"

namespace cms::sim {

using wire::ReceiptLevel;

void violated(const std::string& what) { throw Violation(what); }

std::string to_string(const Published& published) {
  return published.client->name + " program " + std::to_string(published.program.program_id) + " " +
         std::to_string(published.client->incarnation) + "." + std::to_string(published.seq) + " (" +
         std::to_string(published.size_bytes) + " bytes)";
}

const void* content_at(std::uint64_t content, std::uint64_t offset_bytes) {
  constexpr std::size_t kNoiseBytes = 1024 * 1024;
  constexpr std::size_t kAlignment = 64;
  static const std::vector<std::uint64_t> noise = [] {
    Prng prng(7);
    std::vector<std::uint64_t> words((kNoiseBytes + kChunkSizeBytes) / sizeof(std::uint64_t));
    for (std::uint64_t& word : words) word = prng.next();
    return words;
  }();
  Prng place(content * 0x1000003 + offset_bytes / kChunkSizeBytes);
  return noise.data() + place.below(kNoiseBytes / kAlignment) * (kAlignment / sizeof(std::uint64_t));
}

ClientRecord& Ledger::start_client(EcuMac ecu_mac, std::uint64_t nonce) {
  ClientRecord& client = clients_.emplace_back();
  client.ecu_mac = ecu_mac;
  client.nonce = nonce;
  client.name = "client " + std::to_string(clients_.size()) + " (" + cms::to_string(ecu_mac) + ")";
  client.floor = floor_[ecu_mac];
  client.started_at = ++step_count_;
  return client;
}

void Ledger::set_incarnation(ClientRecord& client, Incarnation incarnation) {
  if (client.incarnation == incarnation) return;
  if (client.incarnation != 0 && incarnation < client.incarnation) {
    violated(client.name + " changed its incarnation from " + std::to_string(client.incarnation) + " to " +
             std::to_string(incarnation));
  }
  if (incarnation <= client.floor) {
    violated(client.name + " got incarnation " + std::to_string(incarnation) + ", but " +
             std::to_string(client.floor) + " was in use before it started");
  }
  if (!sessions_.emplace(SessionId{client.ecu_mac, incarnation}, &client).second) {
    violated(client.name + " got incarnation " + std::to_string(incarnation) + ", which another client has");
  }
  // A larger one that a client took by itself is nobody's knowledge before its next hello is answered.
  const bool was_given = client.incarnation == 0;
  client.incarnation = incarnation;
  if (several_cms_ || !was_given) return;
  Incarnation& floor = floor_[client.ecu_mac];
  floor = std::max(floor, incarnation);
}

void Ledger::note_known(EcuMac ecu_mac, Incarnation incarnation) {
  const std::set<Incarnation>& durable = durable_[ecu_mac];
  const auto beyond = durable.upper_bound(incarnation);
  if (beyond == durable.begin()) return;
  Incarnation& floor = floor_[ecu_mac];
  floor = std::max(floor, *std::prev(beyond));
}

Incarnation Ledger::newest_durable(EcuMac ecu_mac) const {
  const auto it = durable_.find(ecu_mac);
  return it == durable_.end() || it->second.empty() ? 0 : *it->second.rbegin();
}

Published& Ledger::publish(ClientRecord& client, ProgramId program_id, std::uint64_t size_bytes,
                           wire::Release release) {
  Published& published = client.published.emplace_back();
  published.client = &client;
  published.program = ProgramKey{client.ecu_mac, program_id};
  published.seq = client.published.size();
  published.size_bytes = size_bytes;
  published.content = ++content_count_;
  published.release = release;
  of_program_[published.program].push_back(&published);
  return published;
}

Published* Ledger::find(const SessionId& session, Seq seq) {
  const auto it = sessions_.find(session);
  return it == sessions_.end() ? nullptr : it->second->find(seq);
}

Published* Ledger::find(const CheckpointId& checkpoint) {
  Published* published =
      find(SessionId{checkpoint.program.ecu_mac, checkpoint.version.incarnation}, checkpoint.version.seq);
  return published == nullptr || published->program != checkpoint.program ? nullptr : published;
}

void Ledger::note_withdrawn(const ProgramKey& program, const Version& up_to) {
  Version& withdrawn = withdrawn_[program];
  withdrawn = std::max(withdrawn, up_to);
}

Version Ledger::covered_by(const Version& up_to) {
  // There is no seq 0.
  return up_to.seq > 0 ? up_to : Version{up_to.incarnation - 1, std::numeric_limits<Seq>::max()};
}

void Ledger::note_withdraw_answered(const ProgramKey& program, const Version& up_to) {
  Version& answered = withdraw_answered_[program];
  answered = std::max(answered, covered_by(up_to));
}

bool Ledger::is_withdrawn(const Published& published) const {
  const auto asked = published.client->withdraw_asked.find(published.program.program_id);
  if (asked != published.client->withdraw_asked.end() && published.seq <= asked->second) return true;
  const auto withdrawn = withdrawn_.find(published.program);
  return withdrawn != withdrawn_.end() && version_of(published) <= withdrawn->second;
}

void Ledger::on_receipt(ClientRecord& client, const broker::ReceiptEvent& event) {
  Published* published = client.find(event.seq);
  const std::string what = std::string(wire::to_string(event.level)) + " for ";
  if (published == nullptr || published->program.program_id != event.program_id) {
    violated(client.name + " was told " + what + "program " + std::to_string(event.program_id) + " seq " +
             std::to_string(event.seq) + ", which it never published");
  }
  if (published->final_level) violated("a receipt " + what + to_string(*published) + " after the final one");
  switch (event.level) {
    case ReceiptLevel::kAnnounced:
    case ReceiptLevel::kPulling:
      if (event.final) violated("a final " + what + to_string(*published));
      break;
    case ReceiptLevel::kStored:
    case ReceiptLevel::kReplicated:
    case ReceiptLevel::kVerified:
      published->told_stored = true;
      published->stored_as = Version{event.incarnation, event.seq};
      break;
    case ReceiptLevel::kSuperseded: {
      const bool made_room = event.code == Code::kLimit && published->told_stored;
      const std::vector<const Published*>& all = of_program_[published->program];
      bool has_larger = false;
      bool has_newer = false;
      for (const Published* other : all) {
        const bool larger = version_of(*published) < version_of(*other);
        has_larger = has_larger || larger;
        has_newer = has_newer || (other->client == &client && other->seq > event.seq) ||
                    (larger && !ended_before(*other, *published));
      }
      if (made_room || has_newer) break;
      if (!has_larger) violated(what + to_string(*published) + ", but nothing newer was published");
      // Before the client is told that it goes by too low an incarnation, one may be lost to it.
      if (!client.lost_to_ended.insert(event.program_id).second) {
        violated(what + to_string(*published) +
                 ", once more by a client that had ended before this one started");
      }
      break;
    }
    case ReceiptLevel::kDropped: {
      const bool true_reason =
          event.code == Code::kLimit || (event.code == Code::kCancelled && event.final) ||
          (event.code == Code::kSourceChanged && published->source_failed) ||
          (event.code == Code::kWithdrawn && is_withdrawn(*published)) ||
          (event.code == Code::kCorrupt && published->spoiled_chunks >= core::kDataAttemptsMax);
      if (!true_reason) {
        violated(what + to_string(*published) + " for no reason: " + std::string(cms::to_string(event.code)) +
                 ", " + event.reason);
      }
      break;
    }
    case ReceiptLevel::kFenced: violated(what + to_string(*published) + ", but nobody is fenced here");
  }
  if (event.final) {
    published->final_level = event.level;
    published->final_code = event.code;
    published->final_incarnation = event.incarnation;
    ++client.final_count;
  }
}

void Ledger::check_freed(const ClientRecord& client) {
  if (client.final_count == client.freed_count) return;
  for (const Published& published : client.published) {
    if (published.final_level.has_value() == published.source_alive) {
      violated(to_string(published) + (published.source_alive ? " is held after its final receipt"
                                                              : " was freed without a final receipt"));
    }
  }
}

std::optional<std::string> Ledger::unfinished(const ClientRecord& client, bool all_live) const {
  for (const Published& published : client.published) {
    if (!published.final_level && (all_live || !published.told_stored))
      return to_string(published) + " has no final receipt";
  }
  return std::nullopt;
}

void Ledger::check_newest_stored(const ClientRecord& client) const {
  std::map<ProgramId, bool> judged;
  for (auto it = client.published.rbegin(); it != client.published.rend(); ++it) {
    const Published& published = *it;
    bool& done = judged[published.program.program_id];
    if (done) continue;
    // What found no room was never taken in; the one before it is still the newest.
    if (published.final_level == ReceiptLevel::kDropped && published.final_code == Code::kLimit) continue;
    done = true;
    if (published.final_level == ReceiptLevel::kDropped) continue;
    bool other_session_newer = false;
    for (const Published* other : of_program_.at(published.program)) {
      if (other->client == &client || version_of(*other) < version_of(published)) continue;
      other_session_newer = true;
      // What was freed on the word of one CMS cannot be announced again; the next one will be the newest.
      const bool replicated =
          published.told_stored &&
          published.final_level.value_or(ReceiptLevel::kReplicated) == ReceiptLevel::kReplicated;
      if (replicated && ended_before(*other, published) && other->durable && !is_withdrawn(*other)) {
        violated(to_string(*other) + " is taken for newer than " + to_string(published) +
                 ", whose client started when the other had ended");
      }
    }
    if (!published.told_stored && !other_session_newer)
      violated(to_string(published) + " is the newest of its program, but was not stored");
  }
}

}  // namespace cms::sim
