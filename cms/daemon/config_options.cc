#include "cms/daemon/config_options.h"

#include <arpa/inet.h>

#include <algorithm>
#include <utility>

#include "base/ids.h"
#include "schemas/messages.h"

namespace cms::daemon {
namespace {

constexpr std::uint64_t kMiB = 1024 * 1024;
constexpr std::uint64_t kPullBudgetMin = 8 * kMiB;  // A window: less could never be granted.
constexpr std::uint64_t kPullBudgetMax = 1024 * 1024 * kMiB;
constexpr std::uint64_t kScrubRateMin = 64 * 1024;
constexpr std::uint64_t kScrubRateMax = 64 * 1024 * kMiB;
constexpr std::size_t kListCountMax = 64;
constexpr std::size_t kNearEcusMax = 64;

// ---- values. Each setter returns false for a value that its option's `allowed` does not cover.

bool set_number(std::string_view text, std::uint64_t min, std::uint64_t max, std::uint64_t& value) {
  const auto number = parse_u64(text);
  if (!number || *number < min || *number > max) return false;
  value = *number;
  return true;
}

bool set_name(std::string_view text, Config& config) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  };
  config.name = text;
  return !text.empty() && text.size() <= 64 && text.front() != '.' && text.front() != '-' &&
         std::all_of(text.begin(), text.end(), allowed);
}

bool set_store(std::string_view text, Config& config) {
  config.store_url = text;
  return !text.empty();  // The rest is for the store to say: see collect().
}

bool set_index(std::string_view text, Config& config) {
  config.index_directory = text;
  return !text.empty() && text.find("://") == text.npos;
}

bool set_port_base(std::string_view text, Config& config) {
  std::uint64_t port = 0;
  if (!set_number(text, 1, 65535 - net::kPortCount, port)) return false;
  config.port_base = static_cast<std::uint16_t>(port);
  return true;
}

bool set_bind(std::string_view text, Config& config) {
  if (text.size() > 2 && text.front() == '[' && text.back() == ']') text = text.substr(1, text.size() - 2);
  config.bind = text;
  return text == "*" || is_address(config.bind);
}

// What is behind tcp:// is checked once the port base is known.
bool set_admin(std::string_view text, Config& config) {
  constexpr std::string_view kIpc = "ipc://";
  constexpr std::string_view kTcp = "tcp://";
  config.admin = text;
  if (text.substr(0, kIpc.size()) == kIpc) {
    const std::string_view path = text.substr(kIpc.size());
    return !path.empty() && path.size() <= kSocketPathBytesMax && path.find_first_of("*@") == path.npos;
  }
  return text.size() > kTcp.size() && text.substr(0, kTcp.size()) == kTcp;
}

bool set_peer(std::string_view text, Config& config) {
  auto peer = net::parse_endpoint(text);
  if (!peer || config.peers.size() >= kListCountMax) return false;
  for (const net::Endpoint& other : config.peers) {
    if (other.host == peer->host && other.port == peer->port) return false;
  }
  config.peers.push_back(std::move(*peer));
  return true;
}

bool set_pull(std::string_view text, Config& config) {
  config.pull_every = text == "every";
  return config.pull_every || text == "one";
}

bool set_pull_budget(std::string_view text, Config& config) {
  const auto bytes = parse_size(text, kPullBudgetMax);
  config.pull_budget_bytes = bytes.value_or(0);
  return config.pull_budget_bytes >= kPullBudgetMin;
}

bool set_scrub_rate(std::string_view text, Config& config) {
  const auto bytes = parse_size(text, kScrubRateMax);
  config.scrub_rate_bytes_per_s = bytes.value_or(0);
  return bytes && (*bytes == 0 || *bytes >= kScrubRateMin);
}

bool set_allow_advertise(std::string_view text, Config& config) {
  if (text.empty() || text.size() > 253 || text.find_first_of(" \t,;/*?#@") != text.npos) return false;
  if (config.advertise_allowed.size() >= kListCountMax) return false;
  config.advertise_allowed.emplace(text);
  return true;
}

