#include "storage/directory/directory_claims.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "base/crash_point.h"
#include "base/prng.h"
#include "storage/blob_file_io.h"
#include "storage/claim_names.h"
#include "storage/claim_record_file.h"
#include "storage/claim_steps.h"
#include "storage/directory/posix_file.h"
#include "storage/directory/store_root.h"
#include "storage/directory/sync_names.h"
#include "storage/store_layout.h"

namespace cms::storage {
namespace {

// Where everything happens, by descriptors.
struct Places {
  UniqueFd root;
  UniqueFd claims;
  UniqueFd nodes;
  UniqueFd tmp;
  Status writable;  // Why nothing can be appended; what is there can be read.
  dev_t device = 0;
  ino_t inode = 0;
  std::string fleet_id;
  bool syncfs_reports_errors = false;
};

// As much as its decoder wants.
Result<std::string> read_claim_file(int fd, ClaimFileKind kind, const std::string& path) {
  std::string text(claim_file_read_bytes(kind), '\0');
  const auto got = read_fully(fd, text.data(), text.size(), 0, path);
  if (!got) return got.error();
  text.resize(*got);
  return text;
}

class DirectoryClaims final : public ClaimSteps {
 public:
  DirectoryClaims(std::string directory, std::string node, std::uint64_t node_incarnation)
      : path_(std::move(directory)),
        node_(std::move(node)),
        node_incarnation_(node_incarnation),
        tmp_path_(path_ + "/tmp/" + private_dir_name(node_, node_incarnation)) {}

  DirectoryClaims(const DirectoryClaims&) = delete;
  DirectoryClaims& operator=(const DirectoryClaims&) = delete;

  ~DirectoryClaims() override {
    for (const std::string& name : take_unresolved_drafts()) {
      // Nobody waits for the outcome any more; what stays is swept at the next start.
      if (places_ != nullptr) (void)::unlinkat(places_->tmp.get(), name.c_str(), 0);
    }
  }

  Status open_store() override {
    const std::lock_guard<std::mutex> opening(open_mutex_);
    std::string fleet_id_expected;
    {
      const std::lock_guard<std::mutex> lock(places_mutex_);
      if (places_ != nullptr) fleet_id_expected = places_->fleet_id;
    }
    auto places = find_places(fleet_id_expected);
    if (!places) return places.error();
    const std::lock_guard<std::mutex> lock(places_mutex_);
    places_ = std::move(*places);
    return places_->writable;
  }

  Result<SelfTest> self_test() override;

  Status write_member(const std::string& record) override {
    if (Status status = check_member_bytes(record); !status.ok()) return status;
    const auto places = current();
    if (!places) return places.error();
    const std::lock_guard<std::mutex> writing(member_mutex_);
    const std::string name = member_file_name(node_, node_incarnation_);
    const std::string path = path_ + "/nodes/" + name;
    const int nodes = (*places)->nodes.get();
    auto file = open_at(nodes, name, O_WRONLY, path);
    const bool is_new = !file && file.error().os_errno == ENOENT;
    if (is_new) file = open_at(nodes, name, O_WRONLY | O_CREAT, path);
    if (!file) return absent_is_unavailable(file.error());
    const std::string text = encode_claim_file(name, {ClaimFileKind::kMember, {}, record});
    Status status = write_all(file->get(), text.data(), text.size(), 0, path);
    CMS_CRASH_POINT("claims.directory_member_written");
    if (status.ok()) status = sync_data(file->get(), path);
    if (status.ok() && is_new) status = sync_dir(nodes, path_ + "/nodes");
    return absent_is_unavailable(status);
  }

  Result<std::vector<MemberFile>> list_members() override {
    const auto places = current();
    if (!places) return places.error();
    std::vector<MemberName> names;
    const Status listed = visit_names((*places)->nodes.get(), path_ + "/nodes", [&](const std::string& name) {
      if (auto member = parse_member_file_name(name)) names.push_back(std::move(*member));
      return true;
    });
    if (!listed.ok()) return absent_is_unavailable(listed).error();
    std::vector<MemberFile> members;
    for (const MemberName& member : names) {
      const std::string name = member_file_name(member.node, member.node_incarnation);
      const std::string path = path_ + "/nodes/" + name;
      const auto file = open_at((*places)->nodes.get(), name, O_RDONLY, path);
      if (!file && file.error().os_errno == ENOENT) continue;  // Removed meanwhile.
      if (!file) return file.error();
      const auto text = read_claim_file(file->get(), ClaimFileKind::kMember, path);
      if (!text) return text.error();
      members.push_back(member_file_of(member, path, *text));
    }
    return members;
  }

