#include "storage/nfs/nfs_claims.h"

#include <functional>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "base/crash_point.h"
#include "storage/blob_file_io.h"
#include "storage/claim_names.h"
#include "storage/claim_record_file.h"
#include "storage/claim_steps.h"
#include "storage/nfs/nfs_calls.h"
#include "storage/nfs/nfs_claim_places.h"
#include "storage/nfs/nfs_root.h"
#include "storage/store_layout.h"

namespace cms::storage {
namespace {

class NfsClaims final : public ClaimSteps {
 public:
  NfsClaims(const NfsTarget& target, const std::string& node, std::uint64_t node_incarnation,
            const NfsTimeouts& timeouts)
      : pool_(std::make_shared<NfsPool>(target, timeouts)),
        path_(to_string(target)),
        node_(node),
        node_incarnation_(node_incarnation),
        tmp_name_(private_dir_name(node, node_incarnation)) {}

  NfsClaims(const NfsClaims&) = delete;
  NfsClaims& operator=(const NfsClaims&) = delete;

  ~NfsClaims() override {
    // Leaving in order, as far as that goes; the rest is swept at the next start. Nobody waits for the
    // outcome of what is unresolved any more.
    drops_->wait_until_at_most(0);
    std::vector<std::string> names = take_unresolved_drafts();
    for (std::string& name : pool_->litter()->take()) names.push_back(std::move(name));
    const auto places = writable();
    if (names.empty() || !places) return;
    const auto link = pool_->get();
    if (!link) return;
    for (const std::string& name : names) {
      if (!remove(**link, (*places)->tmp, name).answered) return;
    }
  }

  Status open_store() override {
    const std::lock_guard<std::mutex> opening(open_mutex_);
    std::string fleet_id_expected;
    {
      const std::lock_guard<std::mutex> lock(places_mutex_);
      if (places_ != nullptr) fleet_id_expected = places_->fleet_id;
    }
    const auto link = pool_->get();
    if (!link) return link.error();
    auto places = find_nfs_claim_places(**link, path_, tmp_name_, fleet_id_expected);
    if (!places) return places.error();
    const std::lock_guard<std::mutex> lock(places_mutex_);
    places_ = std::move(*places);
    return places_->writable;
  }

  Result<SelfTest> self_test() override {
    const auto places = writable();
    if (!places) return places.error();
    const auto link = pool_->get();
    if (!link) return link.error();
    remove_litter(**link, **places);
    std::vector<std::string> left;
    auto tested = run_nfs_self_test(**link, **places,
                                    {path_, node_, node_incarnation_, draft_file_name(new_nonce())}, &left);
    for (const std::string& name : left) pool_->litter()->add(name);
    return tested;
  }

  Status list_logs(std::uint32_t log_shard, const std::function<void(const LogId&, Slot head)>& visit,
                   std::uint64_t* unknown) override {
    if (Status status = check_log_shard(log_shard); !status.ok()) return status;
    const auto lister = list_shard(log_shard);
    if (!lister) return lister.error();
    lister->tell(visit, unknown);
    return ok_status();
  }

  Status write_member(const std::string& record) override {
    if (Status status = check_record_bytes(record); !status.ok()) return status;
    const std::string name = member_file_name(node_, node_incarnation_);
    const std::string text = encode_claim_file(name, {ClaimFileKind::kMember, {}, record});
    const std::lock_guard<std::mutex> writing(member_mutex_);
    // Once more when somebody has removed the file, or all the store: no write is repeated that may have
    // been done.
    Status status;
    for (int attempt = 0; attempt < 2; ++attempt) {
      const auto places = writable();
      if (!places) return places.error();
      const auto link = pool_->get();
      if (!link) return link.error();
      remove_litter(**link, **places);
      bool stale = false;
      status = write_member_once(**link, (*places)->nodes, name, text, &stale);
      if (!stale) break;
      member_file_.clear();
      if (Status opened = open_store(); !opened.ok()) return opened;
    }
    return status;
  }

