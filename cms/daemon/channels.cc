#include "cms/daemon/channels.h"

#include <memory>
#include <utility>

#include "base/crash_point.h"
#include "cms/daemon/admin_service.h"
#include "cms/daemon/admin_socket.h"
#include "cms/daemon/blob_server.h"
#include "schemas/messages.h"

namespace cms::daemon {
namespace {

// How much of each input one turn takes, so that none starves the others.
constexpr int kMessagesPerTurn = 1000;
constexpr int kChunksPerLinkAndTurn = 32;

Error wrong_frame_count(int expected) {
  return make_error(Code::kProtocol, "a message that is not of " + std::to_string(expected) + " frames");
}

}  // namespace

Channels::Channels()
    : notify_(net::make_notify_sub(context_)),
      control_(net::make_control_router(context_)),
      bulk_(net::make_bulk_router(context_)),
      admin_(net::make_admin_router(context_)),
      peer_pub_(net::make_peer_pub(context_)),
      peer_sub_(net::make_peer_sub(context_)) {}

Status Channels::open(const Config& config) {
  const net::Endpoint here{config.bind, config.port_base};
  for (const auto& [socket, offset] : {std::pair<zmq::socket_t*, std::uint16_t>{&notify_, net::kNotifyPort},
                                       {&control_, net::kControlPort},
                                       {&peer_sub_, net::kPeerPort},
                                       {&bulk_, net::kBulkPort}}) {
    if (Status bound = net::bind(*socket, here.channel(offset)); !bound.ok()) return bound;
  }
  if (Status bound = bind_admin(admin_, config.admin); !bound.ok()) return bound;
  for (const net::Endpoint& peer : config.peers) {
    if (Status connected = net::connect(peer_pub_, peer.channel(net::kPeerPort)); !connected.ok())
      return connected;
  }
  return ok_status();
}

std::array<bool, 2> Channels::wait(const std::array<int, 2>& fds, std::chrono::milliseconds timeout) {
  items_.clear();
  for (const int fd : fds) items_.push_back({nullptr, fd, ZMQ_POLLIN, 0});
  for (zmq::socket_t* socket : {&control_, &notify_, &peer_sub_, &bulk_, &admin_}) {
    items_.push_back({socket->handle(), 0, ZMQ_POLLIN, 0});
  }
  for (auto& [link, socket] : links_) items_.push_back({socket.handle(), 0, ZMQ_POLLIN, 0});
  net::poll(items_, timeout);
  return {(items_[0].revents & ZMQ_POLLIN) != 0, (items_[1].revents & ZMQ_POLLIN) != 0};
}

// ---- what comes

void Channels::receive(Instant now, const Receivers& to, core::Effects& effects) {
  receive_control(now, to, effects);
  receive_peers(now, to, effects);
  receive_notify(now, to, effects);
  receive_links(now, to, effects);
  receive_bulk(now, to, effects);
  receive_admin(now, to, effects);
}

void Channels::receive_control(Instant now, const Receivers& to, core::Effects& effects) {
  for (int i = 0; i < kMessagesPerTurn && net::receive(control_, frames_); ++i) {
    const core::PeerId peer = frames_[0].to_string();
    const std::string address = net::peer_address_of(frames_.back());
    if (frames_.size() != 2) {
      to.core.on_malformed_control(now, peer, address, wrong_frame_count(2), effects);
      continue;
    }
    const auto message = wire::decode_control(frames_[1].data(), frames_[1].size());
    if (message.ok()) {
      to.core.on_control(now, peer, address, *message, effects);
    } else {
      to.core.on_malformed_control(now, peer, address, message.error(), effects);
    }
  }
}

void Channels::receive_notify(Instant now, const Receivers& to, core::Effects& effects) {
  for (int i = 0; i < kMessagesPerTurn && net::receive(notify_, frames_); ++i) {
    const auto message = frames_.size() == 1 ? wire::decode_notify(frames_[0].data(), frames_[0].size())
                                             : Result<wire::NotifyMessage>(wrong_frame_count(1));
    if (message.ok()) {
      to.core.on_notify(now, *message, effects);
    } else {
      to.core.on_malformed_notify(now, "the notify channel, " + net::peer_address_of(frames_[0]),
                                  message.error(), effects);
    }
  }
}

void Channels::receive_peers(Instant now, const Receivers& to, core::Effects& effects) {
  for (int i = 0; i < kMessagesPerTurn && net::receive(peer_sub_, frames_); ++i) {
    const std::string address = net::peer_address_of(frames_[0]);
    const auto message = frames_.size() == 1 ? wire::decode_peer(frames_[0].data(), frames_[0].size())
                                             : Result<wire::PeerMessage>(wrong_frame_count(1));
    if (message.ok()) {
      to.core.on_peer(now, address, *message, effects);
    } else {
      to.core.on_malformed_peer(now, address, message.error(), effects);
    }
  }
}

void Channels::receive_links(Instant now, const Receivers& to, core::Effects& effects) {
  for (auto& [link, socket] : links_) {
    for (int i = 0; i < kChunksPerLinkAndTurn && net::receive(socket, frames_); ++i) {
      receive_blob_bytes(now, link, to, effects);
    }
  }
}

void Channels::receive_blob_bytes(Instant now, core::LinkId link, const Receivers& to,
                                  core::Effects& effects) {
  const auto message = wire::decode_bulk(frames_[0].data(), frames_[0].size());
  if (!message.ok()) {
    to.core.on_malformed_bulk(now, link, message.error(), effects);
  } else if (const auto* chunk = std::get_if<wire::Chunk>(&*message);
             chunk != nullptr && frames_.size() == 2) {
    CMS_CRASH_POINT("cmsd.chunk_received");
    // The frame goes on to the store as it came; no copy of ours.
    const auto body = std::make_shared<zmq::message_t>(std::move(frames_[1]));
    to.core.on_chunk(now, link, *chunk, core::ChunkView{body->data(), body->size(), body}, effects);
  } else if (const auto* error = std::get_if<wire::TransferError>(&*message); error != nullptr) {
    to.core.on_transfer_error(now, link, *error, effects);
  } else {
    to.core.on_malformed_bulk(now, link, make_error(Code::kProtocol, "not what a holder of blobs sends"),
                              effects);
  }
}

void Channels::receive_bulk(Instant now, const Receivers& to, core::Effects& effects) {
  for (int i = 0; i < kMessagesPerTurn && net::receive(bulk_, frames_); ++i) {
    const auto message = frames_.size() == 2 ? wire::decode_bulk(frames_[1].data(), frames_[1].size())
                                             : Result<wire::BulkBody>(wrong_frame_count(2));
    if (message.ok()) {
      to.blobs.on_message(now, bulk_, IndexKeeper::Purpose::kGoOn, frames_[0].to_string(), *message);
    } else {
      to.core.on_malformed_notify(now, "the bulk channel, " + net::peer_address_of(frames_.back()),
                                  message.error(), effects);
    }
  }
}

void Channels::receive_admin(Instant now, const Receivers& to, core::Effects& effects) {
  for (int i = 0; i < kMessagesPerTurn && net::receive(admin_, frames_); ++i) {
    if (frames_.size() != 2) {
      to.core.on_malformed_notify(now, "the admin channel", wrong_frame_count(2), effects);
      continue;
    }
    const std::string peer = frames_[0].to_string();
    const auto admin = wire::decode_admin(frames_[1].data(), frames_[1].size());
    if (admin.ok()) {
      if (const auto* request = std::get_if<wire::AdminRequest>(&*admin)) {
        to.admin.on_request(now, peer, *request, effects);
      }
      continue;
    }
    const auto bulk = wire::decode_bulk(frames_[1].data(), frames_[1].size());
    if (bulk.ok()) {
      to.blobs.on_message(now, admin_, IndexKeeper::Purpose::kLook, peer, *bulk);
    } else {
      to.core.on_malformed_notify(now, "the admin channel", admin.error(), effects);
    }
  }
}

// ---- what goes

void Channels::send(const core::SendControl& effect) {
  if (const auto* receipt = std::get_if<wire::Receipt>(&effect.message.body);
      receipt != nullptr && receipt->level == wire::ReceiptLevel::kStored) {
    CMS_CRASH_POINT("cmsd.before_receipt");
  }
  // A peer that has gone says Hello when it is back; LIST brings up again what it missed.
  if (net::send(control_, effect.peer.data(), effect.peer.size(), true) != net::Sent::kYes) return;
  const wire::Bytes bytes = wire::encode(effect.message);
  (void)net::send(control_, bytes.data(), bytes.size(), false);
}

void Channels::send(const core::SendPeer& effect) {
  if (std::holds_alternative<wire::PeerStored>(effect.message.body))
    CMS_CRASH_POINT("cmsd.before_peer_event");
  const wire::Bytes bytes = wire::encode(effect.message);
  (void)net::send(peer_pub_, bytes.data(), bytes.size(), false);  // Lossy by nature; the store tells.
}

void Channels::send(const core::SendBulk& effect) {
  const auto it = links_.find(effect.link);
  if (it == links_.end()) return;
  const wire::Bytes bytes = wire::encode(effect.message);
  (void)net::send(it->second, bytes.data(), bytes.size(), false);  // Full: the stall check asks anew.
}

void Channels::open_link(const core::OpenLink& effect) {
  zmq::socket_t socket = net::make_bulk_dealer(context_);
  const Status connected = net::connect(socket, effect.endpoint);
  if (!connected.ok()) failed_links_.emplace_back(effect.link, connected.error());
  links_.emplace(effect.link, std::move(socket));
}

}  // namespace cms::daemon
