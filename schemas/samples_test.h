#pragma once
// A message of every kind with each field different from its default, and when two messages are the
// same: for the tests of schemas/ and for test/fuzz, which starts from these.
#include <string>
#include <tuple>
#include <type_traits>
#include <variant>
#include <vector>

#include "schemas/claim_record.h"
#include "schemas/ecu_record.h"
#include "schemas/member_record.h"
#include "schemas/messages.h"

namespace cms::wire {

// ---- the fields of each message, for comparing; a structured binding fails to compile when a
// field is added to a message and not here.

inline auto fields(const Beat& m) { return std::tie(m.last_seq); }
inline auto fields(const Requirements& m) {
  const auto& [arch, os, format, format_version, ram, labels] = m;
  return std::tie(arch, os, format, format_version, ram, labels);
}
inline auto fields(const RealTime& m) {
  const auto& [priority, period, deadline, wcet, tight] = m;
  return std::tie(priority, period, deadline, wcet, tight);
}
inline auto fields(const Policies& m) {
  const auto& [release, on_isolation, on_loss] = m;
  return std::tie(release, on_isolation, on_loss);
}
inline auto fields(const Notification& m) {
  const auto& [program_id, seq, lineage, epoch, size, chunk_size, kind, taken, pause, name, requirements,
               real_time, policies] = m;
  return std::tuple_cat(std::tie(program_id, seq, lineage, epoch, size, chunk_size, kind, taken, pause, name),
                        fields(requirements), fields(real_time), fields(policies));
}
inline auto fields(const Hello& m) {
  const auto& [version, version_min, features, ecu_mac, incarnation, nonce, guarded, host_id, port, host,
               software, last_seq, boot_id, enforcer] = m;
  return std::tie(version, version_min, features, ecu_mac, incarnation, nonce, guarded, host_id, port, host,
                  software, last_seq, boot_id, enforcer);
}
inline auto fields(const HelloAnswer& m) {
  const auto& [version, features, nonce, incarnation, name, interval, code, context, lease_ms] = m;
  return std::tie(version, features, nonce, incarnation, name, interval, code, context, lease_ms);
}
inline auto fields(const Heartbeat& m) {
  const auto& [number, last_seq, waiting, ended] = m;
  return std::tie(number, last_seq, waiting, ended);
}
inline auto fields(const HeartbeatAnswer& m) {
  const auto& [number, notify_heard, leased] = m;
  return std::tie(number, notify_heard, leased);
}
inline auto fields(const List& m) { return std::tie(m.from_seq); }
inline auto fields(const Receipt& m) {
  const auto& [program_id, seq, level, code, reason, newer, known_ms, lives, lineage, owner_epoch] = m;
  return std::tie(program_id, seq, level, code, reason, newer, known_ms, lives, lineage, owner_epoch);
}
inline auto fields(const Withdraw& m) { return std::tie(m.request_id, m.program_id, m.seq); }
inline auto fields(const WithdrawAnswer& m) { return std::tie(m.request_id, m.code, m.context); }
inline auto fields(const Bye&) { return std::tuple<>(); }
inline auto fields(const MetricsAsk& m) { return std::tie(m.number); }
inline auto fields(const CheckpointFormat& m) { return std::tie(m.name, m.version_max); }
inline auto fields(const ClaimRef& m) { return std::tie(m.lineage, m.slot, m.uid); }
inline auto fields(const Go& m) {
  const auto& [claim, act_slot, act_uid, on_isolation] = m;
  return std::tuple_cat(fields(claim), std::tie(act_slot, act_uid, on_isolation));
}
inline auto fields(const Discard& m) { return fields(m.claim); }
inline auto fields(const Prepare& m) {
  const auto& [claim, session, notification, port, restarts] = m;
  return std::tuple_cat(fields(claim), std::tie(session, port, restarts), fields(notification));
}
inline auto fields(const RestoreReport& m) {
  const auto& [claim, act_uid, state, received, program_id, code, context] = m;
  return std::tuple_cat(fields(claim), std::tie(act_uid, state, received, program_id, code, context));
}
inline auto fields(const Freeze& m) { return std::tuple_cat(fields(m.claim), std::tie(m.program_id)); }
inline auto fields(const Thaw& m) {
  const auto& [record, program_id, on_isolation] = m;
  return std::tuple_cat(fields(record), std::tie(program_id, on_isolation));
}
inline auto fields(const FreezeReport& m) {
  const auto& [claim, program_id, state, last, code, context] = m;
  return std::tuple_cat(fields(claim), std::tie(program_id, state, last, code, context));
}
inline auto fields(const Migrate& m) {
  return std::tie(m.request_id, m.program_id, m.owner_epoch, m.has_to, m.to_ecu_mac);
}
inline auto fields(const MigrateAnswer& m) { return std::tie(m.request_id, m.code, m.context); }
inline auto fields(const AskPrograms& m) {
  const auto& [number, from_program_id] = m;
  return std::tie(number, from_program_id);
}
inline auto fields(const OwnedProgram& m) {
  const auto& [program_id, lineage, owner_epoch, state] = m;
  return std::tie(program_id, lineage, owner_epoch, state);
}
inline auto fields(const Fetch& m) {
  return std::tie(m.transfer_id, m.checkpoint, m.offset_bytes, m.limit_bytes);
}
inline auto fields(const Credit& m) { return std::tie(m.transfer_id, m.limit_bytes); }
inline auto fields(const Cancel& m) { return std::tie(m.transfer_id); }
inline auto fields(const Chunk& m) {
  const auto& [transfer, offset, size, digest, version, blob_size, chunk_size, last, blob_digest] = m;
  return std::tie(transfer, offset, size, digest, version, blob_size, chunk_size, last, blob_digest);
}
inline auto fields(const TransferError& m) { return std::tie(m.transfer_id, m.code, m.context); }
inline auto fields(const AdminRequest& m) {
  const auto& [request, method, has_ecu_mac, ecu_mac, has_program, program, has_version, version, all, after,
               has_to, to, cancel, deadline_ms] = m;
  return std::tie(request, method, has_ecu_mac, ecu_mac, has_program, program, has_version, version, all,
                  after, has_to, to, cancel, deadline_ms);
}
inline auto fields(const AdminAnswer& m) { return std::tie(m.request_id, m.code, m.context, m.json, m.next); }

inline auto fields(const PeerBeat& m) {
  const auto& [uptime, takes_pulls, pull_every, queued, pulled, pulling, wants_greeting, features, reading] =
      m;
  return std::tie(uptime, takes_pulls, pull_every, queued, pulled, pulling, wants_greeting, features,
                  reading);
}
inline auto fields(const StoredCheckpoint& m) {
  const auto& [checkpoint, lineage, epoch, size, uid, stored, stored_at, taken_at, pause, name, digest] = m;
  return std::tie(checkpoint, lineage, epoch, size, uid, stored, stored_at, taken_at, pause, name, digest);
}
inline auto fields(const PeerWithdrawn& m) { return std::tie(m.program, m.up_to); }
inline auto fields(const PeerIncarnations& m) { return std::tie(m.incarnations, m.greets); }
inline auto fields(const RemovedBlob& m) { return std::tie(m.checkpoint, m.owner_epoch, m.uid); }
inline auto fields(const PeerPinned& m) { return std::tie(m.checkpoint, m.pinned); }

template <typename T>
bool same(const T& a, const T& b) {
  return fields(a) == fields(b);
}
template <typename T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!same(a[i], b[i])) return false;
  }
  return true;
}
inline bool same(const ListPage& a, const ListPage& b) {
  return same(a.notifications, b.notifications) &&
         std::tie(a.next_seq, a.last_seq, a.end) == std::tie(b.next_seq, b.last_seq, b.end);
}
inline bool same(const Programs& a, const Programs& b) {
  const auto& [number, programs, next_program_id, end] = a;
  return std::tie(number, next_program_id, end) == std::tie(b.number, b.next_program_id, b.end) &&
         same(programs, b.programs);
}
inline bool same(const Metrics& a, const Metrics& b) {
  const auto& [number, age, cpus, load, total, available, arch, os, formats, labels, draining] = a;
  return std::tie(number, age, cpus, load, total, available, arch, os, labels, draining) ==
             std::tie(b.number, b.age_ms, b.cpu_count, b.cpu_load_permille, b.ram_total_bytes,
                      b.ram_available_bytes, b.arch, b.os, b.labels, b.draining) &&
         same(formats, b.formats);
}
inline bool same(const PeerStored& a, const PeerStored& b) { return same(a.checkpoints, b.checkpoints); }
inline bool same(const PeerRemoved& a, const PeerRemoved& b) { return same(a.blobs, b.blobs); }
inline bool same(const PeerQuarantined& a, const PeerQuarantined& b) {
  return same(a.checkpoints, b.checkpoints);
}
template <typename... Ts>
bool same(const std::variant<Ts...>& a, const std::variant<Ts...>& b) {
  return a.index() == b.index() &&
         std::visit([&b](const auto& left) { return same(left, std::get<std::decay_t<decltype(left)>>(b)); },
                    a);
}
inline bool same(const NotifyMessage& a, const NotifyMessage& b) {
  return a.session == b.session && same(a.body, b.body);
}
inline bool same(const ControlMessage& a, const ControlMessage& b) {
  return a.incarnation == b.incarnation && same(a.body, b.body);
}
inline bool same(const PeerMessage& a, const PeerMessage& b) {
  const auto& [version, name, incarnation, fleet_id, event, body] = a;
  return std::tie(version, name, incarnation, fleet_id, event) ==
             std::tie(b.protocol_version, b.cms_name, b.incarnation, b.fleet_id, b.event) &&
         same(body, b.body);
}
inline bool same(const Manifest& a, const Manifest& b) {
  const auto& [session, notification, chunk_size, digests, zeros, blob_digest, stored_at, stored_by] = a;
  return std::tie(session, chunk_size, digests, zeros, blob_digest, stored_at, stored_by) ==
             std::tie(b.session, b.chunk_size_bytes, b.chunk_digests, b.zero_chunks, b.blob_digest,
                      b.stored_at_us, b.stored_by) &&
         same(notification, b.notification);
}

