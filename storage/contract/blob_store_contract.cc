#include "storage/contract/blob_store_contract.h"

#include <algorithm>
#include <set>
#include <thread>

#include "storage/contract/samples.h"

namespace cms::storage::testing {
namespace {

std::set<std::string> names_of(const std::vector<StoredEntry>& entries) {
  std::set<std::string> names;
  for (const StoredEntry& entry : entries) names.insert(to_file_name(entry.name));
  return names;
}

void append_all(BlobWriter& writer, const Data& data) {
  for (std::size_t at = 0; at < data.size(); at += kChunkBytes) {
    const std::size_t length = std::min<std::size_t>(kChunkBytes, data.size() - at);
    ASSERT_TRUE(writer.append(data.data() + at, length, digest_of(data.data() + at, length)).ok());
  }
}

TEST_P(BlobStoreContract, FreshStoreIsEmptyWritableAndHasAFleetId) {
  EXPECT_TRUE(list_all(store()).empty());
  EXPECT_TRUE(parse_id128(store().fleet_id()).ok());
  EXPECT_TRUE(store().probe().ok());
  const auto space = store().space();
  ASSERT_TRUE(space.ok());
  EXPECT_GT(space->free_bytes, 0U);
  EXPECT_LE(space->free_bytes, space->total_bytes);
  EXPECT_TRUE(store().open_store().ok()) << "opening again must be harmless";
}

TEST_P(BlobStoreContract, PublishedBlobsReadBackBitForBitAtEverySizeAroundAChunk) {
  std::uint64_t seq = 0;
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, std::size_t{kChunkBytes - 1}, std::size_t{kChunkBytes},
        std::size_t{kChunkBytes + 1}, std::size_t{3 * kChunkBytes + 5}}) {
    const Sample sample = make_sample(1, ++seq, size);
    const Status status = publish(store(), sample);
    ASSERT_TRUE(status.ok()) << status.error().message();
    const auto data = read_back(store(), sample.name);
    ASSERT_TRUE(data.ok()) << data.error().message();
    EXPECT_EQ(*data, sample.data) << size;
  }
}

TEST_P(BlobStoreContract, ManifestComesBackCompleted) {
  const Sample sample = make_sample(1, 1, kChunkBytes + 7);
  auto writer = store().create(sample.name, make_manifest(sample.name));
  ASSERT_TRUE(writer.ok());
  append_all(**writer, sample.data);
  const auto published = (*writer)->publish();
  ASSERT_TRUE(published.ok());
  const auto reader = store().open(sample.name);
  ASSERT_TRUE(reader.ok());
  const Digest first = digest_of(sample.data.data(), kChunkBytes);
  const Digest second = digest_of(sample.data.data() + kChunkBytes, 7);
  for (const wire::Manifest* manifest : {&*published, &(*reader)->manifest()}) {
    EXPECT_EQ(manifest->notification.program_name, "brake-control");
    EXPECT_EQ(manifest->stored_by, "a");
    EXPECT_EQ(manifest->chunk_digests, (std::vector<Digest>{first, second}));
    EXPECT_EQ(manifest->zero_chunks, (std::vector<bool>{false, false}));
    EXPECT_EQ(manifest->blob_digest, blob_digest_of({first, second}));
  }
}

TEST_P(BlobStoreContract, BlobIsInvisibleUntilPublishedAndADroppedOneLeavesNothing) {
  const Sample sample = make_sample(1, 1, 2 * kChunkBytes);
  {
    auto writer = store().create(sample.name, make_manifest(sample.name));
    ASSERT_TRUE(writer.ok());
    append_all(**writer, sample.data);
    EXPECT_TRUE(list_all(store()).empty());
    EXPECT_EQ(store().open(sample.name).error().code, Code::kNotFound);
  }
  EXPECT_TRUE(list_all(store()).empty());
  EXPECT_TRUE(publish(store(), sample).ok()) << "the name must be free again";
}

