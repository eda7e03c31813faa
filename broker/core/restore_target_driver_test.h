#pragma once
// A RestoreTarget as its tests drive it: commands and answers in, what is to be done and said out.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "broker/core/restore_target.h"

namespace cms::broker {

inline constexpr Lineage kLineage{1, 2};
inline constexpr SessionId kSession{EcuMac{0x020000000009}, 65536};
inline constexpr BulkLink kLink{0, 7403};

inline wire::ClaimRef claim_of(std::uint64_t slot, Lineage lineage = kLineage) {
  return wire::ClaimRef{lineage, slot, slot * 1000};
}
inline wire::Prepare prepare_of(const wire::ClaimRef& claim, std::uint64_t size_bytes = 0,
                                OwnerEpoch owner_epoch = 0) {
  wire::Prepare prepare;
  prepare.claim = claim;
  prepare.session = kSession;
  prepare.notification.program_id = 7;
  prepare.notification.seq = 3;
  prepare.notification.size_bytes = size_bytes;
  prepare.notification.chunk_size_bytes = wire::kChunkSizeBytesMin;
  prepare.notification.owner_epoch = owner_epoch;
  prepare.bulk_port = kLink.port;
  return prepare;
}
inline wire::Go go_of(const wire::ClaimRef& claim, std::uint64_t act_uid = 0) {
  return wire::Go{claim, claim.slot + 1, act_uid == 0 ? claim.uid + 1 : act_uid};
}

// A target with what was to be done in the last call.
class Target {
 public:
  explicit Target(RestoreTargetConfig config = {}) : core(config) {}

  template <typename Call>
  void call(const Call& call) {
    effects.clear();
    call(effects);
  }
  void prepare(const wire::Prepare& prepare, CmsIndex cms = 0, bool stands_still = false) {
    call([&](RestoreEffects& out) { core.on_prepare(now, cms, prepare, stands_still, out); });
  }
  void go(const wire::Go& go, CmsIndex cms = 0) {
    call([&](RestoreEffects& out) { core.on_go(now, cms, go, out); });
  }
  void discard(const wire::ClaimRef& claim, CmsIndex cms = 0) {
    call([&](RestoreEffects& out) { core.on_discard(now, cms, wire::Discard{claim}, out); });
  }
  void prepared(RestoreId id, const Status& status = ok_status()) {
    call([&](RestoreEffects& out) { core.on_prepared(now, id, status, out); });
  }
  void running(RestoreId id, const Result<ProgramId>& program_id) {
    call([&](RestoreEffects& out) { core.on_running(now, id, program_id, out); });
  }
  void bulk(const wire::BulkBody& message, const std::string& bytes = {}, const BulkLink& link = kLink) {
    call([&](RestoreEffects& out) {
      core.on_bulk(now, link, message, ChunkView{bytes.data(), bytes.size(), nullptr}, out);
    });
  }
  // The whole of a blob in one chunk of at most kChunkSizeBytesMin.
  void blob(RestoreId id, const std::string& bytes = {}) { bulk(chunk_of(id, bytes), bytes); }
  static wire::Chunk chunk_of(RestoreId id, const std::string& bytes) {
    wire::Chunk chunk;
    chunk.transfer_id = id;
    chunk.size_bytes = static_cast<std::uint32_t>(bytes.size());
    chunk.digest = digest_of(bytes.data(), bytes.size());
    chunk.version = Version{kSession.incarnation, 3};
    chunk.blob_size_bytes = bytes.size();
    chunk.chunk_size_bytes = wire::kChunkSizeBytesMin;
    chunk.last = true;
    chunk.blob_digest = blob_digest_of({chunk.digest});
    return chunk;
  }
  void pass(Duration duration) {
    now += duration;
    call([&](RestoreEffects& out) { core.on_time(now, out); });
  }

  template <typename T>
  std::vector<T> all() const {
    std::vector<T> found;
    for (const RestoreEffect& effect : effects) {
      if (const auto* one = std::get_if<T>(&effect)) found.push_back(*one);
    }
    return found;
  }
  std::vector<wire::RestoreReport> reports(CmsIndex cms = 0) const {
    std::vector<wire::RestoreReport> found;
    for (const SendReport& sent : all<SendReport>()) {
      if (sent.cms == cms) found.push_back(sent.report);
    }
    return found;
  }
  // "refused 13", of the last report; "" when there is none.
  std::string told(CmsIndex cms = 0) const {
    const auto found = reports(cms);
    if (found.empty()) return "";
    const wire::RestoreReport& last = found.back();
    return std::string(wire::to_string(last.state)) +
           (last.code == Code::kOk ? "" : " " + std::string(to_string(last.code)));
  }
  // Up to prepared; its id.
  RestoreId make_prepared(const wire::ClaimRef& claim, OwnerEpoch owner_epoch = 0) {
    prepare(prepare_of(claim, 0, owner_epoch));
    const RestoreId id = all<ReceiveBlob>().at(0).id;
    blob(id);
    prepared(id);
    return id;
  }

  RestoreTarget core;
  RestoreEffects effects{};
  Instant now{std::chrono::hours(1)};
};

}  // namespace cms::broker
