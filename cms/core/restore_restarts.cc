// Of the restart of a program by its own RTCR, which has lost it (its ECU has booted anew, say) and asks for its newest
// checkpoint: so that nobody else restores it at the same time, that is a claim as any other.
#include <utility>

#include "cms/core/restore.h"

namespace cms::core {

using wire::ClaimReason;
using wire::ClaimRecord;
using Stage = RestoreCore::Stage;

Status RestoreCore::restart(Instant now, const ClaimRecord& head, const SessionId& session,
                            RestoreEffects& effects) {
  const std::string program = to_string(head.owner.program);
  const auto known = restores_.find(head.lineage);
  if (known != restores_.end() && !known->second.has_ended() && known->second.replaces == head.owner) {
    if (known->second.restarts == session && known->second.stop_why.empty()) return ok_status();
    return make_error(Code::kAlreadyExists,
                      program + " is being restored already: " + std::string(to_string(known->second.stage)));
  }
  if (draining_) return make_error(Code::kUnavailable, "this cmsd ends; ask another");
  if (is_open(head.kind))
    return make_error(Code::kAlreadyExists,
                      program + " is being restored already: claimed by " + head.writer);
  if (!begin(now, head, ClaimReason::kReportedDead, effects)) {
    return make_error(Code::kLimit, program +
                                        ": too much is being restored, or what was done for it last has "
                                        "not ended on the store yet; ask again");
  }
  Restore& restore = restores_.at(head.lineage);
  restore.restarts = session;
  restore.insisted =
      true;  // However often it failed: its RTCR knows best whether it is worth another attempt.
  return ok_status();
}

// No other ECU is asked, and this one is not judged: it has asked itself.
void RestoreCore::place_restart(Instant now, Restore& restore, RestoreEffects& effects) {
  if (!is_there(*restore.restarts) || is_gone(*restore.restarts))
    return release(now, restore, Stage::kRefused, "the session that asked for it has ended", effects);
  set_target(now, restore, *restore.restarts);
  go_to(now, restore, Stage::kPreparing);
  send_prepare(now, restore, effects);
}

// It is free, and a claim of ours may have ended. True: dealt with.
bool RestoreCore::judge_free_restart(Instant now, Restore& restore, RestoreEffects& effects) {
  if (!restore.restarts) return false;
  if (restore.lost_meanwhile) {
    go_on_as_lost(now, restore);
  } else if (restore.has_claimed) {
    end(now, restore, Stage::kRefused, restore.why.empty() ? "its claim has ended" : restore.why, effects);
  } else {
    return false;
  }
  return true;
}

}  // namespace cms::core
