// Frames that encode() would never make: what a newer, a broken or a hostile peer could send.
#include <gtest/gtest.h>

#include "admin_generated.h"
#include "bulk_generated.h"
#include "control_generated.h"
#include "manifest_generated.h"
#include "notify_generated.h"
#include "schemas/messages.h"

namespace cms::wire {
namespace {

using Builder = flatbuffers::FlatBufferBuilder;
template <typename T>
using Offset = flatbuffers::Offset<T>;

constexpr std::uint64_t kEcuMac = 0x020000000001;

Bytes finish_control(Builder& builder, fb::ControlBody type, Offset<void> body) {
  builder.Finish(fb::CreateControlMessage(builder, 1, type, body), fb::ControlMessageIdentifier());
  return Bytes(builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize());
}
Bytes finish_bulk(Builder& builder, fb::BulkBody type, Offset<void> body) {
  builder.Finish(fb::CreateBulkMessage(builder, type, body), fb::BulkMessageIdentifier());
  return Bytes(builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize());
}
Bytes finish_admin(Builder& builder, fb::AdminBody type, Offset<void> body) {
  builder.Finish(fb::CreateAdminMessage(builder, type, body), fb::AdminMessageIdentifier());
  return Bytes(builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize());
}
Bytes finish_notify(Builder& builder, std::uint64_t ecu_mac, std::uint64_t incarnation, fb::NotifyBody type,
                    Offset<void> body) {
  builder.Finish(fb::CreateNotifyMessage(builder, ecu_mac, incarnation, type, body),
                 fb::NotifyMessageIdentifier());
  return Bytes(builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize());
}

// `names`: what the error must mention.
template <typename Decode>
void expect_refused(Decode decode, const Bytes& frame, const std::string& names,
                    Code code = Code::kProtocol) {
  const auto decoded = decode(frame.data(), frame.size());
  ASSERT_FALSE(decoded.ok()) << names;
  EXPECT_EQ(decoded.error().code, code) << decoded.error().message();
  EXPECT_NE(decoded.error().context.find(names), std::string::npos) << decoded.error().context;
}
template <typename Decode>
void expect_taken(Decode decode, const Bytes& frame) {
  const auto decoded = decode(frame.data(), frame.size());
  EXPECT_TRUE(decoded.ok()) << decoded.error().message();
}

// ---- bodies: missing and unknown

TEST(HostileFrameTest, MissingBodyIsRefused) {
  Builder notify, control, bulk, admin;
  expect_refused(decode_notify, finish_notify(notify, kEcuMac, 1, fb::NotifyBody::Beat, 0), "body");
  expect_refused(decode_control, finish_control(control, fb::ControlBody::Bye, 0), "body");
  expect_refused(decode_bulk, finish_bulk(bulk, fb::BulkBody::Credit, 0), "body");
  expect_refused(decode_admin, finish_admin(admin, fb::AdminBody::NONE, 0), "body");
}

TEST(HostileFrameTest, UnknownBodyIsRefused) {
  Builder notify, control, bulk, admin;
  const auto in = [](Builder& builder) { return fb::CreateBye(builder).Union(); };
  const Offset<void> n = in(notify), c = in(control), b = in(bulk), a = in(admin);
  expect_refused(decode_notify, finish_notify(notify, kEcuMac, 1, static_cast<fb::NotifyBody>(3), n),
                 "type 3");
  expect_refused(decode_control, finish_control(control, static_cast<fb::ControlBody>(24), c), "type 24");
  expect_refused(decode_bulk, finish_bulk(bulk, static_cast<fb::BulkBody>(6), b), "type 6");
  expect_refused(decode_admin, finish_admin(admin, static_cast<fb::AdminBody>(255), a), "type 255");
}

TEST(HostileFrameTest, SessionMustBeNamed) {
  const auto beat = [](std::uint64_t ecu_mac, std::uint64_t incarnation) {
    Builder builder;
    const auto body = fb::CreateBeat(builder, 1).Union();
    return finish_notify(builder, ecu_mac, incarnation, fb::NotifyBody::Beat, body);
  };
  expect_taken(decode_notify, beat(kEcuMac, 1));
  expect_refused(decode_notify, beat(kEcuMac, 0), "NotifyMessage.incarnation");
  expect_refused(decode_notify, beat(0, 1), "NotifyMessage.ecu_mac");
  expect_refused(decode_notify, beat(0x010000000001, 1), "NotifyMessage.ecu_mac");   // multicast
  expect_refused(decode_notify, beat(0x1000000000002, 1), "NotifyMessage.ecu_mac");  // more than 48 bits
}

// ---- notifications: what is absent, and what is too much

TEST(HostileFrameTest, AbsentOptionalFieldsGetTheirDefaults) {
  Builder builder;
  const auto body = fb::CreateNotification(builder, 0, 1).Union();
  const Bytes frame = finish_notify(builder, kEcuMac, 1, fb::NotifyBody::Notification, body);
  const auto decoded = decode_notify(frame.data(), frame.size());
  ASSERT_TRUE(decoded.ok()) << decoded.error().message();
  const auto& notification = std::get<Notification>(decoded->body);
  EXPECT_EQ(notification.program_id, 0U);
  EXPECT_EQ(notification.seq, 1U);
  EXPECT_EQ(notification.lineage, Lineage{});
  EXPECT_EQ(notification.chunk_size_bytes, kChunkSizeBytes);
  EXPECT_EQ(notification.program_name, "");
  EXPECT_TRUE(notification.requirements.labels.empty());
  EXPECT_EQ(notification.policies.release, Release::kReplicated);
}

TEST(HostileFrameTest, ReservedFieldsOfANotificationAreRefused) {
  for (const bool sealed : {false, true}) {
    Builder builder;
    fb::NotificationBuilder table(builder);
    table.add_seq(1);
    if (sealed) {
      table.add_key_id(1);
    } else {
      table.add_codec(fb::Codec::zstd);
    }
    const auto body = table.Finish().Union();
    expect_refused(decode_notify, finish_notify(builder, kEcuMac, 1, fb::NotifyBody::Notification, body),
                   "reserved");
  }
}

// In a ListPage, where the frame has room for text of any length.
Bytes page_with_requirements(std::size_t name_bytes, std::size_t label_count, std::size_t label_bytes,
                             std::size_t notification_count) {
  Builder builder;
  const auto arch = builder.CreateString(std::string(name_bytes, 'a'));
  const auto label = builder.CreateString(std::string(label_bytes, 'l'));
  const auto labels = builder.CreateVector(std::vector<Offset<flatbuffers::String>>(label_count, label));
  const auto requirements = fb::CreateRequirements(builder, arch, 0, 0, 0, 0, labels);
  fb::NotificationBuilder table(builder);
  table.add_seq(1);
  table.add_requirements(requirements);
  const auto notification = table.Finish();
  const auto page =
      builder.CreateVector(std::vector<Offset<fb::Notification>>(notification_count, notification));
  return finish_control(builder, fb::ControlBody::ListPage,
                        fb::CreateListPage(builder, page, 0, 0, true).Union());
}

TEST(HostileFrameTest, TextAndCountsOverTheirLimitsAreRefused) {
  expect_taken(decode_control, page_with_requirements(128, 16, 17, 60));
  expect_taken(decode_control, page_with_requirements(128, 4, 64, 60));
  expect_refused(decode_control, page_with_requirements(129, 0, 0, 1), "requirements.arch");
  expect_refused(decode_control, page_with_requirements(50'000, 0, 0, 1), "requirements.arch");
  expect_refused(decode_control, page_with_requirements(0, 17, 1, 1), "requirements.labels");
  expect_refused(decode_control, page_with_requirements(0, 1, 65, 1), "requirements.labels");
  expect_refused(decode_control, page_with_requirements(128, 16, 18, 1), "names and labels");
  expect_refused(decode_control, page_with_requirements(0, 0, 0, 61), "ListPage.notifications");
}

// All offsets of these frames name the same bytes; reading them in full would make 64 KiB of frame
// into gigabytes of memory.
TEST(HostileFrameTest, SharedStringsDoNotMultiply) {
  expect_refused(decode_control, page_with_requirements(40'000, 17, 10'000, 100), "allowed");
  expect_refused(decode_control, page_with_requirements(0, 10'000, 20'000, 1), "requirements.labels");
  const Bytes many = page_with_requirements(0, 0, 0, 10'000);
  EXPECT_FALSE(decode_control(many.data(), many.size()).ok());  // Over the verifier's table count.
}

// ---- control

TEST(HostileFrameTest, ControlLimitsAreCheckedAtTheLimitAndOver) {
  const auto hello = [](std::uint64_t ecu_mac, std::size_t host_bytes, std::size_t software_bytes) {
    Builder builder;
    const auto host = builder.CreateString(std::string(host_bytes, 'h'));
    const auto software = builder.CreateString(std::string(software_bytes, 's'));
    fb::HelloBuilder table(builder);
    table.add_ecu_mac(ecu_mac);
    table.add_advertise_host(host);
    table.add_software(software);
    return finish_control(builder, fb::ControlBody::Hello, table.Finish().Union());
  };
  expect_taken(decode_control, hello(kEcuMac, 128, 128));
  expect_refused(decode_control, hello(0, 0, 0), "Hello.ecu_mac");
  expect_refused(decode_control, hello(kEcuMac, 129, 0), "Hello.advertise_host");
  expect_refused(decode_control, hello(kEcuMac, 0, 129), "Hello.software");

  const auto guarded_hello = [](bool guarded, const fb::Id128* boot_id, std::uint8_t enforcer) {
    Builder builder;
    fb::HelloBuilder table(builder);
    table.add_ecu_mac(kEcuMac);
    table.add_guarded(guarded);
    if (boot_id != nullptr) table.add_boot_id(boot_id);
    table.add_enforcer(static_cast<fb::Enforcer>(enforcer));
    return finish_control(builder, fb::ControlBody::Hello, table.Finish().Union());
  };
  const fb::Id128 boot_id(0, 1);
  const fb::Id128 zero(0, 0);
  expect_taken(decode_control, guarded_hello(true, &boot_id, 2));
  expect_taken(decode_control, guarded_hello(true, &boot_id, 0));
  expect_taken(decode_control, guarded_hello(false, nullptr, 0));
  expect_taken(decode_control, guarded_hello(false, &boot_id, 1));
  expect_refused(decode_control, guarded_hello(true, nullptr, 1), "Hello.boot_id");
  expect_refused(decode_control, guarded_hello(true, &zero, 1), "Hello.boot_id");
  expect_refused(decode_control, guarded_hello(true, &boot_id, 3), "Hello.enforcer: 3");
  expect_refused(decode_control, guarded_hello(false, nullptr, 255), "Hello.enforcer: 255");

  const auto answer = [](std::size_t name_bytes, std::uint32_t interval_ms, std::uint16_t code,
                         std::size_t context_bytes, std::uint32_t lease_ms = 0) {
    Builder builder;
    const auto name = builder.CreateString(std::string(name_bytes, 'n'));
    const auto context = builder.CreateString(std::string(context_bytes, 'c'));
    const auto table = fb::CreateHelloAnswer(builder, 1, 0, 0, 1, name, interval_ms, code, context, lease_ms);
    return finish_control(builder, fb::ControlBody::HelloAnswer, table.Union());
  };
  expect_taken(decode_control, answer(128, 60'000, 21, 512));
  expect_taken(decode_control, answer(0, 1, 0, 0));
  expect_refused(decode_control, answer(129, 1000, 0, 0), "HelloAnswer.cms_name");
  expect_refused(decode_control, answer(0, 0, 0, 0), "HelloAnswer.heartbeat_interval_ms");
  expect_refused(decode_control, answer(0, 60'001, 0, 0), "HelloAnswer.heartbeat_interval_ms");
  expect_refused(decode_control, answer(0, 1000, 22, 0), "HelloAnswer.code");
  expect_refused(decode_control, answer(0, 1000, 0, 513), "HelloAnswer.context");
  expect_taken(decode_control, answer(0, 1000, 0, 0, 60'000));
  expect_refused(decode_control, answer(0, 1000, 0, 0, 60'001), "HelloAnswer.lease_ms");

  const auto receipt = [](std::uint64_t seq, std::uint8_t level, std::uint16_t code,
                          const std::string& reason) {
    Builder builder;
    const auto text = builder.CreateString(reason);
    const auto table = fb::CreateReceipt(builder, 7, seq, static_cast<fb::ReceiptLevel>(level), code, text);
    return finish_control(builder, fb::ControlBody::Receipt, table.Union());
  };
  expect_taken(decode_control, receipt(1, 7, 21, std::string(512, 'r')));
  expect_refused(decode_control, receipt(0, 0, 0, ""), "Receipt.seq");
  expect_refused(decode_control, receipt(1, 8, 0, ""), "Receipt.level");
  expect_refused(decode_control, receipt(1, 0, 65535, ""), "Receipt.code");
  expect_refused(decode_control, receipt(1, 0, 0, std::string(513, 'r')), "Receipt.reason");
  expect_refused(decode_control, receipt(1, 0, 0, "\x1b[2J"), "Receipt.reason");

  const auto withdraw_answer = [](std::uint16_t code, std::size_t context_bytes) {
    Builder builder;
    const auto context = builder.CreateString(std::string(context_bytes, 'c'));
    const auto table = fb::CreateWithdrawAnswer(builder, 1, code, context);
    return finish_control(builder, fb::ControlBody::WithdrawAnswer, table.Union());
  };
  expect_taken(decode_control, withdraw_answer(21, 512));
  expect_refused(decode_control, withdraw_answer(22, 0), "WithdrawAnswer.code");
  expect_refused(decode_control, withdraw_answer(0, 513), "WithdrawAnswer.context");
}

// ---- bulk

Bytes fetch(std::uint64_t ecu_mac, std::uint64_t incarnation, std::uint64_t seq, std::uint64_t offset_bytes) {
  Builder builder;
  const auto table = fb::CreateFetch(builder, 1, ecu_mac, 7, incarnation, seq, offset_bytes, UINT64_MAX);
  return finish_bulk(builder, fb::BulkBody::Fetch, table.Union());
}

TEST(HostileFrameTest, FetchLimitsAreCheckedAtTheLimitAndOver) {
  expect_taken(decode_bulk, fetch(kEcuMac, 0, 0, 0));
  expect_taken(decode_bulk, fetch(kEcuMac, 1, 1, kBlobSizeBytesMax));
  expect_refused(decode_bulk, fetch(0, 1, 1, 0), "Fetch.ecu_mac");
  expect_refused(decode_bulk, fetch(kEcuMac, 0, 1, 0), "Fetch.incarnation");
  expect_refused(decode_bulk, fetch(kEcuMac, 1, 1, kBlobSizeBytesMax + kChunkSizeBytesMin),
                 "Fetch.offset_bytes");
  expect_refused(decode_bulk, fetch(kEcuMac, 1, 1, 65535), "Fetch.offset_bytes");
}

struct ChunkFields {
  std::uint64_t incarnation = 1;
  std::uint64_t seq = 1;
  std::uint64_t offset_bytes = 0;
  std::uint32_t size_bytes = 65536;
  std::uint64_t blob_size_bytes = 65536 * 2 + 10;
  std::uint32_t chunk_size_bytes = 65536;
  bool last = false;
};

Bytes chunk(const ChunkFields& fields) {
  Builder builder;
  const fb::Id128 digest(1, 2);
  const auto table =
      fb::CreateChunk(builder, 1, fields.offset_bytes, fields.size_bytes, &digest, fields.incarnation,
                      fields.seq, fields.blob_size_bytes, fields.chunk_size_bytes, fields.last, &digest);
  return finish_bulk(builder, fb::BulkBody::Chunk, table.Union());
}

TEST(HostileFrameTest, ChunksThatFitTheirBlobAreTaken) {
  expect_taken(decode_bulk, chunk({1, 1, 0, 65536, 65536 * 2 + 10, 65536, false}));
  expect_taken(decode_bulk, chunk({1, 1, 65536, 65536, 65536 * 2 + 10, 65536, false}));
  expect_taken(decode_bulk, chunk({1, 1, 65536 * 2, 10, 65536 * 2 + 10, 65536, true}));
  expect_taken(decode_bulk, chunk({1, 1, 65536, 65536, 65536 * 2, 65536, true}));
  expect_taken(decode_bulk, chunk({1, 1, 0, 0, 0, 65536, true}));
  expect_taken(decode_bulk,
               chunk({1, 1, kBlobSizeBytesMax - (1 << 20), 1 << 20, kBlobSizeBytesMax, 1 << 20, true}));
}

TEST(HostileFrameTest, ChunksThatDoNotFitTheirBlobAreRefused) {
  const std::uint64_t blob = 65536 * 2 + 10;
  expect_refused(decode_bulk, chunk({0, 1, 0, 65536, blob, 65536, false}), "Chunk.incarnation");
  expect_refused(decode_bulk, chunk({1, 0, 0, 65536, blob, 65536, false}), "Chunk.seq");
  expect_refused(decode_bulk, chunk({1, 1, 0, 65536, blob, 0, false}), "Chunk.chunk_size_bytes");
  expect_refused(decode_bulk, chunk({1, 1, 0, 65536, blob, 65537, false}), "Chunk.chunk_size_bytes");
  expect_refused(decode_bulk, chunk({1, 1, 0, 65536, blob, 8 << 20, false}), "Chunk.chunk_size_bytes");
  expect_refused(decode_bulk, chunk({1, 1, 0, 65536, kBlobSizeBytesMax + 1, 4 << 20, false}),
                 "Chunk.blob_size_bytes");
  expect_refused(decode_bulk, chunk({1, 1, 0, 65536, kBlobSizeBytesMax, 65536, false}), "Chunk.chunk count");
  expect_refused(decode_bulk, chunk({1, 1, 1, 65536, blob, 65536, false}), "Chunk.offset_bytes");
  expect_refused(decode_bulk, chunk({1, 1, 65536 * 3, 0, blob, 65536, false}), "Chunk.offset_bytes");
  expect_refused(decode_bulk, chunk({1, 1, 65536 * 2, 0, 65536 * 2, 65536, true}), "Chunk.offset_bytes");
  expect_refused(decode_bulk, chunk({1, 1, UINT64_MAX - 65535, 65536, blob, 65536, false}),
                 "Chunk.offset_bytes");
  expect_refused(decode_bulk, chunk({1, 1, 0, 65537, blob, 65536, false}), "Chunk.size_bytes");
  expect_refused(decode_bulk, chunk({1, 1, 0, 65535, blob, 65536, false}),
                 "Chunk.size_bytes");  // A hole follows.
  expect_refused(decode_bulk, chunk({1, 1, 0, 0, blob, 65536, false}), "Chunk.size_bytes");
  expect_refused(decode_bulk, chunk({1, 1, 65536 * 2, 11, blob, 65536, true}), "Chunk.size_bytes");
  expect_refused(decode_bulk, chunk({1, 1, 0, 1, 0, 65536, true}), "Chunk.size_bytes");
  expect_refused(decode_bulk, chunk({1, 1, 0, 65536, blob, 65536, true}), "Chunk.last");
  expect_refused(decode_bulk, chunk({1, 1, 65536 * 2, 10, blob, 65536, false}), "Chunk.last");
}

TEST(HostileFrameTest, TransferErrorMustBeAnError) {
  const auto error = [](std::uint16_t code, std::size_t context_bytes) {
    Builder builder;
    const auto context = builder.CreateString(std::string(context_bytes, 'c'));
    return finish_bulk(builder, fb::BulkBody::TransferError,
                       fb::CreateTransferError(builder, 1, code, context).Union());
  };
  expect_taken(decode_bulk, error(21, 512));
  expect_refused(decode_bulk, error(0, 0), "TransferError.code");
  expect_refused(decode_bulk, error(22, 0), "TransferError.code");
  expect_refused(decode_bulk, error(1, 513), "TransferError.context");
}

// ---- admin

TEST(HostileFrameTest, AdminLimitsAreCheckedAtTheLimitAndOver) {
  const auto request = [](std::uint8_t method, std::uint64_t ecu_mac, Version version,
                          std::size_t after_bytes) {
    Builder builder;
    const auto after = builder.CreateString(std::string(after_bytes, 'a'));
    const auto table = fb::CreateAdminRequest(builder, 1, static_cast<fb::AdminMethod>(method), true, ecu_mac,
                                              true, 7, true, version.incarnation, version.seq, false, after);
    return finish_admin(builder, fb::AdminBody::AdminRequest, table.Union());
  };
  expect_taken(decode_admin, request(4, kEcuMac, {1, 1}, 128));
  for (const std::uint8_t known :
       std::initializer_list<std::uint8_t>{5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20})
    expect_taken(decode_admin, request(known, kEcuMac, {1, 1}, 0));
  for (const std::uint8_t unknown : std::initializer_list<std::uint8_t>{21, 255}) {
    expect_refused(decode_admin, request(unknown, kEcuMac, {1, 1}, 0), "AdminRequest.method");
  }
  expect_refused(decode_admin, request(0, 0, {1, 1}, 0), "AdminRequest.ecu_mac");
  expect_refused(decode_admin, request(0, kEcuMac, {0, 1}, 0), "AdminRequest.incarnation");
  expect_refused(decode_admin, request(0, kEcuMac, {1, 0}, 0), "AdminRequest.seq");
  expect_refused(decode_admin, request(0, kEcuMac, {1, 1}, 129), "AdminRequest.continue_after");

  const auto answer = [](std::uint16_t code, std::size_t context_bytes, std::size_t json_bytes,
                         std::size_t next_bytes) {
    Builder builder;
    const auto context = builder.CreateString(std::string(context_bytes, 'c'));
    const auto json = builder.CreateString(std::string(json_bytes, 'j'));
    const auto next = builder.CreateString(std::string(next_bytes, 'n'));
    return finish_admin(builder, fb::AdminBody::AdminAnswer,
                        fb::CreateAdminAnswer(builder, 1, code, context, json, next).Union());
  };
  expect_taken(decode_admin, answer(21, 512, kJsonBytesMax, 128));
  expect_refused(decode_admin, answer(22, 0, 0, 0), "AdminAnswer.code");
  expect_refused(decode_admin, answer(0, 513, 0, 0), "AdminAnswer.context");
  expect_refused(decode_admin, answer(0, 0, kJsonBytesMax + 1, 0), "AdminAnswer.json");
  expect_refused(decode_admin, answer(0, 0, 0, 129), "AdminAnswer.next");
}

// ---- records at rest

struct ManifestFields {
  std::uint16_t format_version = 1;
  std::uint64_t ecu_mac = kEcuMac;
  std::uint64_t incarnation = 1;
  bool has_notification = true;
  bool has_lineage = true;
  std::uint64_t size_bytes = 65536 * 2 + 1;  // three chunks
  std::uint32_t chunk_size_bytes = 65536;
  std::size_t digests_bytes = 48;
  std::vector<std::uint8_t> zero_bits = {0x05};
  bool right_blob_digest = true;
  std::size_t stored_by_bytes = 5;
  fb::Codec codec = fb::Codec::none;
  std::uint64_t key_id = 0;
};

Bytes manifest(const ManifestFields& fields) {
  Builder builder;
  const fb::Id128 lineage(1, 2);
  fb::NotificationBuilder notification_table(builder);
  notification_table.add_seq(1);
  if (fields.has_lineage) notification_table.add_lineage(&lineage);
  notification_table.add_size_bytes(fields.size_bytes);
  const auto notification = notification_table.Finish();
  const std::vector<std::uint8_t> digests(fields.digests_bytes, 0x5a);
  // Canonical digests hash as the bytes that they are.
  const Digest digest = digest_of(digests.data(), digests.size());
  const fb::Id128 blob_digest(digest.high, fields.right_blob_digest ? digest.low : ~digest.low);
  const auto chunk_digests = builder.CreateVector(digests);
  const auto zero_chunks = builder.CreateVector(fields.zero_bits);
  const auto stored_by = builder.CreateString(std::string(fields.stored_by_bytes, 's'));
  fb::ManifestBuilder table(builder);
  table.add_format_version(fields.format_version);
  table.add_ecu_mac(fields.ecu_mac);
  table.add_incarnation(fields.incarnation);
  if (fields.has_notification) table.add_notification(notification);
  table.add_chunk_size_bytes(fields.chunk_size_bytes);
  table.add_chunk_digests(chunk_digests);
  table.add_zero_chunks(zero_chunks);
  table.add_blob_digest(&blob_digest);
  table.add_stored_by(stored_by);
  table.add_codec(fields.codec);
  table.add_key_id(fields.key_id);
  builder.Finish(table.Finish(), fb::ManifestIdentifier());
  return Bytes(builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize());
}

template <typename Change>
Bytes manifest_with(Change change) {
  ManifestFields fields;
  change(fields);
  return manifest(fields);
}

TEST(HostileRecordTest, ManifestAsTheFormatDescribesItIsTaken) {
  const Bytes record = manifest({});
  const auto decoded = decode_manifest(record.data(), record.size());
  ASSERT_TRUE(decoded.ok()) << decoded.error().message();
  EXPECT_EQ(decoded->chunk_digests, std::vector<Digest>(3, Digest{0x5a5a5a5a5a5a5a5a, 0x5a5a5a5a5a5a5a5a}));
  EXPECT_EQ(decoded->zero_chunks, (std::vector<bool>{true, false, true}));
}

TEST(HostileRecordTest, ManifestThatContradictsItselfIsCorrupt) {
  using F = ManifestFields;
  const auto expect_corrupt = [](const Bytes& record, const std::string& names) {
    expect_refused(decode_manifest, record, names, Code::kCorrupt);
  };
  expect_corrupt(manifest_with([](F& f) { f.format_version = 0; }), "format_version");
  expect_corrupt(manifest_with([](F& f) { f.ecu_mac = 0; }), "Manifest.ecu_mac");
  expect_corrupt(manifest_with([](F& f) { f.incarnation = 0; }), "Manifest.incarnation");
  expect_corrupt(manifest_with([](F& f) { f.has_notification = false; }), "Manifest.notification");
  expect_corrupt(manifest_with([](F& f) { f.has_lineage = false; }), "Manifest.notification.lineage");
  expect_corrupt(manifest_with([](F& f) { f.size_bytes = 65536 * 3 + 1; }), "Manifest.chunk_digests");
  expect_corrupt(manifest_with([](F& f) { f.size_bytes = 65536 * 2; }), "Manifest.chunk_digests");
  expect_corrupt(manifest_with([](F& f) { f.chunk_size_bytes = 1 << 20; }), "Manifest.chunk_digests");
  expect_corrupt(manifest_with([](F& f) { f.chunk_size_bytes = 65535; }), "Manifest.chunk_size_bytes");
  expect_corrupt(manifest_with([](F& f) { f.digests_bytes = 0; }), "Manifest.chunk_digests");
  expect_corrupt(manifest_with([](F& f) { f.digests_bytes = 47; }), "Manifest.chunk_digests");
  expect_corrupt(manifest_with([](F& f) { f.zero_bits = {}; }), "Manifest.zero_chunks");
  expect_corrupt(manifest_with([](F& f) { f.zero_bits = {5, 0}; }), "Manifest.zero_chunks");
  expect_corrupt(manifest_with([](F& f) { f.zero_bits = {0x0d}; }), "Manifest.zero_chunks");
  expect_corrupt(manifest_with([](F& f) { f.right_blob_digest = false; }), "Manifest.blob_digest");
  expect_corrupt(manifest_with([](F& f) { f.stored_by_bytes = 129; }), "Manifest.stored_by");
}

TEST(HostileRecordTest, ManifestOfANewerFormatIsUnsupported) {
  using F = ManifestFields;
  const auto expect_unsupported = [](const Bytes& record, const std::string& names) {
    expect_refused(decode_manifest, record, names, Code::kUnsupported);
  };
  expect_unsupported(manifest_with([](F& f) { f.format_version = 2; }), "format_version");
  expect_unsupported(manifest_with([](F& f) { f.codec = fb::Codec::zstd; }), "codec");
  expect_unsupported(manifest_with([](F& f) { f.key_id = 1; }), "key_id");
}

}  // namespace
}  // namespace cms::wire
