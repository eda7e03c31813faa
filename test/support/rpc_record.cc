#include "test/support/rpc_record.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

namespace cms::test {
namespace {

constexpr std::uint32_t kNfsProgram = 100003;
constexpr std::uint32_t kMountProgram = 100005;
constexpr std::uint32_t kLastFragment = 0x80000000;
constexpr std::size_t kRecordBytesMax = std::size_t{4} << 20;

// What follows a status that is not OK: empty attributes before and after.
std::size_t words_of_failure(Procedure procedure) {
  switch (procedure) {
    case Procedure::kNull:
    case Procedure::kGetattr: return 0;
    case Procedure::kSetattr:
    case Procedure::kWrite:
    case Procedure::kCreate:
    case Procedure::kMkdir:
    case Procedure::kSymlink:
    case Procedure::kMknod:
    case Procedure::kRemove:
    case Procedure::kRmdir:
    case Procedure::kCommit: return 2;
    case Procedure::kRename: return 4;
    case Procedure::kLink: return 3;
    default: return static_cast<std::uint32_t>(procedure) < 100 ? 1 : 0;
  }
}

// The same after OK: neither handle nor attributes.
std::size_t words_of_success(Procedure procedure) {
  const bool makes = procedure == Procedure::kCreate || procedure == Procedure::kMkdir ||
                     procedure == Procedure::kSymlink || procedure == Procedure::kMknod;
  return words_of_failure(procedure) + (makes ? 2 : 0);
}

}  // namespace

std::uint32_t word_at(const std::string& bytes, std::size_t offset) {
  std::uint32_t word = 0;
  std::memcpy(&word, bytes.data() + offset, sizeof(word));
  return ntohl(word);
}

void put_word(std::string& bytes, std::size_t offset, std::uint32_t value) {
  const std::uint32_t word = htonl(value);
  std::memcpy(bytes.data() + offset, &word, sizeof(word));
}

bool RecordReader::take(const char* bytes, std::size_t size_bytes, std::deque<Record>& records) {
  while (size_bytes > 0) {
    const std::size_t wanted = in_fragment_ ? left_ : 4 - mark_.size();
    const std::size_t part = std::min(wanted, size_bytes);
    if (!in_fragment_) {
      mark_.append(bytes, part);
      if (mark_.size() == 4) {
        const std::uint32_t mark = word_at(mark_, 0);
        left_ = mark & ~kLastFragment;
        last_ = (mark & kLastFragment) != 0;
        if (record_.raw.size() + left_ > kRecordBytesMax) return false;
        record_.raw.append(mark_);
        mark_.clear();
        in_fragment_ = true;
      }
    } else {
      record_.raw.append(bytes, part);
      record_.head.append(bytes, std::min(part, kHeadBytes - std::min(record_.head.size(), kHeadBytes)));
      left_ -= part;
    }
    bytes += part;
    size_bytes -= part;
    if (!in_fragment_ || left_ > 0) continue;
    in_fragment_ = false;
    if (!last_) continue;
    if (record_.head.size() < kHeadBytes) return false;
    records.push_back(std::move(record_));
    record_ = Record();
  }
  return true;
}

Procedure procedure_of(const Record& call) {
  const std::uint32_t program = word_at(call.head, 12);
  const std::uint32_t number = word_at(call.head, 20);
  if (program == kNfsProgram && number <= 21) return static_cast<Procedure>(number);
  if (program == kMountProgram && number <= 5) return static_cast<Procedure>(100 + number);
  return Procedure::kOther;
}

// Accepted, no verifier, executed; then the status.
std::string answer_of(std::uint32_t xid, Procedure procedure, std::uint32_t status) {
  const std::size_t follow = status == 0 ? words_of_success(procedure) : words_of_failure(procedure);
  const std::size_t size_bytes = (7 + follow) * 4;
  std::string raw(4 + size_bytes, '\0');
  put_word(raw, 0, kLastFragment | static_cast<std::uint32_t>(size_bytes));
  put_word(raw, 4, xid);
  put_word(raw, 8, 1);
  put_word(raw, 28, status);
  return raw;
}

std::string edited(const std::string& raw, const std::function<void(std::string&)>& edit) {
  std::string message;
  for (std::size_t at = 0; at < raw.size();) {
    const std::size_t size_bytes = word_at(raw, at) & ~kLastFragment;
    message.append(raw, at + 4, size_bytes);
    at += 4 + size_bytes;
  }
  edit(message);
  std::string result(4, '\0');
  put_word(result, 0, kLastFragment | static_cast<std::uint32_t>(message.size()));
  return result + message;
}

std::string to_string(Procedure procedure) {
  static constexpr const char* kNames[] = {
      "NULL",    "GETATTR",     "SETATTR", "LOOKUP", "ACCESS",   "READLINK", "READ",   "WRITE",
      "CREATE",  "MKDIR",       "SYMLINK", "MKNOD",  "REMOVE",   "RMDIR",    "RENAME", "LINK",
      "READDIR", "READDIRPLUS", "FSSTAT",  "FSINFO", "PATHCONF", "COMMIT"};
  static constexpr const char* kMountNames[] = {"NULL", "MNT", "DUMP", "UMNT", "UMNTALL", "EXPORT"};
  const auto number = static_cast<std::uint32_t>(procedure);
  if (number < std::size(kNames)) return kNames[number];
  if (number >= 100 && number - 100 < std::size(kMountNames))
    return std::string("MOUNT ") + kMountNames[number - 100];
  return procedure == Procedure::kAny ? "any" : "other";
}

}  // namespace cms::test
