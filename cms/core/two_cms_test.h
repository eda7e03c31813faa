#pragma once
// A core with a peer that the test plays: for the tests of several CMS instances.
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cms/core/core_driver_test.h"

namespace cms::core {

inline constexpr Id128 kFleet{1, 2};
inline constexpr std::uint64_t kPeerIncarnation = 77;

inline CmsCoreConfig config_with_peer() {
  CmsCoreConfig config = default_config();
  config.incarnation = 11;
  config.peer_count = 1;
  return config;
}

// "a" is under test; "b" is played.
class TwoCms : public CoreDriver {
 public:
  explicit TwoCms(const CmsCoreConfig& config = config_with_peer()) : CoreDriver(config) {
    core.set_fleet_id(kFleet);
    pass(milliseconds(1));
  }

  void hear(wire::PeerBody body, Duration after = Duration{}) {
    now += after;
    wire::PeerMessage message;
    message.cms_name = "b";
    message.incarnation = kPeerIncarnation;
    message.fleet_id = kFleet;
    if (!std::holds_alternative<wire::PeerBeat>(body)) ++event;
    message.event = event;
    message.body = std::move(body);
    hear(message);
  }
  void hear(const wire::PeerMessage& message) {
    feed([&](Effects& out) { core.on_peer(now, "10.0.0.2", message, out); });
  }
  static wire::PeerBeat beat(bool takes_pulls = true) {
    wire::PeerBeat beat;
    beat.takes_pulls = takes_pulls;
    return beat;
  }
  // Beats of a peer that lives, for so long; the opened session lives as well.
  void pass_with_peer(Duration duration, const wire::PeerBeat& said = beat()) {
    for (Duration passed{}; passed < duration; passed += kPeerBeatInterval) {
      if (opened) heartbeat(*opened, 0);
      pass(kPeerBeatInterval);
      Effects kept = effects;
      hear(said);
      effects.insert(effects.begin(), kept.begin(), kept.end());
    }
  }
  void greeted() { hear(wire::PeerIncarnations{{}, 11}); }
  void indexed(const CheckpointId& checkpoint) {
    storage::BlobName name;
    name.checkpoint = checkpoint;
    feed([&](Effects& out) { core.on_peer_indexed(now, {name}, out); });
  }
  template <typename T>
  std::vector<T> told_peers() const {
    std::vector<T> found;
    for (const SendPeer& sent : all<SendPeer>()) {
      wire::encode(sent.message);
      if (const auto* body = std::get_if<T>(&sent.message.body)) found.push_back(*body);
    }
    return found;
  }
  // A session, with the peer live and greeted.
  Client open_with_peer() {
    hear(beat());
    greeted();
    opened = open();
    return *opened;
  }

  std::uint64_t event = 0;
  std::optional<Client> opened;
};

// A program of the client that rendezvous gives to the one named first of the two.
inline ProgramId program_of(const std::string& winner, const std::string& loser, const Client& client) {
  for (ProgramId id = 1;; ++id) {
    if (rendezvous_weight(winner, client.program(id)) > rendezvous_weight(loser, client.program(id)))
      return id;
  }
}

inline wire::StoredCheckpoint stored_of(const CheckpointId& checkpoint) {
  wire::StoredCheckpoint stored;
  stored.checkpoint = checkpoint;
  stored.lineage = lineage_of(checkpoint.program);
  stored.uid = 5;
  return stored;
}

}  // namespace cms::core
