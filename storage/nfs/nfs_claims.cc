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
#include "storage/nfs/nfs_many.h"
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

  Status write_member(const std::string& record) override {
    if (Status status = check_member_bytes(record); !status.ok()) return status;
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
    std::vector<std::string> files;
    std::vector<std::string> paths;
    for (const MemberName& member : names) {
      files.push_back(member_file_name(member.node, member.node_incarnation));
      paths.push_back(path_ + "/nodes/" + files.back());
    }
    const auto texts = read_files(
        ClaimFileKind::kMember, files, paths,
        [](const NfsClaimPlaces& places, std::size_t) -> const NfsHandle& { return places.nodes; },
        Read::kAsSeen);
    std::vector<MemberFile> members;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (!texts[i] && texts[i].error().code == Code::kNotFound) continue;  // Removed meanwhile.
      if (!texts[i]) return texts[i].error();
      members.push_back(member_file_of(names[i], paths[i], *texts[i]));
    }
    return members;
  }

  Status remove_member(const std::string& node, std::uint64_t node_incarnation) override {
    if (Status status = check_node_name(node); !status.ok()) return status;
    const std::string name = member_file_name(node, node_incarnation);
    const auto removed =
        each(1, [&](NfsConnection& link, const NfsClaimPlaces& places, std::size_t, NfsThen then) {
          nfs_remove(link, {places.nodes, name}, std::move(then));
        });
    if (!removed) return removed.error();
    if ((*removed)[0].ok() || (*removed)[0].is(NfsStatus::kNoEntry)) return ok_status();
    return error_of((*removed)[0], "remove " + path_ + "/nodes/" + name);
  }

 private:
  using PlacesPtr = std::shared_ptr<const NfsClaimPlaces>;
  using DirectoryOf = std::function<const NfsHandle&(const NfsClaimPlaces&)>;
  using DirectoryOfEach = std::function<const NfsHandle&(const NfsClaimPlaces&, std::size_t i)>;

  // ---- the steps

  // A draft on its way, from the answer of one call to the next: CREATE, WRITE to the medium, LINK, COMMIT,
  // and a REMOVE that nobody waits for. Its callbacks come one after the other.
  struct Going {
    const Draft* draft = nullptr;
    NfsLink link;
    PlacesPtr places;
    std::string slot_name;
    NfsHandle file;
    std::uint64_t verifier = 0;
    Try end{};
    bool create_was_stale = false;
    bool link_led_nowhere = false;
    NfsInFlight* in_flight = nullptr;
  };

  std::vector<Try> link_drafts(const std::vector<Draft>& drafts) override {
    std::vector<Going> going(drafts.size());
    std::vector<std::size_t> left;
    for (std::size_t i = 0; i < drafts.size(); ++i) {
      going[i].draft = &drafts[i];
      going[i].slot_name = slot_file_name(drafts[i].log, drafts[i].slot);
      left.push_back(i);
    }
    for (int attempt = 0; attempt < 2 && !left.empty(); ++attempt) {
      link_once(going, left);
      left.clear();
      // Refused, so that there is nothing of it; with other handles it may be done.
      for (std::size_t i = 0; i < going.size(); ++i) {
        if (std::exchange(going[i].create_was_stale, false)) left.push_back(i);
      }
      if (left.empty()) break;
      const Status opened = open_store();
      if (opened.ok()) continue;
      for (const std::size_t i : left) going[i].end.why = opened.error();
      break;
    }
    std::vector<Try> tries;
    bool lost_places = false;
    for (Going& one : going) {
      if (one.end.linked == Linked::kNever && one.link != nullptr) {
        drop(*one.link, *one.places, one.draft->name);
      }
      lost_places = lost_places || one.link_led_nowhere;
      tries.push_back(std::move(one.end));
    }
    if (lost_places) (void)open_store();
    return tries;
  }

  void link_once(std::vector<Going>& going, const std::vector<std::size_t>& which) {
    const auto places = writable();
    NfsInFlight in_flight;
    bool swept = false;
    for (const std::size_t i : which) {
      Going& one = going[i];
      if (!places) {
        one.end = Try{Linked::kNever, places.error()};
        continue;
      }
      in_flight.wait_until_at_most(kNfsManyInFlight - 1);
      const auto link = pool_->get();
      if (!link) {
        one.end = Try{Linked::kNever, link.error()};
        continue;
      }
      if (!std::exchange(swept, true)) remove_litter(**link, **places);
      one.link = *link;
      one.places = *places;
      one.in_flight = &in_flight;
      in_flight.begin(1);
      create_draft(one);
    }
    in_flight.wait_until_at_most(0);
  }

  // All that follow run on the connection's thread, or on the caller's when the connection is dead.
  void create_draft(Going& one) {
    nfs_create(*one.link, {one.places->tmp, one.draft->name}, [this, &one](const NfsReply& reply) {
      one.create_was_stale = reply.is_stale();
      // Nobody else has this name: if it exists, the request came twice.
      if (reply.is(NfsStatus::kExists) || (reply.ok() && reply.handle.empty())) {
        nfs_lookup(*one.link, {one.places->tmp, one.draft->name},
                   [this, &one](const NfsReply& found) { write_draft(one, found); });
      } else {
        write_draft(one, reply);
      }
    });
  }

  void write_draft(Going& one, const NfsReply& created) {
    if (!created.ok()) return never(one, created, "create");
    one.file = created.handle;
    CMS_CRASH_POINT("claims.nfs_draft_created");
    const std::string& text = one.draft->text;
    nfs_write(*one.link, one.file, 0, text.data(), text.size(), NfsStable::kFileSync,
              [this, &one](const NfsReply& written) {
                if (!written.ok()) return never(one, written, "write");
                if (written.count != one.draft->text.size() || !written.file_synced) {
                  return end(one, Linked::kNever,
                             make_error(Code::kIo,
                                        "write " + one.draft->name + ": the NFS server took only " +
                                            std::to_string(written.count) + " bytes, or not to its medium"));
                }
                one.verifier = written.verifier;
                CMS_CRASH_POINT("claims.nfs_draft_synced");
                link_slot(one);
              });
  }

  void link_slot(Going& one) {
    nfs_link(*one.link, one.file, {one.places->shard_of(one.draft->log), one.slot_name},
             [this, &one](const NfsReply& linked) {
               // A directory that was removed may have a handle that is good for that, and not be found stale.
               one.link_led_nowhere = linked.is_stale() || linked.is(NfsStatus::kNoEntry);
               if (!linked.ok()) return end(one, Linked::kOpen, error_of(linked, "link"));
               CMS_CRASH_POINT("claims.nfs_linked");
               sync_slot(one);
             });
  }

  void sync_slot(Going& one) {
    nfs_commit(*one.link, one.file, [this, &one](const NfsReply& synced) {
      if (!synced.ok()) return end(one, Linked::kOpen, error_of(synced, "commit"));
      if (synced.verifier != one.verifier) {  // It may have lost the name.
        return end(one, Linked::kOpen,
                   make_error(Code::kUnavailable, "the NFS server has restarted meanwhile"));
      }
      CMS_CRASH_POINT("claims.nfs_won");
      drop(*one.link, *one.places, one.draft->name);
      end(one, Linked::kSure, {});
    });
  }

  void never(Going& one, const NfsReply& reply, const char* what) {
    end(one, Linked::kNever,
        absent_is_unavailable(
            error_of(reply, std::string(what) + " " + path_ + "/tmp/" + tmp_name_ + "/" + one.draft->name))
            .error());
  }

  static void end(Going& one, Linked linked, Error why) {
    one.end = Try{linked, std::move(why)};
    one.in_flight->end(1);  // Last: the group goes when all have ended.
  }

  std::vector<Status> remove_drafts(const std::vector<Draft>& drafts) override {
    if (const auto places = writable(); !places) return std::vector<Status>(drafts.size(), places.error());
    const auto replies = each(
        drafts.size(), [&](NfsConnection& link, const NfsClaimPlaces& places, std::size_t i, NfsThen then) {
          if (places.tmp.empty()) return then(NfsReply());
          nfs_remove(link, {places.tmp, drafts[i].name}, std::move(then));
        });
    if (!replies) return std::vector<Status>(drafts.size(), replies.error());
    std::vector<Status> removed(drafts.size());
    for (std::size_t i = 0; i < drafts.size(); ++i) {
      const NfsReply& reply = (*replies)[i];
      if (reply.ok() || reply.is(NfsStatus::kNoEntry)) continue;
      removed[i] = error_of(reply, "remove " + drafts[i].name);
    }
    return removed;
  }

  std::vector<Result<std::string>> read_slots(const std::vector<LogSlot>& slots, Read how) override {
    std::vector<std::string> paths;
    for (const auto& [log, slot] : slots) paths.push_back(logs_path() + "/" + slot_path(log, slot));
    return read_files(
        ClaimFileKind::kRecord, names_of(slots), paths,
        [&](const NfsClaimPlaces& places, std::size_t i) -> const NfsHandle& {
          return places.shard_of(slots[i].log);
        },
        how);
  }

  std::vector<Result<bool>> find_slots(const std::vector<LogSlot>& slots) override {
    const std::vector<std::string> names = names_of(slots);
    const auto replies = each(
        slots.size(), [&](NfsConnection& link, const NfsClaimPlaces& places, std::size_t i, NfsThen then) {
          nfs_lookup(link, {places.shard_of(slots[i].log), names[i]}, std::move(then));
        });
    if (!replies) return std::vector<Result<bool>>(slots.size(), replies.error());
    std::vector<Result<bool>> taken;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      const NfsReply& found = (*replies)[i];
      if (found.ok() || found.is(NfsStatus::kNoEntry)) {
        taken.emplace_back(found.ok());
      } else {
        taken.emplace_back(
            error_of(found, "look for " + logs_path() + "/" + slot_path(slots[i].log, slots[i].slot)));
      }
    }
    return taken;
  }

  static std::vector<std::string> names_of(const std::vector<LogSlot>& slots) {
    std::vector<std::string> names;
    for (const auto& [log, slot] : slots) names.push_back(slot_file_name(log, slot));
    return names;
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

  // Of calls, or short chains of calls, that may be repeated, side by side; `then` gets the last reply of one.
  // Once more on another connection when the first broke, with other handles when these lead nowhere any more.
  using BeginOne = std::function<void(NfsConnection&, const NfsClaimPlaces&, std::size_t i, NfsThen then)>;
  Result<std::vector<NfsReply>> each(std::size_t count, const BeginOne& begin) {
    std::vector<NfsReply> replies(count);
    std::vector<std::size_t> left;
    for (std::size_t i = 0; i < count; ++i) left.push_back(i);
    for (int attempt = 0; attempt < 2 && !left.empty(); ++attempt) {
      const auto places = current();
      if (!places) return places.error();
      auto got = nfs_for_each(*pool_, left.size(), [&](NfsConnection& link, std::size_t i, NfsThen then) {
        begin(link, **places, left[i], std::move(then));
      });
      std::vector<std::size_t> stale;
      for (std::size_t i = 0; i < left.size(); ++i) {
        if (got[i].is_stale()) stale.push_back(left[i]);
        replies[left[i]] = std::move(got[i]);
      }
      left = std::move(stale);
      if (!left.empty() && attempt == 0) (void)open_store();
    }
    return replies;
  }

  // As much of each file as its decoder wants, all of one by one connection: what was looked up, read and synced
  // is so in one life of the server. `paths`: for people.
  std::vector<Result<std::string>> read_files(ClaimFileKind kind, const std::vector<std::string>& names,
                                              const std::vector<std::string>& paths,
                                              const DirectoryOfEach& directory_of, Read how) {
    std::vector<std::string> texts(names.size());
    const auto replies = each(
        names.size(), [&](NfsConnection& link, const NfsClaimPlaces& places, std::size_t i, NfsThen then) {
          nfs_lookup(link, {directory_of(places, i), names[i]},
                     [&link, kind, &text = texts[i], how, then = std::move(then)](const NfsReply& found) {
                       if (!found.ok()) return then(found);
                       text.assign(claim_file_read_bytes(kind), '\0');
                       read_on(link, found.handle, 0, text, how, then);
                     });
        });
    if (!replies) return std::vector<Result<std::string>>(names.size(), replies.error());
    std::vector<Result<std::string>> read;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if ((*replies)[i].ok()) {
        read.emplace_back(std::move(texts[i]));
      } else {
        read.emplace_back(error_of((*replies)[i], paths[i]));
      }
    }
    return read;
  }

  // From `done` on. `text` must stay until `then` is called.
  static void read_on(NfsConnection& link, const NfsHandle& file, std::size_t done, std::string& text,
                      Read how, const NfsThen& then) {
    nfs_read(link, file, done, text.data() + done, text.size() - done,
             [&link, file, done, &text, how, then](const NfsReply& got) {
               if (!got.ok()) return then(got);
               const std::size_t all = done + got.count;
               if (!got.eof && got.count > 0 && all < text.size()) {
                 return read_on(link, file, all, text, how, then);
               }
               text.resize(all);
               if (how == Read::kAsSeen) return then(got);
               nfs_commit(link, file, then);
             });
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

  Result<LogLister> list_shard(std::uint32_t log_shard) override {
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
