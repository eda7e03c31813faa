// The virtual network. Control and bulk connections keep the order and lose what is on its way when
// they break; notify loses and repeats messages. A connection may also get stuck: it looks alive and
// carries nothing, as sockets do after some failures, until one side makes it anew.
#include <algorithm>
#include <cstring>
#include <utility>

#include "test/sim/world.h"

namespace cms::sim {

using namespace std::chrono_literals;

namespace {

constexpr std::size_t kBacklogMax = 200;
constexpr std::size_t kChunksPerTurn = 4;

core::PeerId control_peer(std::size_t client, std::uint64_t generation) {
  return "c" + std::to_string(client) + "." + std::to_string(generation);
}

broker::PeerId bulk_peer(std::size_t cms, std::uint64_t cms_start, core::LinkId link,
                         std::uint64_t generation) {
  return "b" + std::to_string(cms) + "." + std::to_string(cms_start) + "." + std::to_string(link) + "." +
         std::to_string(generation);
}

// As the wire would carry it.
wire::ControlMessage through_wire(const wire::ControlMessage& message) {
  const wire::Bytes bytes = wire::encode(message);
  auto decoded = wire::decode_control(bytes.data(), bytes.size());
  if (!decoded.ok()) violated("a control message does not decode: " + decoded.error().message());
  return std::move(decoded).value();
}
wire::NotifyMessage through_wire(const wire::NotifyMessage& message) {
  const wire::Bytes bytes = wire::encode(message);
  auto decoded = wire::decode_notify(bytes.data(), bytes.size());
  if (!decoded.ok()) violated("a notify message does not decode: " + decoded.error().message());
  return std::move(decoded).value();
}
wire::BulkBody through_wire(const wire::BulkBody& message) {
  const wire::Bytes bytes = wire::encode(message);
  auto decoded = wire::decode_bulk(bytes.data(), bytes.size());
  if (!decoded.ok()) violated("a bulk message does not decode: " + decoded.error().message());
  return std::move(decoded).value();
}

}  // namespace

Duration World::net_delay() {
  return Duration(static_cast<std::int64_t>(
      prng_.below(static_cast<std::uint64_t>(scenario_.net_delay_max.count()) + 1)));
}

Instant World::arrival(Instant& last, const Client& client) {
  const Instant earliest = std::max(queue_.now(), client.stalled_until) + net_delay();
  last = std::max(last, earliest);
  return last;
}

bool World::becomes_stuck() { return faults_on_ && prng_.chance(scenario_.stuck_percent, 100); }

// ---- control

void World::connect_control(Client& client, Cms& cms) {
  const std::uint64_t generation = client.control[cms.number].connection.generation;
  queue_.after(1ms + net_delay(), [this, &cms, index = client.index, generation] {
    Client& waiting = clients_[index];
    Control& control = waiting.control[cms.number];
    if (waiting.core == nullptr || control.connection.generation != generation) return;
    if (cms.core == nullptr || queue_.now() < cms.cut_off_until) {
      queue_.after(100ms, [this, &cms, index, generation] {
        if (clients_[index].control[cms.number].connection.generation == generation)
          connect_control(clients_[index], cms);
      });
      return;
    }
    control.connection.up = true;
    control.connection.stuck = becomes_stuck();
    cms.control_peers[control_peer(index, generation)] = index;
    std::deque<wire::ControlMessage> backlog;
    backlog.swap(control.backlog);
    for (wire::ControlMessage& message : backlog) send_to_cms(waiting, cms, std::move(message));
  });
}

void World::break_control(Client& client, Cms& cms) {
  Connection& connection = client.control[cms.number].connection;
  connection.up = false;
  connection.stuck = false;
  ++connection.generation;
  if (client.core != nullptr) connect_control(client, cms);
}

void World::send_to_cms(Client& client, Cms& cms, wire::ControlMessage message) {
  Control& control = client.control[cms.number];
  if (control.connection.stuck) return;
  if (!control.connection.up) {
    if (control.backlog.size() < kBacklogMax) control.backlog.push_back(std::move(message));
    return;
  }
  if (scenario_.encode_frames) message = through_wire(message);
  queue_.at(arrival(control.connection.to_cms_at, client),
            [this, &cms, index = client.index, generation = control.connection.generation,
             message = std::move(message)] {
              if (clients_[index].control[cms.number].connection.generation != generation) return;
              step_cms(cms, [&](core::CmsCore& core, core::Effects& effects) {
                core.on_control(queue_.now(), control_peer(index, generation), "10.0.0.1", message, effects);
              });
            });
}

void World::send_to_client(Cms& cms, const core::PeerId& peer, wire::ControlMessage message) {
  const auto found = cms.control_peers.find(peer);
  if (found == cms.control_peers.end()) violated("a control message for " + peer + ", who never spoke");
  Client& client = clients_[found->second];
  Connection& connection = client.control[cms.number].connection;
  if (peer != control_peer(client.index, connection.generation) || connection.stuck) return;
  if (faults_on_ && prng_.chance(scenario_.control_drop_percent, 100)) return;
  if (scenario_.encode_frames) message = through_wire(message);
  queue_.at(arrival(connection.to_client_at, client),
            [this, number = cms.number, index = client.index, generation = connection.generation,
             message = std::move(message)] {
              if (clients_[index].control[number].connection.generation != generation) return;
              step_client(clients_[index], [&](broker::EcuCore& core, broker::Effects& effects) {
                core.on_control(queue_.now(), number, message, effects);
              });
            });
}

// ---- notify

void World::connect_notify(Client& client, Cms& cms) {
  const std::uint64_t generation = client.notify[cms.number].generation;
  queue_.after(1ms + net_delay() * 2, [this, &cms, index = client.index, generation] {
    Client& waiting = clients_[index];
    Connection& connection = waiting.notify[cms.number];
    if (waiting.core == nullptr || connection.generation != generation) return;
    if (cms.core == nullptr || queue_.now() < cms.cut_off_until) {
      queue_.after(100ms, [this, &cms, index, generation] {
        if (clients_[index].notify[cms.number].generation == generation) connect_notify(clients_[index], cms);
      });
      return;
    }
    connection.up = true;
    connection.stuck = faults_on_ && prng_.chance(scenario_.notify_stuck_percent, 100);
  });
}

void World::break_notify(Client& client, Cms& cms) {
  Connection& connection = client.notify[cms.number];
  connection.up = false;
  connection.stuck = false;
  ++connection.generation;
  if (client.core != nullptr) connect_notify(client, cms);
}

void World::send_notify(Client& client, const wire::NotifyMessage& message) {
  const wire::NotifyMessage sent = scenario_.encode_frames ? through_wire(message) : message;
  for (Cms& cms : cms_) {
    const Connection& connection = client.notify[cms.number];
    if (!connection.up || connection.stuck) continue;
    if (faults_on_ && prng_.chance(scenario_.notify_drop_percent, 100)) continue;
    deliver_notify(client, cms, sent);
    if (faults_on_ && prng_.chance(scenario_.notify_repeat_percent, 100)) deliver_notify(client, cms, sent);
  }
}

void World::deliver_notify(Client& client, Cms& cms, const wire::NotifyMessage& message) {
  Connection& connection = client.notify[cms.number];
  queue_.at(arrival(connection.to_cms_at, client),
            [this, &cms, index = client.index, generation = connection.generation, message] {
              if (clients_[index].notify[cms.number].generation != generation) return;
              step_cms(cms, [&](core::CmsCore& core, core::Effects& effects) {
                core.on_notify(queue_.now(), message, effects);
              });
            });
}

// ---- bulk

void World::open_link(Cms& cms, const core::OpenLink& effect) {
  const std::string expected = "tcp://10.0.0.1:";
  if (effect.endpoint.rfind(expected, 0) != 0) violated("a bulk connection to " + effect.endpoint);
  Link link;
  link.port = static_cast<std::uint16_t>(std::stoi(effect.endpoint.substr(expected.size())));
  link.connection.stuck =
      becomes_stuck() || (plant_ == Plant::kBulkNeverReconnected && cms.dead_ports.count(link.port) != 0);
  if (!cms.links.emplace(effect.link, std::move(link)).second) violated("a link id was used twice");
  connect_link(cms, effect.link);
}

void World::connect_link(Cms& cms, core::LinkId id) {
  const std::uint64_t generation = cms.links.at(id).connection.generation;
  queue_.after(1ms + net_delay(), [this, &cms, id, generation, start = cms.start_count] {
    const auto it = cms.links.find(id);
    if (it == cms.links.end() || cms.start_count != start || it->second.connection.generation != generation)
      return;
    Link& link = it->second;
    const auto listening = listening_.find(link.port);
    if (listening == listening_.end()) {
      ++link.connection.generation;
      connect_link(cms, id);
      return;
    }
    link.client = listening->second;
    link.connection.up = true;
    std::deque<wire::BulkBody> backlog;
    backlog.swap(link.backlog);
    for (wire::BulkBody& message : backlog) send_to_link(cms, id, std::move(message));
  });
}

void World::break_link(Cms& cms, core::LinkId id) {
  Link& link = cms.links.at(id);
  const std::optional<std::size_t> client = link.client;
  const broker::PeerId peer = bulk_peer(cms.number, cms.start_count, id, link.connection.generation);
  link.client.reset();
  link.connection.up = false;
  ++link.connection.generation;
  connect_link(cms, id);
  // A router learns of it when it sends there; or never.
  if (client && clients_[*client].core != nullptr && prng_.chance(1, 2)) {
    queue_.after(net_delay(), [this, index = *client, peer] {
      step_client(clients_[index],
                  [&](broker::EcuCore& core, broker::Effects&) { core.on_bulk_peer_gone(peer); });
    });
  }
}

void World::send_to_link(Cms& cms, core::LinkId id, wire::BulkBody message) {
  const auto it = cms.links.find(id);
  if (it == cms.links.end()) violated("a message on a bulk connection that is closed");
  Link& link = it->second;
  if (link.connection.stuck) return;
  if (!link.connection.up) {
    if (link.backlog.size() < kBacklogMax) link.backlog.push_back(std::move(message));
    return;
  }
  if (scenario_.encode_frames) message = through_wire(message);
  queue_.at(arrival(link.connection.to_client_at, clients_[*link.client]),
            [this, &cms, id, generation = link.connection.generation, start = cms.start_count,
             index = *link.client, message = std::move(message)] {
              const auto found = cms.links.find(id);
              const bool sent_before_it_broke = found == cms.links.end() || cms.start_count != start;
              if (!sent_before_it_broke && found->second.connection.generation != generation) return;
              Client& client = clients_[index];
              step_client(client, [&](broker::EcuCore& core, broker::Effects& effects) {
                core.on_bulk(queue_.now(), bulk_peer(cms.number, start, id, generation), message, effects);
              });
              serve(client);
            });
}

World::Link* World::link_of(const broker::PeerId& peer, Cms** of, core::LinkId* id) {
  for (Cms& cms : cms_) {
    for (auto& [link_id, link] : cms.links) {
      if (link.connection.up &&
          bulk_peer(cms.number, cms.start_count, link_id, link.connection.generation) == peer) {
        *of = &cms;
        *id = link_id;
        return &link;
      }
    }
  }
  return nullptr;
}

broker::ChunkView World::spoil(const broker::ChunkView& bytes) {
  const auto copy = std::make_shared<std::vector<unsigned char>>(bytes.size_bytes);
  std::memcpy(copy->data(), bytes.data, bytes.size_bytes);
  const std::size_t place = prng_.below(bytes.size_bytes);
  (*copy)[place] = static_cast<unsigned char>((*copy)[place] ^ 1U);
  return broker::ChunkView{copy->data(), bytes.size_bytes, copy};
}

// The publisher's transport went mad. (A repeat, or an early end, is a lie about the offset.)
void World::lie(wire::Chunk& chunk, broker::ChunkView& bytes) {
  switch (prng_.below(8)) {
    case 0: chunk.offset_bytes += chunk.chunk_size_bytes; break;
    case 1: chunk.offset_bytes -= std::min<std::uint64_t>(chunk.offset_bytes, chunk.chunk_size_bytes); break;
    case 2: chunk.size_bytes /= 2; break;
    case 3: bytes.size_bytes /= 2; break;
    case 4: ++chunk.version.seq; break;
    case 5: chunk.blob_size_bytes += 1; break;
    case 6: chunk.chunk_size_bytes *= 2; break;
    default: chunk.last = !chunk.last; break;
  }
}

void World::send_from_link(Client& client, const broker::PeerId& peer, wire::BulkBody message,
                           broker::ChunkView bytes) {
  core::LinkId id = 0;
  Cms* of = nullptr;
  Link* link = link_of(peer, &of, &id);
  if (link == nullptr) {
    queue_.after(0ms, [this, index = client.index, peer] {
      step_client(clients_[index],
                  [&](broker::EcuCore& core, broker::Effects&) { core.on_bulk_peer_gone(peer); });
    });
    return;
  }
  Cms& cms = *of;
  if (link->connection.stuck) return;
  if (scenario_.encode_frames) message = through_wire(message);
  const auto* chunk = std::get_if<wire::Chunk>(&message);
  if (chunk != nullptr && faults_on_ && bytes.size_bytes > 0 &&
      prng_.chance(scenario_.corrupt_per_10k, 10000)) {
    ++client.record->find(chunk->version.seq)->spoiled_chunks;
    bytes = spoil(bytes);
  }
  if (auto* lying = std::get_if<wire::Chunk>(&message);
      lying != nullptr && faults_on_ && prng_.chance(scenario_.lie_per_10k, 10000)) {
    lie(*lying, bytes);
  }
  queue_.at(arrival(link->connection.to_cms_at, client),
            [this, &cms, id, generation = link->connection.generation, start = cms.start_count,
             message = std::move(message), bytes = std::move(bytes)] {
              const auto found = cms.links.find(id);
              if (cms.start_count != start || found == cms.links.end()) return;
              if (found->second.connection.generation != generation) return;
              step_cms(cms, [&](core::CmsCore& core, core::Effects& effects) {
                if (const auto* arrived = std::get_if<wire::Chunk>(&message)) {
                  core.on_chunk(queue_.now(), id, *arrived, bytes, effects);
                } else {
                  core.on_transfer_error(queue_.now(), id, std::get<wire::TransferError>(message), effects);
                }
              });
            });
}

void World::serve(Client& client) {
  if (client.serving) return;
  client.serving = true;
  queue_.after(Duration(static_cast<std::int64_t>(prng_.below(200'000))), [this, index = client.index] {
    Client& serving = clients_[index];
    serving.serving = false;
    bool more = false;
    step_client(serving, [&](broker::EcuCore& core, broker::Effects& effects) {
      more = core.serve(kChunksPerTurn, effects);
    });
    if (more) serve(serving);
  });
}

}  // namespace cms::sim
