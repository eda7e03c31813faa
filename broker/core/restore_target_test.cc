// RestoreTarget: every order of a handful of commands against rules written down apart from it, then the
// transfer, the limits and the ends that these orders do not reach.
#include "broker/core/restore_target.h"
#include "base/sanitized.h"

#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <set>

namespace cms::broker {
namespace {

using wire::RestoreState;

constexpr Lineage kLineage{1, 2};
constexpr SessionId kSession{EcuMac{0x020000000009}, 65536};
constexpr BulkLink kLink{0, 7403};

wire::ClaimRef claim_of(std::uint64_t slot, Lineage lineage = kLineage) {
  return wire::ClaimRef{lineage, slot, slot * 1000};
}
wire::Prepare prepare_of(const wire::ClaimRef& claim, std::uint64_t size_bytes = 0,
                         OwnerEpoch owner_epoch = 0) {
  wire::Prepare prepare;
  prepare.claim = claim;
  prepare.session = kSession;
  prepare.notification.program_id = 7;
  prepare.notification.seq = 3;
  prepare.notification.size_bytes = size_bytes;
  prepare.notification.chunk_size_bytes = wire::kChunkSizeBytesMin;
  prepare.notification.owner_epoch = owner_epoch;
  prepare.bulk_port = kLink.port;
  return prepare;
}
wire::Go go_of(const wire::ClaimRef& claim, std::uint64_t act_uid = 0) {
  return wire::Go{claim, claim.slot + 1, act_uid == 0 ? claim.uid + 1 : act_uid};
}

// A target with what was to be done in the last call.
class Target {
 public:
  explicit Target(RestoreTargetConfig config = {}) : core(config) {}

  template <typename Call>
  void call(const Call& call) {
    effects.clear();
    call(effects);
  }
  void prepare(const wire::Prepare& prepare, CmsIndex cms = 0) {
    call([&](RestoreEffects& out) { core.on_prepare(now, cms, prepare, out); });
  }
  void go(const wire::Go& go, CmsIndex cms = 0) {
    call([&](RestoreEffects& out) { core.on_go(now, cms, go, out); });
  }
  void discard(const wire::ClaimRef& claim, CmsIndex cms = 0) {
    call([&](RestoreEffects& out) { core.on_discard(now, cms, wire::Discard{claim}, out); });
  }
  void prepared(RestoreId id, const Status& status = ok_status()) {
    call([&](RestoreEffects& out) { core.on_prepared(now, id, status, out); });
  }
  void running(RestoreId id, const Result<ProgramId>& program_id) {
    call([&](RestoreEffects& out) { core.on_running(now, id, program_id, out); });
  }
  void bulk(const wire::BulkBody& message, const std::string& bytes = {}, const BulkLink& link = kLink) {
    call([&](RestoreEffects& out) {
      core.on_bulk(now, link, message, ChunkView{bytes.data(), bytes.size(), nullptr}, out);
    });
  }
  // The whole of a blob in one chunk of at most kChunkSizeBytesMin.
  void blob(RestoreId id, const std::string& bytes = {}) { bulk(chunk_of(id, bytes), bytes); }
  static wire::Chunk chunk_of(RestoreId id, const std::string& bytes) {
    wire::Chunk chunk;
    chunk.transfer_id = id;
    chunk.size_bytes = static_cast<std::uint32_t>(bytes.size());
    chunk.digest = digest_of(bytes.data(), bytes.size());
    chunk.version = Version{kSession.incarnation, 3};
    chunk.blob_size_bytes = bytes.size();
    chunk.chunk_size_bytes = wire::kChunkSizeBytesMin;
    chunk.last = true;
    chunk.blob_digest = blob_digest_of({chunk.digest});
    return chunk;
  }
  void pass(Duration duration) {
    now += duration;
    call([&](RestoreEffects& out) { core.on_time(now, out); });
  }

