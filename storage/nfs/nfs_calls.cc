#include "storage/nfs/nfs_calls.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include <nfsc/libnfs.h>  // First: it defines what the others are declared with.

#include <nfsc/libnfs-raw-nfs.h>
#include <nfsc/libnfs-raw.h>

namespace cms::storage {
namespace {

// libnfs takes pointers to what it only reads.
char* bytes_of(const std::string& text) { return const_cast<char*>(text.data()); }

void set(nfs_fh3& target, const NfsHandle& handle) {
  target.data.data_len = static_cast<u_int>(handle.size());
  target.data.data_val = bytes_of(handle);
}

void set(diropargs3& target, NfsPlace place) {
  set(target.dir, place.directory);
  target.name = bytes_of(place.name);
}

void set_mode(sattr3& attributes, std::uint32_t mode) {
  attributes.mode.set_it = 1;
  attributes.mode.set_mode3_u.mode = mode;
}

NfsHandle handle_of(const nfs_fh3& handle) { return {handle.data.data_val, handle.data.data_len}; }

NfsHandle handle_of(const post_op_fh3& handle) {
  return handle.handle_follows != 0 ? handle_of(handle.post_op_fh3_u.handle) : NfsHandle();
}

NfsAttributes attributes_of(const fattr3& from) {
  NfsAttributes attributes;
  attributes.known = true;
  attributes.is_file = from.type == NF3REG;
  attributes.is_directory = from.type == NF3DIR;
  attributes.link_count = from.nlink;
  attributes.size_bytes = from.size;
  attributes.file_id = from.fileid;
  attributes.modified_at_us = std::int64_t{from.mtime.seconds} * 1000000 + from.mtime.nseconds / 1000;
  return attributes;
}

NfsAttributes attributes_of(const post_op_attr& from) {
  return from.attributes_follow != 0 ? attributes_of(from.post_op_attr_u.attributes) : NfsAttributes();
}

std::uint64_t verifier_of(const char* bytes) {
  std::uint64_t verifier = 0;
  std::memcpy(&verifier, bytes, sizeof(verifier));
  return verifier;
}

// `take` fills the reply from a result whose status is ok.
template <typename Res, typename Take>
NfsConnection::Done reply_to(NfsThen then, Take take) {
  return [then = std::move(then), take](const void* data, const std::string& trouble) {
    NfsReply reply;
    if (data == nullptr) {
      reply.trouble = trouble;
    } else {
      const auto& result = *static_cast<const Res*>(data);
      reply.answered = true;
      reply.status = static_cast<NfsStatus>(result.status);
      if (reply.status == NfsStatus::kOk) take(reply, result);
    }
    then(reply);
  };
}

template <typename Res>
NfsConnection::Done reply_to(NfsThen then) {
  return reply_to<Res>(std::move(then), [](NfsReply&, const Res&) {});
}

}  // namespace

Error error_of(const NfsReply& reply, const std::string& what) {
  if (!reply.answered) {
    return make_error(Code::kUnavailable,
                      what + ": no answer (" + reply.trouble + "); whether it was done is not known");
  }
  const auto with = [&](Code code, const char* why) { return make_error(code, what + ": " + why); };
  switch (reply.status) {
    case NfsStatus::kOk: break;
    case NfsStatus::kNotPermitted:
    case NfsStatus::kAccess: return with(Code::kPermission, "the NFS server refuses");
    case NfsStatus::kNoEntry: return with(Code::kNotFound, "does not exist");
    case NfsStatus::kExists: return with(Code::kAlreadyExists, "exists");
    case NfsStatus::kNoSpace: return with(Code::kNoSpace, "no space is left on the NAS");
    case NfsStatus::kQuota: return with(Code::kQuota, "the quota on the NAS is used up");
    case NfsStatus::kReadOnly: return with(Code::kReadOnly, "the export is read-only");
    case NfsStatus::kStale:
    case NfsStatus::kBadHandle:
      return with(Code::kUnavailable,
                  "the handle is stale: the export, or what was in it, has been replaced");
    case NfsStatus::kTryLater: return with(Code::kUnavailable, "the NFS server asks to try later");
    case NfsStatus::kNotSupported: return with(Code::kUnsupported, "the NFS server cannot do that");
    case NfsStatus::kOtherDevice:
    case NfsStatus::kNotEmpty: break;
  }
  return make_error(Code::kIo, what + ": the NFS server answered " +
                                   std::to_string(static_cast<std::uint32_t>(reply.status)));
}

void nfs_lookup(NfsConnection& connection, NfsPlace place, NfsThen then) {
  LOOKUP3args args{};
  set(args.what, place);
  connection.submit(
      [&](rpc_context* rpc, rpc_cb cb, void* data) { return rpc_nfs3_lookup_async(rpc, cb, &args, data); },
      reply_to<LOOKUP3res>(std::move(then),
                           [](NfsReply& reply, const LOOKUP3res& result) {
                             reply.handle = handle_of(result.LOOKUP3res_u.resok.object);
                             reply.attributes = attributes_of(result.LOOKUP3res_u.resok.obj_attributes);
                           }),
      connection.timeouts().call);
}

void nfs_create(NfsConnection& connection, NfsPlace place, NfsThen then) {
  CREATE3args args{};
  set(args.where, place);
  args.how.mode = GUARDED;
  set_mode(args.how.createhow3_u.g_obj_attributes, 0640);
  connection.submit(
      [&](rpc_context* rpc, rpc_cb cb, void* data) { return rpc_nfs3_create_async(rpc, cb, &args, data); },
      reply_to<CREATE3res>(std::move(then),
                           [](NfsReply& reply, const CREATE3res& result) {
                             reply.handle = handle_of(result.CREATE3res_u.resok.obj);
                             reply.attributes = attributes_of(result.CREATE3res_u.resok.obj_attributes);
                           }),
      connection.timeouts().call);
}

void nfs_write(NfsConnection& connection, const NfsHandle& file, std::uint64_t offset_bytes, const void* data,
               std::size_t size_bytes, NfsStable stable, NfsThen then) {
  WRITE3args args{};
  set(args.file, file);
  args.offset = offset_bytes;
  args.count = static_cast<count3>(size_bytes);
  args.stable = stable == NfsStable::kFileSync ? FILE_SYNC : UNSTABLE;
  args.data.data_len = static_cast<u_int>(size_bytes);
  args.data.data_val = const_cast<char*>(static_cast<const char*>(data));
  connection.submit(
      [&](rpc_context* rpc, rpc_cb cb, void* priv) { return rpc_nfs3_write_async(rpc, cb, &args, priv); },
      reply_to<WRITE3res>(std::move(then),
                          [](NfsReply& reply, const WRITE3res& result) {
                            reply.count = result.WRITE3res_u.resok.count;
                            reply.file_synced = result.WRITE3res_u.resok.committed == FILE_SYNC;
                            reply.verifier = verifier_of(result.WRITE3res_u.resok.verf);
                          }),
      connection.timeouts().write);
}

void nfs_commit(NfsConnection& connection, const NfsHandle& file, NfsThen then) {
  COMMIT3args args{};
  set(args.file, file);
  connection.submit(
      [&](rpc_context* rpc, rpc_cb cb, void* data) { return rpc_nfs3_commit_async(rpc, cb, &args, data); },
      reply_to<COMMIT3res>(std::move(then),
                           [](NfsReply& reply, const COMMIT3res& result) {
                             reply.verifier = verifier_of(result.COMMIT3res_u.resok.verf);
                           }),
      connection.timeouts().commit);
}

void nfs_read(NfsConnection& connection, const NfsHandle& file, std::uint64_t offset_bytes, void* target,
              std::size_t size_bytes, NfsThen then) {
  READ3args args{};
  set(args.file, file);
  args.offset = offset_bytes;
  args.count = static_cast<count3>(size_bytes);
  connection.submit(
      [&](rpc_context* rpc, rpc_cb cb, void* data) { return rpc_nfs3_read_async(rpc, cb, &args, data); },
      reply_to<READ3res>(std::move(then),
                         [target, size_bytes](NfsReply& reply, const READ3res& result) {
                           const auto& bytes = result.READ3res_u.resok.data;
                           reply.count =
                               static_cast<std::uint32_t>(std::min<std::size_t>(bytes.data_len, size_bytes));
                           std::memcpy(target, bytes.data_val, reply.count);
                           reply.eof = result.READ3res_u.resok.eof != 0;
                         }),
      connection.timeouts().call);
}

void nfs_rename(NfsConnection& connection, NfsPlace from, NfsPlace to, NfsThen then) {
  RENAME3args args{};
  set(args.from, from);
  set(args.to, to);
  connection.submit(
      [&](rpc_context* rpc, rpc_cb cb, void* data) { return rpc_nfs3_rename_async(rpc, cb, &args, data); },
      reply_to<RENAME3res>(std::move(then)), connection.timeouts().call);
}

void nfs_remove(NfsConnection& connection, NfsPlace place, NfsThen then) {
  REMOVE3args args{};
  set(args.object, place);
  connection.submit(
      [&](rpc_context* rpc, rpc_cb cb, void* data) { return rpc_nfs3_remove_async(rpc, cb, &args, data); },
      reply_to<REMOVE3res>(std::move(then)), connection.timeouts().call);
}

void nfs_mkdir(NfsConnection& connection, NfsPlace place, NfsThen then) {
  MKDIR3args args{};
  set(args.where, place);
  set_mode(args.attributes, 0750);
  connection.submit(
      [&](rpc_context* rpc, rpc_cb cb, void* data) { return rpc_nfs3_mkdir_async(rpc, cb, &args, data); },
      reply_to<MKDIR3res>(std::move(then),
                          [](NfsReply& reply, const MKDIR3res& result) {
                            reply.handle = handle_of(result.MKDIR3res_u.resok.obj);
                            reply.attributes = attributes_of(result.MKDIR3res_u.resok.obj_attributes);
                          }),
      connection.timeouts().call);
}

void nfs_rmdir(NfsConnection& connection, NfsPlace place, NfsThen then) {
  RMDIR3args args{};
  set(args.object, place);
  connection.submit(
      [&](rpc_context* rpc, rpc_cb cb, void* data) { return rpc_nfs3_rmdir_async(rpc, cb, &args, data); },
      reply_to<RMDIR3res>(std::move(then)), connection.timeouts().call);
}

void nfs_link(NfsConnection& connection, const NfsHandle& file, NfsPlace to, NfsThen then) {
  LINK3args args{};
  set(args.file, file);
  set(args.link, to);
  connection.submit(
      [&](rpc_context* rpc, rpc_cb cb, void* data) { return rpc_nfs3_link_async(rpc, cb, &args, data); },
      reply_to<LINK3res>(std::move(then)), connection.timeouts().call);
}

void nfs_getattr(NfsConnection& connection, const NfsHandle& file, NfsThen then) {
  GETATTR3args args{};
  set(args.object, file);
  connection.submit(
      [&](rpc_context* rpc, rpc_cb cb, void* data) { return rpc_nfs3_getattr_async(rpc, cb, &args, data); },
      reply_to<GETATTR3res>(std::move(then),
                            [](NfsReply& reply, const GETATTR3res& result) {
                              reply.attributes = attributes_of(result.GETATTR3res_u.resok.obj_attributes);
                            }),
      connection.timeouts().call);
}

void nfs_fsstat(NfsConnection& connection, const NfsHandle& root, NfsThen then) {
  FSSTAT3args args{};
  set(args.fsroot, root);
  connection.submit(
      [&](rpc_context* rpc, rpc_cb cb, void* data) { return rpc_nfs3_fsstat_async(rpc, cb, &args, data); },
      reply_to<FSSTAT3res>(std::move(then),
                           [](NfsReply& reply, const FSSTAT3res& result) {
                             reply.total_bytes = result.FSSTAT3res_u.resok.tbytes;
                             reply.free_bytes = result.FSSTAT3res_u.resok.abytes;
                           }),
      connection.timeouts().call);
}

NfsReply nfs_wait(const std::function<void(NfsThen)>& begin) {
  struct State {
    std::mutex mutex;
    std::condition_variable ended;
    bool done = false;
    NfsReply reply;
  };
  State state;
  begin([&state](const NfsReply& reply) {
    const std::lock_guard<std::mutex> lock(state.mutex);
    state.reply = reply;
    state.done = true;
    state.ended.notify_one();  // With the lock: the state goes as soon as the waiter has it.
  });
  std::unique_lock<std::mutex> lock(state.mutex);
  state.ended.wait(lock, [&] { return state.done; });
  return std::move(state.reply);
}

NfsReply nfs_wait_lookup(NfsConnection& connection, NfsPlace place) {
  return nfs_wait([&](NfsThen then) { nfs_lookup(connection, place, std::move(then)); });
}

Status nfs_list(NfsConnection& connection, const NfsHandle& directory, const std::string& path,
                const std::function<bool(NfsEntry)>& visit) {
  // Of one reply: the answer is held in memory by the server and by libnfs.
  constexpr std::uint32_t kReplyBytesMax = 64 * 1024;
  std::uint64_t cookie = 0;
  cookieverf3 cookie_verifier{};
  while (true) {
    std::vector<NfsEntry> entries;
    bool eof = false;
    READDIRPLUS3args args{};
    set(args.dir, directory);
    args.cookie = cookie;
    std::memcpy(args.cookieverf, cookie_verifier, sizeof(cookie_verifier));
    args.dircount = kReplyBytesMax;
    args.maxcount = kReplyBytesMax;
    const NfsReply reply = nfs_wait([&](NfsThen then) {
      connection.submit(
          [&](rpc_context* rpc, rpc_cb cb, void* data) {
            return rpc_nfs3_readdirplus_async(rpc, cb, &args, data);
          },
          reply_to<READDIRPLUS3res>(std::move(then),
                                    [&](NfsReply&, const READDIRPLUS3res& result) {
                                      const READDIRPLUS3resok& page = result.READDIRPLUS3res_u.resok;
                                      std::memcpy(cookie_verifier, page.cookieverf, sizeof(cookie_verifier));
                                      // libnfs puts them at addresses that are not aligned.
                                      const void* next = page.reply.entries;
                                      while (next != nullptr) {
                                        entryplus3 entry;
                                        std::memcpy(&entry, next, sizeof(entry));
                                        next = entry.nextentry;
                                        cookie = entry.cookie;
                                        const std::string name = entry.name;
                                        if (name == "." || name == "..") continue;
                                        entries.push_back(NfsEntry{name, handle_of(entry.name_handle),
                                                                   attributes_of(entry.name_attributes)});
                                      }
                                      eof = page.reply.eof != 0 || page.reply.entries == nullptr;
                                    }),
          connection.timeouts().call);
    });
    if (!reply.ok()) return error_of(reply, "list " + path);
    for (NfsEntry& entry : entries) {
      if (!visit(std::move(entry))) return ok_status();
    }
    if (eof) return ok_status();
  }
}

}  // namespace cms::storage
