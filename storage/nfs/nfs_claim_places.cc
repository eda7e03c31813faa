#include "storage/nfs/nfs_claim_places.h"

#include <utility>

#include "base/crash_point.h"
#include "base/time.h"
#include "storage/blob_file_io.h"
#include "storage/claim_names.h"
#include "storage/claim_record_file.h"
#include "storage/nfs/nfs_root.h"
#include "storage/store_layout.h"

namespace cms::storage {
namespace {

std::vector<std::string> log_shard_names() {
  std::vector<std::string> names;
  for (std::uint32_t shard = 0; shard < kLogShardCount; ++shard) names.push_back(log_shard_name(shard));
  return names;
}

// Those that are missing: all in a new store, none later.
Status make_missing(NfsConnection& link, const NfsHandle& claims, const std::string& path,
                    const std::vector<std::string>& names, std::vector<NfsHandle>& handles) {
  std::vector<std::string> missing;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (handles[i].empty()) missing.push_back(names[i]);
  }
  if (missing.empty()) return ok_status();
  if (Status status = make_nfs_directories(link, claims, path, missing); !status.ok()) return status;
  CMS_CRASH_POINT("claims.nfs_shards_made");
  auto found = find_nfs_directories(link, claims, path, names);
  if (!found) return found.error();
  handles = std::move(*found);
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (handles[i].empty()) return make_error(Code::kUnavailable, path + "/" + names[i] + " does not exist");
  }
  return ok_status();
}

}  // namespace

Result<std::shared_ptr<const NfsClaimPlaces>> find_nfs_claim_places(NfsConnection& link,
                                                                    const std::string& path,
                                                                    const std::string& tmp_name,
                                                                    const std::string& fleet_id_expected) {
  auto places = std::make_shared<NfsClaimPlaces>();
  const auto text = read_nfs_format(link, link.root(), path);
  if (!text && text.error().code == Code::kNotFound && !fleet_id_expected.empty()) {
    return no_longer_there(path, fleet_id_expected);
  }
  if (!text) return text.error();
  auto format = accept_format(path, *text, fleet_id_expected);
  if (!format) return format.error();
  places->fleet_id = std::move(format->fleet_id);

  NfsHandle tmp_all;
  for (const auto& [name, handle] : {std::pair<const char*, NfsHandle*>{"claims", &places->claims},
                                     {"nodes", &places->nodes},
                                     {"tmp", &tmp_all}}) {
    NfsReply found = nfs_wait_lookup(link, {link.root(), name});
    if (!found.ok()) return absent_is_unavailable(error_of(found, path + "/" + name)).error();
    *handle = std::move(found.handle);
  }
  const std::vector<std::string> names = log_shard_names();
  auto shards = find_nfs_directories(link, places->claims, path + "/claims", names);
  if (!shards) return shards.error();
  places->shards = std::move(*shards);
  places->writable = make_missing(link, places->claims, path + "/claims", names, places->shards);
  if (places->writable.code() == Code::kUnavailable) return places->writable.error();
  NfsReply tmp = nfs_wait_lookup(link, {tmp_all, tmp_name});
  if (!tmp.answered) return error_of(tmp, path + "/tmp/" + tmp_name);
  if (tmp.ok()) {
    places->tmp = std::move(tmp.handle);
  } else {
    places->writable = absent_is_unavailable(error_of(tmp, path + "/tmp/" + tmp_name));
  }
  return std::shared_ptr<const NfsClaimPlaces>(std::move(places));
}

// ---- the self-test

namespace {

// Asks one thing after the other; what is not answered, or answered for a reason that says nothing about
// the server's abilities, ends it.
class Tester {
 public:
  Tester(NfsConnection& link, std::string path) : link_(link), path_(std::move(path)) {}

  NfsReply ask(const std::string& what, const std::function<void(NfsConnection&, NfsThen)>& begin) {
    if (!failed_.ok()) return {};
    NfsReply reply = nfs_wait([&](NfsThen then) { begin(link_, std::move(then)); });
    if (!reply.answered || reply.is_stale() || says_nothing(reply.status)) {
      failed_ = error_of(reply, "self-test in " + path_ + ": " + what);
    }
    return reply;
  }
  void add(const char* trait, bool holds, const std::string& detail) {
    test_.traits.push_back(StoreTrait{trait, holds, detail});
  }
  void set_clock(std::int64_t ahead_ms) {
    test_.clock_known = true;
    test_.clock_ahead_ms = ahead_ms;
  }
  bool failed() const { return !failed_.ok(); }
  Result<SelfTest> result() const {
    if (!failed_.ok()) return failed_.error();
    return test_;
  }

  static std::string in_words(const NfsReply& reply) {
    if (reply.ok()) return "was done";
    return "was refused (NFS status " + std::to_string(static_cast<std::uint32_t>(reply.status)) + ", " +
           error_of(reply, "").context.substr(2) + ")";
  }

 private:
  static bool says_nothing(NfsStatus status) {
    constexpr std::uint32_t kIo = 5;
    constexpr std::uint32_t kServerFault = 10006;
    return status == NfsStatus::kNoSpace || status == NfsStatus::kQuota || status == NfsStatus::kReadOnly ||
           status == NfsStatus::kTryLater || static_cast<std::uint32_t>(status) == kIo ||
           static_cast<std::uint32_t>(status) == kServerFault;
  }

  NfsConnection& link_;
  const std::string path_;
  SelfTest test_;
  Status failed_;
};

// The middle between sending and answer is when the server looked at its clock, more or less.
std::int64_t ahead_ms(std::int64_t server_us, std::uint64_t before_us, std::uint64_t after_us) {
  const auto ours = static_cast<std::int64_t>(before_us + (after_us - before_us) / 2);
  return (server_us - ours) / 1000;
}

}  // namespace

