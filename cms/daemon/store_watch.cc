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

bool is_full(const Status& status) {
  return status.code() == Code::kNoSpace || status.code() == Code::kQuota;
}

ClaimsFacts test_claims(storage::ClaimStore& claims) {
  ClaimsFacts facts;
  if (const Status opened = claims.open_store(); !opened.ok()) {
    facts.trouble = opened.error().message();
    return facts;
  }
  auto test = claims.self_test();
  if (test) {
    facts.test = std::move(*test);
  } else {
    facts.trouble = test.error().message();
  }
  return facts;
}

}  // namespace

StoreWatch::StoreWatch(storage::BlobStore& store, storage::ClaimStore& claims, Outbox& outbox,
                       std::function<void(Instant, const Status&, core::Effects&)> on_change,
                       std::function<void(const ClaimsFacts&)> on_claims)
    : store_(store),
      claims_(claims),
      outbox_(outbox),
      on_change_(std::move(on_change)),
      on_claims_(std::move(on_claims)),
      worker_("store-watch") {}

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
  const bool test_too = open_first || !claims_facts_.test;
  worker_.post([this, open_first, write_too, test_too] {
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
    // Nothing can be tried in one that takes nothing, but its logs can be read: what may go to make room stands in
    // them, and who may go on.
    const bool is_read_only = status.code() == Code::kReadOnly || status.code() == Code::kPermission;
    if (test_too && (is_full(status) || is_read_only)) (void)claims_.open_store();
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
      // A full one is the same as it was; another one may be behind an outage.
      if (!status_.ok() && !(is_full(status_) && claims_facts_.test)) {
        claims_facts_ = {std::nullopt, "the store is not usable"};
      }
      on_change_(now, status_, effects);
    });
    // Nobody waits for this: the store is in use already.
    if (!test_too || !status.ok()) return;
    ClaimsFacts facts = test_claims(claims_);
    outbox_.push([this, facts = std::move(facts)](Instant, core::Effects&) {
      if (!status_.ok()) return;  // Found to be away meanwhile.
      claims_facts_ = facts;
      on_claims_(claims_facts_);
    });
  });
}

}  // namespace cms::daemon