TEST_P(BlobStoreContract, ZeroChunksTakeNoSpaceAndReadBackAsZeros) {
  Sample sample = make_sample(1, 1, 4 * kChunkBytes);
  std::fill(sample.data.begin() + kChunkBytes, sample.data.begin() + 3 * kChunkBytes, 0);
  Sample nearly = sample;
  nearly.name.uid ^= 1;
  nearly.data[2 * kChunkBytes + 12345] = 1;  // where no quick look falls
  ASSERT_TRUE(publish(store(), sample).ok());
  ASSERT_TRUE(publish(store(), nearly).ok());
  for (const Sample* each : {&sample, &nearly}) {
    const auto data = read_back(store(), each->name);
    ASSERT_TRUE(data.ok());
    EXPECT_EQ(*data, each->data);
  }
  EXPECT_EQ((*store().open(sample.name))->manifest().zero_chunks,
            (std::vector<bool>{false, true, true, false}));
  std::uint64_t stored = 0;
  std::uint64_t stored_nearly = 0;
  for (const StoredEntry& entry : list_all(store())) {
    (entry.name.uid == sample.name.uid ? stored : stored_nearly) = entry.stored_bytes;
  }
  EXPECT_EQ(stored + kChunkBytes, stored_nearly);
}

TEST_P(BlobStoreContract, WriterRefusesChunksOfWrongSizeAndNumber) {
  const Sample sample = make_sample(1, 1, kChunkBytes + 10);
  const auto start = [&] {
    auto writer = store().create(sample.name, make_manifest(sample.name));
    EXPECT_TRUE(writer.ok());
    return std::move(*writer);
  };
  const unsigned char* bytes = sample.data.data();
  const auto append = [&](BlobWriter& writer, std::size_t at, std::size_t length) {
    return writer.append(bytes + at, length, digest_of(bytes + at, length)).code();
  };
  {
    const auto writer = start();
    EXPECT_EQ(append(*writer, 0, 10), Code::kInvalidArgument);
    EXPECT_EQ(append(*writer, 0, kChunkBytes), Code::kInvalidArgument) << "an error of a writer stays";
  }
  {
    const auto writer = start();
    EXPECT_EQ(append(*writer, 0, kChunkBytes), Code::kOk);
    EXPECT_EQ(append(*writer, kChunkBytes, 9), Code::kInvalidArgument);
  }
  {
    const auto writer = start();
    EXPECT_EQ(append(*writer, 0, kChunkBytes), Code::kOk);
    EXPECT_EQ(writer->publish().error().code, Code::kInvalidArgument);
  }
  {
    const auto writer = start();
    EXPECT_EQ(append(*writer, 0, kChunkBytes), Code::kOk);
    EXPECT_EQ(append(*writer, kChunkBytes, 10), Code::kOk);
    EXPECT_EQ(append(*writer, 0, kChunkBytes), Code::kInvalidArgument);
  }
  EXPECT_TRUE(list_all(store()).empty());
}

TEST_P(BlobStoreContract, CreateRefusesManifestsThatDoNotBelongToTheNameOrAreBeyondLimits) {
  const BlobName name = make_name(1, 1, 100);
  const auto code_of = [&](const BlobName& with, const wire::Manifest& manifest) {
    const auto writer = store().create(with, manifest);
    return writer ? Code::kOk : writer.error().code;
  };
  EXPECT_EQ(code_of(make_name(2, 1, 100), make_manifest(name)), Code::kInvalidArgument);
  EXPECT_EQ(code_of(make_name(1, 2, 100), make_manifest(name)), Code::kInvalidArgument);
  EXPECT_EQ(code_of(make_name(1, 1, 101), make_manifest(name)), Code::kInvalidArgument);
  EXPECT_EQ(code_of(name, make_manifest(name, wire::kChunkSizeBytesMin - 1)), Code::kInvalidArgument);
  EXPECT_EQ(code_of(name, make_manifest(name, wire::kChunkSizeBytesMax + 1)), Code::kInvalidArgument);
  const BlobName huge = make_name(1, 1, wire::kBlobSizeBytesMax + 1);
  EXPECT_EQ(code_of(huge, make_manifest(huge)), Code::kInvalidArgument);
  BlobName tombstone = name;
  tombstone.kind = EntryKind::kTombstone;
  EXPECT_EQ(code_of(tombstone, make_manifest(tombstone)), Code::kInvalidArgument);
}

TEST_P(BlobStoreContract, ASecondBlobOfOneNameIsRefusedAndTheFirstStays) {
  const Sample sample = make_sample(1, 1, 1000);
  ASSERT_TRUE(publish(store(), sample).ok());
  Sample other = sample;
  other.data = make_data(99, 1000);
  EXPECT_EQ(publish(store(), other).code(), Code::kAlreadyExists);
  EXPECT_EQ(store().put_small({small_blob_of(other)})[0].code(), Code::kAlreadyExists);
  const auto data = read_back(store(), sample.name);
  ASSERT_TRUE(data.ok());
  EXPECT_EQ(*data, sample.data);
}

