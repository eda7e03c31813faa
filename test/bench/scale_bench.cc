// What many ECUs cost one cmsd: sessions that only heartbeat, with and without run leases, with and without checkpoints
// coming in at a steady rate; and how soon a killed cmsd with a large index is there again.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <rtcr/rtcr.h>

#include "base/assert.h"
#include "broker/core/ecu_core.h"
#include "net/socket.h"
#include "schemas/messages.h"
#include "storage/checkpoint_index.h"
#include "test/bench/bench.h"
#include "test/support/cmsd_process.h"

namespace cms::bench {
namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "scale_bench: %s\n", what.c_str());
  std::exit(1);
}

// Many ECUs in one thread: the publisher's core of each, and its control connection. They say Hello, and then only
// heartbeat, once a second each.
class Crowd {
 public:
  Crowd(const test::CmsdProcess& cmsd, std::size_t count, bool guarded)
      : cms_{"127.0.0.1", cmsd.port_base()}, guarded_(guarded) {
    context_.set(zmq::ctxopt::max_sockets, static_cast<int>(count) + 16);
    ecus_.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      broker::EcuCoreConfig config;
      config.ecu_mac = EcuMac{0x020000100000 + i};
      config.nonce = i + 1;
      config.bulk_port = 7600;
      config.software = "scale_bench";
      config.guarded = guarded;
      if (guarded) {
        config.boot_id = Id128{1, i + 1};
        config.enforcer = wire::Enforcer::kGuard;
      }
      ecus_.push_back(Ecu{broker::EcuCore(config), net::make_control_dealer(context_), false, false, false});
      connect(ecus_.back().socket);
    }
  }

  // Says Hello for everybody; returns when every ECU has had a heartbeat answered, with a lease if it is guarded.
  void begin() {
    for (Ecu& ecu : ecus_) {
      if (guarded_) ecu.core.programs_told(effects_);  // There are none.
      ecu.core.start(BootClock::now(), effects_);
      carry_out(ecu);
    }
    wait_for_all();
  }

  // Returns how many heartbeats were sent a second, which is less when this thread could not keep up.
  double beat(double seconds) {
    beats_ = answers_ = leased_ = 0;
    const std::uint64_t& good = guarded_ ? leased_ : answers_;
    const Stopwatch watch;
    while (watch.seconds() < seconds || (good == 0 && watch.seconds() < 60)) turn();
    const double beats_per_second = static_cast<double>(beats_) / watch.seconds();
    if (good == 0 || good + 2 * ecus_.size() < beats_) {
      fail("of " + std::to_string(beats_) + " heartbeats " + std::to_string(answers_) + " were answered, " +
           std::to_string(leased_) + " with a lease");
    }
    return beats_per_second;
  }

  // Since the last call: leases that ended; or sessions that had to begin anew, of who is not guarded.
  std::uint64_t take_ended() { return std::exchange(ended_, 0); }

 private:
  struct Ecu {
    broker::EcuCore core;
    zmq::socket_t socket;
    bool answered = false;
    bool live = false;
    bool leased = false;
  };

  void connect(zmq::socket_t& socket) {
    const Status connected = net::connect(socket, cms_.channel(net::kControlPort));
    if (!connected.ok()) fail(connected.error().message());
  }
  void wait_for_all() {
    for (const Stopwatch watch;; turn()) {
      const auto count =
          std::count_if(ecus_.begin(), ecus_.end(), [](const Ecu& ecu) { return ecu.answered; });
      if (static_cast<std::size_t>(count) == ecus_.size()) return;
      if (watch.seconds() > 100)
        fail("after 100 s only " + std::to_string(count) + " were answered; " + refused_);
    }
  }

  // Looks after every ECU once, evenly spread over kTurn; and at what has come for each in one of kTurnsPerReceive turns,
  // for that costs a system call.
  void turn() {
    ++turn_count_;
    const auto start = Clock::now();
    for (std::size_t i = 0; i < ecus_.size(); ++i) {
      if (i % (ecus_.size() / kStepsPerTurn + 1) == 0)
        std::this_thread::sleep_until(start + kTurn * static_cast<std::int64_t>(i) /
                                                  static_cast<std::int64_t>(ecus_.size()));
      Ecu& ecu = ecus_[i];
      const bool receives = (i + turn_count_) % kTurnsPerReceive == 0;
      while (receives && net::receive(ecu.socket, frames_)) {
        const auto message = wire::decode_control(frames_[0].data(), frames_[0].size());
        if (!message.ok()) fail(message.error().message());
        if (const auto* answer = std::get_if<wire::HeartbeatAnswer>(&message->body)) {
          ++answers_;
          if (answer->leased) ++leased_;
          if (answer->leased || !guarded_) ecu.answered = true;
        }
        ecu.core.on_control(BootClock::now(), 0, *message, effects_);
        carry_out(ecu);
      }
      if (const Instant now = BootClock::now(); now >= ecu.core.next_deadline()) {
        ecu.core.on_time(now, effects_);
        carry_out(ecu);
      }
    }
    std::this_thread::sleep_until(start + kTurn);
  }
  void carry_out(Ecu& ecu) {
    for (const broker::Effect& effect : effects_) {
      if (const auto* control = std::get_if<broker::SendControl>(&effect)) {
        const wire::Bytes bytes = wire::encode(control->message);
        (void)net::send(ecu.socket, bytes.data(), bytes.size(), false);
        if (std::holds_alternative<wire::Heartbeat>(control->message.body)) ++beats_;
      } else if (std::holds_alternative<broker::ReconnectControl>(effect)) {
        ecu.socket.disconnect(cms_.channel(net::kControlPort));  // A new socket would need more descriptors.
        connect(ecu.socket);
      } else if (const auto* event = std::get_if<broker::CmsEvent>(&effect)) {
        if (ecu.live && !guarded_) ++ended_;
        ecu.live = event->kind == broker::CmsEvent::Kind::kLive;
        if (event->kind == broker::CmsEvent::Kind::kRefused) refused_ = event->text;
      } else if (const auto* lease = std::get_if<broker::LeaseChanged>(&effect)) {
        if (ecu.leased && !lease->lives) ++ended_;
        ecu.leased = lease->lives;
      }  // They publish nothing.
    }
    effects_.clear();
  }

  static constexpr auto kTurn = std::chrono::milliseconds(50);
  static constexpr std::size_t kStepsPerTurn = 25;
  static constexpr std::size_t kTurnsPerReceive = 4;

  const net::Endpoint cms_;
  const bool guarded_;
  zmq::context_t context_;
  std::vector<Ecu> ecus_;
  std::vector<zmq::message_t> frames_;
  broker::Effects effects_;
  std::size_t turn_count_ = 0;
  std::uint64_t beats_ = 0;
  std::uint64_t answers_ = 0;
  std::uint64_t leased_ = 0;  // Of the answers.
  std::uint64_t ended_ = 0;
  std::string refused_;  // The last reason.
};

