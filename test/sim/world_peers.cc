// What the cmsd say to one another. A channel leads from one to another; it keeps the order, loses
// what is said while it is down or cut, and drops and repeats messages.
#include <algorithm>
#include <utility>

#include "test/sim/world.h"

namespace cms::sim {

using namespace std::chrono_literals;

namespace {

std::string address_of(std::size_t number) { return "10.0.1." + std::to_string(number + 1); }

wire::PeerMessage through_wire(const wire::PeerMessage& message) {
  const wire::Bytes bytes = wire::encode(message);
  auto decoded = wire::decode_peer(bytes.data(), bytes.size());
  if (!decoded.ok()) violated("a peer message does not decode: " + decoded.error().message());
  return std::move(decoded).value();
}

}  // namespace

void World::connect_peers(Cms& cms) {
  for (Cms& other : cms_) {
    if (&other == &cms) continue;
    break_channel(cms, other, true);
    break_channel(other, cms, true);
  }
}

void World::connect_channel(Cms& from, Cms& to) {
  const std::uint64_t generation = from.channels[to.number].connection.generation;
  queue_.after(1ms + net_delay() * 2, [this, &from, &to, generation] {
    Connection& connection = from.channels[to.number].connection;
    if (from.core == nullptr || connection.up || connection.generation != generation) return;
    if (to.core == nullptr) {
      queue_.after(100ms, [this, &from, &to, generation] {
        if (from.channels[to.number].connection.generation == generation) connect_channel(from, to);
      });
      return;
    }
    connection.up = true;
  });
}

// `lose`: also what is on its way.
void World::break_channel(Cms& from, Cms& to, bool lose) {
  Connection& connection = from.channels[to.number].connection;
  connection.up = false;
  if (lose) ++connection.generation;
  connect_channel(from, to);
}

void World::send_to_peers(Cms& cms, const wire::PeerMessage& message) {
  if (std::holds_alternative<wire::PeerBeat>(message.body)) cms.last_beat = message;
  for (Cms& other : cms_) {
    if (&other == &cms) continue;
    const PeerChannel& channel = cms.channels[other.number];
    if (!channel.connection.up || queue_.now() < channel.cut_until) continue;
    if (faults_on_ && prng_.chance(scenario_.peer_drop_percent, 100)) continue;
    const wire::PeerMessage sent = scenario_.encode_frames ? through_wire(message) : message;
    deliver_to_peer(cms, other, sent);
    if (faults_on_ && prng_.chance(scenario_.peer_repeat_percent, 100)) deliver_to_peer(cms, other, sent);
  }
}

void World::deliver_to_peer(Cms& from, Cms& to, const wire::PeerMessage& message) {
  Connection& connection = from.channels[to.number].connection;
  const auto bound = static_cast<std::uint64_t>(scenario_.peer_delay_max.count()) + 1;
  connection.to_cms_at =
      std::max(connection.to_cms_at, queue_.now() + Duration(static_cast<std::int64_t>(prng_.below(bound))));
  queue_.at(connection.to_cms_at, [this, &from, &to, generation = connection.generation, message] {
    if (from.channels[to.number].connection.generation != generation) return;
    step_cms(to, [&](core::CmsCore& core, core::Effects& effects) {
      core.on_peer(queue_.now(), address_of(from.number), message, effects);
    });
  });
}

// The planted bug: its peers go on hearing that it lives and is at it.
void World::beat_on(Cms& dead) {
  if (!dead.last_beat) return;
  auto& beat = std::get<wire::PeerBeat>(dead.last_beat->body);
  beat.pulling.clear();
  for (const auto& [program, version] : said_stored_) {
    if (beat.pulling.size() < wire::kPeerPullingCountMax) beat.pulling.push_back(program);
  }
  queue_.after(core::kPeerBeatInterval, [this, &dead, start = dead.start_count] {
    if (dead.core != nullptr || dead.start_count != start) return;
    for (Cms& other : cms_) {
      if (&other != &dead) deliver_to_peer(dead, other, *dead.last_beat);
    }
    beat_on(dead);
  });
}

void World::schedule_peer_faults() {
  if (cms_.size() < 2) return;
  recur(scenario_.peer_break_every, [this] {
    Cms& from = cms_[prng_.below(cms_.size())];
    for (Cms& to : cms_) {
      if (&from != &to) break_channel(from, to, true);
    }
  });
  recur(scenario_.peer_cut_every, [this] {
    const bool both_ways = prng_.chance(1, 2);
    const std::size_t first = prng_.below(cms_.size());
    const Instant until = queue_.now() + around(prng_, scenario_.peer_cut_max / 2);
    if (verbose_) trace(both_ways ? "the peers are cut off" : "cmsd " + cms_[first].name + " is not heard");
    for (Cms& from : cms_) {
      if (!both_ways && from.number != first) continue;
      for (PeerChannel& channel : from.channels) channel.cut_until = until;
    }
  });
}

}  // namespace cms::sim
