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

broker::PeerId bulk_peer(std::uint64_t cms_start, core::LinkId link, std::uint64_t generation) {
  return "b" + std::to_string(cms_start) + "." + std::to_string(link) + "." + std::to_string(generation);
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

void World::connect_control(Client& client) {
  queue_.after(1ms + net_delay(), [this, index = client.index, generation = client.control.generation] {
    Client& waiting = clients_[index];
    if (waiting.core == nullptr || waiting.control.generation != generation) return;
    if (cms_ == nullptr) {
      queue_.after(100ms, [this, index, generation] {
        if (clients_[index].control.generation == generation) connect_control(clients_[index]);
      });
      return;
    }
    waiting.control.up = true;
    waiting.control.stuck = becomes_stuck();
    control_peers_[control_peer(index, generation)] = index;
    std::deque<wire::ControlMessage> backlog;
    backlog.swap(waiting.backlog);
    for (wire::ControlMessage& message : backlog) send_to_cms(waiting, std::move(message));
  });
}

void World::break_control(Client& client) {
  client.control.up = false;
  client.control.stuck = false;
  ++client.control.generation;
  if (client.core != nullptr) connect_control(client);
}

void World::send_to_cms(Client& client, wire::ControlMessage message) {
  if (client.control.stuck) return;
  if (!client.control.up) {
    if (client.backlog.size() < kBacklogMax) client.backlog.push_back(std::move(message));
    return;
  }
  if (scenario_.encode_frames) message = through_wire(message);
  queue_.at(
      arrival(client.control.to_cms_at, client),
      [this, index = client.index, generation = client.control.generation, message = std::move(message)] {
        if (clients_[index].control.generation != generation) return;
        step_cms([&](core::CmsCore& core, core::Effects& effects) {
          core.on_control(queue_.now(), control_peer(index, generation), "10.0.0.1", message, effects);
        });
      });
}

void World::send_to_client(const core::PeerId& peer, wire::ControlMessage message) {
  const auto found = control_peers_.find(peer);
  if (found == control_peers_.end()) violated("a control message for " + peer + ", who never spoke");
  Client& client = clients_[found->second];
  if (peer != control_peer(client.index, client.control.generation) || client.control.stuck) return;
  if (faults_on_ && prng_.chance(scenario_.control_drop_percent, 100)) return;
  if (scenario_.encode_frames) message = through_wire(message);
  queue_.at(
      arrival(client.control.to_client_at, client),
      [this, index = client.index, generation = client.control.generation, message = std::move(message)] {
        if (clients_[index].control.generation != generation) return;
        step_client(clients_[index], [&](broker::EcuCore& core, broker::Effects& effects) {
          core.on_control(queue_.now(), 0, message, effects);
        });
      });
}

// ---- notify

void World::connect_notify(Client& client) {
  queue_.after(1ms + net_delay() * 2, [this, index = client.index, generation = client.notify.generation] {
    Client& waiting = clients_[index];
    if (waiting.core == nullptr || waiting.notify.generation != generation) return;
    if (cms_ == nullptr) {
      queue_.after(100ms, [this, index, generation] {
        if (clients_[index].notify.generation == generation) connect_notify(clients_[index]);
      });
      return;
    }
    waiting.notify.up = true;
    waiting.notify.stuck = faults_on_ && prng_.chance(scenario_.notify_stuck_percent, 100);
  });
}

void World::break_notify(Client& client) {
  client.notify.up = false;
  client.notify.stuck = false;
  ++client.notify.generation;
  if (client.core != nullptr) connect_notify(client);
}

void World::send_notify(Client& client, const wire::NotifyMessage& message) {
  if (!client.notify.up || client.notify.stuck) return;
  if (faults_on_ && prng_.chance(scenario_.notify_drop_percent, 100)) return;
  const wire::NotifyMessage sent = scenario_.encode_frames ? through_wire(message) : message;
  deliver_notify(client, sent);
  if (faults_on_ && prng_.chance(scenario_.notify_repeat_percent, 100)) deliver_notify(client, sent);
}

void World::deliver_notify(Client& client, const wire::NotifyMessage& message) {
  queue_.at(arrival(client.notify.to_cms_at, client),
            [this, index = client.index, generation = client.notify.generation, message] {
              if (clients_[index].notify.generation != generation) return;
              step_cms([&](core::CmsCore& core, core::Effects& effects) {
                core.on_notify(queue_.now(), message, effects);
              });
            });
}

// ---- bulk

void World::open_link(const core::OpenLink& effect) {
  const std::string expected = "tcp://10.0.0.1:";
  if (effect.endpoint.rfind(expected, 0) != 0) violated("a bulk connection to " + effect.endpoint);
  Link link;
  link.port = static_cast<std::uint16_t>(std::stoi(effect.endpoint.substr(expected.size())));
  link.connection.stuck =
      becomes_stuck() || (plant_ == Plant::kBulkNeverReconnected && dead_ports_.count(link.port) != 0);
  if (!links_.emplace(effect.link, std::move(link)).second) violated("a link id was used twice");
  connect_link(effect.link);
}

void World::connect_link(core::LinkId id) {
  const std::uint64_t generation = links_.at(id).connection.generation;
  queue_.after(1ms + net_delay(), [this, id, generation, start = cms_start_count_] {
    const auto it = links_.find(id);
    if (it == links_.end() || cms_start_count_ != start || it->second.connection.generation != generation)
      return;
    Link& link = it->second;
    const auto listening = listening_.find(link.port);
    if (listening == listening_.end()) {
      ++link.connection.generation;
      connect_link(id);
      return;
    }
    link.client = listening->second;
    link.connection.up = true;
    std::deque<wire::BulkBody> backlog;
    backlog.swap(link.backlog);
    for (wire::BulkBody& message : backlog) send_to_link(id, std::move(message));
  });
}

void World::break_link(core::LinkId id) {
  Link& link = links_.at(id);
  const std::optional<std::size_t> client = link.client;
  const broker::PeerId peer = bulk_peer(cms_start_count_, id, link.connection.generation);
  link.client.reset();
  link.connection.up = false;
  ++link.connection.generation;
  connect_link(id);
  // A router learns of it when it sends there; or never.
  if (client && clients_[*client].core != nullptr && prng_.chance(1, 2)) {
    queue_.after(net_delay(), [this, index = *client, peer] {
      step_client(clients_[index],
                  [&](broker::EcuCore& core, broker::Effects&) { core.on_bulk_peer_gone(peer); });
    });
  }
}

void World::send_to_link(core::LinkId id, wire::BulkBody message) {
  const auto it = links_.find(id);
  if (it == links_.end()) violated("a message on a bulk connection that is closed");
  Link& link = it->second;
  if (link.connection.stuck) return;
  if (!link.connection.up) {
    if (link.backlog.size() < kBacklogMax) link.backlog.push_back(std::move(message));
    return;
  }
  if (scenario_.encode_frames) message = through_wire(message);
  queue_.at(arrival(link.connection.to_client_at, clients_[*link.client]),
            [this, id, generation = link.connection.generation, start = cms_start_count_,
             index = *link.client, message = std::move(message)] {
              const auto found = links_.find(id);
              const bool sent_before_it_broke = found == links_.end() || cms_start_count_ != start;
              if (!sent_before_it_broke && found->second.connection.generation != generation) return;
              Client& client = clients_[index];
              step_client(client, [&](broker::EcuCore& core, broker::Effects& effects) {
                core.on_bulk(queue_.now(), bulk_peer(start, id, generation), message, effects);
              });
              serve(client);
            });
}

World::Link* World::link_of(const broker::PeerId& peer, core::LinkId* id) {
  for (auto& [link_id, link] : links_) {
    if (link.connection.up && bulk_peer(cms_start_count_, link_id, link.connection.generation) == peer) {
      *id = link_id;
      return &link;
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
  Link* link = link_of(peer, &id);
  if (link == nullptr) {
    queue_.after(0ms, [this, index = client.index, peer] {
      step_client(clients_[index],
                  [&](broker::EcuCore& core, broker::Effects&) { core.on_bulk_peer_gone(peer); });
    });
    return;
  }
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
            [this, id, generation = link->connection.generation, start = cms_start_count_,
             message = std::move(message), bytes = std::move(bytes)] {
              const auto found = links_.find(id);
              if (cms_start_count_ != start || found == links_.end()) return;
              if (found->second.connection.generation != generation) return;
              step_cms([&](core::CmsCore& core, core::Effects& effects) {
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
