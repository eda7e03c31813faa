#pragma once
// The steps of ClaimStore that are the same on every medium: how a slot is given away, and how it is found
// out who has it. An adapter says how drafts are linked, how their private names are removed, and how slots
// are read, many of each together; it decides nothing.
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "storage/claim_names.h"
#include "storage/claim_store.h"

namespace cms::storage {

// Drops from a listing of one directory of logs what is not of shard `log_shard`, which is counted, and
// keeps the highest slot of each log.
class LogLister {
 public:
  explicit LogLister(std::uint32_t log_shard) : log_shard_(log_shard) {}
  void add(const std::string& file_name);
  Slot head_of(const LogId& log) const;  // 0: none.
  void tell(const std::function<void(const LogId&, Slot head)>& visit, std::uint64_t* unknown) const;

 private:
  const std::uint32_t log_shard_;
  std::map<LogId, Slot> heads_;
  std::uint64_t unknown_ = 0;
};

class ClaimSteps : public ClaimStore {
 public:
  ClaimSteps() = default;
  ClaimSteps(const ClaimSteps&) = delete;
  ClaimSteps& operator=(const ClaimSteps&) = delete;

  Result<Appended> append(const LogId& log, Slot slot, const std::string& record) final;
  std::vector<Result<Appended>> append_many(const std::vector<Append>& appends) final;
  Result<Appended> settle(std::uint64_t attempt) final;
  Result<LogRecord> read(const LogId& log, Slot slot, Read how) final;
  Result<LogRecord> head(const LogId& log, Slot hint, Read how) final;
  std::vector<Result<LogRecord>> heads(const std::vector<LogSlot>& logs, Read how) final;
  Result<bool> has_slot(const LogId& log, Slot slot) final;
  std::vector<Result<bool>> has_slots(const std::vector<LogSlot>& slots) final;
  Status list_logs(std::uint32_t log_shard, const std::function<void(const LogId&, Slot head)>& visit,
                   std::uint64_t* unknown) final;

 protected:
  // A record on its way to a slot. Its private name is unique for ever.
  struct Draft {
    LogId log{};
    Slot slot = 0;
    Id128 nonce{};
    std::string name;  // In our private directory.
    std::string text;  // Of its file; empty once it is unresolved.
  };
  enum class Linked : std::uint8_t {
    kNever,  // No link was asked for, and none will be: `why`. The draft's name is the adapter's to remove.
    kSure,   // The slot's name leads to the draft, durably. The adapter has begun to remove its own name.
    kOpen,   // A link was asked for; what came, or will come, of it is not known. `why` is a hint.
  };
  struct Try {
    Linked linked = Linked::kNever;
    Error why{};
  };

  // All below, of many: answers stand in the order of the questions, as many.

  // Writes and syncs each text under its draft's name, then links that to the slot's, which is not replaced,
  // then syncs that name: no link before the sync of its own draft. A draft's name is removed only when
  // linked or never to be linked. At most kAppendGroupMax, of distinct logs.
  virtual std::vector<Try> link_drafts(const std::vector<Draft>& drafts) = 0;
  // Ok: the draft has no name of its own, and no link of it that has not been done can be done any more.
  virtual std::vector<Status> remove_drafts(const std::vector<Draft>& drafts) = 0;
  // What the slot's file has, up to one byte more than it should; kNotFound: certainly nobody has the slot.
  // With kDurable its name and bytes are synced before return, in the same life of the server.
  virtual std::vector<Result<std::string>> read_slots(const std::vector<LogSlot>& slots, Read how) = 0;
  virtual std::vector<Result<bool>> find_slots(const std::vector<LogSlot>& slots) = 0;
  virtual Result<LogLister> list_shard(std::uint32_t log_shard) = 0;
  // "DIR/claims", for people.
  virtual std::string logs_path() const = 0;
  // Random, from one attempt to the next.
  virtual Id128 new_nonce();

  // The drafts of unresolved attempts, for the end of the store: once these names are removed, nobody can
  // win by them any more. Forgets them.
  std::vector<std::string> take_unresolved_drafts();

 private:
  // Places of unresolved attempts. One is reserved before anything is asked of the medium.
  Status reserve();
  void release();

  struct Attempt {
    std::optional<std::uint64_t> number;  // It was unresolved before.
    Draft draft;
    Error why{};
  };
  void append_group(const std::vector<Append>& appends, const std::vector<std::size_t>& group,
                    std::vector<Result<Appended>>& ends);
  std::vector<Result<Appended>> resolve(const std::vector<Attempt>& attempts);
  Result<Appended> keep(const Attempt& attempt);
  Result<LogRecord> record_in(const LogSlot& at, const Result<std::string>& text) const;
  // Those of `heads` that no hint helped: a listing for each of their shards.
  void find_heads_by_listing(const std::vector<LogSlot>& logs, const std::vector<std::size_t>& unknown,
                             Read how, std::vector<Result<LogRecord>>& heads);
  std::string path_of(const LogId& log, Slot slot) const;

  std::mutex mutex_;  // Guards the three below; never held across I/O.
  std::map<std::uint64_t, Draft> unresolved_;
  std::size_t reserved_ = 0;  // Those in unresolved_ too.
  std::uint64_t last_attempt_ = 0;
};

// What stands in a member's file of this content; `path` is for people.
MemberFile member_file_of(const MemberName& name, const std::string& path, const std::string& text);

// kInvalidArgument: not the name of a node.
Status check_node_name(const std::string& node);
// kInvalidArgument: there is no such shard.
Status check_log_shard(std::uint32_t log_shard);
// kInvalidArgument: empty, or too long.
Status check_record_bytes(const std::string& record);
Status check_member_bytes(const std::string& record);

}  // namespace cms::storage
