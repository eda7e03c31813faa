#include "schemas/messages.h"

#include <cstring>

#include <gtest/gtest.h>

#include "base/prng.h"
#include "schemas/samples_test.h"

namespace cms::wire {
namespace {

// ---- the same properties for every message of every channel

// Decodes at each of the eight alignments; all must agree.
template <typename Decode>
auto decode_everywhere(Decode decode, const Bytes& frame) {
  auto first = decode(frame.data(), frame.size());
  for (std::size_t shift = 0; shift < 8; ++shift) {
    Bytes shifted(frame.size() + shift);
    std::memcpy(shifted.data() + shift, frame.data(), frame.size());
    const auto again = decode(shifted.data() + shift, frame.size());
    EXPECT_EQ(first.ok(), again.ok()) << "at alignment " << shift;
    if (first.ok() && again.ok()) {
      EXPECT_TRUE(same(first.value(), again.value())) << "at alignment " << shift;
    }
  }
  return first;
}

template <typename Message, typename Decode>
void expect_round_trip(const std::vector<Message>& messages, Decode decode) {
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const auto decoded = decode_everywhere(decode, encode(messages[i]));
    ASSERT_TRUE(decoded.ok()) << "message " << i << ": " << decoded.error().message();
    EXPECT_TRUE(same(messages[i], *decoded)) << "message " << i;
  }
}

// What a damaged frame decodes to, if it decodes, is within all limits: encode() asserts them, and
// what it writes decodes to the same again.
template <typename Decode>
void expect_harmless(Decode decode, const std::uint8_t* data, std::size_t size_bytes, Code code) {
  const auto decoded = decode(data, size_bytes);
  if (!decoded) {
    EXPECT_TRUE(decoded.error().code == code || decoded.error().code == Code::kUnsupported)
        << decoded.error().message();
    EXPECT_FALSE(decoded.error().context.empty());
    return;
  }
  const Bytes again = encode(*decoded);
  const auto twice = decode(again.data(), again.size());
  ASSERT_TRUE(twice.ok()) << twice.error().message();
  EXPECT_TRUE(same(*decoded, *twice));
}

template <typename Message, typename Decode>
void expect_damage_is_harmless(const std::vector<Message>& messages, Decode decode,
                               Code code = Code::kProtocol) {
  Prng prng(1);
  for (const Message& message : messages) {
    const Bytes frame = encode(message);
    for (std::size_t size = 0; size < frame.size(); ++size) {
      // A copy of its own, so that a sanitizer sees every read beyond the end.
      const Bytes truncated(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(size));
      expect_harmless(decode, truncated.data(), truncated.size(), code);
    }
    for (std::size_t i = 0; i < frame.size(); ++i) {
      for (const int flip : {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff}) {
        Bytes damaged = frame;
        damaged[i] = static_cast<std::uint8_t>(damaged[i] ^ flip);
        expect_harmless(decode, damaged.data(), damaged.size(), code);
      }
    }
    for (int round = 0; round < 2000; ++round) {
      Bytes damaged = frame;
      const std::uint64_t count = 1 + prng.below(8);
      for (std::uint64_t i = 0; i < count; ++i) {
        const std::size_t at = prng.below(damaged.size());
        damaged[at] = static_cast<std::uint8_t>(prng.next());
      }
      expect_harmless(decode, damaged.data(), damaged.size(), code);
    }
  }
}

TEST(NotifyCodecTest, RoundTripsEveryFieldAtEveryAlignment) {
  expect_round_trip(notify_messages(), decode_notify);
}
TEST(ControlCodecTest, RoundTripsEveryFieldAtEveryAlignment) {
  expect_round_trip(control_messages(), decode_control);
}
TEST(BulkCodecTest, RoundTripsEveryFieldAtEveryAlignment) { expect_round_trip(bulk_messages(), decode_bulk); }
TEST(AdminCodecTest, RoundTripsEveryFieldAtEveryAlignment) {
  expect_round_trip(admin_messages(), decode_admin);
}
TEST(ManifestCodecTest, RoundTripsEveryFieldAtEveryAlignment) {
  expect_round_trip(std::vector<Manifest>{full_manifest()}, decode_manifest);
}

TEST(NotifyCodecTest, DamagedFramesAreRefusedOrWithinLimits) {
  expect_damage_is_harmless(notify_messages(), decode_notify);
}
TEST(ControlCodecTest, DamagedFramesAreRefusedOrWithinLimits) {
  expect_damage_is_harmless(control_messages(), decode_control);
}
TEST(BulkCodecTest, DamagedFramesAreRefusedOrWithinLimits) {
  expect_damage_is_harmless(bulk_messages(), decode_bulk);
}
TEST(AdminCodecTest, DamagedFramesAreRefusedOrWithinLimits) {
  expect_damage_is_harmless(admin_messages(), decode_admin);
}
TEST(ManifestCodecTest, DamagedRecordsAreRefusedOrWithinLimits) {
  expect_damage_is_harmless(std::vector<Manifest>{full_manifest()}, decode_manifest, Code::kCorrupt);
}

TEST(MessagesTest, FramesOfOneChannelAreRefusedOnTheOthers) {
  const Bytes frames[] = {encode(notify_messages()[1]), encode(control_messages()[2]),
                          encode(bulk_messages()[2]), encode(admin_messages()[1]), encode(full_manifest())};
  for (int i = 0; i < 5; ++i) {
    const auto* data = frames[i].data();
    const std::size_t size = frames[i].size();
    EXPECT_EQ(decode_notify(data, size).ok(), i == 0);
    EXPECT_EQ(decode_control(data, size).ok(), i == 1);
    EXPECT_EQ(decode_bulk(data, size).ok(), i == 2);
    EXPECT_EQ(decode_admin(data, size).ok(), i == 3);
    EXPECT_EQ(decode_manifest(data, size).ok(), i == 4);
  }
}

TEST(MessagesTest, NothingAtAllIsRefused) {
  EXPECT_FALSE(decode_notify(nullptr, 0).ok());
  EXPECT_FALSE(decode_control(nullptr, 0).ok());
  EXPECT_FALSE(decode_bulk(nullptr, 0).ok());
  EXPECT_FALSE(decode_admin(nullptr, 0).ok());
  EXPECT_FALSE(decode_manifest(nullptr, 0).ok());
}

TEST(MessagesTest, FrameSizesAreCheckedAtTheLimitAndOver) {
  // Trailing bytes do not disturb a FlatBuffer, so padding brings a frame to any size.
  const auto padded = [](Bytes frame, std::size_t size_bytes) {
    frame.resize(size_bytes);
    return frame;
  };
  const auto expect_limit = [&](auto decode, const Bytes& frame, std::size_t limit) {
    const Bytes at = padded(frame, limit);
    const Bytes over = padded(frame, limit + 1);
    EXPECT_TRUE(decode(at.data(), at.size()).ok());
    EXPECT_FALSE(decode(over.data(), over.size()).ok());
  };
  expect_limit(decode_notify, encode(notify_messages()[0]), kNotificationBytesMax);
  expect_limit(decode_control, encode(control_messages()[0]), kControlFrameBytesMax);
  expect_limit(decode_bulk, encode(bulk_messages()[0]), kControlFrameBytesMax);
  expect_limit(decode_admin, encode(admin_messages()[0]), kAdminFrameBytesMax);
}

// ---- sizes that must fit

// Every field of 8 bytes in use, and text cut into the lengths that cost most padding.
Notification largest_notification() {
  Notification n = full_notification();
  n.program_id = n.seq = n.owner_epoch = n.taken_at_us = n.pause_us = UINT64_MAX;
  n.program_name = std::string(36, 'p');
  n.requirements.arch = std::string(36, 'a');
  n.requirements.os = std::string(36, 'o');
  n.requirements.checkpoint_format = std::string(36, 'f');
  n.requirements.labels.assign(kLabelCountMax, std::string(16, 'l'));
  return n;
}

TEST(NotifyCodecTest, LargestNotificationFitsItsFrame) {
  const NotifyMessage message{kSession, largest_notification()};
  ASSERT_TRUE(check_notification(largest_notification()).ok());
  const Bytes frame = encode(message);
  EXPECT_LE(frame.size(), kNotificationBytesMax);
  EXPECT_TRUE(decode_notify(frame.data(), frame.size()).ok());
}

TEST(ControlCodecTest, FullListPageFitsItsFrame) {
  ListPage page;
  page.notifications.assign(kListPageCountMax, largest_notification());
  const Bytes frame = encode(ControlMessage{1, page});
  EXPECT_LE(frame.size(), kControlFrameBytesMax);
  const auto decoded = decode_control(frame.data(), frame.size());
  ASSERT_TRUE(decoded.ok()) << decoded.error().message();
  EXPECT_EQ(std::get<ListPage>(decoded->body).notifications.size(), kListPageCountMax);
}

TEST(AdminCodecTest, LargestJsonFitsItsFrame) {
  AdminAnswer answer;
  answer.json = std::string(kJsonBytesMax, 'j');
  answer.context = std::string(kReasonBytesMax, 'c');
  answer.next = std::string(kNameBytesMax, 'n');
  const Bytes frame = encode(AdminBody(answer));
  EXPECT_LE(frame.size(), kAdminFrameBytesMax);
  EXPECT_TRUE(decode_admin(frame.data(), frame.size()).ok());
}

TEST(ManifestCodecTest, EmptyBlobHasOneChunk) {
  Manifest manifest = full_manifest();
  manifest.notification.size_bytes = 0;
  manifest.chunk_digests = {digest_of("", 0)};
  manifest.zero_chunks = {false};
  manifest.blob_digest = blob_digest_of(manifest.chunk_digests);
  const Bytes record = encode(manifest);
  const auto decoded = decode_manifest(record.data(), record.size());
  ASSERT_TRUE(decoded.ok()) << decoded.error().message();
  EXPECT_TRUE(same(manifest, *decoded));
}

TEST(ManifestCodecTest, NotificationChunkSizeMayDifferFromTheStoredOne) {
  Manifest manifest = full_manifest();
  manifest.notification.chunk_size_bytes = 4 << 20;
  const Bytes record = encode(manifest);
  EXPECT_TRUE(decode_manifest(record.data(), record.size()).ok());
}

// ---- what encode() refuses, and what it cuts

TEST(ControlCodecTest, FreeTextIsCutBetweenCharactersAndCleaned) {
  const auto reason_after = [](const std::string& reason) {
    const Bytes frame = encode(ControlMessage{1, Receipt{1, 1, ReceiptLevel::kDropped, Code::kIo, reason}});
    const auto decoded = decode_control(frame.data(), frame.size());
    EXPECT_TRUE(decoded.ok());
    return decoded.ok() ? std::get<Receipt>(decoded->body).reason : std::string("refused");
  };
  const std::string full(kReasonBytesMax, 'x');
  EXPECT_EQ(reason_after(full), full);
  EXPECT_EQ(reason_after(full + "y"), full);
  const std::string almost(kReasonBytesMax - 1, 'x');
  EXPECT_EQ(reason_after(almost + "\u00e4"), almost);  // Two bytes do not fit into one.
  EXPECT_EQ(reason_after("a\nb\x7f"
                         "c\xff"
                         "d\xc3"),
            "a?b?c?d?");
  EXPECT_EQ(reason_after("\u00e4\u20ac\U0001f600"), "\u00e4\u20ac\U0001f600");
  EXPECT_EQ(reason_after("\xed\xa0\x80"), "???");       // A surrogate is no character.
  EXPECT_EQ(reason_after("\xc0\xaf"), "??");            // An overlong form of '/'.
  EXPECT_EQ(reason_after("\xf4\x90\x80\x80"), "????");  // Beyond U+10FFFF.
}

TEST(MessagesDeathTest, EncodeStopsAtAValueOverItsLimit) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  NotifyMessage without_incarnation{SessionId{kEcu, 0}, Beat{1}};
  EXPECT_DEATH((void)encode(without_incarnation), "");
  ControlMessage long_name{1, HelloAnswer{}};
  std::get<HelloAnswer>(long_name.body).cms_name = std::string(kNameBytesMax + 1, 'n');
  EXPECT_DEATH((void)encode(long_name), "");
  Manifest manifest = full_manifest();
  manifest.zero_chunks.pop_back();
  EXPECT_DEATH((void)encode(manifest), "");
}

