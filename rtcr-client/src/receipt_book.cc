#include "rtcr-client/src/receipt_book.h"

#include <algorithm>
#include <utility>

namespace cms::client {

using wire::ReceiptLevel;

ReceiptBook::Entry& ReceiptBook::entry_of(Seq seq) {
  while (first_seq_ + entries_.size() <= seq) {
    entries_.emplace_back();
    if (entries_.size() > kHistoryMax) {
      entries_.pop_front();
      ++first_seq_;
    }
  }
  return entries_[seq - first_seq_];
}

void ReceiptBook::add(const Receipt& receipt) {
  const broker::ReceiptEvent& event = receipt.event;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (event.seq >= first_seq_) {  // Held for so long that it was forgotten? Then only the queue has it.
    Entry& entry = entry_of(event.seq);
    const auto level = static_cast<std::int8_t>(event.level);
    if (event.level <= ReceiptLevel::kVerified) entry.level_best = std::max(entry.level_best, level);
    if (event.final) {
      entry.level_end = level;
      entry.code = event.code;
      if (event.level >= ReceiptLevel::kDropped) {
        reasons_[event.seq] = event.reason;
        if (reasons_.size() > kReasonCountMax) reasons_.erase(reasons_.begin());
      }
    }
  }
  if (queue_.size() == kReceiptQueueMax) {
    queue_.pop_front();
    ++lost_count_;
  }
  queue_.push_back(receipt);
  if (queue_.size() == 1) readable_.wake();
  if (waiting_count_ > 0) changed_.notify_all();
}

void ReceiptBook::fail(std::string reason) {
  const std::lock_guard<std::mutex> lock(mutex_);
  failed_ = std::move(reason);
  changed_.notify_all();
}

std::optional<WaitResult> ReceiptBook::judge(Seq seq, ReceiptLevel level) const {
  const std::string name = "checkpoint " + std::to_string(seq);
  if (seq < first_seq_) {
    return WaitResult{WaitOutcome::kUnknown, name + " is older than the last " + std::to_string(kHistoryMax)};
  }
  if (seq - first_seq_ < entries_.size()) {
    const Entry& entry = entries_[seq - first_seq_];
    if (entry.level_best >= static_cast<std::int8_t>(level)) return WaitResult{};
    if (entry.level_end >= 0) {
      const auto end = static_cast<ReceiptLevel>(entry.level_end);
      const auto reason = reasons_.find(seq);
      const std::string why = reason != reasons_.end() && !reason->second.empty()
                                  ? reason->second
                                  : std::string(to_string(entry.code));
      if (end == ReceiptLevel::kSuperseded)
        return WaitResult{WaitOutcome::kSuperseded, name + " was superseded: " + why};
      if (end == ReceiptLevel::kDropped)
        return WaitResult{WaitOutcome::kDropped, name + " was dropped: " + why};
      if (end == ReceiptLevel::kFenced) return WaitResult{WaitOutcome::kFenced, name + " was fenced: " + why};
      return WaitResult{WaitOutcome::kEnded, name + " was released at " + std::string(to_string(end)) + "; " +
                                                 std::string(to_string(level)) + " can no longer come"};
    }
  }
  if (failed_) return WaitResult{WaitOutcome::kFailed, *failed_};
  return std::nullopt;
}

WaitResult ReceiptBook::wait(Seq seq, Seq last_seq, ReceiptLevel level, std::chrono::milliseconds timeout) {
  if (seq == 0 || seq > last_seq) {
    return WaitResult{WaitOutcome::kUnknown, "no checkpoint " + std::to_string(seq) +
                                                 " was published; the last is " + std::to_string(last_seq)};
  }
  const auto start = std::chrono::steady_clock::now();
  std::unique_lock<std::mutex> lock(mutex_);
  ++waiting_count_;
  std::optional<WaitResult> result;
  bool timed_out = false;
  while (!(result = judge(seq, level)) && !timed_out) {
    if (timeout.count() < 0) {
      changed_.wait(lock);
    } else {
      timed_out = changed_.wait_until(lock, start + timeout) == std::cv_status::timeout;
    }
  }
  --waiting_count_;
  if (result) return *std::move(result);
  return WaitResult{WaitOutcome::kTimeout, "checkpoint " + std::to_string(seq) + " is not " +
                                               std::string(to_string(level)) + " after " +
                                               std::to_string(timeout.count()) + " ms"};
}

std::optional<Receipt> ReceiptBook::next() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (queue_.empty()) return std::nullopt;
  std::optional<Receipt> receipt(std::move(queue_.front()));
  queue_.pop_front();
  if (queue_.empty()) readable_.drain();
  return receipt;
}

std::uint64_t ReceiptBook::lost_count() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return lost_count_;
}

}  // namespace cms::client
