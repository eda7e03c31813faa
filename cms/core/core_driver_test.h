#pragma once
// CoreDriver runs a CmsCore for a test: it keeps the time, plays honest clients, answers questions to
// the index at once from `facts`, and encodes every message that the core sends, so that one beyond
// the limits of the wire stops the test.
#include <chrono>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cms/core/cms_core.h"

namespace cms::core {

using std::chrono::milliseconds;
using std::chrono::seconds;

inline constexpr std::uint64_t kMiB = 1024 * 1024;

inline EcuMac ecu_mac_of(std::uint64_t number) { return EcuMac{0x020000000000 + number}; }

struct Client {
  EcuMac ecu_mac = ecu_mac_of(1);
  std::uint64_t nonce = 1;
  PeerId peer = "p1";
  Incarnation incarnation = 0;
  SessionId session() const { return SessionId{ecu_mac, incarnation}; }
  ProgramKey program(ProgramId program_id) const { return ProgramKey{ecu_mac, program_id}; }
};

// The n-th of clients that differ in everything.
inline Client client_of(std::uint64_t number) {
  return Client{ecu_mac_of(number), number, "p" + std::to_string(number), 0};
}

inline wire::Notification notification_of(ProgramId program_id, Seq seq, std::uint64_t size_bytes = 100) {
  wire::Notification notification;
  notification.program_id = program_id;
  notification.seq = seq;
  notification.size_bytes = size_bytes;
  return notification;
}

inline CmsCoreConfig default_config() {
  CmsCoreConfig config;
  config.name = "a";
  config.seed = 1;
  return config;
}

class CoreDriver {
 public:
  explicit CoreDriver(CmsCoreConfig config = default_config()) : core(std::move(config)) {
    store_state(ok_status());
  }

  // Runs `call` and answers what it asks the index. `effects` then holds what was wanted.
  template <typename Call>
  void feed(Call call) {
    effects.clear();
    call(effects);
    for (std::size_t i = 0; i < effects.size(); ++i) {
      const Effect effect = effects[i];  // A copy: answering adds more.
      if (const auto* look_up = std::get_if<LookUpProgram>(&effect)) {
        if (index_answers)
          core.on_program_looked_up(now, look_up->program, facts_of(look_up->program), effects);
      } else if (const auto* reserve = std::get_if<ReserveIncarnation>(&effect)) {
        if (index_answers) core.on_incarnation_reserved(now, *reserve, reserve_for(reserve->hello), effects);
      } else if (const auto* control = std::get_if<SendControl>(&effect)) {
        wire::encode(control->message);
      } else if (const auto* bulk = std::get_if<SendBulk>(&effect)) {
        wire::encode(bulk->message);
      }
    }
  }

  // ---- clients
  wire::Hello hello_of(const Client& client) const {
    wire::Hello hello;
    hello.ecu_mac = client.ecu_mac;
    hello.nonce = client.nonce;
    hello.incarnation = client.incarnation;
    hello.bulk_port = 7600;
    return hello;
  }
  void say(const Client& client, wire::ControlBody body) {
    feed([&](Effects& out) {
      core.on_control(now, client.peer, "10.0.0.7", wire::ControlMessage{client.incarnation, std::move(body)},
                      out);
    });
  }
  // Says Hello and keeps the incarnation that it is given.
  void hello(Client& client) {
    say(client, hello_of(client));
    for (const auto& answer : sent<wire::HelloAnswer>(client)) {
      if (answer.code == Code::kOk) client.incarnation = answer.incarnation;
    }
  }
  // A client with a session whose LIST is answered: it holds nothing yet.
  Client open(std::uint64_t number = 1) {
    Client client = client_of(number);
    hello(client);
    page(client, {}, 0);
    return client;
  }
  void page(const Client& client, std::vector<wire::Notification> notifications, Seq last_seq,
            bool end = true, Seq next_seq = 0) {
    say(client, wire::ListPage{std::move(notifications), next_seq, last_seq, end});
  }
  void announce(const Client& client, const wire::Notification& notification) {
    feed([&](Effects& out) {
      core.on_notify(now, wire::NotifyMessage{client.session(), notification}, out);
    });
  }
  void heartbeat(const Client& client, Seq last_seq, std::uint32_t waiting = 0) {
    say(client, wire::Heartbeat{1, last_seq, waiting});
  }

