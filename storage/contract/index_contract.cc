#include "storage/contract/index_contract.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/digest.h"
#include "base/prng.h"

namespace cms::storage::testing {
namespace {

constexpr EcuMac kFirstEcu{0x020000000001};
constexpr EcuMac kSecondEcu{0x0200000000ff};  // its bytes end in 0xff, where naive upper bounds break

struct Fields {
  EcuMac ecu_mac = kFirstEcu;
  std::uint64_t program_id = 1;
  std::uint64_t epoch = 0;
  std::uint64_t incarnation = 1;
  std::uint64_t seq = 1;
  std::uint64_t uid = 1;
  std::uint64_t stored_at_us = 1000;
};

IndexRow make_row(const Fields& fields) {
  IndexRow row;
  row.name.checkpoint.program = ProgramKey{fields.ecu_mac, fields.program_id};
  row.name.checkpoint.version = Version{fields.incarnation, fields.seq};
  row.name.lineage = lineage_of(row.name.checkpoint.program);
  row.name.owner_epoch = fields.epoch;
  row.name.size_bytes = 123;
  row.name.uid = fields.uid;
  row.stored_bytes = 456;
  row.stored_at_us = fields.stored_at_us;
  row.taken_at_us = 7;
  row.pause_us = 8;
  row.program_name = "brake-control";
  row.blob_digest = Digest{9, 10};
  return row;
}

std::string text_of(const IndexRow& row) {
  return to_string(row.name.checkpoint) + " e" + std::to_string(row.name.owner_epoch) + " u" +
         std::to_string(row.name.uid);
}

using Texts = std::vector<std::string>;

// What a scan shows, until `limit` rows.
template <typename Scan>
Texts texts_of(Scan scan, std::size_t limit = SIZE_MAX) {
  Texts texts;
  const Status status = scan([&](const IndexRow& row) {
    texts.push_back(text_of(row));
    return texts.size() < limit;
  });
  EXPECT_TRUE(status.ok()) << status.error().message();
  return texts;
}

Texts scan_all(CheckpointIndex& index, std::optional<EcuMac> ecu_mac = std::nullopt,
               const std::optional<BlobName>& after = std::nullopt, std::size_t limit = SIZE_MAX) {
  return texts_of([&](const auto& visit) { return index.scan(ecu_mac, after, visit); }, limit);
}

Texts scan_newest(CheckpointIndex& index, std::optional<EcuMac> ecu_mac = std::nullopt,
                  const std::optional<ProgramKey>& after = std::nullopt) {
  return texts_of([&](const auto& visit) { return index.scan_newest(ecu_mac, after, visit); });
}

Texts scan_by_age(CheckpointIndex& index) {
  return texts_of([&](const auto& visit) { return index.scan_by_age(visit); });
}

TEST_P(CheckpointIndexContract, FreshIndexIsEmpty) {
  EXPECT_EQ(*index().row_count(), 0U);
  EXPECT_TRUE(scan_all(index()).empty());
  EXPECT_TRUE(scan_newest(index()).empty());
  EXPECT_TRUE(scan_by_age(index()).empty());
  EXPECT_FALSE(index().newest(ProgramKey{kFirstEcu, 1})->has_value());
  EXPECT_FALSE(index().program(ProgramKey{kFirstEcu, 1})->has_value());
  EXPECT_EQ(*index().max_incarnation(kFirstEcu), 0U);
  EXPECT_EQ(*index().fleet_id(), "");
}

TEST_P(CheckpointIndexContract, RowComesBackWithEveryField) {
  const IndexRow row = make_row({.epoch = 3, .incarnation = UINT64_MAX, .seq = 5, .uid = 6});
  IndexRow bare = make_row({.program_id = UINT64_MAX, .stored_at_us = 0});
  bare.program_name.clear();
  bare.blob_digest = {};
  ASSERT_TRUE(index().put({row, bare}).ok());
  for (const IndexRow& put : {row, bare}) {
    const auto found = index().newest(put.name.checkpoint.program);
    ASSERT_TRUE(found.ok() && found->has_value());
    const IndexRow& got = **found;
    EXPECT_TRUE(got.name == put.name);
    EXPECT_EQ(got.stored_bytes, put.stored_bytes);
    EXPECT_EQ(got.stored_at_us, put.stored_at_us);
    EXPECT_EQ(got.taken_at_us, put.taken_at_us);
    EXPECT_EQ(got.pause_us, put.pause_us);
    EXPECT_EQ(got.program_name, put.program_name);
    EXPECT_EQ(got.blob_digest, put.blob_digest);
  }
}

TEST_P(CheckpointIndexContract, NewestGoesByEpochThenIncarnationThenSeq) {
  const ProgramKey program{kFirstEcu, 1};
  ASSERT_TRUE(index()
                  .put({make_row({.epoch = 1, .incarnation = 1, .seq = 1}),
                        make_row({.epoch = 0, .incarnation = 9, .seq = 9}),
                        make_row({.epoch = 1, .incarnation = 2, .seq = 1}),
                        make_row({.epoch = 1, .incarnation = 1, .seq = 300}),
                        make_row({.program_id = 2, .epoch = 5}), make_row({.program_id = 0, .epoch = 5})})
                  .ok());
  EXPECT_EQ(text_of(**index().newest(program)), "02:00:00:00:00:01/1@2.1 e1 u1");
  EXPECT_EQ(texts_of([&](const auto& visit) { return index().scan_program(program, visit); }),
            (Texts{"02:00:00:00:00:01/1@2.1 e1 u1", "02:00:00:00:00:01/1@1.300 e1 u1",
                   "02:00:00:00:00:01/1@1.1 e1 u1", "02:00:00:00:00:01/1@9.9 e0 u1"}));
  EXPECT_EQ(texts_of([&](const auto& visit) { return index().scan_program(program, visit); }, 2).size(), 2U);
}

TEST_P(CheckpointIndexContract, FindTakesExactlyTheCheckpointAndOfTwoStoresTheSmallerUid) {
  ASSERT_TRUE(index()
                  .put({make_row({.seq = 1, .uid = 5}), make_row({.seq = 1, .uid = 3}),
                        make_row({.epoch = 7, .seq = 2})})
                  .ok());
  const CheckpointId wanted{{kFirstEcu, 1}, {1, 1}};
  EXPECT_EQ((*index().find(wanted))->name.uid, 3U);
  EXPECT_EQ((*index().find({{kFirstEcu, 1}, {1, 2}}))->name.owner_epoch, 7U);
  EXPECT_FALSE(index().find({{kFirstEcu, 1}, {1, 3}})->has_value());
  EXPECT_FALSE(index().find({{kFirstEcu, 2}, {1, 1}})->has_value());
}

TEST_P(CheckpointIndexContract, ReplacingARowKeepsTheCountAndMovesItsAge) {
  const IndexRow unknown = make_row({.seq = 1, .stored_at_us = 0});
  const IndexRow middle = make_row({.seq = 2, .stored_at_us = 500});
  const IndexRow known = make_row({.seq = 1, .stored_at_us = 900});
  ASSERT_TRUE(index().put({unknown, middle}).ok());
  EXPECT_EQ(scan_by_age(index()), (Texts{text_of(unknown), text_of(middle)}));
  ASSERT_TRUE(index().put({known}).ok());
  EXPECT_EQ(scan_by_age(index()), (Texts{text_of(middle), text_of(known)}));
  EXPECT_EQ(*index().row_count(), 2U);
  // The same row several times in one put: the last one stands.
  ASSERT_TRUE(index().put({unknown, known, make_row({.seq = 1, .stored_at_us = 400})}).ok());
  EXPECT_EQ(scan_by_age(index()), (Texts{text_of(known), text_of(middle)}));
  EXPECT_EQ(*index().row_count(), 2U);
}

TEST_P(CheckpointIndexContract, PinnedIsOfEveryRowOfTheCheckpointAndOutlivesAPut) {
  const IndexRow first = make_row({.seq = 1, .uid = 1});
  const IndexRow second = make_row({.seq = 1, .uid = 2});
  const IndexRow other = make_row({.seq = 2, .uid = 3});
  ASSERT_TRUE(index().put({first, second, other}).ok());
  ASSERT_TRUE(index().set_pinned(first.name.checkpoint, true).ok());
  const auto pinned = [this] {
    std::string text;
    EXPECT_TRUE(index()
                    .scan_program(ProgramKey{kFirstEcu, 1},
                                  [&](const IndexRow& row) {
                                    text += row.pinned ? 'P' : '-';
                                    return true;
                                  })
                    .ok());
    return text;
  };
  EXPECT_EQ(pinned(), "-PP");
  ASSERT_TRUE(index().put({first, other}).ok());
  EXPECT_EQ(pinned(), "-PP") << "put took it away";
  ASSERT_TRUE(index().set_pinned(first.name.checkpoint, false).ok());
  EXPECT_EQ(pinned(), "---");
  IndexRow rebuilt = first;
  rebuilt.pinned = true;
  ASSERT_TRUE(index().put({rebuilt}).ok());
  EXPECT_EQ(pinned(), "-P-");
  EXPECT_TRUE(index().set_pinned(CheckpointId{ProgramKey{kSecondEcu, 9}, Version{1, 1}}, true).ok());
  EXPECT_EQ(*index().row_count(), 3U);
}

TEST_P(CheckpointIndexContract, RemoveTakesTheRowFromEveryScanAndIsIdempotent) {
  const IndexRow first = make_row({.seq = 1});
  const IndexRow second = make_row({.seq = 2});
  ASSERT_TRUE(index().put({first, second}).ok());
  ASSERT_TRUE(index().remove({second.name, second.name, make_row({.seq = 3}).name}).ok());
  ASSERT_TRUE(index().remove({second.name}).ok());
  EXPECT_EQ(*index().row_count(), 1U);
  EXPECT_EQ(scan_all(index()), Texts{text_of(first)});
  EXPECT_EQ(scan_newest(index()), Texts{text_of(first)});
  EXPECT_EQ(scan_by_age(index()), Texts{text_of(first)});
  ASSERT_TRUE(index().put({}).ok());
  ASSERT_TRUE(index().remove({}).ok());
}

TEST_P(CheckpointIndexContract, ScanStaysInItsEcuAndGoesOnBehindAnyRow) {
  std::vector<IndexRow> rows;
  for (const EcuMac ecu_mac : {kFirstEcu, kSecondEcu, EcuMac{0x020000000100}}) {
    for (const std::uint64_t program_id : {std::uint64_t{0}, std::uint64_t{255}, UINT64_MAX}) {
      for (const std::uint64_t seq : {3U, 2U, 1U}) {
        rows.push_back(make_row({.ecu_mac = ecu_mac, .program_id = program_id, .seq = seq}));
      }
    }
  }
  ASSERT_TRUE(index().put(rows).ok());
  Texts expected;
  for (const IndexRow& row : rows) expected.push_back(text_of(row));
  EXPECT_EQ(scan_all(index()), expected);
  EXPECT_EQ(scan_all(index(), kSecondEcu), Texts(expected.begin() + 9, expected.begin() + 18));
  EXPECT_EQ(scan_all(index(), kSecondEcu, std::nullopt, 4),
            Texts(expected.begin() + 9, expected.begin() + 13));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto behind = expected.begin() + static_cast<std::ptrdiff_t>(i) + 1;
    EXPECT_EQ(scan_all(index(), std::nullopt, rows[i].name), Texts(behind, expected.end())) << i;
    const auto in_ecu = std::clamp(behind, expected.begin() + 9, expected.begin() + 18);
    EXPECT_EQ(scan_all(index(), kSecondEcu, rows[i].name), Texts(in_ecu, expected.begin() + 18)) << i;
  }
}

TEST_P(CheckpointIndexContract, ScanNewestShowsOneRowPerProgramHoweverManyItHas) {
  std::vector<IndexRow> rows;
  for (std::uint64_t program_id = 0; program_id < 12; ++program_id) {
    for (std::uint64_t seq = 1; seq <= 1 + 3 * program_id; ++seq) {
      rows.push_back(make_row({.program_id = program_id, .seq = seq}));
    }
  }
  rows.push_back(make_row({.ecu_mac = kSecondEcu, .program_id = 4}));
  ASSERT_TRUE(index().put(rows).ok());
  Texts expected;
  for (std::uint64_t program_id = 0; program_id < 12; ++program_id) {
    expected.push_back("02:00:00:00:00:01/" + std::to_string(program_id) + "@1." +
                       std::to_string(1 + 3 * program_id) + " e0 u1");
  }
  EXPECT_EQ(scan_newest(index(), kFirstEcu), expected);
  expected.push_back("02:00:00:00:00:ff/4@1.1 e0 u1");
  EXPECT_EQ(scan_newest(index()), expected);
  EXPECT_EQ(scan_newest(index(), std::nullopt, ProgramKey{kFirstEcu, 10}),
            Texts(expected.begin() + 11, expected.end()));
  EXPECT_EQ(scan_newest(index(), kSecondEcu, ProgramKey{kFirstEcu, 3}),
            Texts(expected.end() - 1, expected.end()));
  EXPECT_TRUE(scan_newest(index(), kSecondEcu, ProgramKey{kSecondEcu, UINT64_MAX}).empty());
}

TEST_P(CheckpointIndexContract, LargestIncarnationCountsWithdrawals) {
  const ProgramKey program{EcuMac{0x020000000009}, 1};
  ASSERT_TRUE(index().put_withdrawn(program, Version{70000, 3}, 1).ok());
  const auto largest = index().max_incarnation(program.ecu_mac);
  ASSERT_TRUE(largest.ok());
  EXPECT_EQ(*largest, 70000U);
}

TEST_P(CheckpointIndexContract, LargestIncarnationCountsRowsAndNeverShrinks) {
  ASSERT_TRUE(index().put_incarnation(kFirstEcu, 5).ok());
  ASSERT_TRUE(index().put_incarnation(kFirstEcu, 4).ok());
  EXPECT_EQ(*index().max_incarnation(kFirstEcu), 5U);
  EXPECT_EQ(*index().max_incarnation(kSecondEcu), 0U);
  const IndexRow row = make_row({.incarnation = 1000});
  ASSERT_TRUE(index().put({row, make_row({.incarnation = 7})}).ok());
  EXPECT_EQ(*index().max_incarnation(kFirstEcu), 1000U);
  ASSERT_TRUE(index().remove({row.name}).ok());
  EXPECT_EQ(*index().max_incarnation(kFirstEcu), 1000U);
}

TEST_P(CheckpointIndexContract, WithdrawnProgramsAndTheFleetAreRemembered) {
  const ProgramKey program{kFirstEcu, 3};
  ASSERT_TRUE(index().put_withdrawn(program, Version{4, 5}, 6).ok());
  ASSERT_TRUE(index().put_fleet_id("0123").ok());
  ASSERT_TRUE(index().put({make_row({.seq = 1})}).ok());
  CheckpointIndex& again = fixture().reopened();
  const auto row = again.program(program);
  ASSERT_TRUE(row.ok() && row->has_value());
  EXPECT_EQ((*row)->program, program);
  EXPECT_EQ((*row)->withdrawn, (Version{4, 5}));
  EXPECT_EQ((*row)->withdrawn_at_us, 6U);
  EXPECT_FALSE(again.program(ProgramKey{kFirstEcu, 2})->has_value());
  EXPECT_EQ(*again.fleet_id(), "0123");
  EXPECT_EQ(*again.row_count(), 1U);
}

TEST_P(CheckpointIndexContract, RefusesTombstonesAndTooLongNamesAndChangesNothing) {
  IndexRow tombstone = make_row({.seq = 2});
  tombstone.name.kind = EntryKind::kTombstone;
  IndexRow long_name = make_row({.seq = 2});
  long_name.program_name.assign(wire::kNameBytesMax + 1, 'x');
  EXPECT_EQ(index().put({make_row({.seq = 1}), tombstone}).code(), Code::kInvalidArgument);
  EXPECT_EQ(index().put({make_row({.seq = 1}), long_name}).code(), Code::kInvalidArgument);
  EXPECT_EQ(*index().row_count(), 0U);
  long_name.program_name.pop_back();
  EXPECT_TRUE(index().put({long_name}).ok());
}

TEST_P(CheckpointIndexContract, AddMissingLeavesWhatIsThereAsItIs) {
  IndexRow known = make_row({.seq = 1, .stored_at_us = 42});
  known.program_name = "engine";
  ASSERT_TRUE(index().put({known}).ok());
  IndexRow poor = known;  // As made from a file's name alone.
  poor.stored_at_us = 0;
  poor.program_name.clear();
  const IndexRow absent = make_row({.seq = 2, .stored_at_us = 0});
  const auto added = index().add_missing({poor, absent, absent});
  ASSERT_TRUE(added.ok());
  EXPECT_EQ(*added, 1U);
  EXPECT_EQ(*index().row_count(), 2U);
  const auto found = index().find(known.name.checkpoint);
  ASSERT_TRUE(found.ok() && *found);
  EXPECT_EQ((*found)->program_name, "engine");
  EXPECT_EQ((*found)->stored_at_us, 42U);
  EXPECT_EQ(scan_by_age(index()), (Texts{text_of(absent), text_of(known)}));
}

TEST_P(CheckpointIndexContract, ListsTheLargestIncarnationOfEveryEcu) {
  const EcuMac first{0x020000000001};
  const EcuMac second{0x0200000000ff};
  ASSERT_TRUE(index().put_incarnation(second, 7).ok());
  ASSERT_TRUE(index().put_incarnation(first, 65536).ok());
  ASSERT_TRUE(index().put_incarnations({{first, 9}, {second, 5}, {first, 65537}, {first, 8}}).ok());
  std::vector<std::pair<EcuMac, Incarnation>> listed;
  const auto visit = [&](EcuMac ecu_mac, Incarnation incarnation) {
    listed.emplace_back(ecu_mac, incarnation);
    return true;
  };
  ASSERT_TRUE(index().scan_incarnations(visit).ok());
  EXPECT_EQ(listed, (std::vector<std::pair<EcuMac, Incarnation>>{{first, 65537}, {second, 7}}));
}

TEST_P(CheckpointIndexContract, AnyHistoryLeavesTheRowsItSays) {
  Prng prng(20260101);
  std::vector<IndexRow> live;  // in no order: compared as sets below
  const auto find_live = [&](const BlobName& name) {
    return std::find_if(live.begin(), live.end(), [&](const IndexRow& row) { return row.name == name; });
  };
  for (int step = 0; step < 400; ++step) {
    Fields fields;
    fields.program_id = prng.below(4);
    fields.epoch = prng.below(2);
    fields.seq = prng.below(4);
    fields.stored_at_us = prng.below(50);
    const IndexRow row = make_row(fields);
    const auto at = find_live(row.name);
    if (prng.chance(1, 3)) {
      ASSERT_TRUE(index().remove({row.name}).ok());
      if (at != live.end()) live.erase(at);
    } else {
      ASSERT_TRUE(index().put({row}).ok());
      if (at != live.end()) {
        *at = row;
      } else {
        live.push_back(row);
      }
    }
    ASSERT_EQ(*index().row_count(), live.size());
  }
  Texts expected;
  for (const IndexRow& row : live) expected.push_back(text_of(row));
  std::sort(expected.begin(), expected.end());
  for (Texts shown : {scan_all(index()), scan_by_age(index())}) {
    std::sort(shown.begin(), shown.end());
    EXPECT_EQ(shown, expected);
  }
  std::uint64_t previous = 0;
  ASSERT_TRUE(index()
                  .scan_by_age([&](const IndexRow& row) {
                    EXPECT_GE(row.stored_at_us, previous);
                    EXPECT_EQ(row.stored_at_us, find_live(row.name)->stored_at_us);
                    previous = row.stored_at_us;
                    return true;
                  })
                  .ok());
}

}  // namespace
}  // namespace cms::storage::testing
