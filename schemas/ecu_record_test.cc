#include "schemas/ecu_record.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "ecu_log_generated.h"
#include "schemas/claim_record.h"
#include "schemas/samples_test.h"

namespace cms::wire {
namespace {

EcuRecord sample(EcuRecordKind kind) {
  return ecu_records().at(kind == EcuRecordKind::kHello ? std::size_t{1} : std::size_t{2});
}

// A FlatBuffer of any values: what encode() would never write.
struct Frame {
  std::uint16_t format_version = 1;
  std::uint8_t kind = 1;
  std::uint64_t ecu_mac = 0x020000000001;
  std::uint64_t slot = 2;
  std::uint64_t uid = 1;
  std::string writer = "cms-a";
  std::uint64_t writer_incarnation = 1;
  std::uint64_t incarnation = 1;
  std::uint64_t nonce = 5;
  bool has_boot_id = true;
  fb::Id128 boot_id{0, 1};
  std::uint8_t enforcer = 2;
  std::uint64_t lost_incarnation = 0;

  Result<EcuRecord> decoded() const {
    flatbuffers::FlatBufferBuilder builder;
    const auto name = builder.CreateString(writer);
    builder.Finish(
        fb::CreateEcuRecord(builder, format_version, static_cast<fb::EcuRecordKind>(kind), ecu_mac, slot, uid,
                            name, writer_incarnation, 0, incarnation, nonce, has_boot_id ? &boot_id : nullptr,
                            static_cast<fb::Enforcer>(enforcer), lost_incarnation),
        fb::EcuRecordIdentifier());
    return decode_ecu_record(builder.GetBufferPointer(), builder.GetSize());
  }
  // Empty: it is taken.
  std::string refused() const {
    const auto record = decoded();
    if (record.ok()) return "";
    EXPECT_EQ(record.error().code, Code::kCorrupt);
    return record.error().context.substr(0, record.error().context.find(':'));
  }
};

std::string refused(const std::function<void(Frame&)>& change) {
  Frame frame;
  change(frame);
  return frame.refused();
}

// A LOST with nothing wrong, and what is.
std::string refused_lost(const std::function<void(Frame&)>& change) {
  return refused([&](Frame& f) {
    f.kind = 2;
    f.nonce = 0;
    f.has_boot_id = false;
    change(f);
  });
}

TEST(EcuRecordTest, Survives) {
  for (const EcuRecord& record : ecu_records()) {
    SCOPED_TRACE(record.slot);
    const Bytes bytes = encode(record);
    const auto again = decode_ecu_record(bytes.data(), bytes.size());
    ASSERT_TRUE(again.ok()) << again.error().message();
    EXPECT_TRUE(same(record, *again));
  }
}

TEST(EcuRecordTest, MaintenanceIsSaidByBothKindsAndByNoneThatSaysNothing) {
  for (const EcuRecordKind kind : {EcuRecordKind::kHello, EcuRecordKind::kLost}) {
    for (const bool maintenance : {false, true}) {
      EcuRecord record = sample(kind);
      record.maintenance = maintenance;
      const Bytes bytes = encode(record);
      const auto again = decode_ecu_record(bytes.data(), bytes.size());
      ASSERT_TRUE(again.ok()) << again.error().message();
      EXPECT_EQ(again->maintenance, maintenance);
    }
  }
  const auto record = Frame{}.decoded();
  ASSERT_TRUE(record.ok()) << record.error().message();
  EXPECT_FALSE(record->maintenance);
}

TEST(EcuRecordTest, TheLongestOneFits) {
  EcuRecord record = sample(EcuRecordKind::kHello);
  record.ecu_mac = EcuMac{0xfeffffffffff};
  record.slot = record.uid = record.writer_incarnation = record.written_at_us = UINT64_MAX;
  record.incarnation = record.nonce = UINT64_MAX;
  record.boot_id = Id128{UINT64_MAX, UINT64_MAX};
  record.enforcer = Enforcer::kWatchdog;
  record.writer.assign(kWriterBytesMax, 'w');
  const Bytes bytes = encode(record);  // Asserts the size.
  EXPECT_LE(bytes.size(), kEcuRecordBytesMax);
  const auto again = decode_ecu_record(bytes.data(), bytes.size());
  ASSERT_TRUE(again.ok()) << again.error().message();
  EXPECT_TRUE(same(record, *again));
}

TEST(EcuRecordTest, IsCheckedAtTheLimitAndOver) {
  const std::string longest(64, 'w');
  EXPECT_EQ(Frame{}.refused(), "");
  EXPECT_EQ(refused([](Frame& f) { f.format_version = 0; }), "EcuRecord.format_version");
  EXPECT_EQ(refused([](Frame& f) { f.kind = 0; }), "EcuRecord.kind");
  EXPECT_EQ(refused([](Frame& f) { f.kind = 4; }), "EcuRecord.kind");
  EXPECT_EQ(refused([](Frame& f) { f.lost_incarnation = 1; }), "");
  EXPECT_EQ(refused([](Frame& f) { f.lost_incarnation = 2; }), "EcuRecord.lost_incarnation");
  EXPECT_EQ(refused([](Frame& f) { f.ecu_mac = 0; }), "EcuRecord.ecu_mac");
  EXPECT_EQ(refused([](Frame& f) { f.ecu_mac = 0x010000000001; }), "EcuRecord.ecu_mac");
  EXPECT_EQ(refused([](Frame& f) { f.ecu_mac = 0xfeffffffffff; }), "");
  EXPECT_EQ(refused([](Frame& f) { f.ecu_mac = 0x1000000000002; }), "EcuRecord.ecu_mac");
  EXPECT_EQ(refused([](Frame& f) { f.slot = 1; }), "");
  EXPECT_EQ(refused([](Frame& f) { f.slot = UINT64_MAX; }), "");
  EXPECT_EQ(refused([](Frame& f) { f.slot = 0; }), "EcuRecord.slot");
  EXPECT_EQ(refused([](Frame& f) { f.uid = 0; }), "EcuRecord.uid");
  EXPECT_EQ(refused([&](Frame& f) { f.writer = longest; }), "");
  EXPECT_EQ(refused([&](Frame& f) { f.writer = longest + "w"; }), "EcuRecord.writer");
  EXPECT_EQ(refused([](Frame& f) { f.writer = ""; }), "EcuRecord.writer");
  EXPECT_EQ(refused([](Frame& f) { f.writer = "a\x1b[2J"; }), "EcuRecord.writer");
  EXPECT_EQ(refused([](Frame& f) { f.writer_incarnation = 0; }), "EcuRecord.writer_incarnation");
  EXPECT_EQ(refused([](Frame& f) { f.incarnation = 0; }), "EcuRecord.incarnation");
  EXPECT_EQ(refused([](Frame& f) { f.enforcer = 0; }), "");
  EXPECT_EQ(refused([](Frame& f) { f.enforcer = 3; }), "EcuRecord.enforcer");
}

TEST(EcuRecordTest, HasTheFieldsOfItsKind) {
  EXPECT_EQ(refused([](Frame& f) { f.has_boot_id = false; }), "EcuRecord.boot_id");
  EXPECT_EQ(refused([](Frame& f) { f.boot_id = fb::Id128(0, 0); }), "EcuRecord.boot_id");
  EXPECT_EQ(refused([](Frame& f) { f.boot_id = fb::Id128(1, 0); }), "");
  EXPECT_EQ(refused([](Frame& f) { f.nonce = 0; }), "") << "a nonce may be any";
  EXPECT_EQ(refused_lost([](Frame&) {}), "");
  EXPECT_EQ(refused_lost([](Frame& f) { f.has_boot_id = true; }), "EcuRecord.boot_id");
  EXPECT_EQ(refused_lost([](Frame& f) { f.nonce = 1; }), "EcuRecord.nonce");
  EXPECT_EQ(refused_lost([](Frame& f) { f.kind = 3; }), "") << "BYE has the fields of LOST";
  EXPECT_EQ(refused_lost([](Frame& f) { f.slot = 1; }), "EcuRecord.slot") << "somebody was there before";
}

TEST(EcuRecordTest, ANewerFormatIsUnsupported) {
  Frame frame;
  frame.format_version = 2;
  frame.kind = 4;  // Whatever else a newer one may say.
  const auto record = frame.decoded();
  ASSERT_FALSE(record.ok());
  EXPECT_EQ(record.error().code, Code::kUnsupported);
  EXPECT_EQ(record.error().context, "EcuRecord.format_version: 2 (allowed: up to 1)");
}

TEST(EcuRecordTest, EveryCutIsCorrupt) {
  const EcuRecord record = sample(EcuRecordKind::kHello);
  const Bytes bytes = encode(record);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const Bytes cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    const auto decoded = decode_ecu_record(cut.data(), cut.size());
    if (!decoded.ok()) {
      EXPECT_EQ(decoded.error().code, Code::kCorrupt) << size;
      continue;
    }
    // FlatBuffers may end in padding.
    EXPECT_TRUE(same(*decoded, record)) << size;
    EXPECT_GE(size + 8, bytes.size());
  }
}

TEST(EcuRecordTest, IsNoOtherRecordAndNotLongerThanItsLimit) {
  const Bytes claim = encode(claim_records().front());
  EXPECT_EQ(decode_ecu_record(claim.data(), claim.size()).error().code, Code::kCorrupt);
  Bytes bytes = encode(sample(EcuRecordKind::kLost));
  EXPECT_EQ(decode_claim_record(bytes.data(), bytes.size()).error().code, Code::kCorrupt);
  bytes.resize(kEcuRecordBytesMax);
  EXPECT_TRUE(decode_ecu_record(bytes.data(), bytes.size()).ok());
  bytes.resize(kEcuRecordBytesMax + 1);
  const auto longer = decode_ecu_record(bytes.data(), bytes.size());
  ASSERT_FALSE(longer.ok());
  EXPECT_EQ(longer.error().code, Code::kCorrupt);
}

TEST(EcuRecordTest, KindsHaveTheirNames) {
  EXPECT_EQ(to_string(EcuRecordKind::kHello), "HELLO");
  EXPECT_EQ(to_string(EcuRecordKind::kLost), "LOST");
  EXPECT_EQ(to_string(EcuRecordKind::kBye), "BYE");
  EXPECT_EQ(to_string(static_cast<EcuRecordKind>(4)), "UNKNOWN");
}

}  // namespace
}  // namespace cms::wire
