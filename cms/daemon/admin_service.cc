#include "cms/daemon/admin_service.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "cms/daemon/admin_plan.h"
#include "cms/daemon/admin_restores.h"

namespace cms::daemon {

using wire::AdminAnswer;
using wire::AdminMethod;
using wire::AdminRequest;

AdminService::AdminService(const Parts& parts, std::function<DaemonFacts(Instant now)> facts)
    : parts_(parts), facts_(std::move(facts)), planner_("plan"), worker_("query") {}

void AdminService::send(const std::string& peer, const AdminAnswer& answer) {
  if (net::send(parts_.socket, peer.data(), peer.size(), true) != net::Sent::kYes) return;  // It has gone.
  const wire::Bytes bytes = wire::encode(wire::AdminBody{answer});
  (void)net::send(parts_.socket, bytes.data(), bytes.size(), false);
}

void AdminService::refuse(const std::string& peer, const AdminRequest& request, Code code,
                          std::string context) {
  AdminAnswer answer;
  answer.request_id = request.request_id;
  answer.code = code;
  answer.context = std::move(context);
  send(peer, answer);
}

namespace {

constexpr std::uint64_t kDrainDeadlineMsMax = std::uint64_t{30} * 24 * 3600 * 1000;

}  // namespace

void AdminService::on_request(Instant now, const std::string& peer, const AdminRequest& request,
                              core::Effects& effects) {
  if (request.method == AdminMethod::kRetire) {
    retire(peer, request, effects);
  } else if (request.method == AdminMethod::kScrub) {
    scrub(peer, request);
  } else if (request.method == AdminMethod::kIndexRebuild) {
    rebuild_index(peer, request);
  } else if (request.method == AdminMethod::kExplain) {
    explain(now, peer, request, effects);
  } else if (request.method == AdminMethod::kEcuFailed) {
    ecu_failed(now, peer, request, effects);
  } else if (request.method == AdminMethod::kMigrate) {
    migrate(now, peer, request);
  } else if (request.method == AdminMethod::kEcuDrain) {
    ecu_drain(now, peer, request, effects);
  } else if (request.method == AdminMethod::kEcuMaintenance) {
    ecu_maintenance(now, peer, request, effects);
  } else if (request.method == AdminMethod::kRestores) {
    answer_with(peer, request,
                restores_json(parts_.restores.core(),
                              request.has_ecu_mac ? std::optional(request.ecu_mac) : std::nullopt, now));
  } else if (request.method == AdminMethod::kHistory) {
    history(peer, request);
  } else if (RetentionKeeper::answers(request.method)) {
    parts_.retention.on_request(request, [this, peer](const AdminAnswer& answer) { send(peer, answer); });
  } else if (worker_.queue_length() >= kAdminRequestsMax) {
    refuse(peer, request, Code::kLimit, std::to_string(kAdminRequestsMax) + " admin requests wait already");
  } else if (request.has_ecu_mac && request.has_program_id) {
    // What is said of one program is what the store has, also right after the start.
    parts_.keeper.prepare(ProgramKey{request.ecu_mac, request.program_id},
                          [this, peer, request](const Status& prepared) {
                            ask_worker(BootClock::now(), peer, request, prepared);
                          });
  } else {
    ask_worker(now, peer, request, ok_status());
  }
}

void AdminService::answer_with(const std::string& peer, const AdminRequest& request, std::string json) {
  AdminAnswer answer;
  answer.request_id = request.request_id;
  answer.json = std::move(json);
  send(peer, answer);
}

void AdminService::ecu_failed(Instant now, const std::string& peer, const AdminRequest& request,
                              core::Effects& effects) {
  if (!request.has_ecu_mac || request.has_program_id) {
    refuse(peer, request, Code::kInvalidArgument, "ecu failed takes an ecu_mac");
    return;
  }
  if (!request.all) {
    const Status told = parts_.restores.fail_ecu(now, request.ecu_mac, effects);
    if (!told.ok()) {
      refuse(peer, request, told.code(), told.error().context);
      return;
    }
  }
  answer_with(peer, request, loss_json(parts_.restores.core(), request.ecu_mac, now));
}

void AdminService::answer_with(const std::string& peer, const AdminRequest& request,
                               Result<std::string> json) {
  if (json.ok()) {
    answer_with(peer, request, std::move(*json));
  } else {
    refuse(peer, request, json.error().code, json.error().context);
  }
}

void AdminService::migrate(Instant now, const std::string& peer, const AdminRequest& request) {
  if (!request.has_ecu_mac || !request.has_program_id || request.has_version) {
    refuse(peer, request, Code::kInvalidArgument, "migrate takes ECU_MAC/PROGRAM_ID without a version");
    return;
  }
  const ProgramKey program{request.ecu_mac, request.program_id};
  const auto answer = [this, peer, request, program](Instant at, const Status& status) {
    if (status.ok()) {
      answer_with(peer, request, move_json(parts_.restores.core(), program, at));
    } else {
      refuse(peer, request, status.code(), status.error().context);
    }
  };
  if (request.all) {
    answer(now, ok_status());
  } else if (request.cancel) {
    answer(now, parts_.restores.cancel_move(now, program));
  } else {
    parts_.restores.migrate(program, request.has_to ? std::optional(request.to_ecu_mac) : std::nullopt, 0,
                            [answer](Instant at, core::Effects&, const Status& begun) { answer(at, begun); });
  }
}

void AdminService::ecu_drain(Instant now, const std::string& peer, const AdminRequest& request,
                             core::Effects& effects) {
  if (!request.has_ecu_mac || request.has_program_id) {
    refuse(peer, request, Code::kInvalidArgument, "ecu drain takes an ecu_mac");
    return;
  }
  Status told = ok_status();
  if (request.cancel) {
    told = parts_.restores.cancel_drain(now, request.ecu_mac, effects);
  } else if (!request.all) {
    std::optional<Duration> deadline;
    if (request.deadline_ms != 0) {
      deadline = std::chrono::milliseconds(std::min(request.deadline_ms, kDrainDeadlineMsMax));
    }
    told = parts_.restores.drain_ecu(now, request.ecu_mac, deadline, effects);
  }
  if (told.ok()) {
    answer_with(peer, request, drain_json(parts_.restores.core(), request.ecu_mac, now));
  } else {
    refuse(peer, request, told.code(), told.error().context);
  }
}

void AdminService::ecu_maintenance(Instant now, const std::string& peer, const AdminRequest& request,
                                   core::Effects& effects) {
  if (!request.has_ecu_mac || request.has_program_id) {
    refuse(peer, request, Code::kInvalidArgument, "ecu maintenance takes an ecu_mac");
    return;
  }
  Status told = ok_status();
  if (!request.all) told = parts_.leases.set_maintenance(now, request.ecu_mac, !request.cancel, effects);
  if (told.ok()) {
    answer_with(peer, request, ecu_lease_json(parts_.leases.facts(now), request.ecu_mac));
  } else {
    refuse(peer, request, told.code(), told.error().context);
  }
}

void AdminService::history(const std::string& peer, const AdminRequest& request) {
  if (!request.has_ecu_mac) {
    refuse(peer, request, Code::kInvalidArgument, "history needs an ecu_mac");
    return;
  }
  parts_.restores.history(request.ecu_mac,
                          request.has_program_id ? std::optional(request.program_id) : std::nullopt,
                          [this, peer, request](const Result<ClaimWorker::History>& history) {
                            if (history.ok()) {
                              answer_with(peer, request, history_json(history->records, history->more));
                            } else {
                              refuse(peer, request, history.error().code, history.error().message());
                            }
                          });
}

void AdminService::scrub(const std::string& peer, const AdminRequest& request) {
  if (request.has_ecu_mac != request.has_program_id) {
    refuse(peer, request, Code::kInvalidArgument, "scrub takes a whole KEY, or none");
    return;
  }
  std::optional<ProgramKey> program;
  std::optional<Version> version;
  if (request.has_ecu_mac) program = ProgramKey{request.ecu_mac, request.program_id};
  if (request.has_version) version = request.version;
  const auto begin = [this, peer, request, program, version](const Status& prepared) {
    const auto run =
        prepared.ok() ? parts_.scrubber.start_run(program, version) : Result<ScrubRun>(prepared.error());
    if (run.ok()) {
      answer_with(peer, request, scrub_run_json(*run));
    } else {
      refuse(peer, request, run.error().code, run.error().message());
    }
  };
  if (program) {
    parts_.keeper.prepare(*program, begin);  // All that the store has of it is in the index then.
  } else {
    begin(ok_status());
  }
}

void AdminService::rebuild_index(const std::string& peer, const AdminRequest& request) {
  parts_.keeper.rebuild("an operator asked for it", false, [this, peer, request](const Status& begun) {
    // One that is under way is as good.
    if (begun.ok() || begun.code() == Code::kAlreadyExists) {
      answer_with(peer, request, index_status_json(facts_(BootClock::now()), std::nullopt));
    } else {
      refuse(peer, request, begun.error().code, begun.error().message());
    }
  });
}

void AdminService::explain(Instant now, const std::string& peer, const AdminRequest& request,
                           core::Effects& effects) {
  if (!request.has_ecu_mac) {
    refuse(peer, request, Code::kInvalidArgument, "explain needs an ecu_mac");
    return;
  }
  if (!request.has_program_id) return plan(peer, request);
  if (explanations_.size() >= kAdminRequestsMax) {
    refuse(peer, request, Code::kLimit, std::to_string(kAdminRequestsMax) + " admin requests wait already");
    return;
  }
  parts_.core.ask_metrics(now, effects);
  const std::uint64_t ticket = ++last_explanation_;
  explanations_[ticket] = Explanation{peer, request, now + core::kMetricsWaitMax, false, std::nullopt};
  // What cannot be prepared is explained from what the index has: that is what a restore would see first.
  parts_.keeper.prepare(ProgramKey{request.ecu_mac, request.program_id}, [this, ticket](const Status&) {
    const auto it = explanations_.find(ticket);
    if (it != explanations_.end()) it->second.prepared = true;
  });
}

// Its programs are looked for first, which may take a while; the figures of the others only then, so that they are
// fresh.
void AdminService::plan(const std::string& peer, const AdminRequest& request) {
  if (const Status can = parts_.restores.can_restore(); !can.ok()) {
    refuse(peer, request, can.code(), can.error().context);
    return;
  }
  if (plan_count_ >= kPlansMax) {
    refuse(peer, request, Code::kLimit, std::to_string(kPlansMax) + " plans are being made already");
    return;
  }
  ++plan_count_;
  parts_.restores.programs_of(request.ecu_mac, [this, peer, request](Instant now, core::Effects& effects,
                                                                     const Result<LostPrograms>& lost) {
    if (!lost.ok()) {
      --plan_count_;
      refuse(peer, request, lost.error().code, lost.error().message());
      return;
    }
    parts_.core.ask_metrics(now, effects);
    explanations_[++last_explanation_] = Explanation{peer, request, now + core::kMetricsWaitMax, true, *lost};
  });
}

void AdminService::post_plan(Instant now, const std::string& peer, const AdminRequest& request,
                             const LostPrograms& lost) {
  const EcuMac ecu_mac = request.ecu_mac;
  const auto session = parts_.core.sessions().lower_bound(SessionId{ecu_mac, 0});
  auto facts = std::make_shared<PlanFacts>();
  facts->lost = lost;
  facts->candidates = parts_.restores.candidates(now);
  facts->policy = parts_.restores.core().policy();
  facts->leaves_groups = parts_.restores.core().groups_of(ecu_mac, facts->candidates);
  facts->has_session = session != parts_.core.sessions().end() && session->first.ecu_mac == ecu_mac;
  facts->wall_us = facts_(now).wall_us;
  planner_.post([this, peer, request, facts] {
    const AdminAnswer made = daemon::plan(request, std::move(*facts), [this] { return planner_.stopping(); });
    parts_.outbox.push([this, peer, made](Instant, core::Effects&) {
      --plan_count_;
      send(peer, made);
    });
  });
}

void AdminService::on_time(Instant now) {
  for (auto it = explanations_.begin(); it != explanations_.end();) {
    const Explanation& waiting = it->second;
    const bool answered = parts_.core.metrics_awaited(now) == 0;
    if (!waiting.prepared || (!answered && now < waiting.give_up_at)) {
      ++it;
      continue;
    }
    if (waiting.lost) {
      post_plan(now, waiting.peer, waiting.request, *waiting.lost);
      it = explanations_.erase(it);
      continue;
    }
    auto facts = std::make_shared<ExplainFacts>();
    facts->candidates = parts_.restores.candidates(now);
    facts->policy = parts_.restores.core().policy();
    facts->leaves_groups = parts_.restores.core().groups_of(waiting.request.ecu_mac, facts->candidates);
    worker_.post([this, peer = waiting.peer, request = waiting.request, facts] {
      const AdminAnswer made = daemon::explain(request, *facts, parts_.index, parts_.store);
      parts_.outbox.push([this, peer, made](Instant, core::Effects&) { send(peer, made); });
    });
    it = explanations_.erase(it);
  }
}

void AdminService::retire(const std::string& peer, const AdminRequest& request, core::Effects& effects) {
  if (!request.has_ecu_mac || !request.has_program_id) {
    refuse(peer, request, Code::kInvalidArgument, "retire needs an ecu_mac and a program_id");
    return;
  }
  const ProgramKey program{request.ecu_mac, request.program_id};
  retiring_[parts_.core.retire(program, effects)] = [this, peer, request,
                                                     program](const Result<Version>& up_to) {
    if (!up_to.ok()) {
      refuse(peer, request, up_to.error().code, up_to.error().message());
      return;
    }
    answer_with(peer, request, retired_json(program, *up_to));
  };
}

AdminService::Retired AdminService::take_retirement(std::uint64_t ticket) {
  const auto it = retiring_.find(ticket);
  if (it == retiring_.end()) return nullptr;
  Retired then = std::move(it->second);
  retiring_.erase(it);
  return then;
}

void AdminService::ask_worker(Instant now, const std::string& peer, const AdminRequest& request,
                              const Status& prepared) {
  auto snapshot = std::make_shared<CoreSnapshot>(snapshot_of(parts_.core, now, facts_(now), request));
  worker_.post([this, peer, request, prepared, snapshot] {
    AdminAnswer made = answer(request, *snapshot, parts_.index, parts_.store);
    if (made.code == Code::kNotFound && !prepared.ok()) {
      made.code = Code::kUnavailable;
      made.context += ", but the store could not be asked: " + prepared.error().message();
    }
    parts_.outbox.push([this, peer, made](Instant, core::Effects&) { send(peer, made); });
  });
}

}  // namespace cms::daemon
