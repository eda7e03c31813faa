#include "rtcr-client/cli/json_lines.h"

#include <nlohmann/json.hpp>

namespace cms::cli {
namespace {

using Json = nlohmann::ordered_json;

// Names of files may be anything; output is UTF-8 all the same.
std::string line_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json restore_json(std::string_view event, const rtcr::Restore& restore) {
  Json json;
  json["event"] = event;
  json["restore_id"] = restore.restore_id;
  json["from_ecu_mac"] = restore.ecu_mac;
  json["from_program_id"] = restore.program_id;
  json["incarnation"] = restore.incarnation;
  json["seq"] = restore.seq;
  json["size_bytes"] = restore.size_bytes;
  json["claim_slot"] = restore.claim_slot;
  return json;
}

Json move_json(std::string_view event, EcuMac ecu_mac, const rtcr::Move& move) {
  Json json;
  json["event"] = event;
  json["ecu_mac"] = to_string(ecu_mac);
  json["program_id"] = move.program_id;
  json["claim_slot"] = move.claim_slot;
  return json;
}

Json program_json(std::string_view event, EcuMac ecu_mac, ProgramId program_id) {
  Json json;
  json["event"] = event;
  json["ecu_mac"] = to_string(ecu_mac);
  json["program_id"] = program_id;
  return json;
}

}  // namespace

std::string json_of_event(const rtcr::Event& event) {
  Json json;
  json["event"] = event.kind == RTCR_CMS_LIVE     ? "cms_live"
                  : event.kind == RTCR_CMS_SILENT ? "cms_silent"
                                                  : "cms_refused";
  json["cms_index"] = event.cms_index;
  json["text"] = event.text;
  return line_of(json);
}

std::string json_of_ready(EcuMac ecu_mac, std::uint64_t program_count) {
  Json json;
  json["event"] = "ready";
  json["ecu_mac"] = to_string(ecu_mac);
  json["program_count"] = program_count;
  return line_of(json);
}

std::string json_of_published(EcuMac ecu_mac, ProgramId program_id, std::uint64_t seq,
                              const std::string& file) {
  Json json;
  json["event"] = "published";
  json["ecu_mac"] = to_string(ecu_mac);
  json["program_id"] = program_id;
  json["seq"] = seq;
  if (!file.empty()) json["file"] = file;
  return line_of(json);
}

std::string json_of_restore(std::string_view event, const rtcr::Restore& restore) {
  return line_of(restore_json(event, restore));
}

std::string json_of_restore_refused(const rtcr::Restore& restore, const std::string& reason) {
  Json json = restore_json("refused", restore);
  json["reason"] = reason;
  return line_of(json);
}

std::string json_of_running(const rtcr::Restore& restore, ProgramId program_id, const std::string& file) {
  Json json = restore_json("running", restore);
  json["program_id"] = program_id;
  json["owner_epoch"] = restore.owner_epoch;
  if (!file.empty()) json["file"] = file;
  return line_of(json);
}

std::string json_of_fenced(EcuMac ecu_mac, const rtcr::Receipt& receipt) {
  Json json;
  json["event"] = "fenced";
  json["ecu_mac"] = to_string(ecu_mac);
  json["program_id"] = receipt.program_id;
  json["reason"] = receipt.reason;
  return line_of(json);
}

std::string json_of_frozen(EcuMac ecu_mac, const rtcr::Move& move, std::uint64_t seq) {
  Json json = move_json("frozen", ecu_mac, move);
  json["seq"] = seq;
  return line_of(json);
}

std::string json_of_freeze_refused(EcuMac ecu_mac, const rtcr::Move& move, const std::string& reason) {
  Json json = move_json("freeze_refused", ecu_mac, move);
  json["reason"] = reason;
  return line_of(json);
}

std::string json_of_thawed(EcuMac ecu_mac, const rtcr::Move& move) {
  return line_of(move_json("thawed", ecu_mac, move));
}

std::string json_of_stopped(EcuMac ecu_mac, ProgramId program_id) {
  return line_of(program_json("stopped", ecu_mac, program_id));
}

std::string json_of_restarted(EcuMac ecu_mac, ProgramId program_id, const std::string& file) {
  Json json = program_json("restarted", ecu_mac, program_id);
  json["file"] = file;
  return line_of(json);
}

std::string json_of_restart_failed(EcuMac ecu_mac, ProgramId program_id, const rtcr::Error& error,
                                   bool again) {
  Json json = program_json("restart_failed", ecu_mac, program_id);
  json["code"] = rtcr_error_string(error.status);
  json["reason"] = error.detail;
  json["again"] = again;
  return line_of(json);
}

std::string json_of_stop_failed(EcuMac ecu_mac, ProgramId program_id, const std::string& reason) {
  Json json = program_json("stop_failed", ecu_mac, program_id);
  json["reason"] = reason;
  return line_of(json);
}

std::string json_of_resumed(EcuMac ecu_mac, ProgramId program_id) {
  return line_of(program_json("resumed", ecu_mac, program_id));
}

std::string json_of_lease(EcuMac ecu_mac, const rtcr::Lease& lease) {
  Json json;
  json["event"] = "lease";
  json["ecu_mac"] = to_string(ecu_mac);
  json["lives"] = lease.lives;
  if (!lease.lives) json["reason"] = lease.reason;
  return line_of(json);
}

std::string json_of_lost(std::uint64_t line_count) {
  Json json;
  json["event"] = "lost";
  json["line_count"] = line_count;
  return line_of(json);
}

std::string json_of_receipt(EcuMac ecu_mac, const rtcr::Receipt& receipt) {
  Json json;
  json["event"] = "receipt";
  json["ecu_mac"] = to_string(ecu_mac);
  json["program_id"] = receipt.program_id;
  json["incarnation"] = receipt.incarnation;
  json["seq"] = receipt.seq;
  json["level"] = rtcr_level_string(receipt.level);
  json["code"] = rtcr_error_string(receipt.code);
  json["reason"] = receipt.reason;
  json["final"] = receipt.final;
  return line_of(json);
}

std::string json_of_fetched(const CheckpointId& checkpoint, std::uint64_t size_bytes, const Digest& digest) {
  Json json;
  json["event"] = "fetched";
  json["ecu_mac"] = to_string(checkpoint.program.ecu_mac);
  json["program_id"] = checkpoint.program.program_id;
  json["incarnation"] = checkpoint.version.incarnation;
  json["seq"] = checkpoint.version.seq;
  json["size_bytes"] = size_bytes;
  json["digest"] = to_string(digest);
  return line_of(json);
}

std::string json_of_withdrawn(const ProgramKey& program) {
  Json json;
  json["event"] = "withdrawn";
  json["ecu_mac"] = to_string(program.ecu_mac);
  json["program_id"] = program.program_id;
  return line_of(json);
}

std::string json_of_migration_begun(const ProgramKey& program, const std::optional<EcuMac>& to) {
  Json json;
  json["event"] = "migration_begun";
  json["ecu_mac"] = to_string(program.ecu_mac);
  json["program_id"] = program.program_id;
  if (to) json["to_ecu_mac"] = to_string(*to);
  return line_of(json);
}

std::string json_of_error(std::string_view code, std::string_view context) {
  Json json;
  json["event"] = "error";
  json["code"] = code;
  json["context"] = context;
  return line_of(json);
}

}  // namespace cms::cli