Result<SelfTest> run_nfs_self_test(NfsConnection& link, const NfsClaimPlaces& places,
                                   const NfsSelfTestOptions& options, std::vector<std::string>* left) {
  const NfsHandle& tmp = places.tmp;
  const NfsHandle& claims = places.claims;
  const std::string& draft = options.draft_name;
  const auto own_name = [&](const char* what) {
    return self_test_name(options.node, options.node_incarnation, what);
  };
  const std::string linked = own_name("linked");
  const std::string renamed = own_name("renamed");
  const std::string late = own_name("late");
  const auto remove = [&](const NfsHandle& directory, const std::string& name) {
    return nfs_wait([&](NfsThen then) { nfs_remove(link, {directory, name}, std::move(then)); });
  };
  // What an earlier one left, having been cut short.
  std::vector<std::string> earlier;
  const Status listed = nfs_list(link, claims, options.path + "/claims", [&](const NfsEntry& entry) {
    if (is_self_test_of(entry.name, options.node)) earlier.push_back(entry.name);
    return true;
  });
  if (!listed.ok()) return listed.error();
  for (const std::string& name : earlier) (void)remove(claims, name);

  Tester tester(link, options.path);
  const NfsReply created = tester.ask("create a file", [&](NfsConnection& to, NfsThen then) {
    nfs_create(to, {tmp, draft}, std::move(then));
  });
  if (!created.answered) left->push_back(draft);
  if (tester.failed()) return tester.result();
  if (!created.ok()) return absent_is_unavailable(error_of(created, "create " + draft)).error();
  const NfsReply again = tester.ask("create it again", [&](NfsConnection& to, NfsThen then) {
    nfs_create(to, {tmp, draft}, std::move(then));
  });
  tester.add("exclusive create", again.is(NfsStatus::kExists),
             "a second guarded CREATE of a file " + Tester::in_words(again));
  const NfsReply found = tester.ask("look it up", [&](NfsConnection& to, NfsThen then) {
    nfs_lookup(to, {tmp, draft}, std::move(then));
  });
  const NfsHandle& file = found.handle;

  const std::string bytes(kClaimFileBytes, 't');
  const std::uint64_t before_us = wall_time_us();
  const NfsReply written = tester.ask("write to it", [&](NfsConnection& to, NfsThen then) {
    nfs_write(to, file, 0, bytes.data(), bytes.size(), NfsStable::kFileSync, std::move(then));
  });
  const NfsReply seen = tester.ask("ask for its attributes", [&](NfsConnection& to, NfsThen then) {
    nfs_getattr(to, file, std::move(then));
  });
  if (seen.ok()) tester.set_clock(ahead_ms(seen.attributes.modified_at_us, before_us, wall_time_us()));
  CMS_CRASH_POINT("claims.nfs_self_test");

  const auto link_to = [&](const std::string& name) {
    return tester.ask("link it to " + name, [&](NfsConnection& to, NfsThen then) {
      nfs_link(to, file, {claims, name}, std::move(then));
    });
  };
  const NfsReply first = link_to(linked);
  if (first.ok()) {
    const NfsReply second = link_to(linked);
    const NfsReply counted = tester.ask("ask for its attributes", [&](NfsConnection& to, NfsThen then) {
      nfs_getattr(to, file, std::move(then));
    });
    tester.add("hard links", second.is(NfsStatus::kExists) && counted.attributes.link_count == 2,
               "a hard link into claims/ was done; the file then has " +
                   std::to_string(counted.attributes.link_count) + " names; a second link to that name " +
                   Tester::in_words(second));
  } else {
    tester.add("hard links", false, "a hard link into claims/ " + Tester::in_words(first));
  }
  const NfsReply moved = tester.ask("rename it", [&](NfsConnection& to, NfsThen then) {
    nfs_rename(to, {tmp, draft}, {claims, renamed}, std::move(then));
  });
  tester.add("rename across directories", moved.ok(), "a rename into claims/ " + Tester::in_words(moved));
  const NfsReply synced = tester.ask(
      "commit it", [&](NfsConnection& to, NfsThen then) { nfs_commit(to, file, std::move(then)); });
  tester.add("synced writes",
             written.ok() && written.count == bytes.size() && written.file_synced && synced.ok() &&
                 written.verifier == synced.verifier,
             "a synchronous WRITE " + Tester::in_words(written) + ", of " + std::to_string(written.count) +
                 " bytes" + (written.file_synced ? "" : " and not to the medium") + "; COMMIT " +
                 Tester::in_words(synced) + ", by " +
                 (written.verifier == synced.verifier ? "the same life" : "another life") +
                 " of the server, as it says");

  // Also after a failure: nothing is to stay.
  bool removed = remove(tmp, draft).answered;
  if (!removed) left->push_back(draft);
  for (const std::string& name : {linked, renamed}) removed = remove(claims, name).answered && removed;
  if (tester.failed()) return tester.result();
  if (!first.ok()) {
    tester.add("no link of a removed file", false, "not tried: there are no hard links");
    return tester.result();
  }
  if (!removed)
    return make_error(Code::kUnavailable, "self-test in " + options.path + ": a removal was not answered");
  const NfsReply after = nfs_wait([&](NfsThen then) {
    nfs_link(link, file, {claims, late}, std::move(then));
  });
  if (!after.answered) return error_of(after, "self-test in " + options.path + ": link a removed file");
  // Some say that the handle is stale: it should be.
  tester.add("no link of a removed file", !after.ok(),
             "a hard link of a file that has no name any more " + Tester::in_words(after));
  if (after.ok()) (void)remove(claims, late);
  return tester.result();
}

}  // namespace cms::storage
