#pragma once
// World runs one seed: clients (EcuCore) and one or two cmsd (CmsCore) that come, crash and come back,
// on a virtual network, store and clock. After a time of faults everything heals, and then every held
// checkpoint must come to its end. Invariants are checked after every event.
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/prng.h"
#include "broker/core/ecu_core.h"
#include "cms/core/cms_core.h"
#include "test/sim/event_queue.h"
#include "test/sim/ledger.h"
#include "test/sim/plants.h"
#include "test/sim/scenario.h"
#include "test/sim/store_workers.h"
#include "test/sim/virtual_index.h"
#include "test/sim/virtual_store.h"

namespace cms::sim {

class World {
 public:
  World(std::uint64_t seed, Plant plant, bool verbose);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // Throws Violation.
  void run();
  std::uint64_t event_count() const { return queue_.run_count(); }

 private:
  static constexpr std::uint16_t kFirstPort = 7600;

  // A connection of a client to a cmsd, or of one cmsd to another. `generation` grows when it breaks; what was on its way
  // under an older one is lost.
  struct Connection {
    std::uint64_t generation = 0;
    bool up = false;
    bool stuck = false;   // Looks alive, but carries nothing until it is made anew.
    Instant to_cms_at{};  // When the last thing sent arrives there: order is kept.
    Instant to_client_at{};
  };
  struct Control {
    Connection connection;
    std::deque<wire::ControlMessage> backlog;  // Sent while the connection was down.
  };
  struct Timer {
    std::uint64_t number = 0;  // Of the event that counts.
    std::optional<Instant> at;
  };
  struct Client {
    std::size_t index = 0;
    std::size_t slot = 0;
    ClientRecord* record = nullptr;
    std::unique_ptr<broker::EcuCore> core;  // Null: dead.
    std::uint16_t port = 0;
    std::uint64_t source_bytes = 0;  // Of all its sources that live.
    std::vector<Control> control;    // By CMS.
    std::vector<Connection> notify;  // By CMS.
    Instant stalled_until{};
    bool serving = false;  // An event that serves chunks is scheduled.
    bool leaving = false;  // It has said BYE.
    Timer timer;
    std::uint64_t request_count = 0;
    std::map<std::uint64_t, std::pair<ProgramId, Seq>> withdrawals;   // Not answered yet.
    std::map<std::uint64_t, std::pair<ProgramId, Seq>> withdrawn_by;  // All that were asked.
  };
  struct Slot {  // A place for one living client after the other.
    EcuMac ecu_mac{};
    ProgramId first_program = 0;
    std::uint16_t port = 0;
    std::size_t client = 0;
  };
  struct Link {
    std::uint16_t port = 0;
    std::optional<std::size_t> client;  // Connected to it.
    Connection connection;
    std::deque<wire::BulkBody> backlog;
  };
  struct PeerChannel {  // From one cmsd to another.
    Connection connection;
    Instant cut_until{};
  };
  struct Cms {
    Cms(std::size_t place, std::string its_name, VirtualStore& store)
        : number(place), name(std::move(its_name)), index(store) {}
    std::size_t number;  // Position in --cms.
    std::string name;
    VirtualIndex index;
    std::unique_ptr<core::CmsCore> core;  // Null: dead.
    std::unique_ptr<StoreWorkers> workers;
    std::uint64_t start_count = 0;
    Timer timer;
    std::uint64_t wall_ahead_us = 0;  // Its clock is that far ahead.
    std::map<core::PeerId, std::size_t> control_peers;
    std::map<core::LinkId, Link> links;
    std::vector<PeerChannel> channels;  // To the others, by their number.
    std::map<ProgramKey, Version> withdraw_answered;
    std::uint64_t pulled_bytes = 0;              // By its earlier starts.
    std::uint64_t stored_seen = 0;               // Counter of the core, for kLostReceiptNeverRepeated.
    Instant cut_off_until{};                     // Clients do not reach it.
    std::set<core::PeerId> listed;               // For kForgetListAfterGap.
    std::set<std::uint16_t> dead_ports;          // For kBulkNeverReconnected.
    std::optional<wire::PeerMessage> last_beat;  // For kDeadPeerBeats.
  };
  class Source;

  // ---- life (world.cc)
  void crash_puller();
  void restart_behind_a_cut();
  void cut_off(Cms& cms, Duration duration);
  template <typename What>
  void recur(MeanTime every, What what) {
    if (every == MeanTime{}) return;
    queue_.after(around(prng_, every), [this, every, what] {
      if (!faults_on_) return;
      what();
      recur(every, what);
    });
  }
  void schedule_faults();
  void break_something();
  void heal();
  void run_until(Instant until);
  void run_until_settled(const char* when);
  std::optional<std::string> unsettled() const;
  void check_pulled_once() const;
  Client* random_client();
  Cms* random_cms();
  Client& client_of(const Slot& slot) { return clients_[slot.client]; }

