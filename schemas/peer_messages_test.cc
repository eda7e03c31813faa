// The peer events: every field survives, limits hold on both sides, foreign frames are refused.
#include <gtest/gtest.h>

#include "peer_generated.h"
#include "schemas/messages.h"

namespace cms::wire {
namespace {

template <typename T>
using Offset = flatbuffers::Offset<T>;

constexpr EcuMac kEcu{0x020000000001};

PeerMessage message_with(PeerBody body) {
  PeerMessage message;
  message.protocol_version = 3;
  message.cms_name = "cms-north";
  message.incarnation = 0x1122334455667788;
  message.fleet_id = Id128{1, 2};
  message.event = 42;
  message.body = std::move(body);
  return message;
}

StoredCheckpoint stored_checkpoint(std::size_t name_bytes) {
  StoredCheckpoint stored;
  stored.checkpoint = CheckpointId{ProgramKey{kEcu, UINT64_MAX}, Version{UINT64_MAX - 1, UINT64_MAX - 2}};
  stored.lineage = Lineage{3, 4};
  stored.owner_epoch = 5;
  stored.size_bytes = kBlobSizeBytesMax;
  stored.uid = 6;
  stored.stored_bytes = 7;
  stored.stored_at_us = UINT64_MAX;
  stored.taken_at_us = 8;
  stored.pause_us = 9;
  stored.program_name = std::string(name_bytes, 'n');
  stored.blob_digest = Digest{10, 11};
  return stored;
}

PeerMessage round_trip(const PeerMessage& message) {
  const Bytes bytes = encode(message);
  auto decoded = decode_peer(bytes.data(), bytes.size());
  EXPECT_TRUE(decoded.ok()) << decoded.error().message();
  EXPECT_EQ(decoded->protocol_version, message.protocol_version);
  EXPECT_EQ(decoded->cms_name, message.cms_name);
  EXPECT_EQ(decoded->incarnation, message.incarnation);
  EXPECT_EQ(decoded->fleet_id, message.fleet_id);
  EXPECT_EQ(decoded->event, message.event);
  EXPECT_EQ(decoded->body.index(), message.body.index());
  return std::move(decoded).value();
}

// A frame that encode() would never make.
template <typename Make>
Result<PeerMessage> decode_hostile(fb::PeerBody type, Make make) {
  flatbuffers::FlatBufferBuilder builder;
  const auto body = make(builder);
  const auto name = builder.CreateString("b");
  builder.Finish(fb::CreatePeerMessage(builder, 1, name, 1, nullptr, 1, type, body.Union()),
                 fb::PeerMessageIdentifier());
  return decode_peer(builder.GetBufferPointer(), builder.GetSize());
}

void expect_refused(const Result<PeerMessage>& decoded, const std::string& field) {
  ASSERT_FALSE(decoded.ok());
  EXPECT_EQ(decoded.error().code, Code::kProtocol);
  EXPECT_NE(decoded.error().context.find(field), std::string::npos) << decoded.error().message();
}

TEST(PeerCodecTest, BeatSaysWhatIsReadAndWhatItsSenderKnows) {
  PeerBeat beat;
  beat.features = kPeerFeatureRetention;
  const CheckpointId checkpoint{ProgramKey{kEcu, 7}, Version{UINT64_MAX, 3}};
  beat.reading.assign(kPeerReadingCountMax, checkpoint);
  const PeerBeat got = std::get<PeerBeat>(round_trip(message_with(beat)).body);
  EXPECT_EQ(got.features, kPeerFeatureRetention);
  EXPECT_EQ(got.reading, beat.reading);
  // An older sender knows neither.
  const auto old =
      decode_hostile(fb::PeerBody::PeerBeat, [](auto& builder) { return fb::CreatePeerBeat(builder, 1); });
  ASSERT_TRUE(old.ok());
  EXPECT_EQ(std::get<PeerBeat>(old->body).features, 0U);
  EXPECT_TRUE(std::get<PeerBeat>(old->body).reading.empty());
  const std::vector<fb::CheckpointRef> many(kPeerReadingCountMax + 1, fb::CheckpointRef(kEcu.bits, 7, 1, 1));
  expect_refused(decode_hostile(fb::PeerBody::PeerBeat,
                                [&](auto& builder) {
                                  const auto reading = builder.CreateVectorOfStructs(many);
                                  fb::PeerBeatBuilder table(builder);
                                  table.add_reading(reading);
                                  return table.Finish();
                                }),
                 "PeerBeat.reading");
}

TEST(PeerCodecTest, RemovedAndPinnedRoundTripAtTheirLimits) {
  const CheckpointId checkpoint{ProgramKey{kEcu, 7}, Version{4, UINT64_MAX}};
  PeerRemoved removed;
  removed.blobs.assign(kPeerRemovedCountMax, RemovedBlob{checkpoint, UINT64_MAX, 9});
  const PeerRemoved got = std::get<PeerRemoved>(round_trip(message_with(removed)).body);
  ASSERT_EQ(got.blobs.size(), kPeerRemovedCountMax);
  EXPECT_EQ(got.blobs.back().checkpoint, checkpoint);
  EXPECT_EQ(got.blobs.back().owner_epoch, UINT64_MAX);
  EXPECT_EQ(got.blobs.back().uid, 9U);
  const PeerPinned pinned = std::get<PeerPinned>(round_trip(message_with(PeerPinned{checkpoint, true})).body);
  EXPECT_EQ(pinned.checkpoint, checkpoint);
  EXPECT_TRUE(pinned.pinned);
  expect_refused(decode_hostile(fb::PeerBody::PeerRemoved,
                                [](auto& builder) { return fb::CreatePeerRemoved(builder, 0); }),
                 "PeerRemoved.blobs");
  const std::vector<fb::BlobRef> many(kPeerRemovedCountMax + 1, fb::BlobRef(kEcu.bits, 7, 1, 1, 0, 1));
  expect_refused(decode_hostile(fb::PeerBody::PeerRemoved,
                                [&](auto& builder) {
                                  return fb::CreatePeerRemoved(builder, builder.CreateVectorOfStructs(many));
                                }),
                 "PeerRemoved.blobs");
  expect_refused(decode_hostile(fb::PeerBody::PeerPinned,
                                [](auto& builder) { return fb::CreatePeerPinned(builder, nullptr, true); }),
                 "PeerPinned.ecu_mac");
}

TEST(PeerCodecTest, BeatRoundTrips) {
  PeerBeat beat;
  beat.uptime_ms = UINT64_MAX;
  beat.takes_pulls = true;
  beat.pull_every = true;
  beat.queued = 17;
  beat.pulled_bytes = 18;
  beat.pulling = {ProgramKey{kEcu, 0}, ProgramKey{kEcu, UINT64_MAX}};
  beat.wants_greeting = {0, UINT64_MAX};
  const auto decoded = std::get<PeerBeat>(round_trip(message_with(beat)).body);
  EXPECT_EQ(decoded.uptime_ms, beat.uptime_ms);
  EXPECT_TRUE(decoded.takes_pulls);
  EXPECT_TRUE(decoded.pull_every);
  EXPECT_EQ(decoded.queued, beat.queued);
  EXPECT_EQ(decoded.pulled_bytes, beat.pulled_bytes);
  EXPECT_EQ(decoded.pulling, beat.pulling);
  EXPECT_EQ(decoded.wants_greeting, beat.wants_greeting);
}

TEST(PeerCodecTest, StoredRoundTrips) {
  const StoredCheckpoint stored = stored_checkpoint(3);
  const auto decoded = std::get<PeerStored>(round_trip(message_with(PeerStored{{stored, stored}})).body);
  ASSERT_EQ(decoded.checkpoints.size(), 2U);
  const auto& [checkpoint, lineage, owner_epoch, size_bytes, uid, stored_bytes, stored_at_us, taken_at_us,
               pause_us, program_name, blob_digest] = decoded.checkpoints[1];
  EXPECT_EQ(checkpoint, stored.checkpoint);
  EXPECT_EQ(lineage, stored.lineage);
  EXPECT_EQ(owner_epoch, stored.owner_epoch);
  EXPECT_EQ(size_bytes, stored.size_bytes);
  EXPECT_EQ(uid, stored.uid);
  EXPECT_EQ(stored_bytes, stored.stored_bytes);
  EXPECT_EQ(stored_at_us, stored.stored_at_us);
  EXPECT_EQ(taken_at_us, stored.taken_at_us);
  EXPECT_EQ(pause_us, stored.pause_us);
  EXPECT_EQ(program_name, stored.program_name);
  EXPECT_EQ(blob_digest, stored.blob_digest);
}

TEST(PeerCodecTest, WithdrawnAndIncarnationsRoundTrip) {
  const PeerWithdrawn withdrawn{ProgramKey{kEcu, 7}, Version{8, UINT64_MAX}};
  const auto ended = std::get<PeerWithdrawn>(round_trip(message_with(withdrawn)).body);
  EXPECT_EQ(ended.program, withdrawn.program);
  EXPECT_EQ(ended.up_to, withdrawn.up_to);

  const PeerIncarnations given{{SessionId{kEcu, 65537}, SessionId{kEcu, UINT64_MAX}}, 9};
  const auto decoded = std::get<PeerIncarnations>(round_trip(message_with(given)).body);
  EXPECT_EQ(decoded.incarnations, given.incarnations);
  EXPECT_EQ(decoded.greets, given.greets);
}

TEST(PeerCodecTest, QuarantinedRoundTrips) {
  const PeerQuarantined quarantined{{stored_checkpoint(9), stored_checkpoint(0)}};
  const auto decoded = std::get<PeerQuarantined>(round_trip(message_with(quarantined)).body);
  ASSERT_EQ(decoded.checkpoints.size(), 2U);
  EXPECT_EQ(decoded.checkpoints[0].checkpoint, quarantined.checkpoints[0].checkpoint);
  EXPECT_EQ(decoded.checkpoints[0].uid, quarantined.checkpoints[0].uid);
  EXPECT_EQ(decoded.checkpoints[1].lineage, quarantined.checkpoints[1].lineage);
}

TEST(PeerCodecTest, TheLargestMessagesFitAFrame) {
  PeerMessage message = message_with(
      PeerStored{std::vector<StoredCheckpoint>(kPeerStoredCountMax, stored_checkpoint(kNameBytesMax))});
  EXPECT_LE(encode(message).size(), kControlFrameBytesMax);
  (void)round_trip(message);
  message.body = PeerIncarnations{std::vector<SessionId>(kPeerIncarnationCountMax, SessionId{kEcu, 1}), 1};
  EXPECT_LE(encode(message).size(), kControlFrameBytesMax);
  (void)round_trip(message);
  PeerBeat beat;
  beat.pulling.assign(kPeerPullingCountMax, ProgramKey{kEcu, 1});
  beat.wants_greeting.assign(kPeerCountMax, 1);
  message.body = beat;
  (void)round_trip(message);
}

TEST(PeerCodecTest, CountsOverTheirLimitAreRefused) {
  expect_refused(decode_hostile(fb::PeerBody::PeerBeat,
                                [](auto& builder) {
                                  const std::vector<fb::ProgramRef> pulling(kPeerPullingCountMax + 1,
                                                                            fb::ProgramRef(kEcu.bits, 1));
                                  return fb::CreatePeerBeat(builder, 0, false, false, 0, 0,
                                                            builder.CreateVectorOfStructs(pulling));
                                }),
                 "PeerBeat.pulling");
  expect_refused(decode_hostile(fb::PeerBody::PeerBeat,
                                [](auto& builder) {
                                  const auto wants =
                                      builder.CreateVector(std::vector<std::uint64_t>(kPeerCountMax + 1, 1));
                                  return fb::CreatePeerBeat(builder, 0, false, false, 0, 0, 0, wants);
                                }),
                 "PeerBeat.wants_greeting");
  expect_refused(decode_hostile(fb::PeerBody::PeerIncarnations,
                                [](auto& builder) {
                                  const std::vector<fb::IncarnationRef> many(
                                      kPeerIncarnationCountMax + 1, fb::IncarnationRef(kEcu.bits, 1));
                                  return fb::CreatePeerIncarnations(builder,
                                                                    builder.CreateVectorOfStructs(many));
                                }),
                 "PeerIncarnations.incarnations");
  expect_refused(
      decode_hostile(fb::PeerBody::PeerStored, [](auto& builder) { return fb::CreatePeerStored(builder); }),
      "PeerStored.checkpoints");
  expect_refused(decode_hostile(fb::PeerBody::PeerQuarantined,
                                [](auto& builder) { return fb::CreatePeerQuarantined(builder); }),
                 "PeerQuarantined.checkpoints");
}

TEST(PeerCodecTest, FieldsThatNameNobodyAreRefused) {
  expect_refused(decode_hostile(fb::PeerBody::PeerWithdrawn,
                                [](auto& builder) { return fb::CreatePeerWithdrawn(builder, 0, 1, 1, 1); }),
                 "PeerWithdrawn.ecu_mac");
  expect_refused(
      decode_hostile(fb::PeerBody::PeerWithdrawn,
                     [](auto& builder) { return fb::CreatePeerWithdrawn(builder, kEcu.bits, 1, 1, 0); }),
      "PeerWithdrawn.seq");
  expect_refused(
      decode_hostile(fb::PeerBody::PeerIncarnations,
                     [](auto& builder) {
                       const std::vector<fb::IncarnationRef> none{fb::IncarnationRef(kEcu.bits, 0)};
                       return fb::CreatePeerIncarnations(builder, builder.CreateVectorOfStructs(none));
                     }),
      "PeerIncarnations.incarnation");
  expect_refused(decode_hostile(fb::PeerBody::PeerStored,
                                [](auto& builder) {
                                  const auto one = fb::CreateStoredCheckpoint(builder, kEcu.bits, 1, 1, 1);
                                  return fb::CreatePeerStored(builder, builder.CreateVector(&one, 1));
                                }),
                 "PeerStored.lineage");
  flatbuffers::FlatBufferBuilder nameless;
  nameless.Finish(fb::CreatePeerMessage(nameless, 1, 0, 1, nullptr, 1, fb::PeerBody::PeerBeat,
                                        fb::CreatePeerBeat(nameless).Union()),
                  fb::PeerMessageIdentifier());
  expect_refused(decode_peer(nameless.GetBufferPointer(), nameless.GetSize()), "PeerMessage.cms_name");
}

// FlatBuffers checks that a vector lies within its frame, but not where its elements begin. (The
// sanitizers see a read that is not aligned.)
TEST(PeerCodecTest, ElementsAreReadWhereverTheyStand) {
  for (const std::uint64_t first : {0U, 1U}) {
    const auto decoded = decode_hostile(fb::PeerBody::PeerIncarnations, [&](auto& builder) {
      // One of the two first numbers, taken for the length of a vector, has its element at an odd place.
      const auto numbers = builder.CreateVector(std::vector<std::uint32_t>{1, 1, 2, 3, 4, 5});
      const auto back = static_cast<flatbuffers::uoffset_t>(4 * (first + 1));
      const Offset<flatbuffers::Vector<const fb::IncarnationRef*>> structs(numbers.o - back);
      return fb::CreatePeerIncarnations(builder, structs);
    });
    ASSERT_TRUE(decoded.ok()) << decoded.error().message();
    const auto& incarnations = std::get<PeerIncarnations>(decoded->body).incarnations;
    ASSERT_EQ(incarnations.size(), 1U);
    EXPECT_EQ(incarnations[0].ecu_mac.bits, first == 0 ? 0x200000001U : 0x300000002U);
    EXPECT_EQ(incarnations[0].incarnation, first == 0 ? 0x400000003U : 0x500000004U);

    const auto beat = decode_hostile(fb::PeerBody::PeerBeat, [&](auto& builder) {
      const auto numbers = builder.CreateVector(std::vector<std::uint32_t>{1, 1, 2, 3});
      const auto back = static_cast<flatbuffers::uoffset_t>(4 * (first + 1));
      const Offset<flatbuffers::Vector<std::uint64_t>> wants(numbers.o - back);
      return fb::CreatePeerBeat(builder, 0, false, false, 0, 0, 0, wants);
    });
    ASSERT_TRUE(beat.ok()) << beat.error().message();
    EXPECT_EQ(std::get<PeerBeat>(beat->body).wants_greeting,
              std::vector<std::uint64_t>{first == 0 ? 0x200000001U : 0x300000002U});
  }
}

TEST(PeerCodecTest, OnlyABeatMayComeBeforeTheFirstEvent) {
  PeerMessage message = message_with(PeerBeat{});
  message.event = 0;
  (void)round_trip(message);
  message.body = PeerWithdrawn{ProgramKey{kEcu, 1}, Version{1, 1}};
  EXPECT_DEATH((void)encode(message), "");
}

TEST(PeerCodecTest, TruncatedAndForeignFramesAreRefused) {
  const Bytes bytes = encode(message_with(PeerStored{{stored_checkpoint(10)}}));
  for (std::size_t size = 0; size + 8 <= bytes.size(); ++size) {  // The last octets may be padding.
    const Bytes cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_FALSE(decode_peer(cut.data(), cut.size()).ok()) << size;
  }
  EXPECT_FALSE(decode_notify(bytes.data(), bytes.size()).ok());
  EXPECT_FALSE(decode_control(bytes.data(), bytes.size()).ok());
}

}  // namespace
}  // namespace cms::wire