  template <typename T>
  std::vector<T> all() const {
    std::vector<T> found;
    for (const RestoreEffect& effect : effects) {
      if (const auto* one = std::get_if<T>(&effect)) found.push_back(*one);
    }
    return found;
  }
  std::vector<wire::RestoreReport> reports(CmsIndex cms = 0) const {
    std::vector<wire::RestoreReport> found;
    for (const SendReport& sent : all<SendReport>()) {
      if (sent.cms == cms) found.push_back(sent.report);
    }
    return found;
  }
  // "refused 13", of the last report; "" when there is none.
  std::string told(CmsIndex cms = 0) const {
    const auto found = reports(cms);
    if (found.empty()) return "";
    const wire::RestoreReport& last = found.back();
    return std::string(wire::to_string(last.state)) +
           (last.code == Code::kOk ? "" : " " + std::string(to_string(last.code)));
  }
  // Up to prepared; its id.
  RestoreId make_prepared(const wire::ClaimRef& claim, OwnerEpoch owner_epoch = 0) {
    prepare(prepare_of(claim, 0, owner_epoch));
    const RestoreId id = all<ReceiveBlob>().at(0).id;
    blob(id);
    prepared(id);
    return id;
  }

  RestoreTarget core;
  RestoreEffects effects{};
  Instant now{std::chrono::hours(1)};
};

// ---- every order

enum Step {
  kPrepareA,
  kGoA,
  kDiscardA,
  kPrepareB,
  kGoB,
  kDiscardB,
  kBlobComes,
  kTransferFails,
  kPreparedOk,
  kPreparedFailed,
  kRunsOk,
  kRunsFailed,
  kStepCount
};
const char* const kStepNames[] = {"PrepareA", "GoA",     "DiscardA", "PrepareB",     "GoB",  "DiscardB",
                                  "blob",     "no blob", "prepared", "not prepared", "runs", "runs not"};

// What is known of the two claims of one lineage from the outside alone: what was said to the target, what
// it did, what it said. A is in slot 2, B in slot 5.
class Oracle {
 public:
  // Carries the step out; false: nothing waits for it. Sets `problem` when a rule was broken.
  bool step(Target& target, Step step) {
    std::optional<int> command_of;
    switch (step) {
      case kPrepareA:
      case kPrepareB:
        command_of = step == kPrepareA ? 0 : 1;
        target.prepare(prepare_of(ref(*command_of)));
        break;
      case kGoA:
      case kGoB:
        command_of = step == kGoA ? 0 : 1;
        target.go(go_of(ref(*command_of)));
        break;
      case kDiscardA:
      case kDiscardB:
        command_of = step == kDiscardA ? 0 : 1;
        target.discard(ref(*command_of));
        break;
      case kBlobComes:
      case kTransferFails:
        if (pulling_.empty()) return false;
        if (step == kBlobComes) {
          target.blob(*pulling_.begin());
        } else {
          target.bulk(wire::TransferError{*pulling_.begin(), Code::kNotFound, "gone"});
        }
        break;
      case kPreparedOk:
      case kPreparedFailed: {
        if (preparing_.empty()) return false;
        const RestoreId id = *preparing_.begin();
        preparing_.erase(id);
        if (step == kPreparedOk) prepared_.insert(id);
        target.prepared(id, step == kPreparedOk ? ok_status() : make_error(Code::kUnsupported, "no"));
        break;
      }
      case kRunsOk:
      case kRunsFailed: {
        if (going_.empty()) return false;
        const RestoreId id = *going_.begin();
        going_.erase(id);
        claims_[claim_of_.at(id)].runs = step == kRunsOk;
        claims_[claim_of_.at(id)].failed = step == kRunsFailed;
        if (step == kRunsOk) {
          target.running(id, ProgramId{40});
        } else {
          target.running(id, make_error(Code::kNoSpace, "no"));
        }
        break;
      }
      case kStepCount: return false;
    }
    if (step == kDiscardA || step == kDiscardB) discarding_ = *command_of;
    judge(target, step, command_of);
    discarding_ = -1;
    if (problem.empty() && command_of) repeat(target, step);
    return true;
  }

  std::string problem{};

 private:
  struct Claim {
    bool commanded = false;
    bool discarded = false;  // By a command that came before it was told to run.
    bool refused = false;    // So it was said.
    int go_count = 0;
    bool runs = false;
    bool failed = false;
  };
  static wire::ClaimRef ref(int index) { return claim_of(index == 0 ? 2 : 5); }

