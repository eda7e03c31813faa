// Every RPC of a store's steps, lost, late, doubled, cut: nothing that was called durable is lost, a torn
// blob is never seen, and what was not done can be done again.
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "storage/contract/samples.h"
#include "storage/nfs/nfs_faults_test.h"
#include "storage/nfs/nfs_store.h"
#include "storage/nfs/nfs_url.h"

namespace cms::storage::testing {
namespace {

using test::Fault;
using test::FaultRule;
using test::Procedure;
using test::Way;

class NfsFaults : public ServerBehindProxy {
 protected:
  std::unique_ptr<BlobStore> open(const std::string& url, const std::string& node,
                                  const NfsTimeouts& timeouts = {}) {
    const auto target = parse_nfs_url(url);
    EXPECT_TRUE(target.ok());
    auto store = make_nfs_store(*target, node, ++incarnation_, timeouts);
    const Status opened = store->open_store();
    EXPECT_TRUE(opened.ok()) << opened.error().message();
    return store;
  }
  std::unique_ptr<BlobStore> open_directly() {
    return open(server().url(), "direct" + std::to_string(incarnation_));
  }

  std::uint64_t next_seq() { return ++seq_; }

 private:
  std::uint64_t incarnation_ = 0;
  std::uint64_t seq_ = 0;
};

// Tries again as cmsd does: with another uid, until it is said to be stored.
template <typename Put>
void until_stored(const std::string& what, const Put& put) {
  const auto patience_ends = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (true) {
    const Status status = put();
    if (status.ok()) return;
    ASSERT_TRUE(status.code() == Code::kUnavailable || status.code() == Code::kIo)
        << what << ": " << status.error().message();
    ASSERT_LT(std::chrono::steady_clock::now(), patience_ends) << what << ": " << status.error().message();
  }
}

void expect_whole(BlobStore& store, const Sample& sample, const std::string& what) {
  const auto data = read_back(store, sample.name);
  ASSERT_TRUE(data.ok()) << what << ": " << data.error().message();
  EXPECT_EQ(*data, sample.data) << what;
}

// Whatever has the name of a blob is one, also what nobody was told of.
void expect_nothing_torn(BlobStore& store, const Sample& sample, const std::string& what) {
  const Status listed = store.list(
      shard_of(sample.name.lineage),
      [&](const StoredEntry& entry) {
        if (entry.name.kind != EntryKind::kBlob) return;
        EXPECT_TRUE(read_back(store, entry.name).ok()) << what << ": " << to_file_name(entry.name);
      },
      nullptr);
  EXPECT_TRUE(listed.ok());
}

class NfsFaultWalk : public NfsFaults {
 protected:
  // `scenario(store, what)` runs with each RPC of it struck by each fault.
  void walk(const std::function<void(BlobStore& store, const std::string& what)>& scenario) {
    const auto direct = open_directly();
    const auto result = test::walk_faults(
        proxy(),
        [&](const test::WalkStep& step) {
          SCOPED_TRACE(step.name);
          scenario(*through_, step.name);
          ASSERT_TRUE(proxy().release());
          check_(*direct, step.name);
        },
        walked_faults(), 2);
    EXPECT_GT(result.calls, 0U);
    EXPECT_GT(result.runs, result.calls);
    RecordProperty("runs", static_cast<int>(result.runs));
  }
  void SetUp() override {
    NfsFaults::SetUp();
    if (HasFatalFailure()) return;
    through_ = open(proxy().url(), "walker", impatient());
  }
  void TearDown() override {
    if (through_ != nullptr) (void)proxy().pass_all();
    through_.reset();
  }

