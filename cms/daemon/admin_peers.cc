#include "cms/daemon/admin_peers.h"

#include <array>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "cms/daemon/admin_findings.h"
#include "cms/daemon/admin_words.h"

namespace cms::daemon {
namespace {

using Json = nlohmann::ordered_json;
using Life = std::pair<std::string, std::uint64_t>;  // Name and incarnation.

std::string hex16(std::uint64_t value) {
  std::array<char, 17> text{};
  std::snprintf(text.data(), text.size(), "%016llx", static_cast<unsigned long long>(value));
  return text.data();
}

const char* record_text(MembersFacts::Member::State state) {
  switch (state) {
    case MembersFacts::Member::State::kRenewed: return "renewed";
    case MembersFacts::Member::State::kResigned: return "resigned";
    case MembersFacts::Member::State::kStale: return "stale";
  }
  return "";
}

}  // namespace

std::string peers_answer(const CoreSnapshot& snapshot) {
  const MembersFacts& facts = snapshot.facts.members;
  std::map<Life, std::pair<const CoreSnapshot::Peer*, const MembersFacts::Member*>> lives;
  for (const CoreSnapshot::Peer& peer : snapshot.peers) lives[{peer.name, peer.incarnation}].first = &peer;
  for (const MembersFacts::Member& member : facts.members) {
    lives[{member.node, member.incarnation}].second = &member;
  }
  Json peers = Json::array();
  for (const auto& [life, known] : lives) {
    const auto& [peer, member] = known;
    Json json{{"name", life.first}, {"incarnation", hex16(life.second)}};
    json["network"] = peer != nullptr ? Json(to_text(peer->state)) : Json();
    json["since_s"] = peer != nullptr ? Json(seconds_of(peer->since)) : Json();
    json["address"] = peer != nullptr ? Json(peer->address) : Json();
    json["takes_pulls"] = peer != nullptr ? Json(peer->takes_pulls) : Json();
    json["record"] = member != nullptr ? Json(record_text(member->state)) : Json();
    json["record_readable"] = member != nullptr ? Json(member->readable) : Json();
    json["record_unchanged_ms"] = member != nullptr ? Json(milliseconds(member->unchanged)) : Json();
    json["software"] = member != nullptr ? Json(member->software) : Json();
    peers.push_back(std::move(json));
  }
  Json json{{"name", snapshot.facts.name}, {"incarnation", hex16(facts.incarnation)}};
  json["acts"] = facts.may_act;
  json["renewed_ago_ms"] = facts.written_ago ? Json(milliseconds(*facts.written_ago)) : Json();
  json["trouble"] = facts.trouble.empty() ? Json() : Json(facts.trouble);
  json["peers"] = std::move(peers);
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace cms::daemon