  void judge(Target& target, Step step, std::optional<int> command_of) {
    for (const RestoreEffect& effect : target.effects) {
      if (const auto* receive = std::get_if<ReceiveBlob>(&effect)) {
        claim_of_[receive->id] = receive->info.claim.slot == 2 ? 0 : 1;
        pulling_.insert(receive->id);
      } else if (const auto* prepare = std::get_if<PrepareProgram>(&effect)) {
        if (pulling_.erase(prepare->id) == 0 || step != kBlobComes) complain("prepares what is not whole");
        preparing_.insert(prepare->id);
      } else if (const auto* run = std::get_if<RunProgram>(&effect)) {
        const int index = claim_of_.at(run->id);
        Claim& claim = claims_[index];
        if (prepared_.count(run->id) == 0) complain("runs what is not prepared");
        if (command_of != index || (step != kGoA && step != kGoB)) complain("runs without its Go");
        if (++claim.go_count > 1) complain("runs a claim twice");
        if (claim.refused || claim.discarded) complain("runs what it refused or was to discard");
        if (index == 0 && claims_[1].commanded) complain("obeys a claim after a newer one");
        if (index == 1 && claims_[0].runs) complain("runs a lineage twice");
        if (run->owner_epoch != ref(index).slot + 2) complain("the epoch is not the slot after ACT");
        going_.insert(run->id);
      } else if (const auto* dropped = std::get_if<DiscardRestore>(&effect)) {
        if (claims_[claim_of_.at(dropped->id)].go_count > 0) complain("discards what it was told to run");
        if (preparing_.count(dropped->id) != 0) complain("discards what the RTCR works on");
        pulling_.erase(dropped->id);
        prepared_.erase(dropped->id);
      } else if (std::holds_alternative<FenceProgram>(effect)) {
        complain("fences the newest owner that it knows");
      }
    }
    if (command_of) claims_[*command_of].commanded = true;
    if (discarding_ >= 0 && claims_[discarding_].go_count == 0) claims_[discarding_].discarded = true;
    int answer_count = 0;
    for (const wire::RestoreReport& report : target.reports()) {
      const int index = report.claim.slot == 2 ? 0 : 1;
      Claim& claim = claims_[index];
      if (command_of == index) {
        ++answer_count;
        const bool is_go = step == kGoA || step == kGoB;
        if (report.act_uid != (is_go ? ref(index).uid + 1 : 0) &&
            !(claim.go_count > 0 && report.act_uid == 0 && !is_go))
          complain("the answer does not echo its ACT");
      }
      const bool says_no = report.state == RestoreState::kRefused || report.state == RestoreState::kDiscarded;
      if (says_no && claim.go_count > 0 && !claim.failed) complain("denies what runs or may run");
      if (!says_no && claim.refused) complain("takes a refusal back");
      if (claim.failed && !says_no) complain("hides that it does not run");
      if ((report.state == RestoreState::kRunning) != claim.runs) complain("says wrongly whether it runs");
      if (report.state == RestoreState::kRunning && report.program_id != 40) complain("another program_id");
      claim.refused = claim.refused || says_no;
    }
    if (command_of && answer_count != 1)
      complain("answers a command " + std::to_string(answer_count) + " times");
    for (int i = 0; i < 2; ++i) {
      if (claims_[i].discarded && !claims_[i].refused) complain("Discard was not heard");
    }
    if (claims_[1].commanded && claims_[0].go_count == 0 && claims_[0].commanded && !claims_[0].refused)
      complain("an older claim lives on beside a newer one");
  }

  // The same command again changes nothing and is answered alike.
  void repeat(Target& target, Step step) {
    const auto before = target.reports().back();
    if (step == kPrepareA || step == kPrepareB) {
      target.prepare(prepare_of(before.claim));
    } else if (step == kGoA || step == kGoB) {
      target.go(go_of(before.claim));
    } else {
      target.discard(before.claim);
    }
    if (target.effects.size() != 1 || target.reports().size() != 1)
      return complain("a repeat does something");
    const auto after = target.reports().front();
    const bool alike = after.state == before.state && after.act_uid == before.act_uid &&
                       after.program_id == before.program_id;
    // A refusal may be for another reason by now; it stays one.
    const auto says_no = [](RestoreState state) {
      return state == RestoreState::kRefused || state == RestoreState::kDiscarded;
    };
    if (!alike && !(says_no(after.state) && says_no(before.state)))
      complain("a repeat is answered otherwise");
  }

  void complain(const std::string& text) {
    if (problem.empty()) problem = text;
  }

