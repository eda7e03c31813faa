#pragma once
// Channels has the sockets of cmsd: it takes what comes on them to who it is for, decoded, and sends what the core wants sent.
//
// Threads: the loop. Bounds: a turn takes so many messages of each channel (channels.cc), the rest waits in ZeroMQ;
// core::kLinkCountMax links, well below the 1023 sockets of a context.
#include <array>
#include <chrono>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "cms/core/cms_core.h"
#include "cms/daemon/config.h"
#include "net/socket.h"

namespace cms::daemon {

class AdminService;
class BlobServer;

class Channels {
 public:
  struct Receivers {
    core::CmsCore& core;
    BlobServer& blobs;
    AdminService& admin;
  };

  // Throws zmq::error_t: no more sockets or descriptors.
  Channels();
  // Binds all and connects to the peers. kAlreadyExists: an address belongs to another process (said which).
  Status open(const Config& config);
  // The ROUTER on which cms-admin is answered.
  zmq::socket_t& admin() { return admin_; }

  // Until something has come, or one of `fds` is readable, or that long. Which of `fds` are.
  std::array<bool, 2> wait(const std::array<int, 2>& fds, std::chrono::milliseconds timeout);
  void receive(Instant now, const Receivers& to, core::Effects& effects);

  // Without waiting: what does not get through is made up for by the protocol.
  void send(const core::SendControl& effect);
  void send(const core::SendPeer& effect);
  void send(const core::SendBulk& effect);
  void open_link(const core::OpenLink& effect);
  void close_link(const core::CloseLink& effect) { links_.erase(effect.link); }
  // That could not be opened since the last call, and why. (Nobody may iterate over the links when the core closes them.)
  std::vector<std::pair<core::LinkId, Error>> take_failed_links() { return std::exchange(failed_links_, {}); }

 private:
  void receive_control(Instant now, const Receivers& to, core::Effects& effects);
  void receive_notify(Instant now, const Receivers& to, core::Effects& effects);
  void receive_peers(Instant now, const Receivers& to, core::Effects& effects);
  void receive_links(Instant now, const Receivers& to, core::Effects& effects);
  void receive_blob_bytes(Instant now, core::LinkId link, const Receivers& to, core::Effects& effects);
  void receive_bulk(Instant now, const Receivers& to, core::Effects& effects);
  void receive_admin(Instant now, const Receivers& to, core::Effects& effects);

  zmq::context_t context_{2};
  zmq::socket_t notify_;
  zmq::socket_t control_;
  zmq::socket_t bulk_;
  zmq::socket_t admin_;
  zmq::socket_t peer_pub_;
  zmq::socket_t peer_sub_;
  std::map<core::LinkId, zmq::socket_t> links_;
  std::vector<std::pair<core::LinkId, Error>> failed_links_;
  std::vector<zmq::pollitem_t> items_;
  std::vector<zmq::message_t> frames_;
};

}  // namespace cms::daemon
