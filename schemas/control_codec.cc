#include <algorithm>

#include "control_generated.h"
#include "schemas/common_codec.h"

namespace cms::wire {
namespace {

using internal::Builder;
using internal::Offset;
using internal::read_text;
using internal::write_text;

static_assert(static_cast<int>(fb::ReceiptLevel::MAX) == static_cast<int>(ReceiptLevel::kFenced));
static_assert(static_cast<int>(fb::RestoreState::MAX) == static_cast<int>(RestoreState::kDiscarded));
static_assert(static_cast<int>(fb::FreezeState::MAX) == static_cast<int>(FreezeState::kThawed));
static_assert(static_cast<int>(fb::ProgramState::MAX) == static_cast<int>(ProgramState::kStopped));
static_assert(static_cast<int>(fb::Enforcer::MAX) == static_cast<int>(Enforcer::kWatchdog));
static_assert(kListPageCountMax * kNotificationBytesMax < kControlFrameBytesMax);
static_assert(kProgramsPageCountMax * kOwnedProgramBytesMax < kControlFrameBytesMax);

// ---- writing: one overload for each alternative of ControlBody

struct Body {
  fb::ControlBody type;
  Offset<void> table;
};

Body write(Builder& builder, const Hello& hello) {
  const auto advertise_host = write_text(builder, hello.advertise_host);
  const auto software = write_text(builder, hello.software);
  const fb::Id128 host_id = internal::write_id128(hello.host_id);
  const fb::Id128 boot_id = internal::write_id128(hello.boot_id);
  fb::HelloBuilder table(builder);
  table.add_protocol_version(hello.protocol_version);
  table.add_protocol_version_min(hello.protocol_version_min);
  table.add_features(hello.features);
  table.add_ecu_mac(hello.ecu_mac.bits);
  table.add_incarnation(hello.incarnation);
  table.add_nonce(hello.nonce);
  table.add_guarded(hello.guarded);
  table.add_host_id(&host_id);
  table.add_bulk_port(hello.bulk_port);
  table.add_advertise_host(advertise_host);
  table.add_software(software);
  table.add_last_seq(hello.last_seq);
  if (hello.boot_id != Id128{}) table.add_boot_id(&boot_id);
  table.add_enforcer(static_cast<fb::Enforcer>(hello.enforcer));
  return {fb::ControlBody::Hello, table.Finish().Union()};
}

Body write(Builder& builder, const HelloAnswer& answer) {
  const auto cms_name = write_text(builder, answer.cms_name);
  const auto context = write_text(builder, internal::cleaned_free_text(answer.context));
  fb::HelloAnswerBuilder table(builder);
  table.add_protocol_version(answer.protocol_version);
  table.add_features(answer.features);
  table.add_nonce(answer.nonce);
  table.add_incarnation(answer.incarnation);
  table.add_cms_name(cms_name);
  table.add_heartbeat_interval_ms(answer.heartbeat_interval_ms);
  table.add_code(static_cast<std::uint16_t>(answer.code));
  table.add_context(context);
  table.add_lease_ms(answer.lease_ms);
  return {fb::ControlBody::HelloAnswer, table.Finish().Union()};
}

Body write(Builder& builder, const Heartbeat& heartbeat) {
  return {fb::ControlBody::Heartbeat, fb::CreateHeartbeat(builder, heartbeat.number, heartbeat.last_seq,
                                                          heartbeat.waiting, heartbeat.programs_changed)
                                          .Union()};
}

Body write(Builder& builder, const HeartbeatAnswer& answer) {
  return {fb::ControlBody::HeartbeatAnswer,
          fb::CreateHeartbeatAnswer(builder, answer.number, answer.notify_heard, answer.leased).Union()};
}

Body write(Builder& builder, const List& list) {
  return {fb::ControlBody::List, fb::CreateList(builder, list.from_seq).Union()};
}

Body write(Builder& builder, const ListPage& page) {
  std::vector<Offset<fb::Notification>> offsets;
  offsets.reserve(page.notifications.size());
  for (const Notification& notification : page.notifications) {
    offsets.push_back(internal::write_notification(builder, notification));
  }
  const auto notifications = builder.CreateVector(offsets);
  return {fb::ControlBody::ListPage,
          fb::CreateListPage(builder, notifications, page.next_seq, page.last_seq, page.end).Union()};
}

Body write(Builder& builder, const Receipt& receipt) {
  const auto reason = write_text(builder, internal::cleaned_free_text(receipt.reason));
  const fb::Id128 lineage = internal::write_id128(receipt.lineage);
  return {fb::ControlBody::Receipt,
          fb::CreateReceipt(builder, receipt.program_id, receipt.seq,
                            static_cast<fb::ReceiptLevel>(receipt.level),
                            static_cast<std::uint16_t>(receipt.code), reason, receipt.newer.incarnation,
                            receipt.newer.seq, receipt.newer_known_ms, receipt.newer_lives,
                            receipt.lineage == Lineage{} ? nullptr : &lineage, receipt.owner_epoch)
              .Union()};
}

Body write(Builder& builder, const Withdraw& withdraw) {
  return {fb::ControlBody::Withdraw,
          fb::CreateWithdraw(builder, withdraw.request_id, withdraw.program_id, withdraw.seq).Union()};
}

Body write(Builder& builder, const WithdrawAnswer& answer) {
  const auto context = write_text(builder, internal::cleaned_free_text(answer.context));
  return {
      fb::ControlBody::WithdrawAnswer,
      fb::CreateWithdrawAnswer(builder, answer.request_id, static_cast<std::uint16_t>(answer.code), context)
          .Union()};
}

Body write(Builder& builder, const Bye&) { return {fb::ControlBody::Bye, fb::CreateBye(builder).Union()}; }

Body write(Builder& builder, const MetricsAsk& ask) {
  return {fb::ControlBody::MetricsAsk, fb::CreateMetricsAsk(builder, ask.number).Union()};
}

Body write(Builder& builder, const Metrics& metrics) {
  const auto arch = write_text(builder, metrics.arch);
  const auto os = write_text(builder, metrics.os);
  std::vector<Offset<fb::CheckpointFormat>> format_offsets;
  for (const CheckpointFormat& format : metrics.formats) {
    format_offsets.push_back(
        fb::CreateCheckpointFormat(builder, write_text(builder, format.name), format.version_max));
  }
  const auto formats = builder.CreateVector(format_offsets);
  const auto labels = builder.CreateVectorOfStrings(metrics.labels);
  fb::MetricsBuilder table(builder);
  table.add_number(metrics.number);
  table.add_age_ms(metrics.age_ms);
  table.add_cpu_count(metrics.cpu_count);
  table.add_cpu_load_permille(metrics.cpu_load_permille);
  table.add_ram_total_bytes(metrics.ram_total_bytes);
  table.add_ram_available_bytes(metrics.ram_available_bytes);
  table.add_arch(arch);
  table.add_os(os);
  table.add_formats(formats);
  table.add_labels(labels);
  table.add_draining(metrics.draining);
  return {fb::ControlBody::Metrics, table.Finish().Union()};
}

Body write(Builder& builder, const Prepare& prepare) {
  const auto notification = internal::write_notification(builder, prepare.notification);
  const fb::Id128 lineage = internal::write_id128(prepare.claim.lineage);
  return {fb::ControlBody::Prepare,
          fb::CreatePrepare(builder, &lineage, prepare.claim.slot, prepare.claim.uid,
                            prepare.session.ecu_mac.bits, prepare.session.incarnation, notification,
                            prepare.bulk_port, prepare.restarts.has_value(), prepare.restarts.value_or(0))
              .Union()};
}

Body write(Builder& builder, const Go& go) {
  const fb::Id128 lineage = internal::write_id128(go.claim.lineage);
  return {fb::ControlBody::Go, fb::CreateGo(builder, &lineage, go.claim.slot, go.claim.uid, go.act_slot,
                                            go.act_uid, static_cast<fb::OnIsolation>(go.on_isolation))
                                   .Union()};
}

Body write(Builder& builder, const Discard& discard) {
  const fb::Id128 lineage = internal::write_id128(discard.claim.lineage);
  return {fb::ControlBody::Discard,
          fb::CreateDiscard(builder, &lineage, discard.claim.slot, discard.claim.uid).Union()};
}

Body write(Builder& builder, const RestoreReport& report) {
  const auto context = write_text(builder, internal::cleaned_free_text(report.context));
  const fb::Id128 lineage = internal::write_id128(report.claim.lineage);
  return {fb::ControlBody::RestoreReport,
          fb::CreateRestoreReport(builder, &lineage, report.claim.slot, report.claim.uid, report.act_uid,
                                  static_cast<fb::RestoreState>(report.state), report.received_bytes,
                                  report.program_id, static_cast<std::uint16_t>(report.code), context)
              .Union()};
}

Body write(Builder& builder, const Freeze& freeze) {
  const fb::Id128 lineage = internal::write_id128(freeze.claim.lineage);
  return {
      fb::ControlBody::Freeze,
      fb::CreateFreeze(builder, &lineage, freeze.claim.slot, freeze.claim.uid, freeze.program_id).Union()};
}

Body write(Builder& builder, const Thaw& thaw) {
  const fb::Id128 lineage = internal::write_id128(thaw.record.lineage);
  return {fb::ControlBody::Thaw,
          fb::CreateThaw(builder, &lineage, thaw.record.slot, thaw.record.uid, thaw.program_id,
                         static_cast<fb::OnIsolation>(thaw.on_isolation))
              .Union()};
}

Body write(Builder& builder, const FreezeReport& report) {
  const auto context = write_text(builder, internal::cleaned_free_text(report.context));
  const fb::Id128 lineage = internal::write_id128(report.claim.lineage);
  return {fb::ControlBody::FreezeReport,
          fb::CreateFreezeReport(builder, &lineage, report.claim.slot, report.claim.uid, report.program_id,
                                 static_cast<fb::FreezeState>(report.state), report.last.incarnation,
                                 report.last.seq, static_cast<std::uint16_t>(report.code), context)
              .Union()};
}

Body write(Builder& builder, const Migrate& migrate) {
  return {fb::ControlBody::Migrate,
          fb::CreateMigrate(builder, migrate.request_id, migrate.program_id, migrate.owner_epoch,
                            migrate.has_to, migrate.to_ecu_mac.bits)
              .Union()};
}

Body write(Builder& builder, const MigrateAnswer& answer) {
  const auto context = write_text(builder, internal::cleaned_free_text(answer.context));
  return {
      fb::ControlBody::MigrateAnswer,
      fb::CreateMigrateAnswer(builder, answer.request_id, static_cast<std::uint16_t>(answer.code), context)
          .Union()};
}

Body write(Builder& builder, const AskPrograms& ask) {
  return {fb::ControlBody::AskPrograms,
          fb::CreateAskPrograms(builder, ask.number, ask.from_program_id).Union()};
}

Body write(Builder& builder, const Programs& page) {
  std::vector<Offset<fb::OwnedProgram>> offsets;
  offsets.reserve(page.programs.size());
  for (const OwnedProgram& program : page.programs) {
    const fb::Id128 lineage = internal::write_id128(program.lineage);
    offsets.push_back(fb::CreateOwnedProgram(builder, program.program_id, &lineage, program.owner_epoch,
                                             static_cast<fb::ProgramState>(program.state)));
  }
  const auto programs = builder.CreateVector(offsets);
  return {fb::ControlBody::Programs,
          fb::CreatePrograms(builder, page.number, programs, page.next_program_id, page.end).Union()};
}

// ---- reading: one overload for each table

Result<ControlBody> read(const fb::Hello& table) {
  Hello hello;
  hello.protocol_version = table.protocol_version();
  hello.protocol_version_min = table.protocol_version_min();
  hello.features = table.features();
  hello.ecu_mac = EcuMac{table.ecu_mac()};
  hello.incarnation = table.incarnation();
  hello.nonce = table.nonce();
  hello.guarded = table.guarded();
  hello.host_id = internal::read_id128(table.host_id());
  hello.bulk_port = table.bulk_port();
  hello.advertise_host = read_text(table.advertise_host(), kNameBytesMax);
  hello.software = read_text(table.software(), kNameBytesMax);
  hello.last_seq = table.last_seq();
  hello.boot_id = internal::read_id128(table.boot_id());
  hello.enforcer = static_cast<Enforcer>(table.enforcer());
  return ControlBody(std::move(hello));
}

Result<ControlBody> read(const fb::HelloAnswer& table) {
  HelloAnswer answer;
  answer.protocol_version = table.protocol_version();
  answer.features = table.features();
  answer.nonce = table.nonce();
  answer.incarnation = table.incarnation();
  answer.cms_name = read_text(table.cms_name(), kNameBytesMax);
  answer.heartbeat_interval_ms = table.heartbeat_interval_ms();
  answer.code = static_cast<Code>(table.code());
  answer.context = read_text(table.context(), kReasonBytesMax);
  answer.lease_ms = table.lease_ms();
  return ControlBody(std::move(answer));
}

Result<ControlBody> read(const fb::Heartbeat& table) {
  return ControlBody(Heartbeat{table.number(), table.last_seq(), table.waiting(), table.programs_changed()});
}

Result<ControlBody> read(const fb::HeartbeatAnswer& table) {
  return ControlBody(HeartbeatAnswer{table.number(), table.notify_heard(), table.leased()});
}

Result<ControlBody> read(const fb::List& table) { return ControlBody(List{table.from_seq()}); }

Result<ControlBody> read(const fb::ListPage& table) {
  ListPage page;
  page.next_seq = table.next_seq();
  page.last_seq = table.last_seq();
  page.end = table.end();
  if (table.notifications() != nullptr) {
    // One more than allowed is enough for the check to refuse the page.
    const std::size_t count = std::min<std::size_t>(table.notifications()->size(), kListPageCountMax + 1);
    page.notifications.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      auto notification =
          internal::read_notification(*table.notifications()->Get(static_cast<flatbuffers::uoffset_t>(i)));
      if (!notification) return std::move(notification).error();
      page.notifications.push_back(std::move(notification).value());
    }
  }
  return ControlBody(std::move(page));
}

Result<ControlBody> read(const fb::Receipt& table) {
  Receipt receipt;
  receipt.program_id = table.program_id();
  receipt.seq = table.seq();
  receipt.level = static_cast<ReceiptLevel>(table.level());
  receipt.code = static_cast<Code>(table.code());
  receipt.reason = read_text(table.reason(), kReasonBytesMax);
  receipt.newer = Version{table.newer_incarnation(), table.newer_seq()};
  receipt.newer_known_ms = table.newer_known_ms();
  receipt.newer_lives = table.newer_lives();
  receipt.lineage = internal::read_id128(table.lineage());
  receipt.owner_epoch = table.owner_epoch();
  return ControlBody(std::move(receipt));
}

Result<ControlBody> read(const fb::Withdraw& table) {
  return ControlBody(Withdraw{table.request_id(), table.program_id(), table.seq()});
}

Result<ControlBody> read(const fb::WithdrawAnswer& table) {
  return ControlBody(WithdrawAnswer{table.request_id(), static_cast<Code>(table.code()),
                                    read_text(table.context(), kReasonBytesMax)});
}

Result<ControlBody> read(const fb::Bye&) { return ControlBody(Bye{}); }

Result<ControlBody> read(const fb::MetricsAsk& table) { return ControlBody(MetricsAsk{table.number()}); }

Result<ControlBody> read(const fb::Metrics& table) {
  Metrics metrics;
  metrics.number = table.number();
  metrics.age_ms = table.age_ms();
  metrics.cpu_count = table.cpu_count();
  metrics.cpu_load_permille = table.cpu_load_permille();
  metrics.ram_total_bytes = table.ram_total_bytes();
  metrics.ram_available_bytes = table.ram_available_bytes();
  metrics.arch = read_text(table.arch(), kNameBytesMax);
  metrics.os = read_text(table.os(), kNameBytesMax);
  metrics.draining = table.draining();
  // One more than allowed is enough for the check to refuse it.
  if (table.formats() != nullptr) {
    const std::size_t count = std::min<std::size_t>(table.formats()->size(), kFormatCountMax + 1);
    for (std::size_t i = 0; i < count; ++i) {
      const auto* format = table.formats()->Get(static_cast<flatbuffers::uoffset_t>(i));
      metrics.formats.push_back(
          CheckpointFormat{read_text(format->name(), kNameBytesMax), format->version_max()});
    }
  }
  if (table.labels() != nullptr) {
    const std::size_t count = std::min<std::size_t>(table.labels()->size(), kLabelCountMax + 1);
    for (std::size_t i = 0; i < count; ++i) {
      const auto* label = table.labels()->Get(static_cast<flatbuffers::uoffset_t>(i));
      metrics.labels.push_back(read_text(label, kLabelBytesMax));
    }
  }
  return ControlBody(std::move(metrics));
}

template <typename Table>
ClaimRef claim_of(const Table& table) {
  return ClaimRef{internal::read_id128(table.lineage()), table.slot(), table.uid()};
}

Result<ControlBody> read(const fb::Prepare& table) {
  if (table.notification() == nullptr) {
    return make_error(Code::kProtocol, "Prepare.notification: missing (allowed: one)");
  }
  auto notification = internal::read_notification(*table.notification());
  if (!notification) return std::move(notification).error();
  return ControlBody(Prepare{claim_of(table), SessionId{EcuMac{table.ecu_mac()}, table.incarnation()},
                             std::move(notification).value(), table.bulk_port(),
                             table.restarts() ? std::optional(table.program_id()) : std::nullopt});
}

Result<ControlBody> read(const fb::Go& table) {
  return ControlBody(
      Go{claim_of(table), table.act_slot(), table.act_uid(), static_cast<OnIsolation>(table.on_isolation())});
}

Result<ControlBody> read(const fb::Discard& table) { return ControlBody(Discard{claim_of(table)}); }

Result<ControlBody> read(const fb::RestoreReport& table) {
  RestoreReport report;
  report.claim = claim_of(table);
  report.act_uid = table.act_uid();
  report.state = static_cast<RestoreState>(table.state());
  report.received_bytes = table.received_bytes();
  report.program_id = table.program_id();
  report.code = static_cast<Code>(table.code());
  report.context = read_text(table.context(), kReasonBytesMax);
  return ControlBody(std::move(report));
}

Result<ControlBody> read(const fb::Freeze& table) {
  return ControlBody(Freeze{claim_of(table), table.program_id()});
}

Result<ControlBody> read(const fb::Thaw& table) {
  return ControlBody(
      Thaw{claim_of(table), table.program_id(), static_cast<OnIsolation>(table.on_isolation())});
}

Result<ControlBody> read(const fb::FreezeReport& table) {
  FreezeReport report;
  report.claim = claim_of(table);
  report.program_id = table.program_id();
  report.state = static_cast<FreezeState>(table.state());
  report.last = Version{table.incarnation(), table.seq()};
  report.code = static_cast<Code>(table.code());
  report.context = read_text(table.context(), kReasonBytesMax);
  return ControlBody(std::move(report));
}

Result<ControlBody> read(const fb::Migrate& table) {
  return ControlBody(Migrate{table.request_id(), table.program_id(), table.owner_epoch(), table.has_to(),
                             EcuMac{table.to_ecu_mac()}});
}

Result<ControlBody> read(const fb::MigrateAnswer& table) {
  return ControlBody(MigrateAnswer{table.request_id(), static_cast<Code>(table.code()),
                                   read_text(table.context(), kReasonBytesMax)});
}

Result<ControlBody> read(const fb::AskPrograms& table) {
  return ControlBody(AskPrograms{table.number(), table.from_program_id()});
}

Result<ControlBody> read(const fb::Programs& table) {
  Programs page;
  page.number = table.number();
  page.next_program_id = table.next_program_id();
  page.end = table.end();
  if (table.programs() != nullptr) {
    // One more than allowed is enough for the check to refuse the page.
    const std::size_t count = std::min<std::size_t>(table.programs()->size(), kProgramsPageCountMax + 1);
    page.programs.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      const auto* program = table.programs()->Get(static_cast<flatbuffers::uoffset_t>(i));
      page.programs.push_back(OwnedProgram{program->program_id(), internal::read_id128(program->lineage()),
                                           program->owner_epoch(),
                                           static_cast<ProgramState>(program->state())});
    }
  }
  return ControlBody(std::move(page));
}

