#include "cms/daemon/member_keeper.h"

#include <utility>
#include <vector>

#include <spdlog/spdlog.h>

#include "storage/store_format.h"

namespace cms::daemon {
namespace {

static_assert(wire::kMemberRecordBytesMax <= storage::kMemberBytesMax);
static_assert(wire::kClaimRecordBytesMax <= storage::kRecordBytesMax);

std::string text_of(const wire::MemberRecord& record) {
  const wire::Bytes bytes = wire::encode(record);
  return std::string(bytes.begin(), bytes.end());
}

core::Members::Seen seen_of(const storage::MemberFile& file) {
  if (!file.bytes.ok()) return {file.node, file.node_incarnation, file.bytes.error()};
  auto record = wire::decode_member_record(file.bytes->data(), file.bytes->size());
  if (record.ok() && (record->node != file.node || record->incarnation != file.node_incarnation)) {
    record = make_error(Code::kCorrupt, "the member record of another than its file's name says");
  }
  return {file.node, file.node_incarnation, std::move(record)};
}

}  // namespace

MemberKeeper::MemberKeeper(storage::ClaimStore& claims, Outbox& outbox, const core::Writer& me,
                           std::string software)
    : claims_(claims),
      outbox_(outbox),
      me_(me),
      software_(std::move(software)),
      members_(me, core::MemberTimers{std::chrono::milliseconds(storage::kMemberSelfMs),
                                      std::chrono::milliseconds(storage::kMemberDeadMs)}),
      worker_("members") {}

void MemberKeeper::stop() {
  if (std::exchange(stopped_, true)) return;
  worker_.stop();
  // Others see sooner why it no longer changes; it is no promise, and nobody waits for it.
  if (status_.ok()) {
    (void)claims_.write_member(text_of(members_.next_record(wall_time_us(), software_, true)));
  }
}

MembersFacts MemberKeeper::facts(Instant now) const {
  MembersFacts facts;
  facts.incarnation = me_.incarnation;
  if (members_.written_at()) facts.written_ago = now - *members_.written_at();
  facts.may_act = members_.may_act(now);
  if (!status_.ok()) facts.trouble = status_.error().message();
  for (const auto& [key, member] : members_.members()) {
    if (!member.there) continue;
    MembersFacts::Member one;
    one.node = key.first;
    one.incarnation = key.second;
    using State = MembersFacts::Member::State;
    one.state = members_.is_stale(core::Writer{key.first, key.second}, now) ? State::kStale
                : member.record.resigned                                    ? State::kResigned
                                                                            : State::kRenewed;
    one.unchanged = now - member.changed_at;
    one.readable = member.readable;
    one.software = member.record.software;
    facts.members.push_back(std::move(one));
  }
  return facts;
}

void MemberKeeper::on_time(Instant now, bool store_usable) {
  if (running_ || stopped_ || !store_usable || now < next_round_at_) return;
  next_round_at_ = now + core::kMemberRenewInterval;
  round(now);
}

void MemberKeeper::round(Instant now) {
  running_ = true;
  std::vector<SessionId> bars = watcher_ == nullptr ? std::vector<SessionId>{} : watcher_->bars();
  const std::string record = text_of(members_.next_record(wall_time_us(), software_, false, bars));
  worker_.post(
      [this, record, bars = std::move(bars), removable = members_.removable(now), reopen = !status_.ok()] {
        Status status = reopen ? claims_.open_store() : ok_status();
        const Instant sent_at = BootClock::now();
        if (status.ok()) status = claims_.write_member(record);
        const bool written = status.ok();
        const Instant written_at = BootClock::now();
        for (const core::Writer& life : removable) (void)claims_.remove_member(life.name, life.incarnation);
        const Instant begun_at = BootClock::now();
        std::vector<core::Members::Seen> seen;
        bool read = false;
        if (auto files = claims_.list_members(); files.ok()) {
          read = true;
          for (const storage::MemberFile& file : *files) seen.push_back(seen_of(file));
        } else if (status.ok()) {
          status = files.error();
        }
        const Instant ended_at = BootClock::now();
        outbox_.push([this, status, written, sent_at, written_at, bars, read, begun_at, ended_at,
                      seen = std::move(seen)](Instant done_at, core::Effects& effects) {
          running_ = false;
          if (written) members_.on_written(sent_at);
          if (written && watcher_ != nullptr) watcher_->on_written(sent_at, written_at, done_at, bars);
          if (read) members_.on_read(begun_at, ended_at, seen);
          if (read && watcher_ != nullptr) watcher_->on_read(begun_at, done_at, effects);
          if (status.ok() != status_.ok()) {
            if (status.ok()) {
              spdlog::info("member {}.{:x}: its record is renewed", me_.name, me_.incarnation);
            } else {
              spdlog::warn("member {}.{:x}: its record cannot be renewed: {}", me_.name, me_.incarnation,
                           status.error().message());
            }
          }
          status_ = status;
        });
      });
}

}  // namespace cms::daemon
