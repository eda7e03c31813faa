// What is asked of an ECU that could take a program, at each limit and beyond: frames that encode() would
// never make.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "control_generated.h"
#include "schemas/messages.h"

namespace cms::wire {
namespace {

using Builder = flatbuffers::FlatBufferBuilder;

constexpr std::uint64_t kEcuMac = 0x020000000001;
const fb::Id128 kLineage(1, 2);

Result<ControlMessage> decoded(Builder& builder, fb::ControlBody type, flatbuffers::Offset<void> body) {
  builder.Finish(fb::CreateControlMessage(builder, 1, type, body), fb::ControlMessageIdentifier());
  return decode_control(builder.GetBufferPointer(), builder.GetSize());
}

// Empty: it is taken.
std::string refused_field(const Result<ControlMessage>& message) {
  if (message.ok()) return "";
  EXPECT_EQ(message.error().code, Code::kProtocol);
  return message.error().context.substr(0, message.error().context.find(':'));
}

struct MetricsFrame {
  std::uint32_t load = 1000;
  std::uint64_t total = 10, available = 10;
  std::size_t arch_bytes = 128, os_bytes = 128;
  std::size_t format_count = 16, format_bytes = 128;
  std::size_t label_count = 16, label_bytes = 64;

  std::string refused() const {
    Builder builder;
    const auto arch = builder.CreateString(std::string(arch_bytes, 'a'));
    const auto os = builder.CreateString(std::string(os_bytes, 'o'));
    std::vector<flatbuffers::Offset<fb::CheckpointFormat>> offsets;
    for (std::size_t i = 0; i < format_count; ++i) {
      const auto name = builder.CreateString(std::string(format_bytes, 'f'));
      offsets.push_back(fb::CreateCheckpointFormat(builder, name, 1));
    }
    const auto formats = builder.CreateVector(offsets);
    const auto labels =
        builder.CreateVectorOfStrings(std::vector<std::string>(label_count, std::string(label_bytes, 'l')));
    const auto table = fb::CreateMetrics(builder, 1, 0, 4, load, total, available, arch, os, formats, labels);
    return refused_field(decoded(builder, fb::ControlBody::Metrics, table.Union()));
  }
};

TEST(RestoreMessagesTest, MetricsAreCheckedAtTheLimitAndOver) {
  EXPECT_EQ(MetricsFrame{}.refused(), "");
  MetricsFrame frame;
  frame.load = 1001;
  EXPECT_EQ(frame.refused(), "Metrics.cpu_load_permille");
  frame = MetricsFrame{};
  frame.available = 11;
  EXPECT_EQ(frame.refused(), "Metrics.ram_available_bytes");
  frame = MetricsFrame{};
  frame.arch_bytes = 129;
  EXPECT_EQ(frame.refused(), "Metrics.arch");
  frame = MetricsFrame{};
  frame.os_bytes = 129;
  EXPECT_EQ(frame.refused(), "Metrics.os");
  frame = MetricsFrame{};
  frame.format_count = 17;
  EXPECT_EQ(frame.refused(), "Metrics.formats");
  frame = MetricsFrame{};
  frame.format_bytes = 129;
  EXPECT_EQ(frame.refused(), "Metrics.formats.name");
  frame = MetricsFrame{};
  frame.label_count = 17;
  EXPECT_EQ(frame.refused(), "Metrics.labels");
  frame = MetricsFrame{};
  frame.label_bytes = 65;
  EXPECT_EQ(frame.refused(), "Metrics.labels");
}

TEST(RestoreMessagesTest, AbsentFieldsOfMetricsMeanNothing) {
  Builder builder;
  const auto message = decoded(builder, fb::ControlBody::Metrics, fb::CreateMetrics(builder).Union());
  ASSERT_TRUE(message.ok()) << message.error().message();
  const auto& metrics = std::get<Metrics>(message->body);
  EXPECT_TRUE(metrics.formats.empty());
  EXPECT_TRUE(metrics.labels.empty());
  EXPECT_EQ(metrics.arch, "");
}

std::string prepare(const fb::Id128* lineage, std::uint64_t slot, std::uint64_t uid, std::uint64_t ecu_mac,
                    std::uint64_t incarnation, std::uint64_t seq, std::uint16_t port) {
  Builder builder;
  const auto notification = fb::CreateNotification(builder, 7, seq);
  const auto table = fb::CreatePrepare(builder, lineage, slot, uid, ecu_mac, incarnation, notification, port);
  return refused_field(decoded(builder, fb::ControlBody::Prepare, table.Union()));
}

TEST(RestoreMessagesTest, PrepareIsCheckedAtTheLimitAndOver) {
  EXPECT_EQ(prepare(&kLineage, 2, 1, kEcuMac, 1, 1, 1), "");
  EXPECT_EQ(prepare(&kLineage, UINT64_MAX, UINT64_MAX, kEcuMac, UINT64_MAX, UINT64_MAX, 65535), "");
  EXPECT_EQ(prepare(nullptr, 2, 1, kEcuMac, 1, 1, 1), "Prepare.lineage");
  EXPECT_EQ(prepare(&kLineage, 1, 1, kEcuMac, 1, 1, 1), "Prepare.slot");
  EXPECT_EQ(prepare(&kLineage, 2, 0, kEcuMac, 1, 1, 1), "Prepare.uid");
  EXPECT_EQ(prepare(&kLineage, 2, 1, 0, 1, 1, 1), "Prepare.ecu_mac");
  EXPECT_EQ(prepare(&kLineage, 2, 1, kEcuMac, 0, 1, 1), "Prepare.incarnation");
  EXPECT_EQ(prepare(&kLineage, 2, 1, kEcuMac, 1, 0, 1), "Notification.seq");
  EXPECT_EQ(prepare(&kLineage, 2, 1, kEcuMac, 1, 1, 0), "Prepare.bulk_port");
  Builder builder;
  const auto without = fb::CreatePrepare(builder, &kLineage, 2, 1, kEcuMac, 1, 0, 1);
  EXPECT_EQ(refused_field(decoded(builder, fb::ControlBody::Prepare, without.Union())),
            "Prepare.notification");
}

TEST(RestoreMessagesTest, CommandsAndReportsAreCheckedAtTheLimitAndOver) {
  const auto go = [](std::uint64_t slot, std::uint64_t uid, std::uint64_t act_slot, std::uint64_t act_uid,
                     std::uint8_t on_isolation = 1) {
    Builder builder;
    const auto table = fb::CreateGo(builder, &kLineage, slot, uid, act_slot, act_uid,
                                    static_cast<fb::OnIsolation>(on_isolation));
    return refused_field(decoded(builder, fb::ControlBody::Go, table.Union()));
  };
  EXPECT_EQ(go(2, 1, 3, 1), "");
  EXPECT_EQ(go(1, 1, 3, 1), "Go.slot");
  EXPECT_EQ(go(2, 0, 3, 1), "Go.uid");
  EXPECT_EQ(go(2, 1, 2, 1), "Go.act_slot");
  EXPECT_EQ(go(2, 1, 3, 0), "Go.act_uid");
  EXPECT_EQ(go(2, 1, 3, 1, 0), "");
  EXPECT_EQ(go(2, 1, 3, 1, 2), "Go.on_isolation");

  const auto discard = [](const fb::Id128* lineage, std::uint64_t slot) {
    Builder builder;
    const auto table = fb::CreateDiscard(builder, lineage, slot, 1);
    return refused_field(decoded(builder, fb::ControlBody::Discard, table.Union()));
  };
  EXPECT_EQ(discard(&kLineage, 2), "");
  EXPECT_EQ(discard(nullptr, 2), "Discard.lineage");
  EXPECT_EQ(discard(&kLineage, 1), "Discard.slot");

  const auto report = [](std::uint8_t state, std::uint64_t received, std::uint16_t code,
                         const std::string& context) {
    Builder builder;
    const auto text = builder.CreateString(context);
    const auto table = fb::CreateRestoreReport(builder, &kLineage, 2, 1, 0,
                                               static_cast<fb::RestoreState>(state), received, 8, code, text);
    return refused_field(decoded(builder, fb::ControlBody::RestoreReport, table.Union()));
  };
  EXPECT_EQ(report(5, kBlobSizeBytesMax, 21, std::string(512, 'c')), "");
  EXPECT_EQ(report(6, 0, 0, ""), "RestoreReport.state");
  EXPECT_EQ(report(0, kBlobSizeBytesMax + 1, 0, ""), "RestoreReport.received_bytes");
  EXPECT_EQ(report(0, 0, 22, ""), "RestoreReport.code");
  EXPECT_EQ(report(0, 0, 0, std::string(513, 'c')), "RestoreReport.context");
  EXPECT_EQ(report(0, 0, 0, "\x1b[2J"), "RestoreReport.context");
}

TEST(RestoreMessagesTest, FreezeNamesAClaimAndThawAnyRecord) {
  const auto freeze = [](const fb::Id128* lineage, std::uint64_t slot, std::uint64_t uid) {
    Builder builder;
    const auto table = fb::CreateFreeze(builder, lineage, slot, uid, 7);
    return refused_field(decoded(builder, fb::ControlBody::Freeze, table.Union()));
  };
  EXPECT_EQ(freeze(&kLineage, 2, 1), "");
  EXPECT_EQ(freeze(nullptr, 2, 1), "Freeze.lineage");
  EXPECT_EQ(freeze(&kLineage, 1, 1), "Freeze.slot");
  EXPECT_EQ(freeze(&kLineage, 2, 0), "Freeze.uid");
  const auto thaw = [](const fb::Id128* lineage, std::uint64_t slot, std::uint64_t uid,
                       std::uint8_t on_isolation = 1) {
    Builder builder;
    const auto table =
        fb::CreateThaw(builder, lineage, slot, uid, 7, static_cast<fb::OnIsolation>(on_isolation));
    return refused_field(decoded(builder, fb::ControlBody::Thaw, table.Union()));
  };
  EXPECT_EQ(thaw(&kLineage, 1, 1), "") << "GENESIS: it was never moved";
  EXPECT_EQ(thaw(&kLineage, UINT64_MAX, UINT64_MAX, 0), "");
  EXPECT_EQ(thaw(nullptr, 3, 1), "Thaw.lineage");
  EXPECT_EQ(thaw(&kLineage, 0, 1), "Thaw.slot");
  EXPECT_EQ(thaw(&kLineage, 3, 0), "Thaw.uid");
  EXPECT_EQ(thaw(&kLineage, 3, 1, 2), "Thaw.on_isolation");
}

std::string programs(const fb::Id128* lineage, std::uint8_t state, std::size_t count) {
  Builder builder;
  const auto program = fb::CreateOwnedProgram(builder, 7, lineage, 4, static_cast<fb::ProgramState>(state));
  const auto page = builder.CreateVector(std::vector<flatbuffers::Offset<fb::OwnedProgram>>(count, program));
  return refused_field(
      decoded(builder, fb::ControlBody::Programs, fb::CreatePrograms(builder, 1, page, 8, false).Union()));
}

TEST(RestoreMessagesTest, ProgramsAreCheckedAtTheLimitAndOver) {
  const fb::Id128 zero(0, 0);
  EXPECT_EQ(programs(&kLineage, 0, 0), "");
  EXPECT_EQ(programs(&kLineage, 2, 512), "");
  EXPECT_EQ(programs(&kLineage, 2, 513), "Programs.programs");
  EXPECT_EQ(programs(&kLineage, 2, 900), "ControlMessage") << "more tables than any message has";
  EXPECT_EQ(programs(&kLineage, 3, 1), "Programs.state");
  EXPECT_EQ(programs(nullptr, 0, 1), "Programs.lineage");
  EXPECT_EQ(programs(&zero, 0, 1), "Programs.lineage");
}

// Each program with fields of its own, so that the FlatBuffer shares nothing but what is the same of all.
TEST(RestoreMessagesTest, AFullPageOfProgramsFitsItsFrame) {
  Programs page;
  page.number = page.next_program_id = UINT64_MAX;
  page.end = false;
  for (std::uint64_t i = 0; i < kProgramsPageCountMax; ++i) {
    page.programs.push_back(OwnedProgram{UINT64_MAX - i, Lineage{UINT64_MAX, i + 1}, UINT64_MAX - 2 * i,
                                         i % 2 == 0 ? ProgramState::kStopped : ProgramState::kFrozen});
  }
  const Bytes frame = encode(ControlMessage{UINT64_MAX, page});
  EXPECT_LE(frame.size(), kProgramsPageCountMax * kOwnedProgramBytesMax);
  EXPECT_LE(frame.size(), kControlFrameBytesMax);
  const auto again = decode_control(frame.data(), frame.size());
  ASSERT_TRUE(again.ok()) << again.error().message();
  EXPECT_EQ(std::get<Programs>(again->body).programs.size(), kProgramsPageCountMax);
}

TEST(RestoreMessagesTest, EnforcersAndStatesOfProgramsHaveTheirNames) {
  EXPECT_EQ(to_string(Enforcer::kNone), "none");
  EXPECT_EQ(to_string(Enforcer::kGuard), "guard");
  EXPECT_EQ(to_string(Enforcer::kWatchdog), "watchdog");
  EXPECT_EQ(to_string(ProgramState::kRunning), "running");
  EXPECT_EQ(to_string(ProgramState::kFrozen), "frozen");
  EXPECT_EQ(to_string(ProgramState::kStopped), "stopped");
}

// What a peer that knows nothing of run leases sends means what it meant before there were any.
TEST(RestoreMessagesTest, AbsentFieldsOfRunLeasesMeanThatThereIsNone) {
  const auto body_of = [](fb::ControlBody type, auto create) {
    Builder builder;
    const auto message = decoded(builder, type, create(builder).Union());
    EXPECT_TRUE(message.ok()) << message.error().message();
    return message.ok() ? message->body : ControlBody(Bye{});
  };
  const auto hello = std::get<Hello>(
      body_of(fb::ControlBody::Hello, [](Builder& b) { return fb::CreateHello(b, 1, 1, 0, kEcuMac); }));
  EXPECT_FALSE(hello.guarded);
  EXPECT_EQ(hello.boot_id, Id128{});
  EXPECT_EQ(hello.enforcer, Enforcer::kNone);
  const auto answer = std::get<HelloAnswer>(
      body_of(fb::ControlBody::HelloAnswer, [](Builder& b) { return fb::CreateHelloAnswer(b, 1); }));
  EXPECT_EQ(answer.lease_ms, 0U);
  const auto beat = std::get<Heartbeat>(
      body_of(fb::ControlBody::Heartbeat, [](Builder& b) { return fb::CreateHeartbeat(b, 1); }));
  EXPECT_EQ(beat.programs_changed, 0U);
  const auto beaten = std::get<HeartbeatAnswer>(
      body_of(fb::ControlBody::HeartbeatAnswer, [](Builder& b) { return fb::CreateHeartbeatAnswer(b, 1); }));
  EXPECT_FALSE(beaten.leased);
  const auto go = std::get<Go>(
      body_of(fb::ControlBody::Go, [](Builder& b) { return fb::CreateGo(b, &kLineage, 2, 1, 3, 1); }));
  EXPECT_EQ(go.on_isolation, OnIsolation::kKeep);
  const auto thaw = std::get<Thaw>(
      body_of(fb::ControlBody::Thaw, [](Builder& b) { return fb::CreateThaw(b, &kLineage, 2, 1, 7); }));
  EXPECT_EQ(thaw.on_isolation, OnIsolation::kKeep);
  const auto page = std::get<Programs>(
      body_of(fb::ControlBody::Programs, [](Builder& b) { return fb::CreatePrograms(b, 1); }));
  EXPECT_TRUE(page.programs.empty());
  EXPECT_FALSE(page.end) << "whoever says nothing has not said that it was all";
}

TEST(RestoreMessagesTest, AFreezeReportNamesItsLastCheckpointWhenItIsFrozen) {
  const auto report = [](std::uint8_t state, std::uint64_t incarnation, std::uint64_t seq, std::uint16_t code,
                         const std::string& context) {
    Builder builder;
    const auto text = builder.CreateString(context);
    const auto table = fb::CreateFreezeReport(
        builder, &kLineage, 2, 1, 7, static_cast<fb::FreezeState>(state), incarnation, seq, code, text);
    return refused_field(decoded(builder, fb::ControlBody::FreezeReport, table.Union()));
  };
  EXPECT_EQ(report(2, 1, 1, 21, std::string(512, 'c')), "");
  EXPECT_EQ(report(1, 0, 0, 0, ""), "");  // Freezing: it is not known yet.
  EXPECT_EQ(report(2, 0, 1, 0, ""), "FreezeReport.incarnation");
  EXPECT_EQ(report(2, 1, 0, 0, ""), "FreezeReport.seq");
  EXPECT_EQ(report(5, 1, 1, 0, ""), "FreezeReport.state");
  EXPECT_EQ(report(3, 0, 0, 22, ""), "FreezeReport.code");
  EXPECT_EQ(report(3, 0, 0, 0, std::string(513, 'c')), "FreezeReport.context");
}

TEST(RestoreMessagesTest, AMigrationMayNameItsTarget) {
  const auto migrate = [](bool has_to, std::uint64_t to) {
    Builder builder;
    const auto table = fb::CreateMigrate(builder, 1, 7, 0, has_to, to);
    return refused_field(decoded(builder, fb::ControlBody::Migrate, table.Union()));
  };
  EXPECT_EQ(migrate(false, 0), "");
  EXPECT_EQ(migrate(true, kEcuMac), "");
  EXPECT_EQ(migrate(true, 0), "Migrate.ecu_mac");
}

}  // namespace
}  // namespace cms::wire
