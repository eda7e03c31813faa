#include "rtcr-client/cli/json_lines.h"

#include <nlohmann/json.hpp>

namespace cms::cli {
namespace {

using Json = nlohmann::ordered_json;

// Names of files may be anything; output is UTF-8 all the same.
std::string line_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

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

std::string json_of_error(std::string_view code, std::string_view context) {
  Json json;
  json["event"] = "error";
  json["code"] = code;
  json["context"] = context;
  return line_of(json);
}

}  // namespace cms::cli