// Publishes small checkpoints at a steady rate, of 300 programs in three sessions.
class SteadyPublishers {
 public:
  explicit SteadyPublishers(const std::string& cms) {
    for (const char* ecu_mac : {"02:00:00:00:03:01", "02:00:00:00:03:02", "02:00:00:00:03:03"}) {
      rtcr_options options = rtcr_options_init();
      options.cms = cms.c_str();
      options.ecu_mac = ecu_mac;
      options.bulk_host = "127.0.0.1";
      clients_.emplace_back();
      if (rtcr_open(&options, &clients_.back()) != RTCR_OK) fail(rtcr_last_error());
    }
  }
  ~SteadyPublishers() {
    for (rtcr_client* client : clients_) rtcr_close(client);
  }
  SteadyPublishers(const SteadyPublishers&) = delete;
  SteadyPublishers& operator=(const SteadyPublishers&) = delete;

  void run(double seconds, int per_second) {
    std::vector<char> bytes(4 * kKiB);
    fill_random(bytes.data(), bytes.size(), 1);
    const auto start = Clock::now();
    const auto step = std::chrono::nanoseconds(std::chrono::seconds(1)) / per_second;
    std::uint64_t seq = 0;
    std::uint64_t count = 0;
    rtcr_client* client = nullptr;
    for (const Stopwatch watch; watch.seconds() < seconds; ++count) {
      client = clients_[count % clients_.size()];
      rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
      checkpoint.source = RTCR_SOURCE_COPY;
      checkpoint.program_id = count % 300;
      checkpoint.data = bytes.data();
      checkpoint.size_bytes = bytes.size();
      checkpoint.release_policy = RTCR_RELEASE_STORED;
      if (rtcr_publish(client, &checkpoint, &seq) != RTCR_OK) fail(rtcr_last_error());
      std::this_thread::sleep_until(start + step * static_cast<std::int64_t>(count + 1));
    }
    if (rtcr_wait(client, seq, RTCR_STORED, 60000) != RTCR_OK) fail(rtcr_last_error());
  }