  Status remove_member(const std::string& node, std::uint64_t node_incarnation) override {
    if (Status status = check_node_name(node); !status.ok()) return status;
    const auto places = current();
    if (!places) return places.error();
    const std::string name = member_file_name(node, node_incarnation);
    if (::unlinkat((*places)->nodes.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
      return error_from_errno(errno, "remove " + path_ + "/nodes/" + name);
    }
    return ok_status();
  }

 private:
  using PlacesPtr = std::shared_ptr<const Places>;

  // Open directories of logs, by number.
  using Shards = std::map<std::uint32_t, Result<UniqueFd>>;

  // A draft on its way.
  struct Going {
    UniqueFd file;
    bool link_asked = false;
    Status status;  // Why it went no further.
  };

  std::vector<Try> link_drafts(const std::vector<Draft>& drafts) override {
    const auto places = writable();
    if (!places) return std::vector<Try>(drafts.size(), Try{Linked::kNever, places.error()});
    const int tmp = (*places)->tmp.get();
    const GroupSync sync((*places)->root.get(), path_, (*places)->syncfs_reports_errors, drafts.size());
    Shards shards;
    for (const Draft& draft : drafts) open_shard_once(**places, log_shard_of(draft.log), shards);
    std::vector<Going> going(drafts.size());
    for (std::size_t i = 0; i < drafts.size(); ++i) {
      const auto& shard = shards.at(log_shard_of(drafts[i].log));
      going[i].status = shard ? write_draft(tmp, drafts[i], going[i].file) : Status(shard.error());
    }
    sync_drafts(sync, drafts, going);
    CMS_CRASH_POINT("claims.directory_draft_synced");
    for (std::size_t i = 0; i < drafts.size(); ++i) {
      going[i].file.reset();
      if (!going[i].status.ok()) continue;
      const int shard = shards.at(log_shard_of(drafts[i].log))->get();
      const std::string slot_name = slot_file_name(drafts[i].log, drafts[i].slot);
      going[i].link_asked = true;
      if (::linkat(tmp, drafts[i].name.c_str(), shard, slot_name.c_str(), 0) != 0) {
        going[i].status = error_from_errno(errno, "link");
        continue;
      }
      CMS_CRASH_POINT("claims.directory_linked");
    }
    sync_names(sync, shards, drafts, going);
    CMS_CRASH_POINT("claims.directory_won");
    std::vector<Try> tries(drafts.size());
    for (std::size_t i = 0; i < drafts.size(); ++i) {
      if (!going[i].status.ok()) tries[i].why = going[i].status.error();
      if (going[i].link_asked) tries[i].linked = going[i].status.ok() ? Linked::kSure : Linked::kOpen;
      if (tries[i].linked == Linked::kOpen) continue;    // Its name is what decides.
      (void)::unlinkat(tmp, drafts[i].name.c_str(), 0);  // If this fails it is swept at the next start.
    }
    return tries;
  }

  Status write_draft(int tmp, const Draft& draft, UniqueFd& into) const {
    const std::string path = tmp_path_ + "/" + draft.name;
    auto file = open_at(tmp, draft.name, O_WRONLY | O_CREAT | O_EXCL, path);
    if (!file) return absent_is_unavailable(file.error());
    into = std::move(*file);
    CMS_CRASH_POINT("claims.directory_draft_created");
    return write_all(into.get(), draft.text.data(), draft.text.size(), 0, path);
  }

  void sync_drafts(const GroupSync& sync, const std::vector<Draft>& drafts, std::vector<Going>& going) const {
    if (sync.possible()) {
      const Status synced = sync.run();
      for (Going& one : going) {
        if (one.status.ok()) one.status = synced;
      }
      return;
    }
    for_each_in_parallel(going.size(), [&](std::size_t i) {
      if (!going[i].status.ok()) return;
      going[i].status = sync_data(going[i].file.get(), tmp_path_ + "/" + drafts[i].name);
    });
  }

  // Of those that were linked.
  void sync_names(const GroupSync& sync, const Shards& shards, const std::vector<Draft>& drafts,
                  std::vector<Going>& going) const {
    std::map<std::uint32_t, Status> synced;
    for (std::size_t i = 0; i < drafts.size(); ++i) {
      if (going[i].status.ok()) synced.emplace(log_shard_of(drafts[i].log), ok_status());
    }
    sync_shards_of(sync, shards, synced);
    for (std::size_t i = 0; i < drafts.size(); ++i) {
      if (going[i].status.ok()) going[i].status = synced.at(log_shard_of(drafts[i].log));
    }
  }

  // The shards that are in `synced`; what came of each goes there. After a failed sync of all, which tells
  // nothing of one, each by itself.
  void sync_shards_of(const GroupSync& sync, const Shards& shards,
                      std::map<std::uint32_t, Status>& synced) const {
    if (synced.empty() || (sync.possible() && sync.run().ok())) return;
    std::vector<std::pair<const std::uint32_t, Status>*> list;
    for (auto& shard : synced) list.push_back(&shard);
    for_each_in_parallel(list.size(), [&](std::size_t i) {
      const auto& [number, fd] = *shards.find(list[i]->first);
      list[i]->second = sync_dir(fd->get(), logs_path() + "/" + log_shard_name(number));
    });
  }

  std::vector<Status> remove_drafts(const std::vector<Draft>& drafts) override {
    const auto places = writable();
    if (!places) return std::vector<Status>(drafts.size(), places.error());
    std::vector<Status> removed(drafts.size());
    for (std::size_t i = 0; i < drafts.size(); ++i) {
      const std::string& name = drafts[i].name;
      if (::unlinkat((*places)->tmp.get(), name.c_str(), 0) == 0 || errno == ENOENT) continue;
      removed[i] = error_from_errno(errno, "remove " + tmp_path_ + "/" + name);
    }
    return removed;
  }

  std::vector<Result<std::string>> read_slots(const std::vector<LogSlot>& slots, Read how) override {
    std::vector<Result<std::string>> texts;
    while (texts.size() < slots.size()) {  // In parts: each has a descriptor open.
      const std::size_t count = std::min(slots.size() - texts.size(), kAppendGroupMax);
      read_group(slots, count, how, texts);
    }
    return texts;
  }

  // The next `count` of `slots` for which there are no `texts`.
  void read_group(const std::vector<LogSlot>& slots, std::size_t count, Read how,
                  std::vector<Result<std::string>>& texts) const {
    const std::size_t first = texts.size();
    const auto places = current();
    if (!places) return texts.resize(first + count, places.error());
    Shards shards;
    std::vector<UniqueFd> files(count);
    for (std::size_t i = 0; i < count; ++i) {
      const auto& [log, slot] = slots[first + i];
      const std::string path = logs_path() + "/" + slot_path(log, slot);
      const auto& shard = open_shard_once(**places, log_shard_of(log), shards);
      auto file = shard ? open_at(shard->get(), slot_file_name(log, slot), O_RDONLY, path)
                        : Result<UniqueFd>(shard.error());
      if (file) {
        files[i] = std::move(*file);
        texts.push_back(read_claim_file(files[i].get(), ClaimFileKind::kRecord, path));
      } else {
        texts.emplace_back(std::move(file).error());
      }
    }
    if (how == Read::kAsSeen) return;
    // Their writers have synced the bytes before they linked them; of a mount's server only this asks.
    const GroupSync sync((*places)->root.get(), path_, (*places)->syncfs_reports_errors, count);
    if (sync.possible() && sync.run().ok()) return;
    std::vector<Status> synced(count);
    for_each_in_parallel(count, [&](std::size_t i) {
      const auto& [log, slot] = slots[first + i];
      if (texts[first + i]) synced[i] = sync_data(files[i].get(), logs_path() + "/" + slot_path(log, slot));
    });
    std::map<std::uint32_t, Status> named;
    for (std::size_t i = 0; i < count; ++i) {
      if (texts[first + i]) named.emplace(log_shard_of(slots[first + i].log), ok_status());
    }
    sync_shards_of(sync, shards, named);
    for (std::size_t i = 0; i < count; ++i) {
      if (!texts[first + i]) continue;
      if (synced[i].ok()) synced[i] = named.at(log_shard_of(slots[first + i].log));
      if (!synced[i].ok()) texts[first + i] = synced[i].error();
    }
  }

  std::vector<Result<bool>> find_slots(const std::vector<LogSlot>& slots) override {
    const auto places = current();
    if (!places) return std::vector<Result<bool>>(slots.size(), places.error());
    Shards shards;
    std::vector<Result<bool>> taken;
    for (const auto& [log, slot] : slots) {
      const auto& shard = open_shard_once(**places, log_shard_of(log), shards);
      if (!shard) {
        taken.emplace_back(shard.error());
      } else if (::faccessat(shard->get(), slot_file_name(log, slot).c_str(), F_OK, AT_SYMLINK_NOFOLLOW) ==
                 0) {
        taken.emplace_back(true);
      } else if (errno == ENOENT) {
        taken.emplace_back(false);
      } else {
        taken.emplace_back(error_from_errno(errno, "look for " + logs_path() + "/" + slot_path(log, slot)));
      }
    }
    return taken;
  }

  std::string logs_path() const override { return path_ + "/claims"; }

  Result<LogLister> list_shard(std::uint32_t log_shard) override {
    const auto places = current();
    if (!places) return places.error();
    const auto shard = open_shard(**places, log_shard);
    if (!shard) return shard.error();
    LogLister lister(log_shard);
    const Status listed = visit_names(shard->get(), logs_path() + "/" + log_shard_name(log_shard),
                                      [&](const std::string& name) {
                                        lister.add(name);
                                        return true;
                                      });
    if (!listed.ok()) return absent_is_unavailable(listed).error();
    return lister;
  }

  Result<UniqueFd> open_shard(const Places& places, std::uint32_t log_shard) const {
    const std::string name = log_shard_name(log_shard);
    auto shard = open_dir_at(places.claims.get(), name, logs_path() + "/" + name);
    if (!shard) return absent_is_unavailable(shard.error()).error();
    return shard;
  }

  const Result<UniqueFd>& open_shard_once(const Places& places, std::uint32_t log_shard,
                                          Shards& shards) const {
    auto shard = shards.find(log_shard);
    if (shard == shards.end()) shard = shards.emplace(log_shard, open_shard(places, log_shard)).first;
    return shard->second;
  }

  Result<PlacesPtr> current() const {
    PlacesPtr places;
    {
      const std::lock_guard<std::mutex> lock(places_mutex_);
      places = places_;
    }
    if (places == nullptr)
      return make_error(Code::kUnavailable, "the claims of " + path_ + " have not been opened");
    if (Status status = check_still_there(path_, places->device, places->inode); !status.ok())
      return status.error();
    return places;
  }

  Result<PlacesPtr> writable() const {
    auto places = current();
    if (places && !(*places)->writable.ok()) return (*places)->writable.error();
    return places;
  }

  Result<PlacesPtr> find_places(const std::string& fleet_id_expected) const {
    auto places = std::make_shared<Places>();
    auto root = open_dir_at(AT_FDCWD, path_, path_);
    if (!root) return root.error();
    places->root = std::move(*root);
    struct stat info {};
    if (::fstat(places->root.get(), &info) != 0) return error_from_errno(errno, "stat " + path_);
    places->device = info.st_dev;
    places->inode = info.st_ino;
    places->syncfs_reports_errors = syncfs_reports_errors(places->root.get());
    const auto text = read_format(places->root.get(), path_);
    if (!text && text.error().os_errno == ENOENT && !fleet_id_expected.empty()) {
      return no_longer_there(path_, fleet_id_expected);
    }
    if (!text) return text.error();
    auto format = accept_format(path_, *text, fleet_id_expected);
    if (!format) return format.error();
    places->fleet_id = std::move(format->fleet_id);
    for (const auto& [name, fd] :
         {std::pair<const char*, UniqueFd*>{"claims", &places->claims}, {"nodes", &places->nodes}}) {
      auto dir = open_dir_at(places->root.get(), name, path_ + "/" + name);
      if (!dir) return absent_is_unavailable(dir.error()).error();
      *fd = std::move(*dir);
    }
    auto tmp =
        open_dir_at(places->root.get(), "tmp/" + private_dir_name(node_, node_incarnation_), tmp_path_);
    if (tmp) {
      places->tmp = std::move(*tmp);
    } else {
      places->writable = absent_is_unavailable(tmp.error());
    }
    if (const Status made = make_shards(places->claims.get()); !made.ok()) places->writable = made;
    return PlacesPtr(std::move(places));
  }

  // Those that are missing: all in a new store, none later.
  Status make_shards(int claims) const {
    std::set<std::string> there;
    const Status listed = visit_names(claims, logs_path(), [&](const std::string& name) {
      there.insert(name);
      return true;
    });
    if (!listed.ok()) return listed;
    bool made = false;
    for (std::uint32_t shard = 0; shard < kLogShardCount; ++shard) {
      const std::string name = log_shard_name(shard);
      if (there.count(name) != 0) continue;
      made = true;
      if (Status status = make_dir_at(claims, name, logs_path() + "/" + name); !status.ok()) return status;
      CMS_CRASH_POINT("claims.directory_shard_made");
    }
    return made ? sync_dir(claims, logs_path()) : ok_status();
  }

  const std::string path_;
  const std::string node_;
  const std::uint64_t node_incarnation_;
  const std::string tmp_path_;
  std::mutex open_mutex_;  // One open_store at a time.
  std::mutex member_mutex_;
  mutable std::mutex places_mutex_;  // Guards places_; never held across I/O.
  PlacesPtr places_;
};

// ---- the self-test

// A call of the self-test; what it came to, in words.
std::string said(bool ok, int os_errno) {
  return ok ? "was done" : "was refused (" + error_from_errno(os_errno, "").message() + ")";
}

Result<SelfTest> DirectoryClaims::self_test() {
  const auto places = writable();
  if (!places) return places.error();
  const int tmp = (*places)->tmp.get();
  const int claims = (*places)->claims.get();
  const std::string file = draft_file_name(new_nonce());
  const std::string linked = self_test_name(node_, node_incarnation_, "linked");
  const std::string again = self_test_name(node_, node_incarnation_, "again");
  const std::string renamed = self_test_name(node_, node_incarnation_, "renamed");
  std::vector<std::string> left;
  (void)visit_names(claims, logs_path(), [&](const std::string& name) {
    if (is_self_test_of(name, node_)) left.push_back(name);
    return true;
  });
  for (const std::string& name : left) (void)::unlinkat(claims, name.c_str(), 0);

  SelfTest test;
  const auto add = [&](const char* name, bool holds, std::string detail) {
    test.traits.push_back(StoreTrait{name, holds, std::move(detail)});
  };
  const auto links_of = [](int dir, const std::string& name) {
    struct stat info {};
    return ::fstatat(dir, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 ? info.st_nlink : 0;
  };

  auto made = open_at(tmp, file, O_WRONLY | O_CREAT | O_EXCL, tmp_path_ + "/" + file);
  if (!made) return absent_is_unavailable(made.error()).error();
  const auto second = open_at(tmp, file, O_WRONLY | O_CREAT | O_EXCL, tmp_path_ + "/" + file);
  add("exclusive create", !second && second.error().os_errno == EEXIST,
      "a second exclusive create of a file " + said(second.ok(), second ? 0 : second.error().os_errno));
  const std::string bytes(kClaimFileBytes, 't');
  Status synced = write_all(made->get(), bytes.data(), bytes.size(), 0, tmp_path_ + "/" + file);
  if (synced.ok()) synced = sync_data(made->get(), tmp_path_ + "/" + file);
  if (synced.ok()) synced = sync_dir(claims, logs_path());
  CMS_CRASH_POINT("claims.directory_self_test");

  const bool has_links = ::linkat(tmp, file.c_str(), claims, linked.c_str(), 0) == 0;
  if (!has_links) {
    add("hard links", false, "a hard link into claims/ " + said(false, errno));
    add("no link of a removed file", false, "not tried: there are no hard links");
  } else {
    const bool twice = ::linkat(tmp, file.c_str(), claims, linked.c_str(), 0) == 0;
    const int why = errno;
    const auto count = links_of(claims, linked);
    add("hard links", !twice && why == EEXIST && count == 2,
        "a hard link into claims/ was done; the file then has " + std::to_string(count) +
            " names; a second link to that name " + said(twice, why));
  }
  const bool crosses = ::renameat(tmp, file.c_str(), claims, renamed.c_str()) == 0;
  add("rename across directories", crosses && links_of(tmp, file) == 0 && links_of(claims, renamed) != 0,
      "a rename into claims/ " + said(crosses, errno));
  for (const auto& [dir, name] :
       {std::pair<int, const std::string*>{tmp, &file}, {claims, &linked}, {claims, &renamed}}) {
    (void)::unlinkat(dir, name->c_str(), 0);
  }
  if (has_links) {
    const bool late = ::linkat(tmp, file.c_str(), claims, again.c_str(), 0) == 0;
    const int why = errno;
    add("no link of a removed file", !late && links_of(claims, again) == 0,
        "a hard link of a file that has no name any more " + said(late, why));
    (void)::unlinkat(claims, again.c_str(), 0);
  }
  add("synced writes", synced.ok(),
      synced.ok() ? "a file and a directory were synced" : synced.error().message());
  return test;
}

}  // namespace

std::unique_ptr<ClaimStore> make_directory_claims(const std::string& directory, const std::string& node,
                                                  std::uint64_t node_incarnation) {
  return std::make_unique<DirectoryClaims>(directory, node, node_incarnation);
}

}  // namespace cms::storage