  // ---- clients (world_clients.cc); a step: an input of a core, its effects, the invariants
  void start_client(std::size_t slot);
  void restart_client(std::size_t slot);
  void kill_client(Client& client);
  void publish(Client& client);
  void publish(Client& client, ProgramId program_id, std::uint64_t size_bytes);
  void withdraw(Client& client);
  template <typename Input>
  void step_client(Client& client, Input input) {
    if (client.core == nullptr) return;
    broker::Effects effects;
    input(*client.core, effects);
    end_step(client, effects);
  }
  void end_step(Client& client, broker::Effects& effects);
  void carry_out(Client& client, broker::Effects& effects);
  void on_told(Client& client, const broker::ReceiptEvent& receipt);
  void on_withdraw_done(Client& client, const broker::WithdrawDone& done);
  void check_client(const Client& client);
  void arm(Client& client);

  // ---- the cmsd (world_cms.cc)
  void start_cms(Cms& cms);
  void crash_cms(Cms& cms, Duration down);
  template <typename Input>
  void step_cms(Cms& cms, Input input) {
    if (cms.core == nullptr) return;
    core::Effects effects;
    input(*cms.core, effects);
    end_step(cms, effects);
  }
  void end_step(Cms& cms, core::Effects& effects);
  void carry_out(Cms& cms, core::Effects& effects);
  void check_cms(const Cms& cms);
  void check_kept() const;
  void note_known_incarnations();
  void check_withdrawn(const Cms& cms) const;
  std::optional<std::string> unsettled(const Cms& cms) const;
  std::optional<std::string> disagrees(const Cms& cms) const;
  std::string describe(const Cms& cms, const Client& client) const;
  void arm(Cms& cms);
  // False: a planted bug swallows it.
  bool on_control_sent(Cms& cms, core::SendControl& effect, bool stored_now);
  bool on_receipt_sent(Cms& cms, const core::SendControl& effect, wire::Receipt& receipt);

  // ---- between the cmsd (world_peers.cc)
  void connect_peers(Cms& cms);
  void connect_channel(Cms& from, Cms& to);
  void break_channel(Cms& from, Cms& to, bool lose);
  void send_to_peers(Cms& cms, const wire::PeerMessage& message);
  void deliver_to_peer(Cms& from, Cms& to, const wire::PeerMessage& message);
  void beat_on(Cms& dead);
  void schedule_peer_faults();

  // ---- the network (world_network.cc)
  Duration net_delay();
  Instant arrival(Instant& last, const Client& client);
  bool becomes_stuck();
  void connect_control(Client& client, Cms& cms);
  void break_control(Client& client, Cms& cms);
  void send_to_cms(Client& client, Cms& cms, wire::ControlMessage message);
  void send_to_client(Cms& cms, const core::PeerId& peer, wire::ControlMessage message);
  void connect_notify(Client& client, Cms& cms);
  void break_notify(Client& client, Cms& cms);
  void send_notify(Client& client, const wire::NotifyMessage& message);
  void deliver_notify(Client& client, Cms& cms, const wire::NotifyMessage& message);
  void open_link(Cms& cms, const core::OpenLink& effect);
  void connect_link(Cms& cms, core::LinkId id);
  void break_link(Cms& cms, core::LinkId id);
  void send_to_link(Cms& cms, core::LinkId id, wire::BulkBody message);
  void send_from_link(Client& client, const broker::PeerId& peer, wire::BulkBody message,
                      broker::ChunkView bytes);
  void serve(Client& client);
  Link* link_of(const broker::PeerId& peer, Cms** cms, core::LinkId* id);
  void lie(wire::Chunk& chunk, broker::ChunkView& bytes);
  broker::ChunkView spoil(const broker::ChunkView& bytes);

  void trace(const std::string& line) const;

  const Scenario scenario_;
  const Plant plant_;
  const bool verbose_;
  Prng prng_;
  EventQueue queue_;
  Ledger ledger_;
  VirtualStore store_;
  StoreFaults store_faults_;
  bool faults_on_ = true;

  std::deque<Client> clients_;  // Dead ones stay, so that late events find them.
  std::vector<Slot> slots_;
  std::map<std::uint16_t, std::size_t> listening_;  // Bulk port -> client.

  std::deque<Cms> cms_;
  std::map<ProgramKey, Version> said_stored_;      // The newest that a CMS called STORED.
  std::map<CheckpointId, std::uint64_t> fetched_;  // Size of what was fetched at least once.
};

}  // namespace cms::sim