  Result<std::vector<MemberFile>> list_members() override {
    std::vector<MemberName> names;
    const Status listed = list([](const NfsClaimPlaces& places) -> const NfsHandle& { return places.nodes; },
                               path_ + "/nodes", [&] { names.clear(); },
                               [&](const NfsEntry& entry) {
                                 if (auto member = parse_member_file_name(entry.name))
                                   names.push_back(std::move(*member));
                               });
    if (!listed.ok()) return listed.error();
    std::vector<MemberFile> members;
    for (const MemberName& member : names) {
      const std::string name = member_file_name(member.node, member.node_incarnation);
      const std::string path = path_ + "/nodes/" + name;
      auto text = read_file([](const NfsClaimPlaces& places) -> const NfsHandle& { return places.nodes; },
                            name, path, Read::kAsSeen);
      if (!text && text.error().code == Code::kNotFound) continue;  // Removed meanwhile.
      if (!text) return text.error();
      members.push_back(member_file_of(member, path, *text));
    }
    return members;
  }

  Status remove_member(const std::string& node, std::uint64_t node_incarnation) override {
    if (Status status = check_node_name(node); !status.ok()) return status;
    const std::string name = member_file_name(node, node_incarnation);
    const auto removed = repeat(
        [&](NfsConnection& link, const NfsClaimPlaces& places) { return remove(link, places.nodes, name); });
    if (!removed) return removed.error();
    if (removed->ok() || removed->is(NfsStatus::kNoEntry)) return ok_status();
    return error_of(*removed, "remove " + path_ + "/nodes/" + name);
  }

 private:
  using PlacesPtr = std::shared_ptr<const NfsClaimPlaces>;
  using DirectoryOf = std::function<const NfsHandle&(const NfsClaimPlaces&)>;

  // ---- the steps

  Try link_draft(const Draft& draft, const std::string& text) override {
    auto places = writable();
    if (!places) return Try{Linked::kNever, places.error()};
    const auto got = pool_->get();
    if (!got) return Try{Linked::kNever, got.error()};
    const NfsLink& link = *got;
    remove_litter(*link, **places);
    NfsReply created = create(*link, (*places)->tmp, draft.name);
    if (created.is_stale()) {
      if (Status opened = open_store(); !opened.ok()) return Try{Linked::kNever, opened.error()};
      places = writable();
      if (!places) return Try{Linked::kNever, places.error()};
      created = create(*link, (*places)->tmp, draft.name);
    }
    const auto never = [&](const NfsReply& reply, const char* what) {
      drop(*link, **places, draft.name);
      return Try{Linked::kNever,
                 absent_is_unavailable(error_of(reply, std::string(what) + " " + path_ + "/tmp/" + tmp_name_ +
                                                           "/" + draft.name))
                     .error()};
    };
    // Nobody else has this name: if it exists, the request came twice.
    if (created.is(NfsStatus::kExists) || (created.ok() && created.handle.empty())) {
      created = nfs_wait_lookup(*link, {(*places)->tmp, draft.name});
    }
    if (!created.ok()) return never(created, "create");
    const NfsHandle& file = created.handle;
    CMS_CRASH_POINT("claims.nfs_draft_created");
    const NfsReply written = nfs_wait([&](NfsThen then) {
      nfs_write(*link, file, 0, text.data(), text.size(), NfsStable::kFileSync, std::move(then));
    });
    if (!written.ok()) return never(written, "write");
    if (written.count != text.size() || !written.file_synced) {
      drop(*link, **places, draft.name);
      return Try{Linked::kNever,
                 make_error(Code::kIo, "write " + draft.name + ": the NFS server took only " +
                                           std::to_string(written.count) + " bytes, or not to its medium")};
    }
    CMS_CRASH_POINT("claims.nfs_draft_synced");
    const std::string slot_name = slot_file_name(draft.log, draft.slot);
    const NfsReply linked = nfs_wait([&](NfsThen then) {
      nfs_link(*link, file, {(*places)->shard_of(draft.log), slot_name}, std::move(then));
    });
    // A directory that was removed may have a handle that is good for that, and not be found stale.
    if (linked.is_stale() || linked.is(NfsStatus::kNoEntry)) (void)open_store();
    if (!linked.ok()) return Try{Linked::kOpen, error_of(linked, "link")};
    CMS_CRASH_POINT("claims.nfs_linked");
    const NfsReply synced = nfs_wait([&](NfsThen then) { nfs_commit(*link, file, std::move(then)); });
    if (!synced.ok()) return Try{Linked::kOpen, error_of(synced, "commit")};
    if (synced.verifier != written.verifier) {
      // It may have lost the name.
      return Try{Linked::kOpen, make_error(Code::kUnavailable, "the NFS server has restarted meanwhile")};
    }
    CMS_CRASH_POINT("claims.nfs_won");
    drop(*link, **places, draft.name);
    return Try{Linked::kSure, {}};
  }