template <typename Table>
Result<ControlBody> read_as(const fb::ControlMessage& root) {
  const auto* table = root.body_as<Table>();
  if (table == nullptr)
    return internal::unknown_body("ControlMessage", static_cast<unsigned>(root.body_type()));
  return read(*table);
}

Result<ControlBody> read_body(const fb::ControlMessage& root) {
  switch (root.body_type()) {
    case fb::ControlBody::Hello: return read_as<fb::Hello>(root);
    case fb::ControlBody::HelloAnswer: return read_as<fb::HelloAnswer>(root);
    case fb::ControlBody::Heartbeat: return read_as<fb::Heartbeat>(root);
    case fb::ControlBody::HeartbeatAnswer: return read_as<fb::HeartbeatAnswer>(root);
    case fb::ControlBody::List: return read_as<fb::List>(root);
    case fb::ControlBody::ListPage: return read_as<fb::ListPage>(root);
    case fb::ControlBody::Receipt: return read_as<fb::Receipt>(root);
    case fb::ControlBody::Withdraw: return read_as<fb::Withdraw>(root);
    case fb::ControlBody::WithdrawAnswer: return read_as<fb::WithdrawAnswer>(root);
    case fb::ControlBody::Bye: return read_as<fb::Bye>(root);
    case fb::ControlBody::MetricsAsk: return read_as<fb::MetricsAsk>(root);
    case fb::ControlBody::Metrics: return read_as<fb::Metrics>(root);
    case fb::ControlBody::Prepare: return read_as<fb::Prepare>(root);
    case fb::ControlBody::Go: return read_as<fb::Go>(root);
    case fb::ControlBody::Discard: return read_as<fb::Discard>(root);
    case fb::ControlBody::RestoreReport: return read_as<fb::RestoreReport>(root);
    case fb::ControlBody::Freeze: return read_as<fb::Freeze>(root);
    case fb::ControlBody::Thaw: return read_as<fb::Thaw>(root);
    case fb::ControlBody::FreezeReport: return read_as<fb::FreezeReport>(root);
    case fb::ControlBody::Migrate: return read_as<fb::Migrate>(root);
    case fb::ControlBody::MigrateAnswer: return read_as<fb::MigrateAnswer>(root);
    case fb::ControlBody::AskPrograms: return read_as<fb::AskPrograms>(root);
    case fb::ControlBody::Programs: return read_as<fb::Programs>(root);
    case fb::ControlBody::NONE: break;
  }
  return internal::unknown_body("ControlMessage", static_cast<unsigned>(root.body_type()));
}

}  // namespace

Bytes encode(const ControlMessage& message) {
  internal::assert_sendable(message);
  Builder builder(1024);
  const Body body =
      std::visit([&](const auto& alternative) { return write(builder, alternative); }, message.body);
  const auto root = fb::CreateControlMessage(builder, message.incarnation, body.type, body.table);
  return internal::finished(builder, root, fb::ControlMessageIdentifier(), kControlFrameBytesMax);
}

Result<ControlMessage> decode_control(const void* data, std::size_t size_bytes) {
  Status envelope = internal::check_envelope("ControlMessage", fb::ControlMessageIdentifier(), data,
                                             size_bytes, kControlFrameBytesMax);
  if (!envelope.ok()) return std::move(envelope).error();
  const internal::AlignedFrame frame(data, size_bytes);
  const auto* root = internal::verified_root<fb::ControlMessage>(frame, fb::ControlMessageIdentifier());
  if (root == nullptr) return internal::malformed("ControlMessage");
  auto body = read_body(*root);
  if (!body) return std::move(body).error();
  return internal::checked(ControlMessage{root->incarnation(), std::move(body).value()});
}

}  // namespace cms::wire
