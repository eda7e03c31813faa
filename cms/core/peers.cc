#include "cms/core/peers.h"

#include <algorithm>
#include <utility>

#include "base/digest.h"

namespace cms::core {

std::uint64_t rendezvous_weight(const std::string& cms_name, const ProgramKey& program) {
  const std::string text = cms_name + '\0' + to_string(program);
  return digest_of(text.data(), text.size()).high;
}

PeerTable::Heard PeerTable::on_message(Instant now, const std::string& address, const Id128& fleet_id,
                                       const wire::PeerMessage& message) {
  Heard heard;
  auto it = peers_.find(message.cms_name);
  if (it == peers_.end()) {
    if (peers_.size() >= wire::kPeerCountMax) {
      const Instant forget_before = now - kPeerForgetAfter;
      for (auto old = peers_.begin(); old != peers_.end();)
        old = !old->second.live && old->second.heard_at < forget_before ? peers_.erase(old) : std::next(old);
      if (peers_.size() >= wire::kPeerCountMax) return heard;
    }
    Peer fresh;
    fresh.name = message.cms_name;
    fresh.since = now;
    it = peers_.emplace(message.cms_name, std::move(fresh)).first;
  }
  Peer& peer = it->second;
  peer.address = address;
  peer.fleet_id = message.fleet_id;
  const bool foreign = message.fleet_id != Id128{} && fleet_id != Id128{} && message.fleet_id != fleet_id;
  const bool named_before = peer.live && peer.takes_pulls;
  if (foreign) {
    heard.newly_foreign = !peer.foreign;
    if (heard.newly_foreign) peer.since = now;
    peer.foreign = true;
    peer.live = false;
    peer.takes_pulls = false;
    heard.changed = named_before;
    return heard;
  }
  const bool restarted = peer.incarnation != message.incarnation;
  if (restarted) {
    // What it said before we heard it, or before it died, is in the store but may not be in our index.
    // Also when we hear it for the first time: our look through the store may have been past a program
    // that an earlier start of it stored and did not live to tell.
    heard.missed = true;
    peer.incarnation = message.incarnation;
    peer.event = 0;
    peer.greeted = false;
    peer.pulled_bytes = 0;
    peer.pulling.clear();
    peer.features = 0;
    peer.reading.clear();
  }
  heard.newly_live = !peer.live || restarted;
  if (!peer.live || peer.foreign) peer.since = now;
  peer.foreign = false;
  peer.live = true;
  peer.heard_at = now;
  heard.peer = &peer;

  const auto* beat = std::get_if<wire::PeerBeat>(&message.body);
  const std::uint64_t next = peer.event + 1;
  if (beat == nullptr) {
    if (message.event < next) {
      heard.repeated = true;
      return heard;
    }
    ++peer.event_count;
  }
  if (message.event > (beat == nullptr ? next : peer.event)) {
    ++peer.gap_count;
    heard.missed = true;
    peer.greeted = false;  // Incarnations may have been among them.
  }
  if (message.event > peer.event) peer.event = message.event;
  if (beat == nullptr) return heard;
  peer.takes_pulls = beat->takes_pulls;
  peer.pull_every = beat->pull_every;
  peer.queued = beat->queued;
  if (beat->pulled_bytes > peer.pulled_bytes) peer.progress_at = now;
  peer.pulled_bytes = beat->pulled_bytes;
  peer.pulling = std::set<ProgramKey>(beat->pulling.begin(), beat->pulling.end());
  peer.features = beat->features;
  peer.reading = beat->reading;
  heard.changed = named_before != peer.takes_pulls;
  return heard;
}

std::vector<std::string> PeerTable::fallen_silent(Instant now) {
  std::vector<std::string> names;
  for (auto& [name, peer] : peers_) {
    if (!peer.live || now - peer.heard_at < kPeerSilentMax) continue;
    peer.live = false;
    peer.since = now;
    peer.greeted = false;
    names.push_back(name);
  }
  return names;
}

const PeerTable::Peer* PeerTable::puller_of(const ProgramKey& program, const std::string& own_name,
                                            bool own_takes_pulls) const {
  const Peer* named = nullptr;
  std::uint64_t highest = own_takes_pulls ? rendezvous_weight(own_name, program) : 0;
  for (const auto& [name, peer] : peers_) {
    if (!peer.live || !peer.takes_pulls) continue;
    const std::uint64_t weight = rendezvous_weight(name, program);
    if (weight < highest) continue;
    highest = weight;
    named = &peer;
  }
  return named;
}

PeerTable::Share PeerTable::share(const std::string& own_name, bool own_takes_pulls) const {
  Share share;
  share.own_name_ = own_name;
  share.own_takes_pulls_ = own_takes_pulls;
  for (const auto& [name, peer] : peers_) {
    if (peer.live && peer.takes_pulls) share.others_.push_back(name);
  }
  return share;
}

bool PeerTable::Share::is_ours(const ProgramKey& program) const {
  if (others_.empty()) return true;
  if (!own_takes_pulls_) return false;
  const std::uint64_t own = rendezvous_weight(own_name_, program);
  return std::all_of(others_.begin(), others_.end(),
                     [&](const std::string& other) { return rendezvous_weight(other, program) < own; });
}

bool PeerTable::all_know(std::uint64_t feature) const {
  return std::all_of(peers_.begin(), peers_.end(), [&](const auto& entry) {
    return !entry.second.live || (entry.second.features & feature) == feature;
  });
}

std::size_t PeerTable::greeted_count() const {
  std::size_t count = 0;
  for (const auto& [name, peer] : peers_) count += peer.live && peer.greeted ? 1 : 0;
  return count;
}

std::vector<std::uint64_t> PeerTable::ungreeted() const {
  std::vector<std::uint64_t> incarnations;
  for (const auto& [name, peer] : peers_) {
    if (peer.live && !peer.greeted) incarnations.push_back(peer.incarnation);
  }
  return incarnations;
}

}  // namespace cms::core