  Status remove_draft(const Draft& draft) override {
    if (const auto places = writable(); !places) return places.error();
    const auto removed = repeat([&](NfsConnection& link, const NfsClaimPlaces& places) {
      return places.tmp.empty() ? NfsReply() : remove(link, places.tmp, draft.name);
    });
    if (!removed) return removed.error();
    if (removed->ok() || removed->is(NfsStatus::kNoEntry)) return ok_status();
    return error_of(*removed, "remove " + draft.name);
  }

  Result<std::string> read_slot(const LogId& log, Slot slot, Read how) override {
    return read_file([&](const NfsClaimPlaces& places) -> const NfsHandle& { return places.shard_of(log); },
                     slot_file_name(log, slot), logs_path() + "/" + slot_path(log, slot), how);
  }

  Result<bool> has_slot(const LogId& log, Slot slot) override {
    const std::string name = slot_file_name(log, slot);
    const auto found = repeat([&](NfsConnection& link, const NfsClaimPlaces& places) {
      return nfs_wait_lookup(link, {places.shard_of(log), name});
    });
    if (!found) return found.error();
    if (found->ok()) return true;
    if (found->is(NfsStatus::kNoEntry)) return false;
    return error_of(*found, "look for " + logs_path() + "/" + slot_path(log, slot));
  }

  Result<Slot> highest_slot(const LogId& log) override {
    const auto lister = list_shard(log_shard_of(log));
    if (!lister) return lister.error();
    return lister->head_of(log);
  }

  std::string logs_path() const override { return path_ + "/claims"; }

  // ---- calls

  static NfsReply create(NfsConnection& link, const NfsHandle& directory, const std::string& name) {
    return nfs_wait([&](NfsThen then) { nfs_create(link, {directory, name}, std::move(then)); });
  }
  static NfsReply remove(NfsConnection& link, const NfsHandle& directory, const std::string& name) {
    return nfs_wait([&](NfsThen then) { nfs_remove(link, {directory, name}, std::move(then)); });
  }

  // Removes a draft, without waiting; what is not answered becomes litter.
  void drop(NfsConnection& link, const NfsClaimPlaces& places, const std::string& name) {
    drops_->begin(1);
    nfs_remove(link, {places.tmp, name},
               [drops = drops_, litter = pool_->litter(), name](const NfsReply& reply) {
                 if (!reply.answered) litter->add(name);
                 drops->end(1);
               });
  }
  void remove_litter(NfsConnection& link, const NfsClaimPlaces& places) {
    for (const std::string& name : pool_->litter()->take()) drop(link, places, name);
  }

  // Of a call that may be repeated: on another connection when the first broke, with other handles when
  // these lead nowhere any more.
  Result<NfsReply> repeat(const std::function<NfsReply(NfsConnection&, const NfsClaimPlaces&)>& call) {
    NfsReply reply;
    for (int attempt = 0; attempt < 2; ++attempt) {
      const auto places = current();
      if (!places) return places.error();
      const auto link = pool_->get();
      if (!link) return link.error();
      reply = call(**link, **places);
      if (reply.answered && !reply.is_stale()) break;
      if (reply.is_stale() && attempt == 0) (void)open_store();
    }
    return reply;
  }

  // The first kClaimFileBytes + 1 bytes of a file, all by one connection: what was looked up, read and
  // synced is so in one life of the server.
  Result<std::string> read_file(const DirectoryOf& directory_of, const std::string& name,
                                const std::string& path, Read how) {
    std::string text;
    const auto read = [&](NfsConnection& link, const NfsClaimPlaces& places) {
      text.assign(kClaimFileBytes + 1, '\0');
      const NfsReply found = nfs_wait_lookup(link, {directory_of(places), name});
      if (!found.ok()) return found;
      std::size_t done = 0;
      bool eof = false;
      while (done < text.size() && !eof) {
        const NfsReply got = nfs_wait([&](NfsThen then) {
          nfs_read(link, found.handle, done, text.data() + done, text.size() - done, std::move(then));
        });
        if (!got.ok()) return got;
        done += got.count;
        eof = got.eof || got.count == 0;
      }
      text.resize(done);
      if (how == Read::kAsSeen) return found;
      return nfs_wait([&](NfsThen then) { nfs_commit(link, found.handle, std::move(then)); });
    };
    const auto reply = repeat(read);
    if (!reply) return reply.error();
    if (!reply->ok()) return error_of(*reply, path);
    return text;
  }

