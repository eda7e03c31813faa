// What many ECUs cost one cmsd: sessions that only heartbeat, with and without checkpoints coming in
// at a steady rate; and how soon a killed cmsd with a large index is there again.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <thread>
#include <vector>

#include <rtcr/rtcr.h>

#include "base/assert.h"
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

// The control connections of many ECUs, in one thread: each says Hello and then a heartbeat a second.
class Crowd {
 public:
  Crowd(const test::CmsdProcess& cmsd, std::size_t count) {
    context_.set(zmq::ctxopt::max_sockets, static_cast<int>(count) + 16);
    const net::Endpoint cms{"127.0.0.1", cmsd.port_base()};
    for (std::size_t i = 0; i < count; ++i) {
      ecus_.push_back(Ecu{net::make_control_dealer(context_), 0});
      const Status connected = net::connect(ecus_[i].socket, cms.channel(net::kControlPort));
      if (!connected.ok()) fail(connected.error().message());
      wire::Hello hello;
      hello.ecu_mac = EcuMac{0x020000100000 + i};
      hello.nonce = i + 1;
      hello.bulk_port = 7600;
      hello.software = "scale_bench";
      send(i, 0, hello);
    }
    for (std::size_t i = 0; i < count; ++i) greet(i);
  }

  // A heartbeat each second for everybody, evenly spread, until the time is over.
  // Returns how many were sent a second, which is less when this thread could not keep up.
  double beat(double seconds) {
    const auto start = Clock::now();
    const auto step =
        std::chrono::nanoseconds(std::chrono::seconds(1)) / static_cast<std::int64_t>(ecus_.size());
    std::uint64_t sent = 0;
    for (const Stopwatch watch; watch.seconds() < seconds; ++sent) {
      const std::size_t i = sent % ecus_.size();
      while (net::receive(ecus_[i].socket, frames_)) ++answers_;
      wire::Heartbeat heartbeat;
      heartbeat.number = sent / ecus_.size() + 1;
      send(i, ecus_[i].incarnation, heartbeat);
      std::this_thread::sleep_until(start + step * static_cast<std::int64_t>(sent + 1));
    }
    if (answers_ + 2 * ecus_.size() < sent) {
      fail("only " + std::to_string(answers_) + " of " + std::to_string(sent) + " heartbeats were answered");
    }
    answers_ = 0;
    return static_cast<double>(sent) / seconds;
  }

 private:
  struct Ecu {
    zmq::socket_t socket;
    Incarnation incarnation;
  };
  void send(std::size_t i, Incarnation incarnation, const wire::ControlBody& body) {
    const wire::Bytes bytes = wire::encode(wire::ControlMessage{incarnation, body});
    (void)net::send(ecus_[i].socket, bytes.data(), bytes.size(), false);
  }
  void greet(std::size_t i) {
    for (const Stopwatch watch; watch.seconds() < 60;) {
      std::vector<zmq::pollitem_t> items = {{ecus_[i].socket.handle(), 0, ZMQ_POLLIN, 0}};
      zmq::poll(items, std::chrono::seconds(1));
      if (!net::receive(ecus_[i].socket, frames_)) continue;
      const auto message = wire::decode_control(frames_[0].data(), frames_[0].size());
      const auto* answer = message.ok() ? std::get_if<wire::HelloAnswer>(&message->body) : nullptr;
      if (answer == nullptr) continue;
      if (answer->code != Code::kOk) fail("Hello was refused: " + answer->context);
      ecus_[i].incarnation = answer->incarnation;
      return;
    }
    fail("no answer to Hello within 60 s");
  }

  zmq::context_t context_;
  std::vector<Ecu> ecus_;
  std::vector<zmq::message_t> frames_;
  std::uint64_t answers_ = 0;
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

Table measure_crowd(const Options& options, std::size_t ecu_count, double seconds) {
  const test::TempDir dir;
  test::CmsdProcess cmsd(dir);
  if (!cmsd.process().running()) fail("cmsd did not start: " + cmsd.log());
  const pid_t pid = cmsd.process().pid();
  const int per_second = options.tiny ? 50 : 1000;
  Table table("One cmsd and many ECUs: CPU in percent of one core, memory",
              {"what", "", "ECUs", "beats/s", "CPU %", "KiB each"});
  const std::uint64_t resident_before = resident_bytes_of(pid);
  Crowd crowd(cmsd, ecu_count);
  const auto add = [&](const std::string& what, const std::string& detail, auto&& work) {
    const double cpu_before = cpu_seconds_of(pid);
    const Stopwatch watch;
    const double beats_per_second = work();
    const double percent = (cpu_seconds_of(pid) - cpu_before) / watch.seconds() * 100;
    const std::uint64_t grown = std::max(resident_bytes_of(pid), resident_before) - resident_before;
    table.add({what, detail, static_cast<double>(ecu_count), beats_per_second, percent,
               static_cast<double>(grown) / kKiB / static_cast<double>(ecu_count)});
  };
  add("heartbeats", "1/s each", [&] { return crowd.beat(seconds); });
  add("heartbeats and checkpoints", std::to_string(per_second) + "/s of 4 KiB, stored", [&] {
    SteadyPublishers publishers(cmsd.endpoint());
    std::thread thread([&] { publishers.run(seconds, per_second); });
    const double beats_per_second = crowd.beat(seconds);
    thread.join();
    return beats_per_second;
  });
  return table;
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
  CLI11_PARSE(app, argc, argv);
  if (options.tiny) {
    ecus = 20;
    seconds = 1;
  }
  begin(options);
  std::vector<Table> tables;
  tables.push_back(measure_crowd(options, ecus, seconds));
  tables.push_back(measure_start(options, options.tiny ? 1 : 5));
  finish(options, tables);
  return 0;
}