// ---- check_notification: each limit, at it and over it

template <typename Change>
Status checked(Change change) {
  Notification n = full_notification();
  n.program_name.clear();
  n.requirements = Requirements{};
  change(n);
  return check_notification(n);
}

void expect_refused(const Status& status, const std::string& field) {
  ASSERT_FALSE(status.ok()) << field;
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.error().context.find("Notification." + field), std::string::npos)
      << status.error().context;
}

TEST(CheckNotificationTest, AcceptsEveryLimitAndRefusesOneMore) {
  using N = Notification;
  EXPECT_TRUE(checked([](N& n) { n.seq = 1; }).ok());
  expect_refused(checked([](N& n) { n.seq = 0; }), "seq");

  EXPECT_TRUE(checked([](N& n) { n.size_bytes = 0; }).ok());
  EXPECT_TRUE(
      checked([](N& n) { n.size_bytes = std::uint64_t{1} << 44, n.chunk_size_bytes = 1 << 20; }).ok());
  expect_refused(
      checked([](N& n) { n.size_bytes = (std::uint64_t{1} << 44) + 1, n.chunk_size_bytes = 4 << 20; }),
      "size_bytes");
  expect_refused(checked([](N& n) { n.size_bytes = std::uint64_t{1} << 44, n.chunk_size_bytes = 1 << 19; }),
                 "chunk count");
  expect_refused(checked([](N& n) { n.size_bytes = UINT64_MAX; }), "size_bytes");

  EXPECT_TRUE(checked([](N& n) { n.chunk_size_bytes = 64 << 10; }).ok());
  EXPECT_TRUE(checked([](N& n) { n.chunk_size_bytes = 4 << 20; }).ok());
  expect_refused(checked([](N& n) { n.chunk_size_bytes = 0; }), "chunk_size_bytes");
  expect_refused(checked([](N& n) { n.chunk_size_bytes = 32 << 10; }), "chunk_size_bytes");
  expect_refused(checked([](N& n) { n.chunk_size_bytes = 8 << 20; }), "chunk_size_bytes");
  expect_refused(checked([](N& n) { n.chunk_size_bytes = 3 << 18; }), "chunk_size_bytes");

  expect_refused(checked([](N& n) { n.kind = static_cast<CheckpointKind>(2); }), "kind");
  expect_refused(checked([](N& n) { n.policies.release = static_cast<Release>(2); }), "policies.release");
  expect_refused(checked([](N& n) { n.policies.on_isolation = static_cast<OnIsolation>(2); }),
                 "policies.on_isolation");
  expect_refused(checked([](N& n) { n.policies.on_loss = static_cast<OnLoss>(2); }), "policies.on_loss");
}

