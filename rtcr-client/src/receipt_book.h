#pragma once
// ReceiptBook remembers what was said of each seq, for those who wait for a level, those who poll,
// and those who ask late.
//
// Threads: add() and fail() on the client's thread, everything else on any.
// Bounds: kHistoryMax seqs, kReceiptQueueMax receipts not yet taken, kReasonCountMax reasons.
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "base/ids.h"
#include "base/result.h"
#include "broker/core/ecu_core.h"
#include "net/socket.h"

namespace cms::client {

inline constexpr std::size_t kHistoryMax = 65536;
inline constexpr std::size_t kReceiptQueueMax = 4096;
inline constexpr std::size_t kReasonCountMax = 256;

struct Receipt {
  broker::ReceiptEvent event{};
  Incarnation incarnation = 0;
};

enum class WaitOutcome { kReached, kSuperseded, kDropped, kFenced, kEnded, kTimeout, kUnknown, kFailed };
struct WaitResult {
  WaitOutcome outcome = WaitOutcome::kReached;
  std::string detail{};
};

class ReceiptBook {
 public:
  void add(const Receipt& receipt);
  // No receipt will come any more; whoever waits is told.
  void fail(std::string reason);

  // `last_seq`: the last one given; kUnknown beyond it. `timeout` negative: for ever.
  WaitResult wait(Seq seq, Seq last_seq, wire::ReceiptLevel level, std::chrono::milliseconds timeout);
  std::optional<Receipt> next();
  // Readable while next() has something to give.
  int poll_fd() const { return readable_.fd(); }
  std::uint64_t lost_count() const;

 private:
  struct Entry {
    std::int8_t level_best = -1;  // wire::ReceiptLevel up to kVerified; -1: none yet.
    std::int8_t level_end = -1;   // Of the final receipt; -1: not yet.
    Code code = Code::kOk;        // Of the final receipt.
  };
  Entry& entry_of(Seq seq);
  std::optional<WaitResult> judge(Seq seq, wire::ReceiptLevel level) const;

  mutable std::mutex mutex_{};
  std::condition_variable changed_{};
  std::size_t waiting_count_ = 0;
  Seq first_seq_ = 1;  // Of entries_[0].
  std::deque<Entry> entries_{};
  std::map<Seq, std::string> reasons_{};  // Of what was dropped or fenced.
  std::deque<Receipt> queue_{};
  std::uint64_t lost_count_ = 0;
  std::optional<std::string> failed_{};
  net::Waker readable_{};
};

}  // namespace cms::client
