#include "cms/daemon/store_watch.h"

#include <algorithm>
#include <utility>

namespace cms::daemon {
namespace {

constexpr Duration kWhileUnusable = std::chrono::seconds(1);
constexpr Duration kWhileUsable = std::chrono::seconds(2);

std::optional<QuarantineFacts> look_into_quarantine(storage::BlobStore& store) {
  QuarantineFacts found;
  const Status listed = store.list_quarantine([&](const storage::StoredEntry& entry) {
    ++found.count;
    found.stored_bytes += entry.stored_bytes;
    const CheckpointId& checkpoint = entry.name.checkpoint;
    if (found.count == 1 || found.newest.version < checkpoint.version) found.newest = checkpoint;
  });
  return listed.ok() ? std::optional(found) : std::nullopt;
}

}  // namespace

StoreWatch::StoreWatch(storage::BlobStore& store, Outbox& outbox,
                       std::function<void(Instant, const Status&, core::Effects&)> on_change)
    : store_(store), outbox_(outbox), on_change_(std::move(on_change)), worker_("store-watch") {}

void StoreWatch::suspect(Instant now) {
  suspected_ = true;
  next_look_at_ = std::min(next_look_at_, now);
}

void StoreWatch::on_time(Instant now) {
  if (looking_ || now < next_look_at_) return;
  looking_ = true;
  look_began_at_ = now;
  next_look_at_ = now + (status_.ok() ? kWhileUsable : kWhileUnusable);
  look();
}

std::optional<Duration> StoreWatch::no_answer_for(Instant now) const {
  if (!looking_ || now - look_began_at_ < kNoAnswerAfter) return std::nullopt;
  return now - look_began_at_;
}

void StoreWatch::look() {
  const bool open_first = !status_.ok();
  const bool write_too = suspected_ || open_first;
  suspected_ = false;
  worker_.post([this, open_first, write_too] {
    Status status = open_first ? store_.open_store() : ok_status();
    std::optional<storage::SpaceInfo> space;
    if (status.ok()) {
      const auto found = store_.space();
      if (found.ok()) {
        space = *found;
      } else {
        status = found.error();
      }
    }
    if (status.ok() && write_too) status = store_.probe();
    // Not when it is away: that only waits once more.
    const auto quarantine = status.code() == Code::kUnavailable ? std::nullopt : look_into_quarantine(store_);
    outbox_.push([this, status, space, quarantine](Instant now, core::Effects& effects) {
      if (quarantine) quarantine_ = *quarantine;
      looking_ = false;
      if (space) space_ = space;
      const bool same = looked_ && status.ok() == status_.ok() &&
                        (status.ok() || status.error().message() == status_.error().message());
      if (same) return;
      if (!looked_ || status.ok() != status_.ok()) since_ = now;
      looked_ = true;
      status_ = status;
      next_look_at_ = now + (status_.ok() ? kWhileUsable : kWhileUnusable);
      on_change_(now, status_, effects);
    });
  });
}

}  // namespace cms::daemon
