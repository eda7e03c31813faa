#pragma once
// FakeClaims is a ClaimStore in memory, for simulators and for tests of what stands on claims. It takes the
// same steps as the real adapters and passes the same contract tests; every call of them to its NAS fails,
// loses its answer or comes late on command.
//
// Several of them, one for each member, share one FakeClaimNas. A crash of the NAS's host loses what was not
// synced, as real ones do: names of records that were linked and not yet synced go, and removed private
// names may come back.
// Threads: thread-safe. Deterministic: draws no random numbers, reads no clock.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "storage/claim_steps.h"

namespace cms::storage {

// The calls of a member to the NAS.
enum class FakeClaimCall : std::uint8_t {
  kAny,
  kFindStore,    // Of open_store.
  kCreateDraft,  // Of append: in this order.
  kWriteDraft,
  kLink,
  kSync,  // Of a slot that was linked or read, and its name.
  kRemoveDraft,
  kLookUp,  // Of a slot, for reading it too.
  kReadSlot,
  kList,  // Of logs or members.
  kWriteMember,
  kReadMember,
  kRemoveMember,
  kSelfTest,
};

enum class FakeClaimFault : std::uint8_t {
  kRefused,      // Not done; the answer is the planned error.
  kRequestLost,  // Not done; no answer.
  kReplyLost,    // Done; no answer.
  kLate,         // No answer; done when run_late() is called.
};

class FakeClaimNas {
 public:
  explicit FakeClaimNas(std::string fleet_id = "00000000000000000000000000000001");
  ~FakeClaimNas();
  FakeClaimNas(const FakeClaimNas&) = delete;
  FakeClaimNas& operator=(const FakeClaimNas&) = delete;

  // Does what is late, in the order in which it was asked for; returns how many calls that were.
  std::size_t run_late();
  std::size_t late_count() const;
  // The host dies and comes back: what was not synced is gone, what was late is never done, every member
  // must open its store again. With `undo_removals` the drafts and members removed since the last crash
  // are back.
  void crash(bool undo_removals = false);

  // Behind the members' backs. A slot's file; it is as if it had been synced. Empty: of no such file.
  void put_slot_file(const LogId& log, Slot slot, std::string text);
  std::string slot_file(const LogId& log, Slot slot) const;
  void remove_slot_file(const LogId& log, Slot slot);
  void put_member_file(const std::string& node, std::uint64_t node_incarnation, std::string text);
  std::string member_file(const std::string& node, std::uint64_t node_incarnation) const;
  // A file that is nobody's, in the directory of a shard of logs.
  void put_stray_file(std::uint32_t log_shard, const std::string& name);
  std::size_t draft_count() const;

  // What self_test() finds. A trait that was not named holds.
  void set_trait(const std::string& name, bool holds, std::string detail);
  void set_clock_ahead_ms(std::int64_t clock_ahead_ms);

  struct State;  // Shared with the members; in the .cc.

 private:
  friend class FakeClaims;
  std::shared_ptr<State> state_;
};

class FakeClaims final : public ClaimSteps {
 public:
  FakeClaims(const FakeClaimNas& nas, std::string node, std::uint64_t node_incarnation);
  ~FakeClaims() override;

  Status open_store() override;
  Result<SelfTest> self_test() override;
  Status write_member(const std::string& record) override;
  Result<std::vector<MemberFile>> list_members() override;
  Status remove_member(const std::string& node, std::uint64_t node_incarnation) override;

  // After `skip` more calls of that kind by this member, the next `count` have `fault`; replaces an earlier
  // plan for the kind. kRefused is answered with `error`.
  void fail_next(FakeClaimCall call, std::uint64_t count, FakeClaimFault fault, Error error = {},
                 std::uint64_t skip = 0);
  // The way to the NAS is cut: every call is lost, until it is mended.
  void set_cut(bool cut);

 private:
  std::vector<Try> link_drafts(const std::vector<Draft>& drafts) override;
  std::vector<Status> remove_drafts(const std::vector<Draft>& drafts) override;
  std::vector<Result<std::string>> read_slots(const std::vector<LogSlot>& slots, Read how) override;
  std::vector<Result<bool>> find_slots(const std::vector<LogSlot>& slots) override;
  Result<LogLister> list_shard(std::uint32_t log_shard) override;
  std::string logs_path() const override;
  Id128 new_nonce() override;

  // Of each, with all its calls before those of the next.
  Try link_draft(const Draft& draft);
  Status remove_draft(const Draft& draft);
  Result<std::string> read_slot(const LogSlot& at, Read how);
  Result<bool> find_slot(const LogSlot& at);

  struct Member;  // In the .cc.
  const std::shared_ptr<FakeClaimNas::State> state_;
  const std::unique_ptr<Member> member_;
};

}  // namespace cms::storage