bool set_log_level(std::string_view text, Config& config) {
  constexpr std::string_view kLevels[] = {"trace", "debug", "info", "warning", "error", "off"};
  config.log_level = text;
  return std::find(std::begin(kLevels), std::end(kLevels), text) != std::end(kLevels);
}

bool set_store_workers(std::string_view text, Config& config) {
  std::uint64_t count = 0;
  if (!set_number(text, 1, 64, count)) return false;
  config.store_workers = static_cast<std::uint32_t>(count);
  return true;
}

bool set_ecu_dead(std::string_view text, Config& config) {
  std::uint64_t ms = 0;
  if (!set_number(text, 2000, 600000, ms)) return false;
  config.ecu_dead = std::chrono::milliseconds(ms);
  return true;
}

bool set_failure_group(std::string_view text, Config& config) {
  std::vector<std::string>& keys = config.placement.failure_groups;
  const bool printable = std::all_of(text.begin(), text.end(), [](char c) {
    return c > ' ' && c < 0x7f && c != '=' && c != '!' && c != ',';
  });
  if (text.empty() || text.size() >= wire::kLabelBytesMax || !printable) return false;
  if (keys.size() >= wire::kLabelCountMax || std::find(keys.begin(), keys.end(), text) != keys.end())
    return false;
  keys.emplace_back(text);
  return true;
}

bool set_near_ecu(std::string_view text, Config& config) {
  const auto ecu_mac = parse_ecu_mac(text);
  if (!ecu_mac.ok() || config.placement.near_ecus.size() >= kNearEcusMax) return false;
  return config.placement.near_ecus.insert(*ecu_mac).second;
}

bool set_real_time_max(std::string_view text, Config& config) {
  std::uint64_t percent = 0;
  if (!set_number(text, 1, 100, percent)) return false;
  config.placement.real_time_max_permille = static_cast<std::uint32_t>(percent * 10);
  return true;
}

// ---- the table

constexpr Option kOptions[] = {
    {"name", Form::kText, "NAME", "", true, "1 to 64 letters, digits, '-', '_' and '.'; not '-' or '.' first",
     "name of this cmsd, another one for each of a fleet", set_name},
    {"store", Form::kText, "URL", "", true,
     "file:///DIR or nfs://HOST/EXPORT[?nfsport=N&mountport=N&uid=N&gid=N]",
     "where checkpoints are kept: a directory, or an export of a NAS (NFSv3);\n"
     "an empty one is initialised",
     set_store},
    {"index", Form::kText, "DIR", "", true, "a directory on a local disk",
     "where this cmsd keeps its index; rebuilt from the store when missing", set_index},
    {"port_base", Form::kNumber, "PORT", "7400", false, "a port from 1 to 65529",
     "notify listens here, control on +1, peers on +2, bulk on +3", set_port_base},
    {"bind", Form::kText, "ADDR", "*", false, "'*' (all interfaces) or an IP address", "address to listen on",
     set_bind},
    {"admin", Form::kText, "ENDPOINT", "", false,
     "ipc://PATH with a path of at most 107 bytes, or tcp://ADDR:PORT with the PORT port_base + 4",
     "where cms-admin connects; TCP is open to everyone who reaches it\n"
     "(default: ipc:///run/cms/NAME.sock, not root: $XDG_RUNTIME_DIR/cms/NAME.sock)",
     set_admin},
    {"peer", Form::kList, "ENDPOINT", "", false,
     "tcp://HOST:PORT of the notify channel of another cmsd, each once", "another cmsd of the fleet",
     set_peer},
    {"pull", Form::kText, "WHO", "one", false, "one, every",
     "which cmsd pulls a checkpoint: one of those that live, or every one for itself", set_pull},
    {"pull_budget", Form::kSize, "SIZE", "256MiB", false,
     "bytes or a number of KiB, MiB, GiB, TiB; 8MiB to 1TiB",
     "memory for checkpoints on their way to the store", set_pull_budget},
    {"allow_advertise", Form::kList, "HOST", "", false, "a host name or address; at most 64 of them",
     "host that an ECU may name for itself", set_allow_advertise},
    {"log_level", Form::kText, "LEVEL", "info", false, "trace, debug, info, warning, error, off",
     "least level logged", set_log_level},
    {"store_workers", Form::kNumber, "COUNT", "2", false, "a number from 1 to 64",
     "threads that write to the store", set_store_workers},
    {"ecu_dead_ms", Form::kNumber, "MS", "8000", false, "milliseconds from 2000 to 600000",
     "a session not heard for so long is over", set_ecu_dead},
    {"scrub_rate", Form::kSize, "SIZE", "8MiB", false,
     "bytes or a number of KiB, MiB, GiB; 64KiB to 64GiB, or 0",
     "how much is read again of what is stored, each second, to find damage; 0: none", set_scrub_rate},
    {"failure_group", Form::kList, "KEY", "", false,
     "a label's KEY, at most 63 printable characters without '=', '!' and ','; each once, at most 16",
     "ECUs with the same label KEY=VALUE fail together: what one loses goes to others first",
     set_failure_group},
    {"real_time_max", Form::kNumber, "PERCENT", "80", false, "a number from 1 to 100",
     "how much of an ECU's CPUs its real-time programs are promised at most (wcet / period)",
     set_real_time_max},
    {"near_ecu", Form::kList, "MAC", "", false, "an ecu_mac, as 02:00:00:00:00:01; each once, at most 64",
     "an ECU on this host, or next to it: programs that are tight go there first", set_near_ecu},
};