TEST_P(BlobStoreContract, GroupsOfAnySizePublishEveryBlob) {
  std::uint64_t program_id = 0;
  for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{2}, std::size_t{300}}) {
    std::vector<Sample> samples;
    for (std::size_t i = 0; i < count; ++i) samples.push_back(make_sample(++program_id, 1, 100 + 13 * i));
    std::vector<SmallBlob> blobs;
    for (const Sample& sample : samples) blobs.push_back(small_blob_of(sample));
    const std::vector<Status> statuses = store().put_small(blobs);
    ASSERT_EQ(statuses.size(), count);
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_TRUE(statuses[i].ok()) << statuses[i].error().message();
      const auto data = read_back(store(), samples[i].name);
      ASSERT_TRUE(data.ok()) << data.error().message();
      EXPECT_EQ(*data, samples[i].data);
    }
  }
  EXPECT_EQ(list_all(store()).size(), 303U);
}

TEST_P(BlobStoreContract, BadBlobOfAGroupFailsAloneWithItsReason) {
  std::vector<Sample> samples;
  for (std::uint64_t i = 0; i < 7; ++i) samples.push_back(make_sample(i, 1, 500));
  std::vector<SmallBlob> blobs;
  for (const Sample& sample : samples) blobs.push_back(small_blob_of(sample));
  blobs[0].size_bytes = 499;                      // not what the name says
  blobs[3].manifest.chunk_digests.push_back({});  // not of one chunk
  blobs[4].manifest.notification.seq = 2;         // of another checkpoint
  blobs[5] = blobs[2];                            // the same name twice
  const std::vector<Status> statuses = store().put_small(blobs);
  EXPECT_EQ(statuses[0].code(), Code::kInvalidArgument);
  EXPECT_EQ(statuses[3].code(), Code::kInvalidArgument);
  EXPECT_EQ(statuses[4].code(), Code::kInvalidArgument);
  EXPECT_EQ(statuses[5].code(), Code::kAlreadyExists);
  for (const std::size_t good : {std::size_t{1}, std::size_t{2}, std::size_t{6}}) {
    EXPECT_TRUE(statuses[good].ok()) << good;
    EXPECT_TRUE(read_back(store(), samples[good].name).ok()) << good;
  }
  EXPECT_EQ(list_all(store()).size(), 3U);
}

TEST_P(BlobStoreContract, SmallBlobsMayBeEmptyOrAllZero) {
  const Sample empty = make_sample(1, 1, 0);
  Sample zero = make_sample(2, 1, kChunkBytes);
  std::fill(zero.data.begin(), zero.data.end(), 0);
  for (const Status& status : store().put_small({small_blob_of(empty), small_blob_of(zero)})) {
    ASSERT_TRUE(status.ok()) << status.error().message();
  }
  EXPECT_EQ(*read_back(store(), empty.name), empty.data);
  EXPECT_EQ(*read_back(store(), zero.name), zero.data);
  for (const StoredEntry& entry : list_all(store())) EXPECT_LT(entry.stored_bytes, 2000U);
}

TEST_P(BlobStoreContract, ListShowsEachEntryInTheShardOfItsLineageOnly) {
  std::set<std::string> expected;
  for (std::uint64_t program_id = 0; program_id < 20; ++program_id) {
    const Sample sample = make_sample(program_id, 1, 10);
    ASSERT_TRUE(publish(store(), sample).ok());
    expected.insert(to_file_name(sample.name));
    std::uint64_t seen = 0;
    std::uint64_t unknown = 0;
    const auto visit = [&](const StoredEntry& entry) { seen += entry.name == sample.name ? 1 : 0; };
    ASSERT_TRUE(store().list(shard_of(sample.name.lineage), visit, &unknown).ok());
    EXPECT_EQ(seen, 1U);
    EXPECT_EQ(unknown, 0U);
  }
  EXPECT_EQ(names_of(list_all(store())), expected);
  EXPECT_EQ(store()
                .list(
                    kShardCount, [](const StoredEntry&) {}, nullptr)
                .code(),
            Code::kInvalidArgument);
}

TEST_P(BlobStoreContract, RemoveIsIdempotentAndFreesTheName) {
  const Sample sample = make_sample(1, 1, 10);
  EXPECT_TRUE(store().remove(sample.name).ok());
  ASSERT_TRUE(publish(store(), sample).ok());
  EXPECT_TRUE(store().remove(sample.name).ok());
  EXPECT_TRUE(store().remove(sample.name).ok());
  EXPECT_EQ(store().open(sample.name).error().code, Code::kNotFound);
  EXPECT_TRUE(list_all(store()).empty());
  EXPECT_TRUE(publish(store(), sample).ok());
}

