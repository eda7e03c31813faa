#pragma once
// A core driven by hand, an index and a store in memory, and what cms-admin is told of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

#include "cms/daemon/admin_answers.h"
#include "storage/fake/fake_index.h"
#include "storage/fake/fake_store.h"

namespace cms::daemon {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using wire::AdminMethod;

inline constexpr EcuMac kMac{0x020000000001};
inline constexpr EcuMac kOtherMac{0x020000000002};
inline constexpr std::uint64_t kWallUs = 1700000000000000;  // 2023-11-14T22:13:20Z
inline const Instant kStart{std::chrono::hours(1)};

inline wire::AdminRequest ask_for(AdminMethod method) {
  wire::AdminRequest request;
  request.request_id = 5;
  request.method = method;
  return request;
}

inline wire::AdminRequest ask_for(AdminMethod method, const ProgramKey& program) {
  wire::AdminRequest request = ask_for(method);
  request.has_ecu_mac = request.has_program_id = true;
  request.ecu_mac = program.ecu_mac;
  request.program_id = program.program_id;
  return request;
}

class AdminFixture : public ::testing::Test {
 protected:
  AdminFixture() : core_(config()) {
    EXPECT_TRUE(store_.open_store().ok());
    core_.on_store_state(now_, ok_status(), effects_);
    core_.on_time(now_, kWallUs, effects_);
    facts_.name = "a";
    facts_.wall_us = kWallUs;
    facts_.store_url = "file:///store";
    facts_.reconcile_done = true;
    facts_.space = storage::SpaceInfo{1000, 500};
  }
  static core::CmsCoreConfig config() {
    core::CmsCoreConfig config;
    config.name = "a";
    config.ecu_dead = std::chrono::seconds(100);
    return config;
  }

  // A living session, `incarnation` assigned.
  SessionId session(EcuMac ecu_mac, Incarnation incarnation) {
    wire::Hello hello;
    hello.ecu_mac = ecu_mac;
    hello.nonce = incarnation;
    hello.bulk_port = 7600;
    hello.software = "rtcr-client 1";
    core::ReserveIncarnation asked;
    asked.peer = std::to_string(ecu_mac.bits) + "." + std::to_string(incarnation);
    asked.peer_address = "10.0.0.7";
    asked.hello = hello;
    core_.on_control(now_, asked.peer, asked.peer_address, wire::ControlMessage{0, hello}, effects_);
    core_.on_incarnation_reserved(now_, asked, incarnation, effects_);
    return SessionId{ecu_mac, incarnation};
  }
  // The index has answered what is stored of it, so that it is pulled when its turn comes.
  void announce(const SessionId& id, ProgramId program_id, Seq seq, std::uint64_t size_bytes = 1000) {
    wire::NotifyMessage message;
    message.session = id;
    wire::Notification notification;
    notification.program_id = program_id;
    notification.seq = seq;
    notification.size_bytes = size_bytes;
    notification.program_name = "engine";
    message.body = notification;
    core_.on_notify(now_, message, effects_);
    const ProgramKey key{id.ecu_mac, program_id};
    core::CmsCore::ProgramFacts facts;
    const auto newest = index_.newest(key);
    if (newest.ok() && *newest) facts.newest = (*newest)->name.checkpoint.version;
    core_.on_program_looked_up(now_, key, facts, effects_);
  }
  // Its blob does not match its digest, three times.
  void fail(const ProgramKey& program) {
    for (std::size_t i = 0; i < core::kDataAttemptsMax; ++i) {
      const core::TransferId transfer = core_.programs().at(program).transfer;
      ASSERT_NE(transfer, 0U);
      core_.on_transfer_failed(now_, transfer, make_error(Code::kCorrupt, "wrong bytes"), effects_);
      pass(std::chrono::milliseconds(400));  // Longer than the back-off, shorter than silence.
    }
  }
  void pass(Duration duration) {
    now_ += duration;
    core_.on_time(now_, kWallUs, effects_);
  }

  storage::IndexRow row(const ProgramKey& program, const Version& version, std::uint64_t age_s = 60) {
    storage::IndexRow row;
    row.name.checkpoint = CheckpointId{program, version};
    row.name.lineage = lineage_of(program);
    row.name.size_bytes = 3;
    row.name.uid = 1;
    row.stored_bytes = 500;
    row.stored_at_us = kWallUs - age_s * 1000000;
    row.program_name = "engine";
    return row;
  }
  void store(const ProgramKey& program, const Version& version, std::uint64_t age_s = 60) {
    EXPECT_TRUE(index_.put({row(program, version, age_s)}).ok());
  }

  wire::AdminAnswer answer_to(const wire::AdminRequest& request) {
    const CoreSnapshot snapshot = snapshot_of(core_, now_, facts_, request);
    wire::AdminAnswer made = answer(request, snapshot, index_, store_);
    EXPECT_EQ(made.request_id, request.request_id);
    EXPECT_LE(made.json.size(), wire::kJsonBytesMax);
    return made;
  }
  json json_of(const wire::AdminRequest& request) {
    const wire::AdminAnswer made = answer_to(request);
    EXPECT_EQ(made.code, Code::kOk) << made.context;
    return json::parse(made.json);
  }
  json status() { return json_of(ask_for(AdminMethod::kStatus)); }
  // "KEY state" of every entry on all pages.
  std::vector<std::string> list(wire::AdminRequest request, std::size_t* pages = nullptr) {
    std::vector<std::string> entries;
    while (true) {
      const wire::AdminAnswer made = answer_to(request);
      EXPECT_EQ(made.code, Code::kOk) << made.context;
      if (pages != nullptr) ++*pages;
      const json page = json::parse(made.json);
      for (const auto& entry : page.at("checkpoints")) {
        entries.push_back(entry.at("key").get<std::string>() + " " + entry.at("state").get<std::string>());
      }
      if (made.next.empty()) return entries;
      EXPECT_LE(made.next.size(), wire::kNameBytesMax);
      EXPECT_NE(made.next, request.continue_after);
      request.continue_after = made.next;
    }
  }
  static std::vector<std::string> problems(const json& status) {
    std::vector<std::string> found;
    for (const auto& problem : status.at("problems")) {
      EXPECT_FALSE(problem.at("what_to_do").get<std::string>().empty());
      found.push_back(problem.at("severity").get<std::string>() + ": " +
                      problem.at("what").get<std::string>());
    }
    return found;
  }

  Instant now_ = kStart;
  core::Effects effects_;
  core::CmsCore core_;
  storage::FakeIndex index_;
  storage::FakeStore store_;
  DaemonFacts facts_;
};

}  // namespace cms::daemon
