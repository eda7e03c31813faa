#include "storage/fake/fake_claims.h"

#include <deque>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "storage/claim_names.h"
#include "storage/claim_record_file.h"

namespace cms::storage {
namespace {

struct Inode {
  std::string text;
  bool synced = false;  // Its bytes; its names, each for itself.
  std::size_t names = 0;
};
using File = std::shared_ptr<Inode>;

// A call's end as its member sees it.
struct Answer {
  bool came = false;
  Status status;
};

}  // namespace

struct FakeClaimNas::State {
  mutable std::mutex mutex;  // Of everything, the members' own too.
  std::string fleet_id;
  std::uint64_t life = 1;  // Counts crashes.

  std::map<std::string, File> drafts;          // By "<node>.<incarnation>/<name>".
  std::map<std::string, File> removed_drafts;  // Since the last crash.
  struct SlotFile {
    File file;
    bool name_synced = false;
  };
  std::map<LogId, std::map<Slot, SlotFile>> logs;
  std::map<std::string, std::string> members;  // By file name.
  std::map<std::string, std::string> removed_members;
  std::map<std::uint32_t, std::set<std::string>> strays;
  std::deque<std::function<Status(State&)>> late;

  std::map<std::string, StoreTrait> traits;
  std::int64_t clock_ahead_ms = 0;

  // All below: with `mutex` held.
  Status create_draft(const std::string& path) {
    if (drafts.count(path) != 0) return make_error(Code::kAlreadyExists, path);
    drafts[path] = std::make_shared<Inode>(Inode{"", false, 1});
    return ok_status();
  }
  Status link(const File& file, const LogId& log, Slot slot) {
    if (file->names == 0) return make_error(Code::kNotFound, "the draft has no name any more");
    const bool linked = logs[log].emplace(slot, SlotFile{file, false}).second;
    if (!linked) return make_error(Code::kAlreadyExists, slot_path(log, slot));
    ++file->names;
    return ok_status();
  }
  Status sync(const LogId& log, Slot slot, const File& file) {
    const auto found = logs[log].find(slot);
    if (found == logs[log].end() || found->second.file != file) {
      return make_error(Code::kUnavailable, slot_path(log, slot) + " has gone");
    }
    file->synced = true;
    found->second.name_synced = true;
    return ok_status();
  }
  Status remove_draft(const std::string& path) {
    const auto found = drafts.find(path);
    if (found == drafts.end()) return ok_status();
    --found->second->names;
    removed_drafts[path] = found->second;
    drafts.erase(found);
    return ok_status();
  }
};

namespace {
Status nothing_to_do(FakeClaimNas::State&) { return ok_status(); }
}  // namespace

struct FakeClaims::Member {
  std::string node;
  std::uint64_t node_incarnation = 0;
  std::uint64_t opened_in_life = 0;  // Of the NAS; 0: never.
  std::uint64_t nonce_count = 0;
  bool cut = false;
  struct Plan {
    std::uint64_t skip = 0;
    std::uint64_t count = 0;
    FakeClaimFault fault{};
    Error error{};
  };
  std::map<FakeClaimCall, Plan> plans;

  std::string draft_path(const std::string& name) const {
    return member_file_name(node, node_incarnation) + "/" + name;
  }

  const Plan* planned(FakeClaimCall call, Plan& copy) {
    for (const FakeClaimCall kind : {call, FakeClaimCall::kAny}) {
      const auto plan = plans.find(kind);
      if (plan == plans.end()) continue;
      if (plan->second.skip > 0) {
        --plan->second.skip;
        continue;
      }
      copy = plan->second;
      if (--plan->second.count == 0) plans.erase(plan);
      return &copy;
    }
    return nullptr;
  }

  // Done by the NAS, perhaps long after its asker has gone.
  using Execute = std::function<Status(FakeClaimNas::State& nas)>;