  Claim claims_[2];
  std::map<RestoreId, int> claim_of_{};
  std::set<RestoreId> pulling_{}, preparing_{}, prepared_{}, going_{};
  int discarding_ = -1;
};

TEST(RestoreTargetTest, EveryOrderOfCommandsAndAnswersForTwoClaimsKeepsTheRules) {
  constexpr std::size_t kDepth = CMS_SANITIZED != 0 ? 6 : 7;  // Each more takes ten times as long.
  std::vector<int> path;
  std::size_t order_count = 0;
  std::size_t ran_count = 0;
  // All paths, each replayed from the beginning; a path that breaks off is not gone deeper into.
  path.push_back(0);
  while (!path.empty()) {
    if (path.back() == kStepCount) {
      path.pop_back();
      if (!path.empty()) ++path.back();
      continue;
    }
    Target target;
    Oracle oracle;
    bool carried_out = true;
    for (const int step : path) carried_out = oracle.step(target, static_cast<Step>(step));
    if (!oracle.problem.empty()) {
      std::string steps;
      for (const int step : path) steps += std::string(kStepNames[step]) + ", ";
      FAIL() << steps << "\n" << oracle.problem;
    }
    if (carried_out && path.size() < kDepth) {
      path.push_back(0);
      continue;
    }
    if (carried_out) {
      ++order_count;
      if (path.back() == kRunsOk) ++ran_count;
    }
    ++path.back();
  }
  EXPECT_GT(order_count, CMS_SANITIZED != 0 ? 30000U : 300000U);
  EXPECT_GT(ran_count, CMS_SANITIZED != 0 ? 20U : 100U)
      << "the orders never came as far as a program that runs";
}

// ---- the transfer

TEST(RestoreTargetTest, PullsInWindowsVerifiesAndHandsTheBytesOnInOrder) {
  Target target;
  const std::uint64_t size_bytes = 2 * kRestoreWindowBytes;
  const std::string piece(wire::kChunkSizeBytesMin, 'p');
  target.prepare(prepare_of(claim_of(2), size_bytes));
  EXPECT_EQ(target.told(), "pulling");
  ASSERT_EQ(target.all<OpenBulkLink>().size(), 1U);
  EXPECT_TRUE(target.all<OpenBulkLink>()[0].link == kLink);
  const auto fetch = std::get<wire::Fetch>(target.all<SendBulk>().at(0).message);
  EXPECT_EQ(fetch.limit_bytes, kRestoreWindowBytes);
  EXPECT_EQ(to_string(fetch.checkpoint), "02:00:00:00:00:09/7@65536.3");

  std::vector<Digest> digests;
  std::uint64_t limit_bytes = fetch.limit_bytes;
  for (std::uint64_t offset = 0; offset < size_bytes; offset += piece.size()) {
    ASSERT_LE(offset + piece.size(), limit_bytes) << "no credit came in time";
    wire::Chunk chunk = Target::chunk_of(1, piece);
    digests.push_back(chunk.digest);
    chunk.offset_bytes = offset;
    chunk.blob_size_bytes = size_bytes;
    chunk.last = offset + piece.size() == size_bytes;
    chunk.blob_digest = chunk.last ? blob_digest_of(digests) : Digest{};
    target.bulk(chunk, piece);
    ASSERT_EQ(target.all<TakeBytes>().size(), 1U);
    EXPECT_EQ(target.all<TakeBytes>()[0].offset_bytes, offset);
    for (const SendBulk& sent : target.all<SendBulk>()) {
      limit_bytes = std::get<wire::Credit>(sent.message).limit_bytes;
      EXPECT_LE(limit_bytes - offset, kRestoreWindowBytes + piece.size());
    }
  }
  EXPECT_EQ(target.all<PrepareProgram>().size(), 1U);
  EXPECT_EQ(target.all<CloseBulkLink>().size(), 1U);
}

TEST(RestoreTargetTest, ATransferThatFailsMakesTheClaimRefusedForThatReason) {
  const std::string bytes(100, 'b');
  const auto refusal_after = [&](const std::function<void(Target&)>& fail) {
    Target target;
    target.prepare(prepare_of(claim_of(2), bytes.size()));
    fail(target);
    EXPECT_EQ(target.all<DiscardRestore>().size(), 1U);
    EXPECT_EQ(target.all<CloseBulkLink>().size(), 1U);
    EXPECT_TRUE(target.all<PrepareProgram>().empty());
    const std::string told = target.told();
    target.prepare(prepare_of(claim_of(2), bytes.size()));
    EXPECT_EQ(target.told(), told) << "a refusal is final";
    EXPECT_EQ(target.effects.size(), 1U);
    return told;
  };
  EXPECT_EQ(refusal_after([](Target& target) {
              target.bulk(wire::TransferError{1, Code::kUnavailable, "store away"});
            }),
            "refused unavailable");
  EXPECT_EQ(refusal_after([&](Target& target) {
              std::string damaged = bytes;
              damaged[50] = 'x';
              target.bulk(Target::chunk_of(1, bytes), damaged);
            }),
            "refused corrupt");
  EXPECT_EQ(refusal_after([&](Target& target) {
              wire::Chunk chunk = Target::chunk_of(1, bytes);
              chunk.blob_digest = Digest{1, 1};
              target.bulk(chunk, bytes);
            }),
            "refused corrupt");
  EXPECT_EQ(refusal_after([&](Target& target) {
              wire::Chunk chunk = Target::chunk_of(1, bytes);
              chunk.version.seq = 4;
              target.bulk(chunk, bytes);
            }),
            "refused protocol violation");
  EXPECT_EQ(refusal_after([](Target& target) {
              target.call([&](RestoreEffects& out) {
                target.core.on_sink_failed(target.now, 1, make_error(Code::kNoSpace, "full"), out);
              });
            }),
            "refused no space");
  EXPECT_EQ(refusal_after([](Target& target) {
              target.pass(kRestoreStallMax - Duration(1));
              EXPECT_TRUE(target.effects.empty());
              EXPECT_EQ(target.core.next_deadline(), target.now + Duration(1));
              target.pass(Duration(1));
              EXPECT_TRUE(std::holds_alternative<wire::Cancel>(target.all<SendBulk>().at(0).message));
            }),
            "refused timeout");
}

TEST(RestoreTargetTest, ForeignLinksAndTransfersAreNotHeard) {
  Target target;
  target.prepare(prepare_of(claim_of(2), 5));
  target.bulk(Target::chunk_of(1, "bytes"), "bytes", BulkLink{1, kLink.port});
  EXPECT_TRUE(target.effects.empty());
  target.bulk(Target::chunk_of(2, "bytes"), "bytes");
  EXPECT_TRUE(target.effects.empty());
  target.blob(1, "bytes");
  EXPECT_EQ(target.all<PrepareProgram>().size(), 1U);
}

// ---- claims

TEST(RestoreTargetTest, ANewerClaimDropsWhatWasPreparedAndTellsThoseWhoAsked) {
  Target target;
  const RestoreId first = target.make_prepared(claim_of(2));
  target.prepare(prepare_of(claim_of(4)), 1);
  ASSERT_EQ(target.all<DiscardRestore>().size(), 1U);
  EXPECT_EQ(target.all<DiscardRestore>()[0].id, first);
  EXPECT_EQ(target.told(0), "refused fenced");
  EXPECT_EQ(target.told(1), "pulling");
  target.go(go_of(claim_of(2)));
  EXPECT_EQ(target.told(), "refused fenced");
  EXPECT_EQ(target.reports().at(0).act_uid, go_of(claim_of(2)).act_uid);
}

TEST(RestoreTargetTest, ACommandOfTheSameSlotAndAnotherUidIsRefused) {
  Target target;
  target.make_prepared(claim_of(2));
  wire::ClaimRef other = claim_of(2);
  other.uid = 9;
  target.go(go_of(other));
  EXPECT_EQ(target.told(), "refused fenced");
  EXPECT_TRUE(target.all<RunProgram>().empty());
  target.go(go_of(claim_of(2)));
  EXPECT_EQ(target.all<RunProgram>().size(), 1U);
}

TEST(RestoreTargetTest, EveryCmsThatSaysGoIsAnsweredWithTheSameProgram) {
  Target target;
  const RestoreId id = target.make_prepared(claim_of(2));
  for (const CmsIndex cms : {0U, 1U, 2U}) {
    target.go(go_of(claim_of(2)), cms);
    EXPECT_EQ(target.all<RunProgram>().size(), cms == 0 ? 1U : 0U);
    EXPECT_EQ(target.told(cms), "prepared");
  }
  EXPECT_EQ(target.core.going_count(), 1U);
  target.running(id, ProgramId{40});
  for (const CmsIndex cms : {0U, 1U, 2U}) {
    ASSERT_EQ(target.reports(cms).size(), 1U);
    EXPECT_EQ(target.reports(cms)[0].program_id, 40U);
    EXPECT_EQ(target.reports(cms)[0].act_uid, go_of(claim_of(2)).act_uid);
  }
  EXPECT_TRUE(target.reports(3).empty());
  EXPECT_EQ(target.core.going_count(), 0U);
}

TEST(RestoreTargetTest, AnotherActOfAClaimIsRefusedByItsUidAlone) {
  Target target;
  const RestoreId id = target.make_prepared(claim_of(2));
  target.go(go_of(claim_of(2)));
  target.running(id, ProgramId{40});
  target.go(go_of(claim_of(2), 77));
  EXPECT_EQ(target.told(), "refused fenced");
  EXPECT_EQ(target.reports().at(0).act_uid, 77U);
  target.go(go_of(claim_of(2)));
  EXPECT_EQ(target.told(), "running");
}

TEST(RestoreTargetTest, WhatRunsIsReplacedOnlyOnceSomebodyElseHasOwnedIt) {
  Target target;
  const RestoreId id = target.make_prepared(claim_of(2));  // ACT in 3, its epoch is 4.
  target.go(go_of(claim_of(2)));
  target.running(id, ProgramId{40});
  target.prepare(prepare_of(claim_of(5), 0, 4));
  EXPECT_EQ(target.told(), "refused already exists");
  target.prepare(prepare_of(claim_of(2)));
  EXPECT_EQ(target.told(), "running");
  target.prepare(prepare_of(claim_of(5), 0, 9));
  EXPECT_EQ(target.told(), "refused fenced") << "that claim was refused for good";
  target.prepare(prepare_of(claim_of(10), 0, 9));
  EXPECT_EQ(target.told(), "pulling");
  ASSERT_EQ(target.all<FenceProgram>().size(), 1U);
  EXPECT_EQ(target.all<FenceProgram>()[0].program_id, 40U);
}

TEST(RestoreTargetTest, WhatWasToldToRunAndLostItsClaimIsFencedWhenItRuns) {
  Target target;
  const RestoreId id = target.make_prepared(claim_of(2));
  target.go(go_of(claim_of(2)));
  target.prepare(prepare_of(claim_of(10), 0, 9));
  EXPECT_EQ(target.told(), "pulling");
  EXPECT_EQ(target.core.going_count(), 0U);
  target.running(id, ProgramId{40});
  ASSERT_EQ(target.all<FenceProgram>().size(), 1U);
  EXPECT_TRUE(target.reports().empty());
}

TEST(RestoreTargetTest, AProgramThatEndedMayComeBack) {
  Target target;
  const RestoreId id = target.make_prepared(claim_of(2));
  target.go(go_of(claim_of(2)));
  target.running(id, ProgramId{40});
  target.core.on_program_ended(40);
  target.go(go_of(claim_of(2)));
  EXPECT_EQ(target.told(), "running") << "it did run";
  target.prepare(prepare_of(claim_of(5)));
  EXPECT_EQ(target.told(), "pulling");
  EXPECT_TRUE(target.all<FenceProgram>().empty());
}

TEST(RestoreTargetTest, TheEndOfTheSessionRefusesWhatDoesNotRun) {
  Target target;
  const RestoreId running = target.make_prepared(claim_of(2, Lineage{1, 1}));
  target.go(go_of(claim_of(2, Lineage{1, 1})));
  target.running(running, ProgramId{40});
  const RestoreId prepared = target.make_prepared(claim_of(2, Lineage{2, 2}));
  target.prepare(prepare_of(claim_of(2, Lineage{3, 3}), 5));
  target.call([&](RestoreEffects& out) { target.core.end_session("over", out); });
  EXPECT_EQ(target.reports().size(), 2U);
  ASSERT_EQ(target.all<DiscardRestore>().size(), 2U);
  EXPECT_EQ(target.all<DiscardRestore>()[0].id, prepared);
  EXPECT_EQ(target.core.open_count(), 0U);
  target.go(go_of(claim_of(2, Lineage{2, 2})));
  EXPECT_EQ(target.told(), "refused cancelled");
  target.go(go_of(claim_of(2, Lineage{1, 1})));
  EXPECT_EQ(target.told(), "running");
  target.prepare(prepare_of(claim_of(3, Lineage{2, 2})));
  EXPECT_EQ(target.told(), "pulling") << "a new claim of the new session";
  target.call([&](RestoreEffects& out) { target.core.stop(out); });
  target.prepare(prepare_of(claim_of(4, Lineage{2, 2})));
  EXPECT_EQ(target.told(), "refused cancelled");
}

// ---- what nobody asks for any more

TEST(RestoreTargetTest, WhatIsPreparedAndAskedForByNobodyIsRefusedForGood) {
  Target target;
  target.prepare(prepare_of(claim_of(2)));
  const RestoreId id = target.all<ReceiveBlob>().at(0).id;
  target.blob(id);
  target.pass(std::chrono::hours(1));
  EXPECT_TRUE(target.effects.empty()) << "its RTCR works on it";
  target.prepared(id);
  EXPECT_EQ(target.core.next_deadline(), target.now + kRestoreForgottenAfter);
  target.pass(kRestoreForgottenAfter - Duration(1));
  EXPECT_TRUE(target.effects.empty());
  target.pass(Duration(1));
  EXPECT_EQ(target.told(), "refused timeout");
  ASSERT_EQ(target.all<DiscardRestore>().size(), 1U);
  EXPECT_EQ(target.all<DiscardRestore>()[0].id, id);
  EXPECT_EQ(target.core.open_count(), 0U);
  EXPECT_EQ(target.core.next_deadline(), kNever);
  target.prepare(prepare_of(claim_of(2)));
  EXPECT_EQ(target.told(), "refused timeout") << "who claimed it was slow, and asks again";
  target.go(go_of(claim_of(2)));
  EXPECT_EQ(target.told(), "refused timeout");
  EXPECT_TRUE(target.all<RunProgram>().empty());
  target.prepare(prepare_of(claim_of(5)));
  EXPECT_EQ(target.told(), "pulling") << "a new claim is another matter";
}

TEST(RestoreTargetTest, WhatIsAskedForAgainStaysPrepared) {
  Target target;
  target.make_prepared(claim_of(2));
  for (int i = 0; i < 3; ++i) {
    target.pass(kRestoreForgottenAfter - Duration(1));
    EXPECT_TRUE(target.effects.empty());
    target.prepare(prepare_of(claim_of(2)));
    EXPECT_EQ(target.told(), "prepared");
  }
  target.go(go_of(claim_of(2)));
  EXPECT_EQ(target.all<RunProgram>().size(), 1U);
}

TEST(RestoreTargetTest, WhatWasToldToRunIsNotForgotten) {
  Target target;
  const RestoreId id = target.make_prepared(claim_of(2));
  target.go(go_of(claim_of(2)));
  target.pass(2 * kRestoreForgottenAfter);
  EXPECT_TRUE(target.effects.empty()) << "its RTCR has not answered yet";
  target.running(id, ProgramId{40});
  target.pass(2 * kRestoreForgottenAfter);
  EXPECT_TRUE(target.effects.empty());
  target.go(go_of(claim_of(2)));
  EXPECT_EQ(target.told(), "running");
}

// ---- limits

TEST(RestoreTargetTest, TransfersBeyondTheLimitWaitForTheirTurn) {
  Target target;
  for (std::uint64_t i = 1; i <= kRestoreTransferCountMax + 2; ++i) {
    target.prepare(prepare_of(claim_of(2, Lineage{i, i}), 5));
    EXPECT_EQ(target.told(), "pulling");
    EXPECT_EQ(target.all<ReceiveBlob>().size(), i <= kRestoreTransferCountMax ? 1U : 0U) << i;
    EXPECT_EQ(target.all<OpenBulkLink>().size(), i == 1 ? 1U : 0U);
  }
  target.discard(claim_of(2, Lineage{9, 9}));  // It was waiting.
  EXPECT_TRUE(target.all<DiscardRestore>().empty());
  target.blob(1, "bytes");
  ASSERT_EQ(target.all<ReceiveBlob>().size(), 1U);
  EXPECT_EQ(target.all<ReceiveBlob>()[0].id, kRestoreTransferCountMax + 2);
  EXPECT_TRUE(target.all<CloseBulkLink>().empty());
}

TEST(RestoreTargetTest, WhateverEndsATransferMakesRoomForTheNext) {
  const auto started_by = [](const std::function<void(Target&, const wire::ClaimRef&)>& end) {
    Target target;
    for (std::uint64_t i = 1; i <= kRestoreTransferCountMax + 1; ++i)
      target.prepare(prepare_of(claim_of(2, Lineage{i, i}), 5));
    end(target, claim_of(3, Lineage{1, 1}));
    return target.all<ReceiveBlob>().size();
  };
  EXPECT_EQ(started_by([](Target& target, const wire::ClaimRef&) {
              target.discard(claim_of(2, Lineage{1, 1}));
            }),
            1U);
  EXPECT_EQ(started_by([](Target& target, const wire::ClaimRef& newer) { target.discard(newer); }), 1U);
  EXPECT_EQ(started_by([](Target& target, const wire::ClaimRef& newer) { target.go(go_of(newer)); }), 1U);
  EXPECT_EQ(
      started_by([](Target& target, const wire::ClaimRef& newer) { target.prepare(prepare_of(newer, 5)); }),
      1U);
}

TEST(RestoreTargetTest, WindowsTogetherAreBounded) {
  Target target;
  const std::uint64_t count_max = kRestoreWindowsBytesMax / kRestoreWindowBytes;
  for (std::uint64_t i = 1; i <= count_max + 1; ++i) {
    target.prepare(prepare_of(claim_of(2, Lineage{i, i}), kRestoreWindowBytes));
    EXPECT_EQ(target.all<ReceiveBlob>().size(), i <= count_max ? 1U : 0U) << i;
  }
}

TEST(RestoreTargetTest, ReceivedBytesAreBoundedAndGivenBack) {
  Target target(RestoreTargetConfig{10});
  target.prepare(prepare_of(claim_of(2, Lineage{1, 1}), 11));
  EXPECT_EQ(target.told(), "refused limit reached");
  target.prepare(prepare_of(claim_of(2, Lineage{2, 2}), 6));
  EXPECT_EQ(target.told(), "pulling");
  target.prepare(prepare_of(claim_of(2, Lineage{3, 3}), 5));
  EXPECT_EQ(target.told(), "refused limit reached");
  target.discard(claim_of(2, Lineage{2, 2}));
  target.prepare(prepare_of(claim_of(3, Lineage{3, 3}), 5));
  EXPECT_EQ(target.told(), "pulling");
  const RestoreId id = target.all<ReceiveBlob>().at(0).id;
  target.blob(id, "bytes");
  target.discard(claim_of(3, Lineage{3, 3}));
  EXPECT_TRUE(target.all<DiscardRestore>().empty()) << "the RTCR works on it";
  target.prepare(prepare_of(claim_of(3, Lineage{4, 4}), 6));
  EXPECT_EQ(target.told(), "refused limit reached");
  target.prepared(id);
  EXPECT_EQ(target.all<DiscardRestore>().size(), 1U);
  target.prepare(prepare_of(claim_of(4, Lineage{4, 4}), 10));
  EXPECT_EQ(target.told(), "pulling");
}

TEST(RestoreTargetTest, OpenOnesAreBounded) {
  Target target;
  for (std::uint64_t i = 1; i <= kRestoreOpenCountMax; ++i)
    target.prepare(prepare_of(claim_of(2, Lineage{i, i}), 5));
  EXPECT_EQ(target.told(), "pulling");
  target.prepare(prepare_of(claim_of(2, Lineage{0, 1}), 5));
  EXPECT_EQ(target.told(), "refused limit reached");
  EXPECT_EQ(target.core.open_count(), kRestoreOpenCountMax);
}

TEST(RestoreTargetTest, ForgetsTheOldestEndedOneAndNeverARunningOne) {
  Target target;
  const RestoreId id = target.make_prepared(claim_of(2, Lineage{9, 0}));
  target.go(go_of(claim_of(2, Lineage{9, 0})));
  target.running(id, ProgramId{40});
  for (std::uint64_t i = 1; i <= kRestoreEndedCountMax + 1; ++i) target.discard(claim_of(2, Lineage{i, i}));
  EXPECT_EQ(target.core.known_count(), kRestoreEndedCountMax + 1);
  target.go(go_of(claim_of(2, Lineage{9, 0})));
  EXPECT_EQ(target.told(), "running");
  target.go(go_of(claim_of(2, Lineage{2, 2})));
  EXPECT_EQ(target.told(), "refused cancelled") << "still known";
}

}  // namespace
}  // namespace cms::broker
