#include "cms/daemon/admin_json.h"

#include <algorithm>
#include <array>
#include <ctime>

namespace cms::daemon {

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json time_json(std::uint64_t at_us) {
  if (at_us == 0) return nullptr;
  const auto seconds = static_cast<std::time_t>(at_us / 1000000);
  std::tm utc{};
  if (::gmtime_r(&seconds, &utc) == nullptr || utc.tm_year > 9999 - 1900) return nullptr;
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  const std::string ms = std::to_string(1000 + at_us / 1000 % 1000).substr(1);
  return std::string(text.data()) + "." + ms + "Z";
}

Json age_json(std::uint64_t wall_us, std::uint64_t at_us) {
  if (at_us == 0) return nullptr;
  return wall_us > at_us ? (wall_us - at_us) / 1000000 : 0;
}

Json seconds_json(Duration duration) {
  return std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::seconds>(duration).count());
}

std::int64_t milliseconds(Duration duration) {
  return std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
}

const char* to_text(CoreSnapshot::State state) {
  using State = CoreSnapshot::State;
  switch (state) {
    case State::kAnnounced: return "announced";
    case State::kPulling: return "pulling";
    case State::kFailed: return "failed";
  }
  return "";
}

Json identity_json(const CheckpointId& checkpoint) {
  return Json{{"key", to_string(checkpoint)},
              {"ecu_mac", to_string(checkpoint.program.ecu_mac)},
              {"program_id", checkpoint.program.program_id},
              {"incarnation", checkpoint.version.incarnation},
              {"seq", checkpoint.version.seq}};
}

}  // namespace cms::daemon
