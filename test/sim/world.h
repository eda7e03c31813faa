#pragma once
// World runs one seed: clients (EcuCore) and a cmsd (CmsCore) that come, crash and come back, on a
// virtual network, store and clock. After a time of faults everything heals, and then every held
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
  // A connection of a client to the cmsd. `generation` grows when it breaks; what was on its way
  // under an older one is lost.
  struct Connection {
    std::uint64_t generation = 0;
    bool up = false;
    bool stuck = false;   // Looks alive, but carries nothing until it is made anew.
    Instant to_cms_at{};  // When the last thing sent arrives there: order is kept.
    Instant to_client_at{};
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
    Connection control;
    std::deque<wire::ControlMessage> backlog;  // Sent while the connection was down.
    Connection notify;
    Instant stalled_until{};
    bool serving = false;  // An event that serves chunks is scheduled.
    bool leaving = false;  // It has said BYE.
    Timer timer;
    std::uint64_t request_count = 0;
    std::map<std::uint64_t, std::pair<ProgramId, Seq>> withdrawals;  // Not answered yet.
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
  class Source;

  // ---- life (world.cc)
  void start_client(std::size_t slot);
  void restart_client(std::size_t slot);
  void kill_client(Client& client);
  void start_cms();
  void crash_cms();
  void publish(Client& client);
  void publish(Client& client, ProgramId program_id, std::uint64_t size_bytes);
  void withdraw(Client& client);
  template <typename What>
  void recur(MeanTime every, What what);
  void schedule_faults();
  void break_something();
  void heal();
  void run_until_settled(const char* when);
  std::optional<std::string> unsettled() const;
  std::string describe_cms(const Client& client) const;
  Client* random_client();
  Client& client_of(const Slot& slot) { return clients_[slot.client]; }

  // ---- steps: an input of a core, its effects, the invariants (world.cc)
  template <typename Input>
  void step_client(Client& client, Input input) {
    if (client.core == nullptr) return;
    broker::Effects effects;
    input(*client.core, effects);
    end_step(client, effects);
  }
  template <typename Input>
  void step_cms(Input input) {
    if (cms_ == nullptr) return;
    core::Effects effects;
    input(*cms_, effects);
    end_step(effects);
  }
  void end_step(Client& client, broker::Effects& effects);
  void end_step(core::Effects& effects);
  void carry_out(Client& client, broker::Effects& effects);
  void carry_out(core::Effects& effects);
  void check_client(const Client& client);
  void check_cms();
  void check_kept() const;
  void arm(Client& client);
  void arm_cms();
  void on_receipt_sent(const core::SendControl& effect, wire::Receipt& receipt);
  bool lets_pass(const core::SendControl& effect);

  // ---- the network (world_network.cc)
  Duration net_delay();
  Instant arrival(Instant& last, const Client& client);
  bool becomes_stuck();
  void connect_control(Client& client);
  void break_control(Client& client);
  void send_to_cms(Client& client, wire::ControlMessage message);
  void send_to_client(const core::PeerId& peer, wire::ControlMessage message);
  void connect_notify(Client& client);
  void break_notify(Client& client);
  void send_notify(Client& client, const wire::NotifyMessage& message);
  void deliver_notify(Client& client, const wire::NotifyMessage& message);
  void open_link(const core::OpenLink& effect);
  void connect_link(core::LinkId id);
  void break_link(core::LinkId id);
  void send_to_link(core::LinkId id, wire::BulkBody message);
  void send_from_link(Client& client, const broker::PeerId& peer, wire::BulkBody message,
                      broker::ChunkView bytes);
  void serve(Client& client);
  Link* link_of(const broker::PeerId& peer, core::LinkId* id);
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
  std::map<core::PeerId, std::size_t> control_peers_;

  std::unique_ptr<core::CmsCore> cms_;  // Null: dead.
  std::unique_ptr<StoreWorkers> workers_;
  std::uint64_t cms_start_count_ = 0;
  Timer cms_timer_;
  std::map<core::LinkId, Link> links_;
  std::uint64_t stored_seen_ = 0;       // Counter of the core, for kLostReceiptNeverRepeated.
  std::set<core::PeerId> listed_;       // For kForgetListAfterGap.
  std::set<std::uint16_t> dead_ports_;  // For kBulkNeverReconnected.
};

}  // namespace cms::sim