TEST(CheckNotificationTest, AcceptsTextUpToItsLimitAndRefusesOneMore) {
  using N = Notification;
  const std::string name(128, 'n');
  EXPECT_TRUE(checked([&](N& n) { n.program_name = name; }).ok());
  EXPECT_TRUE(checked([&](N& n) { n.requirements.arch = name; }).ok());
  EXPECT_TRUE(checked([&](N& n) { n.requirements.os = name; }).ok());
  EXPECT_TRUE(checked([&](N& n) { n.requirements.checkpoint_format = name; }).ok());
  expect_refused(checked([&](N& n) { n.program_name = name + "n"; }), "program_name");
  expect_refused(checked([&](N& n) { n.requirements.arch = name + "n"; }), "requirements.arch");
  expect_refused(checked([&](N& n) { n.requirements.os = name + "n"; }), "requirements.os");
  expect_refused(checked([&](N& n) { n.requirements.checkpoint_format = name + "n"; }),
                 "requirements.checkpoint_format");

  EXPECT_TRUE(checked([](N& n) { n.requirements.labels.assign(16, "label"); }).ok());
  expect_refused(checked([](N& n) { n.requirements.labels.assign(17, "label"); }), "requirements.labels");
  EXPECT_TRUE(checked([](N& n) { n.requirements.labels.assign(1, std::string(64, 'l')); }).ok());
  expect_refused(checked([](N& n) { n.requirements.labels.assign(1, std::string(65, 'l')); }),
                 "requirements.labels");

  EXPECT_TRUE(checked([](N& n) { n.requirements.labels.assign(16, std::string(25, 'l')); }).ok());
  expect_refused(
      checked([](N& n) { n.requirements.labels.assign(16, std::string(25, 'l')), n.program_name = "n"; }),
      "bytes of all names and labels");

  expect_refused(checked([](N& n) { n.program_name = "tab\there"; }), "program_name");
  expect_refused(checked([](N& n) { n.program_name = std::string("nul\0", 4); }), "program_name");
  expect_refused(checked([](N& n) { n.program_name = "latin-1 \xe4"; }), "program_name");
  expect_refused(checked([](N& n) {
                   n.program_name =
                       "\xc2\x9b"
                       "31m";
                 }),
                 "program_name");  // A C1 control.
}