// ---- one message of each kind with every field different from its default

inline constexpr EcuMac kEcu{0x020000000001};
inline constexpr SessionId kSession{kEcu, 65536};

inline Notification full_notification() {
  Notification n;
  n.program_id = 7;
  n.seq = 3;
  n.lineage = Lineage{0x0123456789abcdef, 0xfedcba9876543210};
  n.owner_epoch = 5;
  n.size_bytes = 5 * 65536 + 1;
  n.chunk_size_bytes = 65536;
  n.kind = CheckpointKind::kDelta;
  n.taken_at_us = 1'700'000'000'000'000;
  n.pause_us = 1234;
  n.program_name = "Wärmepumpe";
  n.requirements = Requirements{"aarch64", "linux", "criu", 3, 64 << 20, {"camera", "", "gpu"}};
  n.real_time = RealTime{-20, 10'000, 9'000, 800, true};
  n.policies = Policies{Release::kStored, OnIsolation::kStop, OnLoss::kRestore};
  return n;
}

inline Manifest full_manifest() {
  Manifest m;
  m.session = kSession;
  m.notification = full_notification();
  m.chunk_size_bytes = 65536;
  for (std::uint64_t i = 0; i < 6; ++i) m.chunk_digests.push_back(Digest{i + 1, ~i});
  m.zero_chunks = {true, false, false, true, false, true};
  m.blob_digest = blob_digest_of(m.chunk_digests);
  m.stored_at_us = 42;
  m.stored_by = "cms-a";
  return m;
}