 private:
  std::vector<rtcr_client*> clients_;
};

void measure_crowd(const Options& options, std::size_t ecu_count, double seconds, bool guarded,
                   Table& table) {
  const test::TempDir dir;
  test::CmsdProcess cmsd(dir);
  if (!cmsd.process().running()) fail("cmsd did not start: " + cmsd.log());
  const int per_second = options.tiny ? 50 : 1000;
  const pid_t pid = cmsd.process().pid();
  const std::uint64_t resident_before = resident_bytes_of(pid);
  Crowd crowd(cmsd, ecu_count, guarded);
  const auto add = [&](const std::string& what, const std::string& detail, auto&& work) {
    const double cpu_before = cpu_seconds_of(pid);
    const Stopwatch watch;
    const double beats_per_second = work();
    const double took = watch.seconds();
    const double percent = (cpu_seconds_of(pid) - cpu_before) / took * 100;
    const std::uint64_t grown = std::max(resident_bytes_of(pid), resident_before) - resident_before;
    table.add({what, detail, guarded ? "guarded" : "", static_cast<double>(ecu_count), took, beats_per_second,
               percent, static_cast<double>(grown) / kKiB / static_cast<double>(ecu_count),
               static_cast<double>(crowd.take_ended())});
  };
  add("begin", "all at once", [&] {
    crowd.begin();
    return 0.0;
  });
  add("heartbeats", "1/s each", [&] { return crowd.beat(seconds); });
  add("heartbeats and checkpoints", std::to_string(per_second) + "/s of 4 KiB, stored", [&] {
    SteadyPublishers publishers(cmsd.endpoint());
    std::thread thread([&] { publishers.run(seconds, per_second); });
    const double beats_per_second = crowd.beat(seconds);
    thread.join();
    return beats_per_second;
  });
}

// Puts `row_count` rows of as many checkpoints of 1000 ECUs into the index of a stopped cmsd.
void fill_index(const std::string& directory, std::uint64_t row_count) {
  auto index = storage::open_rocksdb_index(directory);
  if (!index.ok()) fail(index.error().message());
  std::vector<storage::IndexRow> rows;
  for (std::uint64_t i = 0; i < row_count; ++i) {
    storage::IndexRow row;
    row.name.checkpoint.program = ProgramKey{EcuMac{0x020000200000 + i % 1000}, i / 3000};
    row.name.checkpoint.version = Version{1, i / 1000 + 1};
    row.name.lineage = lineage_of(row.name.checkpoint.program);
    row.name.size_bytes = row.stored_bytes = kMiB;
    row.name.uid = i;
    row.stored_at_us = 1700000000000000 + i;
    row.program_name = "bench";
    rows.push_back(std::move(row));
    if (rows.size() < 10000 && i + 1 < row_count) continue;
    const Status put = (*index)->put(rows);
    if (!put.ok()) fail(put.error().message());
    rows.clear();
  }
}