TEST_P(BlobStoreContract, TombstoneIsListedReadableAndIdempotent) {
  BlobName name = make_name(1, 5, 0);
  EXPECT_EQ(store().put_tombstone(name).code(), Code::kInvalidArgument) << "not the name of a tombstone";
  name.kind = EntryKind::kTombstone;
  ASSERT_TRUE(store().put_tombstone(name).ok());
  ASSERT_TRUE(store().put_tombstone(name).ok());
  const auto entries = list_all(store());
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_TRUE(entries[0].name == name);
  const auto reader = store().open(name);
  ASSERT_TRUE(reader.ok()) << reader.error().message();
  EXPECT_EQ((*reader)->manifest().notification.seq, 5U);
  EXPECT_TRUE(read_back(store(), name)->empty());
  EXPECT_TRUE(store().remove(name).ok());
  EXPECT_TRUE(list_all(store()).empty());
}

TEST_P(BlobStoreContract, PinHasTheNameOfItsCheckpointAndIsIdempotent) {
  const Sample sample = make_sample(1, 5, 10);
  ASSERT_TRUE(publish(store(), sample).ok());
  const BlobName pin = pin_name_of(sample.name);
  EXPECT_EQ(store().put_pin(sample.name).code(), Code::kInvalidArgument) << "not the name of a pin";
  EXPECT_FALSE(*store().contains(pin));
  ASSERT_TRUE(store().put_pin(pin).ok());
  ASSERT_TRUE(store().put_pin(pin).ok());
  EXPECT_TRUE(*store().contains(pin));
  EXPECT_EQ(names_of(list_all(store())),
            (std::set<std::string>{to_file_name(sample.name), to_file_name(pin)}));
  Sample again = sample;
  again.name.uid ^= 1;  // Another blob of this checkpoint.
  EXPECT_TRUE(pin_name_of(again.name) == pin);
  EXPECT_TRUE(store().remove(pin).ok());
  EXPECT_FALSE(*store().contains(pin));
  EXPECT_TRUE(*store().contains(sample.name));
}

TEST_P(BlobStoreContract, NamesThatTheirWriterLeftUnsyncedAreMadeDurable) {
  std::vector<BlobName> names;
  std::set<std::string> expected;
  for (std::uint64_t program_id = 1; program_id <= 200; ++program_id) {
    const Sample sample = make_sample(program_id, 1, 10);
    ASSERT_TRUE(store().put_small({small_blob_of(sample)})[0].ok());
    names.push_back(sample.name);
  }
  BlobName tombstone = make_name(1000, 5, 0);
  tombstone.kind = EntryKind::kTombstone;
  ASSERT_TRUE(store().put_tombstone(tombstone).ok());
  names.push_back(tombstone);
  for (const BlobName& name : names) {
    fixture().unsync(name);
    expected.insert(to_file_name(name));
  }
  EXPECT_EQ(names_of(list_all(store())), expected) << "they are there";
  for (const Status& status : store().make_durable(names))
    EXPECT_TRUE(status.ok()) << status.error().message();
  EXPECT_EQ(names_of(list_all(fixture().reopened())), expected);
}

TEST_P(BlobStoreContract, MakeDurableTellsWhichNamesAreNotThere) {
  const Sample sample = make_sample(1, 1, 10);
  ASSERT_TRUE(publish(store(), sample).ok());
  EXPECT_TRUE(store().make_durable({}).empty());
  const auto statuses = store().make_durable({make_name(1, 2, 10), sample.name, make_name(2, 1, 10)});
  ASSERT_EQ(statuses.size(), 3U);
  EXPECT_EQ(statuses[0].code(), Code::kNotFound);
  EXPECT_TRUE(statuses[1].ok());
  EXPECT_EQ(statuses[2].code(), Code::kNotFound);
}

TEST_P(BlobStoreContract, ManyAreLookedForAndRemovedEachWithItsResult) {
  std::vector<BlobName> names;
  std::vector<SmallBlob> blobs;
  std::vector<Sample> samples;
  for (std::uint64_t program_id = 0; program_id < 150; ++program_id) {
    samples.push_back(make_sample(program_id, 1, 10));
    names.push_back(samples.back().name);
  }
  for (std::size_t i = 0; i < samples.size(); i += 2) blobs.push_back(small_blob_of(samples[i]));
  for (const Status& status : store().put_small(blobs)) ASSERT_TRUE(status.ok());
  const auto there = store().contains_many(names);
  ASSERT_EQ(there.size(), names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    ASSERT_TRUE(there[i].ok()) << there[i].error().message();
    EXPECT_EQ(*there[i], i % 2 == 0) << i;
  }
  const std::vector<BlobName> first(names.begin(), names.begin() + 100);
  const auto removed = store().remove_many(first);
  ASSERT_EQ(removed.size(), first.size());
  for (const Status& status : removed) EXPECT_TRUE(status.ok()) << "an absent one is success";
  EXPECT_EQ(list_all(store()).size(), 25U);
}

