#pragma once
// The calls of NFSv3 (RFC 1813) that a store needs, each once to be waited for and, where that is used,
// once with a callback. A reply that was not `answered` is UNKNOWN: it may have been done, or be done
// later (nfs_connection.h).
//
// Threads: as NfsConnection. The waiting ones must not be called from a callback.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"
#include "storage/nfs/nfs_connection.h"

namespace cms::storage {

// nfsstat3 of RFC 1813, those that mean something to us.
enum class NfsStatus : std::uint32_t {
  kOk = 0,
  kNotPermitted = 1,
  kNoEntry = 2,
  kAccess = 13,
  kExists = 17,
  kOtherDevice = 18,
  kNoSpace = 28,
  kReadOnly = 30,
  kNotEmpty = 66,
  kQuota = 69,
  kStale = 70,
  kBadHandle = 10001,
  kNotSupported = 10004,
  kTryLater = 10008,  // JUKEBOX
};

struct NfsAttributes {
  bool known = false;
  bool is_file = false;
  bool is_directory = false;
  std::uint32_t link_count = 0;
  std::uint64_t size_bytes = 0;
  std::uint64_t file_id = 0;
  std::int64_t modified_at_us = 0;  // By the server's clock, since 1970-01-01 UTC.
};

struct NfsReply {
  bool answered = false;
  std::string trouble;  // Why it was not answered.
  NfsStatus status = NfsStatus::kOk;
  NfsHandle handle;               // LOOKUP, CREATE, MKDIR; empty: the server did not tell.
  NfsAttributes attributes;       // Of the object; LOOKUP, GETATTR, CREATE.
  std::uint64_t verifier = 0;     // WRITE, COMMIT: another one means that the server may have lost writes.
  std::uint32_t count = 0;        // WRITE, READ: bytes done.
  bool file_synced = false;       // WRITE: is on the medium.
  bool eof = false;               // READ
  std::uint64_t total_bytes = 0;  // FSSTAT
  std::uint64_t free_bytes = 0;

  bool ok() const { return answered && status == NfsStatus::kOk; }
  bool is(NfsStatus expected) const { return answered && status == expected; }
  // A handle that was given leads nowhere any more.
  bool is_stale() const { return is(NfsStatus::kStale) || is(NfsStatus::kBadHandle); }
};
// What a reply that is not ok means to a caller of a store; `what` was tried.
Error error_of(const NfsReply& reply, const std::string& what);

using NfsThen = std::function<void(const NfsReply&)>;
enum class NfsStable { kUnstable, kFileSync };

struct NfsPlace {  // A name in a directory.
  const NfsHandle& directory;
  const std::string& name;
};

void nfs_lookup(NfsConnection& connection, NfsPlace place, NfsThen then);
// Never of an existing file (GUARDED). Mode 0640.
void nfs_create(NfsConnection& connection, NfsPlace place, NfsThen then);
// `data` may go after return.
void nfs_write(NfsConnection& connection, const NfsHandle& file, std::uint64_t offset_bytes, const void* data,
               std::size_t size_bytes, NfsStable stable, NfsThen then);
void nfs_commit(NfsConnection& connection, const NfsHandle& file, NfsThen then);
// `target` must stay until `then` is called.
void nfs_read(NfsConnection& connection, const NfsHandle& file, std::uint64_t offset_bytes, void* target,
              std::size_t size_bytes, NfsThen then);
void nfs_rename(NfsConnection& connection, NfsPlace from, NfsPlace to, NfsThen then);
void nfs_remove(NfsConnection& connection, NfsPlace place, NfsThen then);
void nfs_mkdir(NfsConnection& connection, NfsPlace place, NfsThen then);  // Mode 0750.
void nfs_rmdir(NfsConnection& connection, NfsPlace place, NfsThen then);
void nfs_link(NfsConnection& connection, const NfsHandle& file, NfsPlace to, NfsThen then);
void nfs_getattr(NfsConnection& connection, const NfsHandle& file, NfsThen then);
void nfs_fsstat(NfsConnection& connection, const NfsHandle& root, NfsThen then);

// Begins a call and waits for its end: wait([&](NfsThen then) { nfs_lookup(connection, place, then); }).
NfsReply nfs_wait(const std::function<void(NfsThen)>& begin);

// A LOOKUP that is waited for.
NfsReply nfs_wait_lookup(NfsConnection& connection, NfsPlace place);

struct NfsEntry {
  std::string name;
  NfsHandle handle;  // Empty: the server did not tell.
  NfsAttributes attributes;
};
// Calls `visit` for each name in a directory but "." and "..", in no order, until it returns false. Waits.
// A name that is there before and after the call is among them, unless the server lies.
Status nfs_list(NfsConnection& connection, const NfsHandle& directory, const std::string& path,
                const std::function<bool(NfsEntry)>& visit);

}  // namespace cms::storage