  // ---- transfers
  TransferId transfer_of(const ProgramKey& program) const {
    const auto it = core.programs().find(program);
    return it == core.programs().end() ? 0 : it->second.transfer;
  }
  // The next chunk that an honest client would send.
  wire::Chunk next_chunk(TransferId id) const {
    const CmsCore::Transfer& transfer = core.transfers().at(id);
    const wire::Notification& notification = transfer.announcement.notification;
    wire::Chunk chunk;
    chunk.transfer_id = id;
    chunk.offset_bytes = transfer.receiver.received_bytes();
    chunk.size_bytes = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(notification.chunk_size_bytes, notification.size_bytes - chunk.offset_bytes));
    chunk.version = transfer.announcement.version();
    chunk.blob_size_bytes = notification.size_bytes;
    chunk.chunk_size_bytes = notification.chunk_size_bytes;
    chunk.last = chunk.offset_bytes + chunk.size_bytes == notification.size_bytes;
    return chunk;
  }
  void deliver(LinkId link, const wire::Chunk& chunk, std::size_t frame_bytes) {
    feed([&](Effects& out) {
      core.on_chunk(now, link, chunk, ChunkView{nullptr, frame_bytes, nullptr}, out);
    });
  }
  void deliver_next(TransferId id) {
    const wire::Chunk chunk = next_chunk(id);
    deliver(core.transfers().at(id).link, chunk, chunk.size_bytes);
  }
  void taken(TransferId id, std::uint64_t size_bytes) {
    feed([&](Effects& out) { core.on_chunk_taken(now, id, size_bytes, out); });
  }
  // All chunks, each taken when it came.
  void deliver_all(TransferId id) {
    while (!core.transfers().at(id).finishing) {
      const std::uint64_t size_bytes = next_chunk(id).size_bytes;
      deliver_next(id);
      if (!core.transfers().at(id).small) taken(id, size_bytes);
    }
  }
  void stored(TransferId id) {
    const storage::BlobName name = core.transfers().at(id).name;
    storage::IndexRow row;
    row.name = name;
    feed([&](Effects& out) { core.on_transfer_stored(now, id, row, out); });
  }
  void failed(TransferId id, Code code, const std::string& context = "why") {
    feed([&](Effects& out) { core.on_transfer_failed(now, id, make_error(code, context), out); });
  }
  void store(const ProgramKey& program) {
    const TransferId id = transfer_of(program);
    ASSERT_NE(id, 0U);
    deliver_all(id);
    stored(id);
  }
  void store_state(const Status& status) {
    feed([&](Effects& out) { core.on_store_state(now, status, out); });
  }
  void pass(Duration duration) {
    now += duration;
    wall_us += static_cast<std::uint64_t>(duration.count()) / 1000;
    feed([&](Effects& out) { core.on_time(now, wall_us, out); });
  }

  // ---- what was wanted
  template <typename T>
  std::vector<T> all() const {
    std::vector<T> found;
    for (const Effect& effect : effects) {
      if (const auto* one = std::get_if<T>(&effect)) found.push_back(*one);
    }
    return found;
  }
  template <typename T>
  std::vector<T> sent(const Client& client) const {
    std::vector<T> found;
    for (const SendControl& control : all<SendControl>()) {
      const auto* body = std::get_if<T>(&control.message.body);
      if (body != nullptr && control.peer == client.peer) found.push_back(*body);
    }
    return found;
  }
  template <typename T>
  std::vector<T> bulk() const {
    std::vector<T> found;
    for (const SendBulk& message : all<SendBulk>()) {
      if (const auto* body = std::get_if<T>(&message.message)) found.push_back(*body);
    }
    return found;
  }
  // "STORED 3", "DROPPED(corrupt) 2", in order.
  std::vector<std::string> told(const Client& client) const {
    std::vector<std::string> lines;
    for (const wire::Receipt& receipt : sent<wire::Receipt>(client)) {
      std::string line(wire::to_string(receipt.level));
      if (receipt.level == wire::ReceiptLevel::kDropped)
        line += "(" + std::string(to_string(receipt.code)) + ")";
      lines.push_back(line + " " + std::to_string(receipt.seq));
    }
    return lines;
  }
  std::size_t log_count(LogEvent::Level at_least = LogEvent::Level::kInfo) const {
    std::size_t count = 0;
    for (const LogEvent& event : all<LogEvent>()) count += event.level >= at_least ? 1 : 0;
    return count;
  }

  CmsCore core;
  Effects effects;
  Instant now{std::chrono::hours(1)};
  std::uint64_t wall_us = 1000000;
  bool index_answers = true;
  Code index_trouble = Code::kOk;
  std::map<ProgramKey, CmsCore::ProgramFacts> facts;
  std::map<EcuMac, Incarnation> max_incarnation;

 private:
  Result<CmsCore::ProgramFacts> facts_of(const ProgramKey& program) {
    if (index_trouble != Code::kOk) return make_error(index_trouble, "index");
    return facts[program];
  }
  Result<Incarnation> reserve_for(const wire::Hello& hello) {
    if (index_trouble != Code::kOk) return make_error(index_trouble, "index");
    Incarnation& max_known = max_incarnation[hello.ecu_mac];
    const Incarnation given =
        hello.incarnation != 0 ? hello.incarnation : next_incarnation(max_known, hello.nonce);
    max_known = std::max(max_known, given);
    return given;
  }
};

using Lines = std::vector<std::string>;

}  // namespace cms::core