TEST(MessagesTest, ChunkCountRoundsUpAndIsNeverZero) {
  static_assert(chunk_count_of(0, 65536) == 1);
  static_assert(chunk_count_of(1, 65536) == 1);
  static_assert(chunk_count_of(65536, 65536) == 1);
  static_assert(chunk_count_of(65537, 65536) == 2);
  static_assert(chunk_count_of(kBlobSizeBytesMax, kChunkSizeBytes) == 16'777'216);
}

TEST(MessagesTest, ReceiptLevelsHaveTheirNames) {
  EXPECT_EQ(to_string(ReceiptLevel::kAnnounced), "ANNOUNCED");
  EXPECT_EQ(to_string(ReceiptLevel::kPulling), "PULLING");
  EXPECT_EQ(to_string(ReceiptLevel::kStored), "STORED");
  EXPECT_EQ(to_string(ReceiptLevel::kReplicated), "REPLICATED");
  EXPECT_EQ(to_string(ReceiptLevel::kVerified), "VERIFIED");
  EXPECT_EQ(to_string(ReceiptLevel::kSuperseded), "SUPERSEDED");
  EXPECT_EQ(to_string(ReceiptLevel::kDropped), "DROPPED");
  EXPECT_EQ(to_string(ReceiptLevel::kFenced), "FENCED");
}

}  // namespace
}  // namespace cms::wire