template <int kPlace>
bool set_retention(std::string_view text, Config& config) {
  return retention_keys()[kPlace].set(text, config.retention.fleet);
}

std::vector<Option> all_options() {
  std::vector<Option> all(std::begin(kOptions), std::end(kOptions));
  const std::vector<RetentionKey>& keys = retention_keys();
  constexpr bool (*kSetters[])(std::string_view, Config&) = {
      set_retention<0>, set_retention<1>, set_retention<2>, set_retention<3>, set_retention<4>};
  CMS_ASSERT(keys.size() == std::size(kSetters));
  for (std::size_t i = 0; i < keys.size(); ++i) {
    all.push_back(Option{keys[i].key, form_of(keys[i]), keys[i].value, keys[i].fallback, false,
                         keys[i].allowed, keys[i].help, kSetters[i]});
  }
  return all;
}

// ---- errors

std::size_t edits_between(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, replaced}));
    }
  }
  return row.back();
}

}  // namespace

const std::vector<Option>& options() {
  static const std::vector<Option> all = all_options();
  return all;
}

Form form_of(const RetentionKey& key) { return key.value == "COUNT" ? Form::kNumber : Form::kSize; }

std::string flag_of(const Option& option) {
  std::string flag = "--" + std::string(option.key);
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

std::string variable_of(const Option& option) {
  std::string variable = "CMSD_" + std::string(option.key);
  std::transform(variable.begin(), variable.end(), variable.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
  return variable;
}

bool is_address(const std::string& text) {
  in6_addr address{};
  return ::inet_pton(AF_INET, text.c_str(), &address) == 1 ||
         ::inet_pton(AF_INET6, text.c_str(), &address) == 1;
}

std::string suggestion(std::string_view wrong, const std::vector<std::string>& names) {
  wrong = wrong.substr(0, 64);
  const auto near = std::min_element(names.begin(), names.end(), [&](const auto& a, const auto& b) {
    return edits_between(wrong, a) < edits_between(wrong, b);
  });
  if (edits_between(wrong, *near) <= std::max<std::size_t>(2, near->size() / 3)) {
    return "; did you mean '" + *near + "'?";
  }
  std::string all = "; allowed:";
  for (const std::string& name : names) all += " " + name;
  return all;
}

Error refused(const std::string& place, std::string_view value, std::string_view allowed) {
  return make_error(Code::kInvalidArgument, place + ": '" + std::string(value.substr(0, 200)) +
                                                "' is not allowed; allowed: " + std::string(allowed));
}

}  // namespace cms::daemon