inline std::vector<NotifyMessage> notify_messages() {
  return {NotifyMessage{kSession, full_notification()}, NotifyMessage{kSession, Beat{9}}};
}

inline std::vector<ControlMessage> control_messages() {
  ListPage page;
  page.notifications = {full_notification(), full_notification()};
  page.notifications[1].seq = 4;
  page.next_seq = 5;
  page.last_seq = 11;
  page.end = false;
  const ClaimRef claim{Lineage{0x1111, 0x2222}, 2, 102};
  std::vector<ControlBody> bodies = {
      Hello{2, 3, 4, kEcu, 65536, 6, true, Id128{7, 8}, 7600, "ecu-1.example", "rtcr 1.0", 12, Id128{9, 10},
            Enforcer::kWatchdog},
      HelloAnswer{2, 3, 4, 5, "cms-a", 250, Code::kNotFound, "say hello again", 5000},
      Heartbeat{1, 2, 3, 4},
      HeartbeatAnswer{1, 2, true},
      List{8},
      page,
      Receipt{7, 3, ReceiptLevel::kDropped, Code::kSourceChanged, "file grew", {}, 0, false},
      Receipt{7, 3, ReceiptLevel::kSuperseded, Code::kSuperseded, "newer", Version{131072, 4}, 5000, true},
      Receipt{7, 3, ReceiptLevel::kFenced, Code::kFenced, "moved", {}, 0, false, Lineage{3, 4}, 12},
      Withdraw{1, 2, 3},
      WithdrawAnswer{1, Code::kFenced, "epoch 4 < 5"},
      Bye{},
      MetricsAsk{31},
      Metrics{31, 32, 4, 333, 8 << 20, 5 << 20, "aarch64", "linux", {{"criu", 3}, {"raw", 1}}, {"gpu"}, true},
      Prepare{claim, kSession, full_notification(), 7403},
      Prepare{claim, kSession, full_notification(), 7403, ProgramId{9}},
      Go{claim, 3, 103, OnIsolation::kStop},
      Discard{claim},
      RestoreReport{claim, 103, RestoreState::kRefused, 4096, 8, Code::kNoSpace, "no room"},
      Freeze{claim, 7},
      Thaw{ClaimRef{claim.lineage, 1, 104}, 7, OnIsolation::kStop},
      FreezeReport{claim, 7, FreezeState::kFrozen, Version{65536, 4}, Code::kOk, ""},
      FreezeReport{claim, 7, FreezeState::kRefused, {}, Code::kUnsupported, "cannot be stopped"},
      Migrate{1, 7, 4, true, kEcu},
      Migrate{2, 0, 0, false, {}},
      MigrateAnswer{1, Code::kFenced, "it runs as 02:00:00:00:00:02/1"},
      AskPrograms{41, 7},
      Programs{41,
               {OwnedProgram{7, claim.lineage, 4, ProgramState::kStopped},
                OwnedProgram{8, Lineage{3, 4}, 0, ProgramState::kFrozen},
                OwnedProgram{9, Lineage{5, 6}, UINT64_MAX, ProgramState::kRunning}},
               10,
               false},
  };
  std::vector<ControlMessage> messages;
  for (ControlBody& body : bodies) messages.push_back(ControlMessage{65536, std::move(body)});
  return messages;
}