  Status list(const DirectoryOf& directory_of, const std::string& path, const std::function<void()>& begin,
              const std::function<void(const NfsEntry&)>& visit) {
    Status listed;
    for (int attempt = 0; attempt < 2; ++attempt) {
      const auto places = current();
      if (!places) return places.error();
      const auto link = pool_->get();
      if (!link) return link.error();
      begin();
      listed =
          absent_is_unavailable(nfs_list(**link, directory_of(**places), path, [&](const NfsEntry& entry) {
            visit(entry);
            return true;
          }));
      if (listed.code() != Code::kUnavailable) break;
      // Of a living connection: the handle leads nowhere any more.
      if (attempt == 0 && (*link)->alive()) (void)open_store();
    }
    return listed;
  }

  Result<LogLister> list_shard(std::uint32_t log_shard) {
    std::optional<LogLister> lister;
    const Status listed =
        list([&](const NfsClaimPlaces& places) -> const NfsHandle& { return places.shards[log_shard]; },
             logs_path() + "/" + log_shard_name(log_shard), [&] { lister.emplace(log_shard); },
             [&](const NfsEntry& entry) { lister->add(entry.name); });
    if (!listed.ok()) return listed.error();
    return std::move(*lister);
  }

  // *`stale`: the file has gone, or more than that.
  Status write_member_once(NfsConnection& link, const NfsHandle& nodes, const std::string& name,
                           const std::string& text, bool* stale) {
    const std::string what = "write " + path_ + "/nodes/" + name;
    if (member_file_.empty()) {
      member_named_ = false;
      NfsReply found = nfs_wait_lookup(link, {nodes, name});
      if (found.is(NfsStatus::kNoEntry)) {
        found = create(link, nodes, name);
        if (found.is(NfsStatus::kExists) || (found.ok() && found.handle.empty())) {
          found = nfs_wait_lookup(link, {nodes, name});
        }
      }
      *stale = found.is_stale();
      if (!found.ok()) return absent_is_unavailable(error_of(found, what));
      member_file_ = std::move(found.handle);
    }
    const NfsReply written = nfs_wait([&](NfsThen then) {
      nfs_write(link, member_file_, 0, text.data(), text.size(), NfsStable::kFileSync, std::move(then));
    });
    CMS_CRASH_POINT("claims.nfs_member_written");
    *stale = written.is_stale();
    if (!written.ok()) return error_of(written, what);
    if (written.count != text.size() || !written.file_synced) {
      return make_error(Code::kIo, what + ": the NFS server took only a part, or not to its medium");
    }
    if (member_named_) return ok_status();
    const NfsReply synced = nfs_wait([&](NfsThen then) { nfs_commit(link, member_file_, std::move(then)); });
    *stale = synced.is_stale();
    member_named_ = synced.ok();
    return synced.ok() ? ok_status() : Status(error_of(synced, what));
  }

  // ---- places

  Result<PlacesPtr> current() const {
    const std::lock_guard<std::mutex> lock(places_mutex_);
    if (places_ == nullptr)
      return make_error(Code::kUnavailable, "the claims of " + path_ + " have not been opened");
    return places_;
  }

  Result<PlacesPtr> writable() const {
    auto places = current();
    if (places && !(*places)->writable.ok()) return (*places)->writable.error();
    return places;
  }

  const std::shared_ptr<NfsPool> pool_;
  const std::string path_;
  const std::string node_;
  const std::uint64_t node_incarnation_;
  const std::string tmp_name_;
  const std::shared_ptr<NfsInFlight> drops_ = std::make_shared<NfsInFlight>();
  std::mutex open_mutex_;            // One open_store at a time.
  mutable std::mutex places_mutex_;  // Guards places_; never held across I/O.
  PlacesPtr places_;
  std::mutex member_mutex_;    // Guards the two below; one write at a time.
  NfsHandle member_file_;      // Empty: to be looked up.
  bool member_named_ = false;  // Its name is synced.
};

}  // namespace

NfsTimeouts claim_timeouts() {
  NfsTimeouts timeouts;
  timeouts.connect = timeouts.call = timeouts.write = timeouts.commit = kClaimCallMax;
  return timeouts;
}

std::unique_ptr<ClaimStore> make_nfs_claims(const NfsTarget& target, const std::string& node,
                                            std::uint64_t node_incarnation, const NfsTimeouts& timeouts) {
  return std::make_unique<NfsClaims>(target, node, node_incarnation, timeouts);
}

}  // namespace cms::storage
