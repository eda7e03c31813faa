#pragma once
// The parts of cmsd that go over store and index, around a core, with a loop that a test turns.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cms/core/cms_core.h"
#include "cms/daemon/index_keeper.h"
#include "cms/daemon/lineage_gate.h"
#include "cms/daemon/scrubber.h"
#include "storage/contract/samples.h"
#include "storage/fake/fake_claims.h"
#include "storage/fake/fake_index.h"
#include "storage/fake/fake_store.h"

namespace cms::daemon {

inline constexpr std::size_t kChunkBytes = storage::testing::kChunkBytes;

inline ReplaceableIndex::Open fake_indexes() {
  return [](const std::string& directory) -> Result<std::unique_ptr<storage::CheckpointIndex>> {
    std::filesystem::create_directories(directory);
    return std::unique_ptr<storage::CheckpointIndex>(std::make_unique<storage::FakeIndex>());
  };
}

class Parts {
 public:
  explicit Parts(storage::BlobStore& store, ReplaceableIndex::Open open = fake_indexes(),
                 Scrubber::Config scrub = {"a", 0, std::chrono::hours(24), 1})
      : store_(store),
        index_(opened(directory_.path() + "/index", std::move(open))),
        core(core_config()),
        gate(claims, *index_, core::Writer{"a", 1}),
        keeper(core, store, *index_, gate, outbox, false),
        scrubber(std::move(scrub), store, *index_, keeper, outbox) {
    EXPECT_TRUE(store_.open_store().ok());
    EXPECT_TRUE(claims.open_store().ok());
    keeper.on_store_looked_at();
    core.on_store_state(BootClock::now(), ok_status(), effects);
    core.on_time(BootClock::now(), wall_time_us(), effects);
  }
  ~Parts() {
    scrubber.stop();
    keeper.stop();
  }

  ReplaceableIndex& index() { return *index_; }
  std::string index_path() const { return directory_.path() + "/index"; }

  // Turns the loop until `holds`. False: not within a minute.
  bool turn_until(const std::function<bool()>& holds) {
    const Instant deadline = BootClock::now() + std::chrono::minutes(1);
    std::vector<Completion> completions;
    while (!holds()) {
      if (BootClock::now() >= deadline) return false;
      pollfd item{outbox.waker().fd(), POLLIN, 0};
      // What the scrubber's thread has come to is asked for, not told.
      if (::poll(&item, 1, 5) == 1) outbox.waker().drain();
      outbox.take(completions);
      for (Completion& completion : completions) completion(BootClock::now(), effects);
    }
    return true;
  }
  bool reconcile() {
    keeper.reconcile();
    return turn_until([this] {
      return !keeper.progress().running && keeper.progress().done && !keeper.progress().completing;
    });
  }
  ScrubRun scrub(std::optional<ProgramKey> program = std::nullopt,
                 std::optional<Version> version = std::nullopt) {
    scrubber.on_store_state(true);
    const auto begun = scrubber.start_run(program, version);
    EXPECT_TRUE(begun.ok());
    ScrubRun run;
    const bool ended = turn_until([&] {
      for (const ScrubRun& one : scrubber.facts().runs) {
        if (one.id == begun->id) run = one;
      }
      return run.state == ScrubRun::State::kDone || run.state == ScrubRun::State::kBrokenOff;
    });
    EXPECT_TRUE(ended);
    return run;
  }
  // By order of the index, as texts that name every field.
  std::vector<std::string> rows() {
    std::vector<std::string> rows;
    EXPECT_TRUE(index()
                    .scan(std::nullopt, std::nullopt,
                          [&](const storage::IndexRow& row) {
                            rows.push_back(
                                storage::to_file_name(row.name) + " " + std::to_string(row.stored_bytes) +
                                " " + std::to_string(row.stored_at_us) + " " +
                                std::to_string(row.taken_at_us) + " " + std::to_string(row.pause_us) + " " +
                                row.program_name + " " + to_string(row.blob_digest));
                            return true;
                          })
                    .ok());
    return rows;
  }
  std::vector<std::string> quarantined() {
    std::vector<std::string> names;
    EXPECT_TRUE(store_
                    .list_quarantine([&](const storage::StoredEntry& entry) {
                      names.push_back(storage::to_file_name(entry.name));
                    })
                    .ok());
    return names;
  }

 private:
  static core::CmsCoreConfig core_config() {
    core::CmsCoreConfig config;
    config.name = "a";
    return config;
  }
  static std::unique_ptr<ReplaceableIndex> opened(const std::string& path, ReplaceableIndex::Open open) {
    auto index = ReplaceableIndex::open(path, std::move(open));
    CMS_ASSERT(index.ok());
    return std::move(*index);
  }

  storage::testing::TempDir directory_;
  storage::BlobStore& store_;
  std::unique_ptr<ReplaceableIndex> index_;

 public:
  core::Effects effects;
  Outbox outbox;
  core::CmsCore core;
  storage::FakeClaimNas claim_nas;
  storage::FakeClaims claims{claim_nas, "a", 1};
  LineageGate gate;
  IndexKeeper keeper;
  Scrubber scrubber;
};

}  // namespace cms::daemon