inline std::vector<BulkBody> bulk_messages() {
  const Version version{65536, 3};
  return {Fetch{1, CheckpointId{ProgramKey{kEcu, 7}, version}, 2 << 20, 4 << 20},
          Fetch{1, CheckpointId{ProgramKey{kEcu, 7}, Version{}}, 0, UINT64_MAX},
          Credit{1, 8 << 20},
          Cancel{9},
          Chunk{1, 65536, 65536, Digest{1, 2}, version, 65536 * 3 + 1, 65536, false, Digest{}},
          Chunk{1, 65536, 100, Digest{1, 2}, version, 65636, 65536, true, Digest{3, 4}},
          Chunk{1, 0, 0, Digest{1, 2}, version, 0, 65536, true, Digest{3, 4}},
          TransferError{1, Code::kWithdrawn, "program 7 has ended"}};
}

inline std::vector<AdminBody> admin_messages() {
  return {
      AdminRequest{1, AdminMethod::kRetentionApply, true, kEcu, true, 7, true, Version{65536, 3}, true,
                   "after"},
      AdminRequest{1, AdminMethod::kScrub, true, kEcu, true, 7, true, Version{65536, 3}, true, {}},
      AdminRequest{2, AdminMethod::kPeers},
      AdminRequest{2, AdminMethod::kHistory},
      AdminRequest{3, AdminMethod::kMigrate, true, kEcu, true, 7, false, {}, false, {}, true, kEcu, true, 0},
      AdminRequest{
          4, AdminMethod::kEcuDrain, true, kEcu, false, 0, false, {}, true, {}, false, {}, false, 9000},
      AdminRequest{},
      AdminAnswer{1, Code::kQuota, "10 of 10 GiB", "{\"rows\":[\n]}", "next"}};
}

