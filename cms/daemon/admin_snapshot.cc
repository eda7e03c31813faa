#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "cms/daemon/admin_answers.h"

namespace cms::daemon {
namespace {

using core::CmsCore;
using Item = CoreSnapshot::Item;
using State = CoreSnapshot::State;

Item item_of(Instant now, const ProgramKey& program, const CmsCore::Announcement& announcement) {
  Item item;
  item.waiting = now - announcement.announced_at;
  item.checkpoint = CheckpointId{program, announcement.version()};
  item.owner_epoch = announcement.notification.owner_epoch;
  item.size_bytes = announcement.notification.size_bytes;
  item.taken_at_us = announcement.notification.taken_at_us;
  item.pause_us = announcement.notification.pause_us;
  item.program_name = announcement.notification.program_name;
  return item;
}

Item announced_item(const CmsCore& core, Instant now, const ProgramKey& key,
                    const CmsCore::Program& program) {
  Item item = item_of(now, key, *program.pending);
  item.state = State::kAnnounced;
  if (!program.trouble.empty()) {
    item.reason = program.trouble;
  } else if (!core.store_status().ok()) {
    item.reason = "the store is not usable: " + core.store_status().error().message();
  } else if (program.transfer != 0) {
    item.reason = "waits for the end of an older checkpoint's pull";
  } else if (program.delayed_until && *program.delayed_until > program.not_before) {
    item.reason = "a peer is to pull it";
  } else if (program.known != CmsCore::Program::Known::kYes) {
    item.reason = "waits for the index to say what is stored";
  } else {
    item.reason = "waits for its turn";
  }
  return item;
}

Item pulling_item(const CmsCore& core, Instant now, const ProgramKey& key, const CmsCore::Program& program) {
  const CmsCore::Transfer& transfer = core.transfers().at(program.transfer);
  Item item = item_of(now, key, transfer.announcement);
  item.state = State::kPulling;
  item.received_bytes = transfer.received_bytes;
  if (transfer.finishing) item.reason = "being made durable";
  return item;
}

Item failed_item(const core::Failure& failure) {
  Item item;
  item.checkpoint = failure.checkpoint;
  item.state = State::kFailed;
  item.failed_at_us = failure.at_us;
  item.code = failure.code;
  item.reason = failure.reason;
  return item;
}

void copy_program(const CmsCore& core, Instant now, const ProgramKey& key, const CmsCore::Program& program,
                  std::vector<Item>& items) {
  if (program.pending) items.push_back(announced_item(core, now, key, program));
  if (program.transfer != 0) items.push_back(pulling_item(core, now, key, program));
}

CoreSnapshot::Session session_of(const CmsCore::Session& session, Instant now) {
  CoreSnapshot::Session copied;
  copied.id = session.id;
  copied.address = core::endpoint_of(session.host, session.bulk_port);
  copied.software = session.software;
  copied.guarded = session.guarded;
  copied.heard_ago = now - session.heard_at;
  copied.age = now - session.since;
  copied.program_count = session.programs.size();
  return copied;
}

void add_peers(const core::CmsCore& core, Instant now, CoreSnapshot& snapshot) {
  for (const auto& [name, peer] : core.peers().peers()) {
    using PeerState = CoreSnapshot::Peer::State;
    CoreSnapshot::Peer copied;
    copied.name = name;
    copied.incarnation = peer.incarnation;
    copied.address = peer.address;
    copied.state = peer.foreign ? PeerState::kForeign : peer.live ? PeerState::kLive : PeerState::kSilent;
    copied.since = now - peer.since;
    copied.takes_pulls = peer.takes_pulls;
    copied.pull_every = peer.pull_every;
    copied.queued = peer.queued;
    copied.event_count = peer.event_count;
    copied.gap_count = peer.gap_count;
    if (peer.fleet_id != Id128{}) copied.fleet_id = to_string(peer.fleet_id);
    snapshot.peers.push_back(std::move(copied));
  }
}

void add_status(const CmsCore& core, Instant now, CoreSnapshot& snapshot) {
  CoreSnapshot::Counts& counts = snapshot.counts;
  counts.sessions = core.sessions().size();
  for (const auto& [id, session] : core.sessions()) {
    const Duration silence = now - session.heard_at;
    if (silence < kSilentAfter) continue;
    ++counts.silent_sessions;
    counts.longest_silence = std::max(counts.longest_silence, silence);
  }
  counts.programs = core.programs().size();
  std::size_t looks = 0;
  std::vector<std::pair<Instant, ProgramKey>> never_stored;
  for (const auto& [key, program] : core.programs()) {
    if (++looks > kSnapshotLooksMax) {
      counts.all_looked_at = false;
      break;
    }
    if (program.pending && program.transfer == 0) {
      ++counts.waiting;
      counts.waiting_bytes += program.pending->notification.size_bytes;
      counts.waiting_longest = std::max(counts.waiting_longest, now - program.pending->announced_at);
    }
    if (program.pending && program.transfer == 0 && now - program.pending->announced_at >= kLateAfter) {
      ++counts.late;
      counts.longest_wait = std::max(counts.longest_wait, now - program.pending->announced_at);
    }
    const bool known = program.known == CmsCore::Program::Known::kYes;
    if (!known || program.newest_stored || (!program.pending && program.transfer == 0)) continue;
    const CmsCore::Announcement& announcement =
        program.transfer != 0 ? core.transfers().at(program.transfer).announcement : *program.pending;
    never_stored.emplace_back(announcement.announced_at, key);
  }
  counts.never_stored = never_stored.size();
  const std::size_t shown = std::min(never_stored.size(), kNeverStoredShownMax);
  std::partial_sort(never_stored.begin(), never_stored.begin() + static_cast<std::ptrdiff_t>(shown),
                    never_stored.end());
  never_stored.resize(shown);
  for (const auto& [announced_at, key] : never_stored) {
    const CmsCore::Program& program = core.programs().at(key);
    snapshot.items.push_back(program.transfer != 0 ? pulling_item(core, now, key, program)
                                                   : announced_item(core, now, key, program));
  }
  for (const auto& [checkpoint, failure] : core.failures()) snapshot.items.push_back(failed_item(failure));
  counts.pulls = core.transfer_count();
  for (const auto& [id, transfer] : core.transfers()) {
    counts.pull_bytes_done += transfer.received_bytes;
    counts.pull_bytes_total += transfer.announcement.notification.size_bytes;
  }
  add_peers(core, now, snapshot);
  counts.queued = core.queued_count();
  snapshot.counters = core.counters();
}

// From `first` on, or of the one ECU asked for.
void add_sessions(const CmsCore& core, Instant now, EcuMac first, const wire::AdminRequest& request,
                  CoreSnapshot& snapshot) {
  for (auto it = core.sessions().lower_bound(SessionId{first, 0}); it != core.sessions().end(); ++it) {
    const EcuMac ecu_mac = it->first.ecu_mac;
    if (request.has_ecu_mac && ecu_mac != request.ecu_mac) break;
    if (snapshot.sessions.size() >= kSnapshotSessionsMax) {
      // Whole ECUs only, unless all that was copied is of a single one: what is beyond is left out.
      const EcuMac last = snapshot.sessions.back().id.ecu_mac;
      if (last == ecu_mac && snapshot.sessions.front().id.ecu_mac != last) {
        snapshot.sessions_end = last;
        while (snapshot.sessions.back().id.ecu_mac == last) snapshot.sessions.pop_back();
      } else if (last == ecu_mac) {
        it = core.sessions().upper_bound(SessionId{ecu_mac, UINT64_MAX});
        if (it != core.sessions().end() && !request.has_ecu_mac) snapshot.sessions_end = it->first.ecu_mac;
      } else {
        snapshot.sessions_end = ecu_mac;
      }
      break;
    }
    snapshot.sessions.push_back(session_of(it->second, now));
  }
}

void add_items(const CmsCore& core, Instant now, const ProgramKey& first, const wire::AdminRequest& request,
               CoreSnapshot& snapshot) {
  const auto wanted = [&](const ProgramKey& key) {
    return !request.has_program_id || key.program_id == request.program_id;
  };
  const auto behind = [&](const ProgramKey& key) {
    return request.has_ecu_mac && (key.ecu_mac != request.ecu_mac ||
                                   (request.has_program_id && key.program_id > request.program_id));
  };
  std::size_t looks = 0;
  for (auto it = core.programs().lower_bound(first); it != core.programs().end() && !behind(it->first);
       ++it) {
    if (++looks > kSnapshotLooksMax || snapshot.items.size() >= kSnapshotItemsMax) {
      snapshot.items_end = it->first;
      break;
    }
    if (wanted(it->first)) copy_program(core, now, it->first, it->second, snapshot.items);
  }
  for (auto it = core.failures().lower_bound(CheckpointId{first, Version{}});
       it != core.failures().end() && !behind(it->first.program); ++it) {
    const ProgramKey& key = it->first.program;
    if (snapshot.items_end && !(key < *snapshot.items_end)) break;
    if (wanted(key)) snapshot.items.push_back(failed_item(it->second));
  }
  std::stable_sort(snapshot.items.begin(), snapshot.items.end(), [](const Item& a, const Item& b) {
    return std::tie(a.checkpoint.program, b.checkpoint.version) <
           std::tie(b.checkpoint.program, a.checkpoint.version);
  });
}

}  // namespace

CoreSnapshot snapshot_of(const CmsCore& core, Instant now, const DaemonFacts& facts,
                         const wire::AdminRequest& request) {
  CoreSnapshot snapshot;
  snapshot.facts = facts;
  snapshot.store_status = core.store_status();
  const EcuMac lowest = request.has_ecu_mac ? request.ecu_mac : EcuMac{};
  switch (request.method) {
    case wire::AdminMethod::kStatus: add_status(core, now, snapshot); break;
    case wire::AdminMethod::kEcus: {
      // A wrong cursor is refused by answer().
      const auto from = parse_ecu_mac(request.continue_after);
      add_sessions(core, now, from.ok() ? *from : lowest, request, snapshot);
      break;
    }
    case wire::AdminMethod::kCheckpoints: {
      ProgramKey first{lowest, request.has_ecu_mac && request.has_program_id ? request.program_id : 0};
      const auto from =
          parse_key(std::string_view(request.continue_after).substr(0, request.continue_after.find('#')));
      if (from) first = from->program;
      add_items(core, now, first, request, snapshot);
      break;
    }
    case wire::AdminMethod::kShow: {
      if (!request.has_ecu_mac || !request.has_program_id) break;
      const ProgramKey key{request.ecu_mac, request.program_id};
      add_items(core, now, key, request, snapshot);
      for (auto it = core.sessions().lower_bound(SessionId{key.ecu_mac, 0});
           it != core.sessions().end() && it->first.ecu_mac == key.ecu_mac; ++it) {
        if (it->second.programs.count(key.program_id) == 0) continue;
        if (snapshot.sessions.size() >= kSnapshotSessionsMax) break;
        snapshot.sessions.push_back(session_of(it->second, now));
      }
      break;
    }
    case wire::AdminMethod::kPeers: add_peers(core, now, snapshot); break;
    case wire::AdminMethod::kRetire:
    case wire::AdminMethod::kPin:
    case wire::AdminMethod::kUnpin:
    case wire::AdminMethod::kRetentionPlan:
    case wire::AdminMethod::kRetentionApply:
    case wire::AdminMethod::kScrub:
    case wire::AdminMethod::kScrubStatus:
    case wire::AdminMethod::kIndexRebuild:
    case wire::AdminMethod::kIndexStatus:
    case wire::AdminMethod::kExplain:
    case wire::AdminMethod::kEcuFailed:
    case wire::AdminMethod::kRestores:
    case wire::AdminMethod::kHistory:
    case wire::AdminMethod::kMigrate:
    case wire::AdminMethod::kEcuDrain:
    case wire::AdminMethod::kEcuMaintenance: break;
  }
  return snapshot;
}

}  // namespace cms::daemon