  Answer call(FakeClaimNas::State& nas, FakeClaimCall kind, Execute execute) {
    if (cut) return {};
    Plan copy;
    const Plan* plan = planned(kind, copy);
    if (plan == nullptr) return {true, execute(nas)};
    switch (plan->fault) {
      case FakeClaimFault::kRefused: return {true, plan->error};
      case FakeClaimFault::kRequestLost: break;
      case FakeClaimFault::kReplyLost: (void)execute(nas); break;
      case FakeClaimFault::kLate: nas.late.push_back(std::move(execute)); break;
    }
    return {};
  }
  static Error unanswered() { return make_error(Code::kUnavailable, "no answer"); }
  Status ask(FakeClaimNas::State& nas, FakeClaimCall kind, Execute execute) {
    const Answer answer = call(nas, kind, std::move(execute));
    return answer.came ? answer.status : Status(unanswered());
  }
  Status check_open(const FakeClaimNas::State& nas) const {
    if (opened_in_life == nas.life) return ok_status();
    return make_error(Code::kUnavailable, "the store has not been opened since its last crash");
  }
};

// ---- the NAS

FakeClaimNas::FakeClaimNas(std::string fleet_id) : state_(std::make_shared<State>()) {
  state_->fleet_id = std::move(fleet_id);
}
FakeClaimNas::~FakeClaimNas() = default;

std::size_t FakeClaimNas::run_late() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  std::size_t count = 0;
  for (; !state_->late.empty(); ++count) {
    const auto execute = std::move(state_->late.front());
    state_->late.pop_front();
    (void)execute(*state_);  // Its asker has gone.
  }
  return count;
}

std::size_t FakeClaimNas::late_count() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->late.size();
}

void FakeClaimNas::crash(bool undo_removals) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  State& nas = *state_;
  ++nas.life;
  nas.late.clear();  // Connections do not outlive the host that they lead to.
  for (auto& [log, slots] : nas.logs) {
    for (auto at = slots.begin(); at != slots.end();) {
      if (at->second.name_synced) {
        ++at;
        continue;
      }
      --at->second.file->names;
      at = slots.erase(at);
    }
  }
  if (undo_removals) {
    for (const auto& [path, file] : nas.removed_drafts) {
      if (!file->synced || !nas.drafts.emplace(path, file).second) continue;
      ++file->names;
    }
    for (const auto& [name, member] : nas.removed_members) nas.members.emplace(name, member);
  }
  for (auto at = nas.drafts.begin(); at != nas.drafts.end();) {
    at = at->second->synced ? std::next(at) : nas.drafts.erase(at);
  }
  nas.removed_drafts.clear();
  nas.removed_members.clear();
}

void FakeClaimNas::put_slot_file(const LogId& log, Slot slot, std::string text) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->logs[log][slot] = {std::make_shared<Inode>(Inode{std::move(text), true, 1}), true};
}

std::string FakeClaimNas::slot_file(const LogId& log, Slot slot) const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  const auto slots = state_->logs.find(log);
  if (slots == state_->logs.end()) return {};
  const auto found = slots->second.find(slot);
  return found == slots->second.end() ? std::string() : found->second.file->text;
}

void FakeClaimNas::remove_slot_file(const LogId& log, Slot slot) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->logs[log].erase(slot);
}

void FakeClaimNas::put_member_file(const std::string& node, std::uint64_t node_incarnation,
                                   std::string text) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->members[member_file_name(node, node_incarnation)] = std::move(text);
}

std::string FakeClaimNas::member_file(const std::string& node, std::uint64_t node_incarnation) const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  const auto found = state_->members.find(member_file_name(node, node_incarnation));
  return found == state_->members.end() ? std::string() : found->second;
}

void FakeClaimNas::put_stray_file(std::uint32_t log_shard, const std::string& name) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->strays[log_shard].insert(name);
}

std::size_t FakeClaimNas::draft_count() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->drafts.size();
}

void FakeClaimNas::set_trait(const std::string& name, bool holds, std::string detail) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->traits[name] = StoreTrait{name, holds, std::move(detail)};
}

void FakeClaimNas::set_clock_ahead_ms(std::int64_t clock_ahead_ms) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->clock_ahead_ms = clock_ahead_ms;
}

// ---- a member

FakeClaims::FakeClaims(const FakeClaimNas& nas, std::string node, std::uint64_t node_incarnation)
    : state_(nas.state_), member_(std::make_unique<Member>()) {
  member_->node = std::move(node);
  member_->node_incarnation = node_incarnation;
}

FakeClaims::~FakeClaims() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  for (const std::string& name : take_unresolved_drafts()) {
    (void)member_->call(
        *state_, FakeClaimCall::kRemoveDraft,
        [path = member_->draft_path(name)](FakeClaimNas::State& nas) { return nas.remove_draft(path); });
  }
}

