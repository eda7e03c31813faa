#include "cms/daemon/admin_service.h"

#include <memory>
#include <utility>

namespace cms::daemon {

using wire::AdminAnswer;
using wire::AdminMethod;
using wire::AdminRequest;

AdminService::AdminService(const Parts& parts, std::function<DaemonFacts(Instant now)> facts)
    : parts_(parts), facts_(std::move(facts)), worker_("query") {}

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

void AdminService::on_request(Instant now, const std::string& peer, const AdminRequest& request,
                              core::Effects& effects) {
  if (request.method == AdminMethod::kRetire) {
    retire(peer, request, effects);
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
    AdminAnswer answer;
    answer.request_id = request.request_id;
    answer.json = retired_json(program, *up_to);
    send(peer, answer);
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