TEST_P(BlobStoreContract, QuarantineTakesABlobOutOfItsShardAndKeepsIt) {
  const Sample sample = make_sample(1, 1, 3 * kChunkBytes);
  ASSERT_TRUE(publish(store(), sample).ok());
  const std::uint64_t stored_bytes = list_all(store())[0].stored_bytes;
  ASSERT_TRUE(store().quarantine(sample.name, "chunk 1 does not match its digest").ok());
  EXPECT_TRUE(list_all(store()).empty());
  EXPECT_FALSE(*store().contains(sample.name));
  EXPECT_EQ(store().open(sample.name).error().code, Code::kNotFound);
  std::vector<StoredEntry> quarantined;
  const auto visit = [&](const StoredEntry& entry) { quarantined.push_back(entry); };
  ASSERT_TRUE(fixture().reopened().list_quarantine(visit).ok());
  ASSERT_EQ(quarantined.size(), 1U);
  EXPECT_TRUE(quarantined[0].name == sample.name);
  EXPECT_EQ(quarantined[0].stored_bytes, stored_bytes);
  EXPECT_TRUE(store().quarantine(sample.name, "again").ok()) << "an absent one is success";
}

TEST_P(BlobStoreContract, DamagedChunkIsCorruptAndTheOthersStillRead) {
  const Sample sample = make_sample(1, 1, 3 * kChunkBytes);
  ASSERT_TRUE(publish(store(), sample).ok());
  fixture().damage_chunk(sample.name, 1);
  const auto reader = store().open(sample.name);
  ASSERT_TRUE(reader.ok());
  Data chunk(kChunkBytes);
  EXPECT_TRUE((*reader)->read_chunk(0, chunk.data()).ok());
  const auto damaged = (*reader)->read_chunk(1, chunk.data());
  ASSERT_FALSE(damaged.ok());
  EXPECT_EQ(damaged.error().code, Code::kCorrupt);
  EXPECT_NE(damaged.error().context.find("chunk 1"), std::string::npos) << damaged.error().message();
  EXPECT_TRUE((*reader)->read_chunk(2, chunk.data()).ok());
  EXPECT_EQ((*reader)->read_chunk(3, chunk.data()).error().code, Code::kInvalidArgument);
}

TEST_P(BlobStoreContract, WhatWasPublishedIsThereForTheNextProcess) {
  const Sample large = make_sample(1, 1, 2 * kChunkBytes);
  const Sample small = make_sample(2, 1, 100);
  ASSERT_TRUE(publish(store(), large).ok());
  ASSERT_TRUE(store().put_small({small_blob_of(small)})[0].ok());
  const std::string fleet_id = store().fleet_id();
  BlobStore& again = fixture().reopened();
  EXPECT_EQ(again.fleet_id(), fleet_id);
  EXPECT_EQ(list_all(again).size(), 2U);
  EXPECT_EQ(*read_back(again, large.name), large.data);
  EXPECT_EQ(*read_back(again, small.name), small.data);
}

TEST_P(BlobStoreContract, ThreadsMayShareAStore) {
  std::vector<std::thread> threads;
  for (std::uint64_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (std::uint64_t seq = 1; seq <= 5; ++seq) {
        const Sample large = make_sample(100 + thread, seq, kChunkBytes + 1);
        EXPECT_TRUE(publish(store(), large).ok());
        std::vector<Sample> samples;
        for (std::uint64_t i = 0; i < 8; ++i)
          samples.push_back(make_sample(1000 * (thread + 1) + i, seq, 50));
        std::vector<SmallBlob> blobs;
        for (const Sample& sample : samples) blobs.push_back(small_blob_of(sample));
        for (const Status& status : store().put_small(blobs)) EXPECT_TRUE(status.ok());
        EXPECT_EQ(*read_back(store(), large.name), large.data);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(list_all(store()).size(), 4U * 5U * 9U);
}

}  // namespace
}  // namespace cms::storage::testing