inline std::vector<PeerMessage> peer_messages() {
  const StoredCheckpoint stored{CheckpointId{ProgramKey{kEcu, 7}, Version{65536, 3}},
                                Lineage{3, 4},
                                5,
                                327681,
                                6,
                                8192,
                                42,
                                41,
                                1234,
                                "W\u00e4rmepumpe",
                                Digest{10, 11}};
  std::vector<PeerBody> bodies = {
      PeerBeat{1000,
               true,
               true,
               17,
               18,
               {ProgramKey{kEcu, 7}, ProgramKey{kEcu, 8}},
               {19, 20},
               22,
               {stored.checkpoint, CheckpointId{ProgramKey{kEcu, 8}, Version{1, 2}}}},
      PeerStored{{stored, stored}},
      PeerWithdrawn{ProgramKey{kEcu, 7}, Version{65536, 3}},
      PeerIncarnations{{kSession, SessionId{EcuMac{0x020000000002}, 131072}}, 21},
      PeerQuarantined{{stored}},
      PeerRemoved{{RemovedBlob{stored.checkpoint, 5, 6}, RemovedBlob{stored.checkpoint, 7, 8}}},
      PeerPinned{stored.checkpoint, true}};
  std::vector<PeerMessage> messages;
  for (PeerBody& body : bodies)
    messages.push_back(PeerMessage{3, "cms-b", 9, Id128{1, 2}, 42, std::move(body)});
  return messages;
}

// ---- the claim log
inline bool same(const ClaimRecord& a, const ClaimRecord& b) {
  const auto fields_of = [](const ClaimRecord& m) {
    const auto& [kind, lineage, slot, uid, writer, writer_incarnation, written_at, owner, base, on_isolation,
                 on_loss, attempts, reason, claim_slot, target, checkpoint, proof, text] = m;
    return std::tie(kind, lineage, slot, uid, writer, writer_incarnation, written_at, owner, base,
                    on_isolation, on_loss, attempts, reason, claim_slot, target, checkpoint, proof, text);
  };
  return fields_of(a) == fields_of(b);
}

// A record of each kind, as a log that went from GENESIS to RETIRE could hold them.
inline std::vector<ClaimRecord> claim_records() {
  const EcuMac other{0x020000000002};
  const CheckpointId newest{ProgramKey{kEcu, 7}, Version{65536, 3}};
  ClaimRecord record;
  record.lineage = Id128{0x1111, 0x2222};
  record.slot = 1;
  record.uid = 101;
  record.writer = "cms-a";
  record.writer_incarnation = 9;
  record.written_at_us = 1234567;
  record.owner = ClaimOwner{ProgramKey{kEcu, 7}, 65536, 0};
  record.on_isolation = OnIsolation::kStop;
  record.on_loss = OnLoss::kRestore;
  std::vector<ClaimRecord> records{record};

  ClaimRecord claim = record;
  claim.kind = ClaimKind::kClaim;
  claim.slot = claim.claim_slot = 2;
  claim.uid = 102;
  claim.reason = ClaimReason::kLost;
  claim.attempts = 1;
  records.push_back(claim);

  ClaimRecord act = claim;
  act.kind = ClaimKind::kAct;
  act.slot = 3;
  act.uid = 103;
  act.target = SessionId{other, 131072};
  act.checkpoint = ClaimBlob{newest, 0, 0xfedc};
  records.push_back(act);

  ClaimRecord done = record;
  done.kind = ClaimKind::kDone;
  done.slot = 4;
  done.uid = 104;
  done.attempts = 1;
  done.owner = ClaimOwner{ProgramKey{other, 8}, 131072, 4};
  done.base = act.checkpoint;
  records.push_back(done);

  ClaimRecord release = done;
  release.kind = ClaimKind::kRelease;
  release.slot = 6;
  release.uid = 106;
  release.attempts = 2;
  release.text = "no eligible target";
  records.push_back(release);

  ClaimRecord abort = release;
  abort.kind = ClaimKind::kAbort;
  abort.slot = 9;
  abort.uid = 109;
  abort.proof = AbortProof::kRefused;
  abort.text = "out of memory";
  records.push_back(abort);

  ClaimRecord retire = abort;
  retire.kind = ClaimKind::kRetire;
  retire.slot = 10;
  retire.uid = 110;
  retire.proof = AbortProof::kNone;
  retire.text = "withdrawn";
  records.push_back(retire);
  return records;
}