  std::unique_ptr<BlobStore> through_;
  std::function<void(BlobStore& direct, const std::string& what)> check_ = [](BlobStore&,
                                                                              const std::string&) {};
};

TEST_F(NfsFaultWalk, LargeBlob) {
  Sample sample;
  check_ = [&](BlobStore& direct, const std::string& what) {
    expect_whole(direct, sample, what);
    expect_nothing_torn(direct, sample, what);
  };
  walk([&](BlobStore& store, const std::string& what) {
    sample = make_sample(1, next_seq(), 2 * kChunkBytes + 5);
    until_stored(what, [&] {
      ++sample.name.uid;
      return publish(store, sample);
    });
  });
}

TEST_F(NfsFaultWalk, SmallBlobs) {
  std::vector<Sample> samples;
  check_ = [&](BlobStore& direct, const std::string& what) {
    for (const Sample& sample : samples) expect_whole(direct, sample, what);
    expect_nothing_torn(direct, samples[0], what);
  };
  walk([&](BlobStore& store, const std::string& what) {
    const std::uint64_t seq = next_seq();
    samples = {make_sample(1, seq, 500), make_sample(2, seq, 600)};
    std::vector<bool> stored(samples.size());
    until_stored(what, [&] {
      std::vector<SmallBlob> blobs;
      std::vector<std::size_t> places;
      for (std::size_t i = 0; i < samples.size(); ++i) {
        if (stored[i]) continue;
        ++samples[i].name.uid;
        blobs.push_back(small_blob_of(samples[i]));
        places.push_back(i);
      }
      const std::vector<Status> statuses = store.put_small(blobs);
      Status first;
      for (std::size_t i = 0; i < statuses.size(); ++i) {
        stored[places[i]] = statuses[i].ok();
        if (first.ok()) first = statuses[i];
      }
      return first;
    });
  });
}

TEST_F(NfsFaultWalk, TombstoneAndPin) {
  BlobName tombstone;
  BlobName pin;
  check_ = [&](BlobStore& direct, const std::string& what) {
    EXPECT_TRUE(*direct.contains(tombstone)) << what;
    EXPECT_TRUE(*direct.contains(pin)) << what;
  };
  walk([&](BlobStore& store, const std::string& what) {
    tombstone = make_name(3, next_seq(), 0);
    pin = pin_name_of(tombstone);
    tombstone.kind = EntryKind::kTombstone;
    until_stored(what, [&] { return store.put_tombstone(tombstone); });
    until_stored(what, [&] { return store.put_pin(pin); });
  });
}

TEST_F(NfsFaultWalk, RemovalAndQuarantine) {
  const auto direct = open_directly();
  Sample removed;
  Sample damaged;
  check_ = [&](BlobStore& store, const std::string& what) {
    EXPECT_FALSE(*store.contains(removed.name)) << what;
    EXPECT_FALSE(*store.contains(damaged.name)) << what;
    bool kept = false;
    ASSERT_TRUE(
        store.list_quarantine([&](const StoredEntry& entry) { kept = kept || entry.name == damaged.name; })
            .ok());
    EXPECT_TRUE(kept) << what;
  };
  walk([&](BlobStore& store, const std::string& what) {
    removed = make_sample(4, next_seq(), 10);
    damaged = make_sample(5, next_seq(), 10);
    ASSERT_TRUE(publish(*direct, removed).ok());
    ASSERT_TRUE(publish(*direct, damaged).ok());
    until_stored(what, [&] { return store.remove(removed.name); });
    until_stored(what, [&] { return store.quarantine(damaged.name, "why"); });
  });
}

TEST_F(NfsFaultWalk, ManyAtOnce) {
  const auto direct = open_directly();
  std::vector<BlobName> names;
  check_ = [&](BlobStore& store, const std::string& what) {
    for (const BlobName& name : names) EXPECT_FALSE(*store.contains(name)) << what;
  };
  walk([&](BlobStore& store, const std::string& what) {
    names.clear();
    const std::uint64_t seq = next_seq();
    for (const std::uint64_t program_id : {7, 8, 9}) {
      const Sample sample = make_sample(program_id, seq, 10);
      ASSERT_TRUE(publish(*direct, sample).ok());
      names.push_back(sample.name);
    }
    const auto all = [](const std::vector<Status>& statuses) {
      for (const Status& status : statuses) {
        if (!status.ok()) return status;
      }
      return ok_status();
    };
    until_stored(what, [&]() -> Status {
      for (const auto& there : store.contains_many(names)) {
        if (!there.ok()) return there.error();
        EXPECT_TRUE(*there) << what;
      }
      return ok_status();
    });
    until_stored(what, [&] { return all(store.make_durable(names)); });
    until_stored(what, [&] { return all(store.remove_many(names)); });
  });
}

TEST_F(NfsFaultWalk, Reading) {
  const auto direct = open_directly();
  const Sample sample = make_sample(6, 1, 3 * kChunkBytes + 5);
  ASSERT_TRUE(publish(*direct, sample).ok());
  walk([&](BlobStore& store, const std::string& what) {
    until_stored(what, [&]() -> Status {
      const auto data = read_back(store, sample.name);
      if (!data.ok()) return data.error();
      EXPECT_EQ(*data, sample.data) << what;
      return ok_status();
    });
    std::set<std::string> names;
    until_stored(what, [&] {
      names.clear();
      return store.list(
          shard_of(sample.name.lineage),
          [&](const StoredEntry& entry) { names.insert(to_file_name(entry.name)); }, nullptr);
    });
    EXPECT_EQ(names.count(to_file_name(sample.name)), 1U) << what;
  });
}

TEST_F(NfsFaults, BytesThatTheServerLostInARestartAreNotCalledDurable) {
  const auto store = open(proxy().url(), "a");
  const Sample sample = make_sample(1, 1, 3 * kChunkBytes);
  // The bytes of a reply to WRITE or COMMIT that differ are those of its verifier.
  for (const Procedure procedure : {Procedure::kWrite, Procedure::kCommit}) {
    proxy().add(FaultRule{procedure, Way::kReply, Fault{Fault::Action::kFlip}});
    EXPECT_EQ(publish(*store, sample).code(), Code::kUnavailable) << to_string(procedure);
    EXPECT_TRUE(list_all(*store).empty());
  }
  EXPECT_TRUE(publish(*store, sample).ok());
}

TEST_F(NfsFaults, NameIsNotCalledDurableWithoutACommitOfIt) {
  const auto store = open(proxy().url(), "a");
  const Sample sample = make_sample(1, 1, 10);
  ASSERT_TRUE(publish(*store, sample).ok());
  for (const auto& [answer, code] :
       {std::pair<std::uint32_t, Code>{5, Code::kIo}, {28, Code::kNoSpace}, {70, Code::kNotFound}}) {
    Fault refused{Fault::Action::kAnswer};
    refused.status = answer;
    proxy().add(FaultRule{Procedure::kCommit, Way::kRequest, refused});
    EXPECT_EQ(store->make_durable({sample.name})[0].code(), code) << answer;
  }
  EXPECT_TRUE(store->make_durable({sample.name})[0].ok());
}

TEST_F(NfsFaults, LinkThatSaysExistsThoughItWasDoneHasGivenTheName) {
  const auto store = open(proxy().url(), "a");
  Fault exists{Fault::Action::kAnswer};
  exists.status = 17;
  const Sample small = make_sample(1, 1, 10);
  proxy().add(FaultRule{Procedure::kLink, Way::kReply, exists});
  EXPECT_TRUE(store->put_small({small_blob_of(small)})[0].ok());
  const Sample large = make_sample(1, 2, kChunkBytes);
  proxy().add(FaultRule{Procedure::kLink, Way::kReply, exists});
  EXPECT_TRUE(publish(*store, large).ok());
  expect_whole(*store, small, "small");
  expect_whole(*store, large, "large");
  // Not done, and said to exist: nobody has it.
  const Sample other = make_sample(1, 3, 10);
  proxy().add(FaultRule{Procedure::kLink, Way::kRequest, exists});
  EXPECT_EQ(store->put_small({small_blob_of(other)})[0].code(), Code::kAlreadyExists);
  EXPECT_FALSE(*store->contains(other.name));
}

TEST_F(NfsFaults, NameThatAnotherHasIsNeverTakenForOurOwn) {
  const auto store = open(proxy().url(), "a", impatient());
  const auto direct = open_directly();
  const Sample theirs = make_sample(1, 1, 10);
  ASSERT_TRUE(publish(*direct, theirs).ok());
  Sample ours = theirs;
  ours.data[0] ^= 1;
  for (const auto& [way, action] : {std::pair{Way::kReply, Fault::Action::kCut},
                                    {Way::kReply, Fault::Action::kDrop},
                                    {Way::kRequest, Fault::Action::kCut},
                                    {Way::kRequest, Fault::Action::kDouble}}) {
    for (const bool small : {true, false}) {
      proxy().add(FaultRule{Procedure::kLink, way, Fault{action}});
      const Status status = small ? store->put_small({small_blob_of(ours)})[0] : publish(*store, ours);
      // Not found out in this little time on a busy host? Then it is not known, and no more.
      EXPECT_TRUE(status.code() == Code::kAlreadyExists || status.code() == Code::kUnavailable)
          << static_cast<int>(action);
      expect_whole(*direct, theirs, "theirs");
      ASSERT_TRUE(proxy().pass_all());
    }
  }
}

TEST_F(NfsFaults, LateLinkGivesNoNameToWhatWasCancelled) {
  const auto store = open(proxy().url(), "a", impatient());
  const Sample sample = make_sample(1, 1, 10);
  proxy().add(FaultRule{Procedure::kLink, Way::kRequest, Fault{Fault::Action::kHold}});
  EXPECT_EQ(store->put_small({small_blob_of(sample)})[0].code(), Code::kUnavailable);
  EXPECT_EQ(proxy().held(), 1U);
  ASSERT_TRUE(proxy().release());
  EXPECT_FALSE(*open_directly()->contains(sample.name));
}

TEST_F(NfsFaults, SmallBlobIsPublishedInFiveCallsAndReadInTwo) {
  const auto store = open(proxy().url(), "a");
  const auto calls = [&] {
    std::vector<Procedure> seen;
    for (const Procedure procedure : proxy().sequence()) {  // The look at the space is for many.
      if (procedure != Procedure::kFsstat) seen.push_back(procedure);
    }
    return seen;
  };
  // So that both connections are there.
  for (int i = 0; i < 2; ++i) EXPECT_FALSE(*store->contains(make_name(1, 1000, 1)));
  for (const std::size_t size : {std::size_t{100}, std::size_t{64 * 1024}}) {
    const Sample sample = make_sample(1, next_seq(), size);
    proxy().reset_counts();
    ASSERT_TRUE(store->put_small({small_blob_of(sample)})[0].ok());
    ASSERT_TRUE(proxy().wait_for_calls(Procedure::kRemove, 1));  // Nobody waits for it.
    EXPECT_EQ(calls(), (std::vector<Procedure>{Procedure::kCreate, Procedure::kWrite, Procedure::kLink,
                                               Procedure::kCommit, Procedure::kRemove}));
    proxy().reset_counts();
    expect_whole(*store, sample, "read");
    EXPECT_EQ(calls(), (std::vector<Procedure>{Procedure::kLookup, Procedure::kRead})) << size;
  }
}

TEST_F(NfsFaults, NasWithoutHardLinksIsStoredOnByRename) {
  const auto store = open(proxy().url(), "a", impatient());
  for (const std::uint32_t status : {10004U, 1U, 18U}) {
    Fault refused{Fault::Action::kAnswer};
    refused.status = status;
    proxy().add(FaultRule{Procedure::kLink, Way::kRequest, refused, 0, 0});
    const Sample small = make_sample(1, next_seq(), 10);
    const Sample large = make_sample(1, next_seq(), kChunkBytes);
    EXPECT_TRUE(store->put_small({small_blob_of(small)})[0].ok());
    EXPECT_TRUE(publish(*store, large).ok());
    EXPECT_EQ(store->put_small({small_blob_of(small)})[0].code(), Code::kAlreadyExists);
    // What became of a RENAME without an answer is found out; one that is late finds nothing.
    const Sample done = make_sample(1, next_seq(), 10);
    proxy().add(FaultRule{Procedure::kRename, Way::kReply, Fault{Fault::Action::kCut}});
    EXPECT_TRUE(store->put_small({small_blob_of(done)})[0].ok());
    const Sample late = make_sample(1, next_seq(), 10);
    proxy().add(FaultRule{Procedure::kRename, Way::kRequest, Fault{Fault::Action::kHold}});
    EXPECT_EQ(store->put_small({small_blob_of(late)})[0].code(), Code::kUnavailable);
    EXPECT_EQ(proxy().held(), 1U);
    ASSERT_TRUE(proxy().release());
    ASSERT_TRUE(proxy().pass_all());
    for (const Sample* sample : {&small, &large, &done}) expect_whole(*store, *sample, "by RENAME");
    EXPECT_FALSE(*store->contains(late.name));
  }
}

TEST_F(NfsFaults, StoredIsNotHeldUpByTheRemovalOfThePrivateName) {
  const auto store = open(proxy().url(), "a");
  proxy().add(FaultRule{Procedure::kRemove, Way::kRequest, Fault{Fault::Action::kHold}, 0, 0});
  EXPECT_TRUE(store->put_small({small_blob_of(make_sample(1, 1, 10))})[0].ok());
  EXPECT_TRUE(publish(*store, make_sample(1, 2, kChunkBytes)).ok());
  ASSERT_TRUE(proxy().wait_for_held(2));
  ASSERT_TRUE(proxy().pass_all());
}

TEST_F(NfsFaults, WhyThereWasNoAnswerIsSaid) {
  const Sample sample = make_sample(1, 1, 10);
  const auto why_not = [&](BlobStore& store) {
    const auto there = store.contains(sample.name);
    return there.ok() ? std::string() : there.error().context;
  };
  const auto through = open(proxy().url(), "a", impatient());
  proxy().add(FaultRule{Procedure::kLookup, Way::kReply, Fault{Fault::Action::kDrop}, 0, 0});
  EXPECT_NE(why_not(*through).find("no answer (timed out)"), std::string::npos) << why_not(*through);
  ASSERT_TRUE(proxy().pass_all());
  ASSERT_EQ(why_not(*through), "");
  proxy().add(FaultRule{Procedure::kLookup, Way::kRequest, Fault{Fault::Action::kCut}, 0, 0});
  EXPECT_NE(why_not(*through).find("Connection reset by peer"), std::string::npos) << why_not(*through);
  ASSERT_TRUE(proxy().pass_all());

  const auto direct = open(server().url(), "b", impatient());
  server().kill9();
  (void)why_not(*direct);  // Finds out that its connections are gone.
  EXPECT_NE(why_not(*direct).find("Connection refused"), std::string::npos) << why_not(*direct);
}

TEST_F(NfsFaults, OneLivingConnectionIsEnoughWhileAnotherCannotBeMade) {
  NfsTimeouts timeouts;
  timeouts.connect_pause = std::chrono::minutes(10);
  const auto store = open(proxy().url(), "a", timeouts);
  // So that both are there; then one breaks.
  for (int i = 0; i < 2; ++i) EXPECT_FALSE(*store->contains(make_name(1, 1000, 1)));
  proxy().add(FaultRule{Procedure::kMountMnt, Way::kRequest, Fault{Fault::Action::kCut}, 0, 0});
  proxy().add(FaultRule{Procedure::kCreate, Way::kRequest, Fault{Fault::Action::kCut}});
  EXPECT_EQ(store->put_small({small_blob_of(make_sample(1, next_seq(), 10))})[0].code(), Code::kUnavailable);
  for (int i = 0; i < 4; ++i) {
    const Status status = store->put_small({small_blob_of(make_sample(1, next_seq(), 10))})[0];
    EXPECT_TRUE(status.ok()) << status.error().message();
  }
  ASSERT_TRUE(proxy().pass_all());
}

TEST_F(NfsFaults, EndedCallsEndAtOnceAndNoneBeginsAfterwards) {
  const auto store = open(proxy().url(), "a");  // A COMMIT is waited for a minute.
  const Sample sample = make_sample(1, 1, 3 * kChunkBytes);
  auto writer = store->create(sample.name, make_manifest(sample.name));
  ASSERT_TRUE(writer.ok());
  for (std::size_t chunk = 0; chunk < 3; ++chunk) {
    const unsigned char* data = sample.data.data() + chunk * kChunkBytes;
    ASSERT_TRUE((*writer)->append(data, kChunkBytes, digest_of(data, kChunkBytes)).ok());
  }
  proxy().add(FaultRule{Procedure::kCommit, Way::kRequest, Fault{Fault::Action::kHold}});
  std::promise<Code> published;
  std::thread publisher([&] {
    const auto manifest = (*writer)->publish();
    published.set_value(manifest.ok() ? Code::kOk : manifest.error().code);
  });
  auto ended = published.get_future();
  ASSERT_TRUE(proxy().wait_for_held(1));
  const auto start = std::chrono::steady_clock::now();
  store->call_ender()();
  EXPECT_EQ(ended.get(), Code::kUnavailable);
  publisher.join();
  EXPECT_EQ(store->probe().code(), Code::kUnavailable);
  EXPECT_EQ(store->open_store().code(), Code::kUnavailable);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  writer->reset();
}

TEST_F(NfsFaults, ConnectingIsGivenUpWhenCallsAreEnded) {
  const auto target = parse_nfs_url(proxy().url());
  ASSERT_TRUE(target.ok());
  NfsTimeouts patient;
  patient.connect = std::chrono::minutes(10);
  const auto store = make_nfs_store(*target, "a", 1, patient);
  proxy().add(FaultRule{Procedure::kMountMnt, Way::kRequest, Fault{Fault::Action::kHold}});
  std::promise<Code> opened;
  std::thread opener([&] { opened.set_value(store->open_store().code()); });
  auto ended = opened.get_future();
  ASSERT_TRUE(proxy().wait_for_held(1));
  store->call_ender()();
  EXPECT_EQ(ended.get(), Code::kUnavailable);
  opener.join();
}

TEST_F(NfsFaults, ShortWriteIsAnError) {
  const auto store = open(proxy().url(), "a");
  proxy().add(FaultRule{Procedure::kWrite, Way::kReply, Fault{Fault::Action::kShortWrite}});
  EXPECT_EQ(store->put_small({small_blob_of(make_sample(1, 2, 100))})[0].code(), Code::kIo);
  // Last: more than one WRITE of it is on its way when the first one has failed it.
  proxy().add(FaultRule{Procedure::kWrite, Way::kReply, Fault{Fault::Action::kShortWrite}});
  EXPECT_EQ(publish(*store, make_sample(1, 1, kChunkBytes)).code(), Code::kIo);
  EXPECT_TRUE(list_all(*store).empty());
}

TEST_F(NfsFaults, WhatTheServerAnswersIsToldApart) {
  const auto store = open(proxy().url(), "a");
  const std::map<std::uint32_t, Code> expected = {
      {28, Code::kNoSpace}, {69, Code::kQuota},       {30, Code::kReadOnly},      {13, Code::kPermission},
      {5, Code::kIo},       {70, Code::kUnavailable}, {10008, Code::kUnavailable}};
  std::uint64_t seq = 0;
  for (const auto& [status, code] : expected) {
    Fault answer{Fault::Action::kAnswer};
    answer.status = status;
    for (const Procedure procedure : {Procedure::kCreate, Procedure::kWrite}) {
      proxy().add(FaultRule{procedure, Way::kRequest, answer});
      EXPECT_EQ(store->put_small({small_blob_of(make_sample(1, ++seq, 100))})[0].code(), code)
          << status << " to " << to_string(procedure);
      // Last: other WRITEs of a writer may still be under way when it has failed.
      proxy().add(FaultRule{procedure, Way::kRequest, answer});
      EXPECT_EQ(publish(*store, make_sample(1, ++seq, kChunkBytes)).code(), code) << status;
    }
  }
  EXPECT_TRUE(list_all(*store).empty());
}

TEST_F(NfsFaults, ServerKilledAndRestartedWhileWritersWriteLosesNothingThatWasStored) {
  const auto store = open(server().url(), "a");
  std::vector<Sample> stored;
  for (std::uint64_t seq = 1; seq <= 6; ++seq) {
    const Sample sample = make_sample(1, seq, 3 * kChunkBytes);
    auto writer = store->create(sample.name, make_manifest(sample.name));
    ASSERT_TRUE(writer.ok());
    const auto append = [&](std::size_t chunk) {
      const unsigned char* data = sample.data.data() + chunk * kChunkBytes;
      return (*writer)->append(data, kChunkBytes, digest_of(data, kChunkBytes));
    };
    (void)append(0);
    (void)append(1);
    server().kill9();
    const Status restarted = server().restart();
    ASSERT_TRUE(restarted.ok()) << restarted.error().message();
    (void)append(2);
    EXPECT_FALSE((*writer)->publish().ok()) << "its connection is gone";
    until_stored("after the restart", [&] { return publish(*store, sample); });
    stored.push_back(sample);
  }
  for (const Sample& sample : stored) expect_whole(*store, sample, "in the end");
}

TEST_F(NfsFaults, PausedServerIsWaitedForAndNothingIsLost) {
  const auto store = open(server().url(), "a");
  const Sample sample = make_sample(1, 1, 3 * kChunkBytes);
  auto writer = store->create(sample.name, make_manifest(sample.name));
  ASSERT_TRUE(writer.ok());
  server().pause();
  for (std::size_t chunk = 0; chunk < 3; ++chunk) {
    const unsigned char* data = sample.data.data() + chunk * kChunkBytes;
    ASSERT_TRUE((*writer)->append(data, kChunkBytes, digest_of(data, kChunkBytes)).ok());
  }
  server().resume();
  EXPECT_TRUE((*writer)->publish().ok());
  expect_whole(*store, sample, "after the pause");
}

TEST_F(NfsFaults, StoreThatCannotBeReachedFailsFastAndComesBackByItself) {
  const auto store = open(server().url(), "a");
  const Sample sample = make_sample(1, 1, 100);
  server().kill9();
  EXPECT_EQ(store->probe().code(), Code::kUnavailable);
  EXPECT_EQ(publish(*store, sample).code(), Code::kUnavailable);
  EXPECT_EQ(store->open_store().code(), Code::kUnavailable);
  ASSERT_TRUE(server().restart().ok());
  until_stored("when it is back", [&] { return publish(*store, sample); });
}

}  // namespace
}  // namespace cms::storage::testing
