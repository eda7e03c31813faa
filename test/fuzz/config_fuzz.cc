// The TOML file of cmsd: what stands in it, and the configuration that comes of it.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <set>
#include <string>

#include "cms/daemon/config.h"
#include "cms/daemon/config_file.h"
#include "test/fuzz/fuzz.h"

namespace cms::fuzz {
namespace {

constexpr std::uint64_t kKiB = 1024;
constexpr std::uint64_t kGiB = kKiB * kKiB * kKiB;

// A file of this text, the same one each time.
std::string file_of(const std::string& text) {
  static const int fd = ::memfd_create("cmsd.toml", MFD_CLOEXEC);
  CMS_FUZZ_HOLDS(fd >= 0 && ::ftruncate(fd, 0) == 0, "memfd");
  CMS_FUZZ_HOLDS(::pwrite(fd, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()), "memfd");
  return "/proc/self/fd/" + std::to_string(fd);
}

// What must be given, where the file does not give it.
daemon::Surroundings around(const daemon::ConfigFile& file) {
  std::map<std::string, std::string> variables = {
      {"CMSD_NAME", "a"}, {"CMSD_STORE", "file:///s"}, {"CMSD_INDEX", "/i"}};
  for (const auto& [option, values] : file.values) variables.erase(daemon::variable_of(*option));
  daemon::Surroundings surroundings;
  surroundings.root = true;
  surroundings.environment = [variables = std::move(variables)](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
  return surroundings;
}

void expect_rule(const core::RetentionRule& rule, const std::string& text) {
  constexpr std::uint32_t kCountMax = 1'000'000;
  CMS_FUZZ_HOLDS(!rule.keep_latest || (*rule.keep_latest >= 1 && *rule.keep_latest <= kCountMax), text);
  CMS_FUZZ_HOLDS(rule.keep_hourly.value_or(0) <= kCountMax && rule.keep_daily.value_or(0) <= kCountMax, text);
  CMS_FUZZ_HOLDS(rule.max_age_s.value_or(0) <= std::uint64_t{36500} * 86400, text);
  CMS_FUZZ_HOLDS(rule.max_bytes.value_or(0) <= kGiB << 30, text);
}

// The limits once more, as --help has them.
void expect_within_limits(const daemon::Config& config, const std::string& text) {
  CMS_FUZZ_HOLDS(!config.name.empty() && config.name.size() <= 64 && is_printable(config.name), text);
  CMS_FUZZ_HOLDS(config.store_url.rfind("file:///", 0) == 0 || config.store_url.rfind("nfs://", 0) == 0,
                 text);
  CMS_FUZZ_HOLDS(!config.index_directory.empty(), text);
  CMS_FUZZ_HOLDS(config.port_base >= 1 && config.port_base <= 65529, text);
  CMS_FUZZ_HOLDS(config.admin.rfind("ipc://", 0) == 0 || config.admin.rfind("tcp://", 0) == 0, text);
  CMS_FUZZ_HOLDS(config.admin.rfind("ipc://", 0) != 0 || config.admin.size() <= 6 + 107, text);
  CMS_FUZZ_HOLDS(config.peers.size() <= 64 && config.advertise_allowed.size() <= 64, text);
  std::set<std::string> peers;
  for (const net::Endpoint& peer : config.peers)
    CMS_FUZZ_HOLDS(peers.insert(peer.host + " " + std::to_string(peer.port)).second, text);
  CMS_FUZZ_HOLDS(config.pull_budget_bytes >= 8 * kKiB * kKiB && config.pull_budget_bytes <= 1024 * kGiB,
                 text);
  const std::uint64_t rate = config.scrub_rate_bytes_per_s;
  CMS_FUZZ_HOLDS(rate == 0 || (rate >= 64 * kKiB && rate <= 64 * kGiB), text);
  CMS_FUZZ_HOLDS(config.store_workers >= 1 && config.store_workers <= 64, text);
  CMS_FUZZ_HOLDS(config.ecu_dead >= std::chrono::seconds(2) && config.ecu_dead <= std::chrono::minutes(10),
                 text);
  expect_rule(config.retention.fleet, text);
  for (const auto& [ecu_mac, rule] : config.retention.ecus) expect_rule(rule, text);
  for (const auto& [program, rule] : config.retention.programs) expect_rule(rule, text);
}

}  // namespace

bool take(const std::uint8_t* data, std::size_t size_bytes) {
  const std::string text(reinterpret_cast<const char*>(data), size_bytes);
  const std::string name = "c.toml";
  const auto file = daemon::parse_config_file(text, name);
  if (!file.ok()) {
    expect_error(file.error(), {Code::kInvalidArgument}, 4 * size_bytes + 4096);
    CMS_FUZZ_HOLDS(file.error().context.rfind(name + ":", 0) == 0, file.error().context);
    return false;
  }
  for (const auto& [option, values] : file->values) {
    for (const daemon::Value& value : values)
      CMS_FUZZ_HOLDS(value.place.rfind(name + ":", 0) == 0 && value.text.size() <= size_bytes, value.place);
  }
  const std::string path = file_of(text);
  const char* const arguments[] = {"cmsd", "--config", path.c_str()};
  const auto parsed = daemon::parse_config(3, arguments, around(*file));
  if (!parsed.config) {
    CMS_FUZZ_HOLDS(parsed.exit_code == 2, text);
    CMS_FUZZ_HOLDS(parsed.text.rfind("cmsd: ", 0) == 0 && parsed.text.back() == '\n', parsed.text);
    CMS_FUZZ_HOLDS(parsed.text.size() <= 4 * size_bytes + 4096, parsed.text);
    CMS_FUZZ_HOLDS(parsed.text.rfind("cmsd: missing: ", 0) != 0, parsed.text);
    return false;
  }
  expect_within_limits(*parsed.config, text);
  return true;
}

}  // namespace cms::fuzz