void FakeClaims::fail_next(FakeClaimCall call, std::uint64_t count, FakeClaimFault fault, Error error,
                           std::uint64_t skip) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  member_->plans[call] = Member::Plan{skip, count, fault, std::move(error)};
  if (count == 0) member_->plans.erase(call);
}

void FakeClaims::set_cut(bool cut) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  member_->cut = cut;
}

Status FakeClaims::open_store() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  const Status found = member_->ask(*state_, FakeClaimCall::kFindStore, &nothing_to_do);
  if (found.ok()) member_->opened_in_life = state_->life;
  return found;
}

Result<SelfTest> FakeClaims::self_test() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (Status status = member_->check_open(*state_); !status.ok()) return status.error();
  const Status tried = member_->ask(*state_, FakeClaimCall::kSelfTest, &nothing_to_do);
  if (!tried.ok()) return tried.error();
  SelfTest test;
  for (const char* name : {"exclusive create", "hard links", "no link of a removed file",
                           "rename across directories", "synced writes"}) {
    const auto set = state_->traits.find(name);
    test.traits.push_back(set == state_->traits.end() ? StoreTrait{name, true, "in memory"} : set->second);
  }
  test.clock_known = true;
  test.clock_ahead_ms = state_->clock_ahead_ms;
  return test;
}

std::vector<FakeClaims::Try> FakeClaims::link_drafts(const std::vector<Draft>& drafts) {
  std::vector<Try> tries;
  for (const Draft& draft : drafts) tries.push_back(link_draft(draft));
  return tries;
}

std::vector<Status> FakeClaims::remove_drafts(const std::vector<Draft>& drafts) {
  std::vector<Status> removed;
  for (const Draft& draft : drafts) removed.push_back(remove_draft(draft));
  return removed;
}

std::vector<Result<std::string>> FakeClaims::read_slots(const std::vector<LogSlot>& slots, Read how) {
  std::vector<Result<std::string>> texts;
  for (const LogSlot& at : slots) texts.push_back(read_slot(at, how));
  return texts;
}

std::vector<Result<bool>> FakeClaims::find_slots(const std::vector<LogSlot>& slots) {
  std::vector<Result<bool>> taken;
  for (const LogSlot& at : slots) taken.push_back(find_slot(at));
  return taken;
}

FakeClaims::Try FakeClaims::link_draft(const Draft& draft) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (Status status = member_->check_open(*state_); !status.ok()) return Try{Linked::kNever, status.error()};
  using Nas = FakeClaimNas::State;
  const std::string path = member_->draft_path(draft.name);
  const auto drop = [&] {
    (void)member_->call(*state_, FakeClaimCall::kRemoveDraft,
                        [path](Nas& nas) { return nas.remove_draft(path); });
  };
  Status status =
      member_->ask(*state_, FakeClaimCall::kCreateDraft, [path](Nas& nas) { return nas.create_draft(path); });
  if (!status.ok()) {
    drop();  // It may be there all the same.
    return Try{Linked::kNever, status.error()};
  }
  const File file = state_->drafts.at(path);
  status = member_->ask(*state_, FakeClaimCall::kWriteDraft, [file, text = draft.text](Nas&) {
    file->text = text;
    file->synced = true;
    return ok_status();
  });
  if (!status.ok()) {
    drop();
    return Try{Linked::kNever, status.error()};
  }
  status = member_->ask(*state_, FakeClaimCall::kLink, [file, log = draft.log, slot = draft.slot](Nas& nas) {
    return nas.link(file, log, slot);
  });
  if (status.ok()) {
    status = member_->ask(
        *state_, FakeClaimCall::kSync,
        [file, log = draft.log, slot = draft.slot](Nas& nas) { return nas.sync(log, slot, file); });
  }
  if (!status.ok()) return Try{Linked::kOpen, status.error()};
  drop();
  return Try{Linked::kSure, {}};
}

Status FakeClaims::remove_draft(const Draft& draft) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (Status status = member_->check_open(*state_); !status.ok()) return status;
  return member_->ask(
      *state_, FakeClaimCall::kRemoveDraft,
      [path = member_->draft_path(draft.name)](FakeClaimNas::State& nas) { return nas.remove_draft(path); });
}