// ---- members
inline bool same(const MemberRecord& a, const MemberRecord& b) {
  const auto& [node, incarnation, counter, resigned, written_at, software, bars] = a;
  return std::tie(node, incarnation, counter, resigned, written_at, software, bars) ==
         std::tie(b.node, b.incarnation, b.counter, b.resigned, b.written_at_us, b.software, b.bars);
}
inline std::vector<MemberRecord> member_records() {
  return {MemberRecord{"cms-a", 9, 42, true, 1234567, "cmsd 0.1", {}},
          MemberRecord{"b", 1, 1, false, 0, "", {}},
          MemberRecord{"cms-c",
                       10,
                       43,
                       false,
                       1234568,
                       "cmsd 0.2",
                       {kSession, SessionId{EcuMac{0x020000000002}, 131072}}}};
}

// ---- the logs of ECUs
inline bool same(const EcuRecord& a, const EcuRecord& b) {
  const auto fields_of = [](const EcuRecord& m) {
    const auto& [kind, ecu_mac, slot, uid, writer, writer_incarnation, written_at, incarnation, nonce,
                 boot_id, enforcer, lost_incarnation, maintenance] = m;
    return std::tie(kind, ecu_mac, slot, uid, writer, writer_incarnation, written_at, incarnation, nonce,
                    boot_id, enforcer, lost_incarnation, maintenance);
  };
  return fields_of(a) == fields_of(b);
}

// A log: a session began, an operator asked for maintenance, the session was lost, another began and ended in order.
inline std::vector<EcuRecord> ecu_records() {
  EcuRecord hello;
  hello.ecu_mac = kEcu;
  hello.slot = 1;
  hello.uid = 201;
  hello.writer = "cms-a";
  hello.writer_incarnation = 9;
  hello.written_at_us = 1234567;
  hello.incarnation = 65536;
  hello.nonce = 0xabcd;
  hello.boot_id = Id128{11, 12};
  hello.enforcer = Enforcer::kGuard;

  EcuRecord maintained = hello;
  maintained.slot = 2;
  maintained.uid = 202;
  maintained.maintenance = true;

  EcuRecord lost = hello;
  lost.kind = EcuRecordKind::kLost;
  lost.slot = 3;
  lost.uid = 203;
  lost.nonce = 0;
  lost.boot_id = Id128{};
  lost.lost_incarnation = lost.incarnation;

  EcuRecord again = hello;
  again.slot = 4;
  again.uid = 204;
  again.writer = "cms-b";
  again.writer_incarnation = 10;
  again.incarnation = 131072;
  again.nonce = 0;  // May be any.
  again.boot_id = Id128{0, 13};
  again.enforcer = Enforcer::kNone;
  again.lost_incarnation = lost.incarnation;

  EcuRecord bye = again;
  bye.kind = EcuRecordKind::kBye;
  bye.slot = 5;
  bye.uid = 205;
  bye.boot_id = Id128{};
  return {hello, maintained, lost, again, bye};
}

}  // namespace cms::wire