void ask_status(const std::string& endpoint) {
  zmq::context_t context;
  zmq::socket_t socket = net::make_admin_dealer(context);
  const Status connected = net::connect(socket, endpoint);
  if (!connected.ok()) fail(connected.error().message());
  const wire::Bytes bytes = wire::encode(wire::AdminBody{wire::AdminRequest{}});
  (void)net::send(socket, bytes.data(), bytes.size(), false);
  std::vector<zmq::pollitem_t> items = {{socket.handle(), 0, ZMQ_POLLIN, 0}};
  if (zmq::poll(items, std::chrono::seconds(30)) != 1) fail("no answer to status within 30 s");
}

Table measure_start(const Options& options, std::size_t repeats) {
  const test::TempDir dir;
  test::CmsdProcess cmsd(dir);  // Initialises store and index.
  if (!cmsd.process().running()) fail("cmsd did not start: " + cmsd.log());
  (void)cmsd.terminate();
  const std::uint64_t row_count = options.tiny ? 1000 : 1000 * 1000;
  fill_index(cmsd.index_path(), row_count);
  Samples ready_ms;
  Samples status_ms;
  for (std::size_t i = 0; i <= repeats; ++i) {
    if (i > 0) cmsd.kill();  // At once: it has just begun to go through store and index.
    const Stopwatch watch;
    cmsd.start();
    const double ready = watch.seconds() * 1e3;
    ask_status(cmsd.admin());
    if (i == 0) continue;  // Not after a kill.
    ready_ms.add(ready);
    status_ms.add(watch.seconds() * 1e3);
  }
  Table table("cmsd after kill -9, " + std::to_string(row_count) + " checkpoints indexed: ms after exec",
              {"what", "", "median", "min", "max"});
  table.add({"READY=1", "", ready_ms.median(), ready_ms.min(), ready_ms.max()});
  table.add({"status answered", "", status_ms.median(), status_ms.min(), status_ms.max()});
  return table;
}

}  // namespace
}  // namespace cms::bench

int main(int argc, char** argv) {
  using namespace cms::bench;
  CLI::App app("What many ECUs and a large index cost one cmsd");
  Options options;
  add_options(app, options);
  std::size_t ecus = 1000;
  app.add_option("--ecus", ecus, "sessions; each takes a few descriptors here")->check(CLI::Range(1, 9000));
  double seconds = 10;
  app.add_option("--seconds", seconds, "of each row")->check(CLI::Range(1, 600));
  std::set<std::string> only;
  app.add_option("--only", only,
                 "sessions, guarded (sessions that hold run leases), start; all when not given")
      ->delimiter(',')
      ->check(CLI::IsMember({"sessions", "guarded", "start"}));
  CLI11_PARSE(app, argc, argv);
  if (options.tiny) {
    ecus = 20;
    seconds = 1;
  }
  begin(options);
  const auto wanted = [&](const char* part) { return only.empty() || only.count(part) != 0; };
  Table crowds("One cmsd and many ECUs: CPU in percent of one core, memory",
               {"what", "", "sessions", "ECUs", "s", "beats/s", "CPU %", "KiB each", "ended"});
  if (wanted("sessions")) measure_crowd(options, ecus, seconds, false, crowds);
  if (wanted("guarded")) measure_crowd(options, ecus, seconds, true, crowds);
  std::vector<Table> tables;
  if (!crowds.rows().empty()) tables.push_back(crowds);
  if (wanted("start")) tables.push_back(measure_start(options, options.tiny ? 1 : 5));
  finish(options, tables);
  return 0;
}