Result<std::string> FakeClaims::read_slot(const LogSlot& at, Read how) {
  const auto [log, slot] = at;
  const std::lock_guard<std::mutex> lock(state_->mutex);
  FakeClaimNas::State& nas = *state_;
  if (Status status = member_->check_open(nas); !status.ok()) return status.error();
  Status status = member_->ask(nas, FakeClaimCall::kLookUp, &nothing_to_do);
  if (!status.ok()) return status.error();
  const auto found = nas.logs[log].find(slot);
  if (found == nas.logs[log].end()) return make_error(Code::kNotFound, slot_path(log, slot));
  const File file = found->second.file;
  status = member_->ask(nas, FakeClaimCall::kReadSlot, &nothing_to_do);
  if (status.ok() && how == Read::kDurable) {
    status = member_->ask(nas, FakeClaimCall::kSync,
                          [file, at](FakeClaimNas::State& own) { return own.sync(at.log, at.slot, file); });
  }
  if (!status.ok()) return status.error();
  return file->text;
}

Result<bool> FakeClaims::find_slot(const LogSlot& at) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (Status status = member_->check_open(*state_); !status.ok()) return status.error();
  const Status status = member_->ask(*state_, FakeClaimCall::kLookUp, &nothing_to_do);
  if (!status.ok()) return status.error();
  return state_->logs[at.log].count(at.slot) != 0;
}

std::string FakeClaims::logs_path() const { return "fake/claims"; }

// Unique for the node, its life, and the attempt; the same in every run.
Id128 FakeClaims::new_nonce() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  const std::string seed = member_->draft_path(std::to_string(++member_->nonce_count));
  return digest_of(seed.data(), seed.size());
}

Result<LogLister> FakeClaims::list_shard(std::uint32_t log_shard) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (Status status = member_->check_open(*state_); !status.ok()) return status.error();
  const Status status = member_->ask(*state_, FakeClaimCall::kList, &nothing_to_do);
  if (!status.ok()) return status.error();
  LogLister lister(log_shard);
  for (const auto& [log, slots] : state_->logs) {
    if (log_shard_of(log) != log_shard) continue;
    for (const auto& [slot, file] : slots) lister.add(slot_file_name(log, slot));
  }
  const auto strays = state_->strays.find(log_shard);
  if (strays != state_->strays.end()) {
    for (const std::string& name : strays->second) lister.add(name);
  }
  return lister;
}

Status FakeClaims::write_member(const std::string& record) {
  if (Status status = check_member_bytes(record); !status.ok()) return status;
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (Status status = member_->check_open(*state_); !status.ok()) return status;
  const std::string name = member_file_name(member_->node, member_->node_incarnation);
  return member_->ask(
      *state_, FakeClaimCall::kWriteMember,
      [name, text = encode_claim_file(name, {ClaimFileKind::kMember, {}, record})](FakeClaimNas::State& nas) {
        nas.members[name].replace(0, text.size(), text);  // What is behind it stays.
        return ok_status();
      });
}

Result<std::vector<MemberFile>> FakeClaims::list_members() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (Status status = member_->check_open(*state_); !status.ok()) return status.error();
  Status status = member_->ask(*state_, FakeClaimCall::kList, &nothing_to_do);
  if (!status.ok()) return status.error();
  std::vector<MemberFile> members;
  for (const auto& [name, text] : state_->members) {
    status = member_->ask(*state_, FakeClaimCall::kReadMember, &nothing_to_do);
    if (!status.ok()) return status.error();
    members.push_back(member_file_of(*parse_member_file_name(name), "fake/nodes/" + name, text));
  }
  return members;
}

Status FakeClaims::remove_member(const std::string& node, std::uint64_t node_incarnation) {
  if (Status status = check_node_name(node); !status.ok()) return status;
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (Status status = member_->check_open(*state_); !status.ok()) return status;
  return member_->ask(*state_, FakeClaimCall::kRemoveMember,
                      [name = member_file_name(node, node_incarnation)](FakeClaimNas::State& nas) {
                        const auto found = nas.members.find(name);
                        if (found == nas.members.end()) return ok_status();
                        nas.removed_members[name] = found->second;
                        nas.members.erase(found);
                        return ok_status();
                      });
}

}  // namespace cms::storage
