#include "cms/daemon/config.h"

#include <arpa/inet.h>
#include <unistd.h>

#include <toml++/toml.h>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <utility>

#include "base/ids.h"
#include "base/result.h"
#include "cms/daemon/retention_config.h"
#include "storage/blob_store.h"

namespace cms::daemon {
namespace {

constexpr std::uint64_t kMiB = 1024 * 1024;
constexpr std::uint64_t kPullBudgetMin = 8 * kMiB;  // A window: less could never be granted.
constexpr std::uint64_t kPullBudgetMax = 1024 * 1024 * kMiB;
constexpr std::uint64_t kScrubRateMin = 64 * 1024;
constexpr std::uint64_t kScrubRateMax = 64 * 1024 * kMiB;
constexpr std::size_t kSocketPathBytesMax = 107;  // sockaddr_un::sun_path without its NUL
constexpr std::size_t kListCountMax = 64;

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

bool is_address(const std::string& text) {
  in6_addr address{};
  return ::inet_pton(AF_INET, text.c_str(), &address) == 1 ||
         ::inet_pton(AF_INET6, text.c_str(), &address) == 1;
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

// ---- the table

enum class Form { kText, kNumber, kSize, kList };  // In TOML: string, integer, either, array of strings.

struct Option {
  std::string_view key;  // In the file; --key-with-dashes and CMSD_KEY_IN_CAPITALS follow from it.
  Form form;
  std::string_view value;  // What --help calls its value.
  std::string_view fallback;
  bool required;
  std::string_view allowed;
  std::string_view help;
  bool (*set)(std::string_view text, Config& config);  // Of a list: adds one.
};

// The keys of [retention], for the fleet, are among them.
std::vector<Option> all_options();

const std::vector<Option>& options() {
  static const std::vector<Option> all = all_options();
  return all;
}

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
};

Form form_of(const RetentionKey& key) { return key.value == "COUNT" ? Form::kNumber : Form::kSize; }

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

// "; did you mean 'port_base'?", or all of them when none is near.
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

// ---- sources

struct Value {
  std::string place;  // For errors: "--name", "environment CMSD_NAME", "/etc/cms/a.toml:3: name"
  std::string text;
};
using Values = std::map<const Option*, std::vector<Value>>;  // Of one source.

std::string_view form_name(Form form) {
  switch (form) {
    case Form::kText: return "a string";
    case Form::kNumber: return "an integer";
    case Form::kSize: return "a string or an integer";
    case Form::kList: return "an array of strings";
  }
  return "";
}

struct File {
  Values values;
  core::RetentionPolicy retention;  // Of ECUs and programs.
};

class FileReader {
 public:
  explicit FileReader(std::string path) : path_(std::move(path)) {}

  Result<File> read() {
    std::error_code ignored;  // Whatever it is, the parser says it better.
    if (std::filesystem::is_directory(path_, ignored)) {
      return make_error(Code::kInvalidArgument, path_ + ": a directory; allowed: a TOML file");
    }
    toml::table table;
    try {
      table = toml::parse_file(path_);
    } catch (const toml::parse_error& error) {
      if (error.source().begin.line == 0) {
        return make_error(Code::kInvalidArgument, path_ + ": " + std::string(error.description()));
      }
      return make_error(Code::kInvalidArgument, place(error.source()) + std::string(error.description()));
    }
    for (const auto& [key, node] : table) {
      const Status taken = key.str() == "retention" ? take_retention(key, node) : take_option(key, node);
      if (!taken.ok()) return taken.error();
    }
    return std::move(file_);
  }

 private:
  std::string place(const toml::source_region& source) const {
    return path_ + ":" + std::to_string(source.begin.line) + ": ";
  }
  std::string place(const toml::key& key) const { return place(key.source()) + std::string(key.str()); }

  Status unknown(const toml::key& key, const std::vector<std::string>& known) const {
    return make_error(Code::kInvalidArgument, place(key) + ": unknown key" + suggestion(key.str(), known));
  }

  Status take_value(const toml::key& key, const toml::node& node, Form form, std::string_view allowed,
                    std::vector<Value>& found) const {
    const Error wrong_type = make_error(Code::kInvalidArgument, place(key) + ": the value must be " +
                                                                    std::string(form_name(form)) +
                                                                    "; allowed: " + std::string(allowed));
    if (form == Form::kList) {
      const toml::array* array = node.as_array();
      if (array == nullptr) return wrong_type;
      for (const toml::node& element : *array) {
        const auto text = element.value_exact<std::string>();
        if (!text) return wrong_type;
        found.push_back(Value{place(element.source()) + std::string(key.str()), *text});
      }
      return ok_status();
    }
    if (!found.empty()) {
      return make_error(Code::kInvalidArgument,
                        place(key) + ": given twice, before at " + found[0].place + "; allowed: once");
    }
    const auto text = node.value_exact<std::string>();
    const auto number = node.value_exact<std::int64_t>();
    if (text && form != Form::kNumber) {
      found.push_back(Value{place(key), *text});
    } else if (number && form != Form::kText) {
      found.push_back(Value{place(key), std::to_string(*number)});
    } else {
      return wrong_type;
    }
    return ok_status();
  }

  Status take_option(const toml::key& key, const toml::node& node) {
    const auto option =
        std::find_if(options().begin(), options().end(), [&](const Option& o) { return o.key == key.str(); });
    if (option != options().end()) {
      return take_value(key, node, option->form, option->allowed, file_.values[&*option]);
    }
    std::vector<std::string> keys = {"retention"};
    for (const Option& known : options()) keys.emplace_back(known.key);
    return unknown(key, keys);
  }

  // [retention]: the fleet's keys, which are options as well, and the tables of the other levels.
  Status take_retention(const toml::key& key, const toml::node& node) {
    const toml::table* table = node.as_table();
    if (table == nullptr) {
      return make_error(Code::kInvalidArgument,
                        place(key) + ": the value must be a table; allowed: [retention] and its keys");
    }
    std::vector<std::string> keys = {"ecu", "program"};
    for (const RetentionKey& known : retention_keys()) keys.emplace_back(known.key);
    for (const auto& [inner, value] : *table) {
      Status taken;
      if (inner.str() == "ecu" || inner.str() == "program") {
        taken = take_levels(inner, value);
      } else if (find_retention_key(inner.str()) != nullptr) {
        taken = take_option(inner, value);
      } else {
        taken = unknown(inner, keys);
      }
      if (!taken.ok()) return taken;
    }
    return ok_status();
  }

  // [retention.ecu."MAC"], [retention.program."KEY"]
  Status take_levels(const toml::key& kind, const toml::node& node) {
    const std::string allowed(names_allowed(kind.str()));
    const toml::table* levels = node.as_table();
    if (levels == nullptr) {
      return make_error(
          Code::kInvalidArgument,
          place(kind) + ": the value must be a table for each; allowed: " + allowed + " as name");
    }
    for (const auto& [name, level] : *levels) {
      core::RetentionRule* rule = level_of(file_.retention, kind.str(), name.str());
      if (rule == nullptr)
        return refused(place(name.source()) + std::string(kind.str()), name.str(), allowed);
      const toml::table* rules = level.as_table();
      if (rules == nullptr) {
        return make_error(Code::kInvalidArgument, place(name) + ": the value must be a table of rules");
      }
      for (const auto& [key, value] : *rules) {
        if (Status taken = take_rule(key, value, *rule); !taken.ok()) return taken;
      }
    }
    return ok_status();
  }

  Status take_rule(const toml::key& key, const toml::node& node, core::RetentionRule& rule) const {
    const RetentionKey* known = find_retention_key(key.str());
    if (known == nullptr) {
      std::vector<std::string> keys;
      for (const RetentionKey& one : retention_keys()) keys.emplace_back(one.key);
      return unknown(key, keys);
    }
    std::vector<Value> found;
    if (Status taken = take_value(key, node, form_of(*known), known->allowed, found); !taken.ok())
      return taken;
    return known->set(found[0].text, rule) ? ok_status()
                                           : refused(found[0].place, found[0].text, known->allowed);
  }

  const std::string path_;
  File file_;
};

Values from_environment(const Surroundings& surroundings) {
  Values values;
  for (const Option& option : options()) {
    const std::string variable = variable_of(option);
    const char* set = surroundings.environment(variable.c_str());
    if (set == nullptr || *set == '\0') continue;  // An empty one counts as not set.
    std::string_view text = set;
    while (true) {
      const std::size_t comma = option.form == Form::kList ? text.find(',') : text.npos;
      values[&option].push_back(Value{"environment " + variable, std::string(text.substr(0, comma))});
      if (comma == text.npos) break;
      text.remove_prefix(comma + 1);
    }
  }
  return values;
}

struct Flags {
  Values values;
  std::string config_file;
  bool help = false;
  bool version = false;
};

Result<Flags> from_flags(int argc, const char* const* argv) {
  Flags flags;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const std::size_t equals = argument.find('=');
    const std::string flag(argument.substr(0, equals));
    if (argument == "--help" || argument == "-h") {
      flags.help = true;
      return flags;
    }
    if (argument == "--version") {
      flags.version = true;
      return flags;
    }
    const auto option =
        std::find_if(options().begin(), options().end(), [&](const Option& o) { return flag_of(o) == flag; });
    if (option == options().end() && flag != "--config") {
      std::vector<std::string> known = {"--config", "--help", "--version"};
      for (const Option& o : options()) known.push_back(flag_of(o));
      const std::string what = flag.rfind('-', 0) == 0 ? "unknown flag '" : "unexpected argument '";
      return make_error(Code::kInvalidArgument, what + flag.substr(0, 200) + "'" + suggestion(flag, known));
    }
    std::string value;
    if (equals != argument.npos) {
      value = argument.substr(equals + 1);
    } else if (++i < argc) {
      value = argv[i];
    } else {
      return make_error(Code::kInvalidArgument,
                        flag + ": the value is missing; allowed: " +
                            std::string(option == options().end() ? "a TOML file" : option->allowed));
    }
    if (option == options().end()) {
      if (value.empty()) return refused(flag, value, "a TOML file");
      flags.config_file = value;
      continue;
    }
    std::vector<Value>& values = flags.values[&*option];
    if (!values.empty() && option->form != Form::kList) {
      return make_error(Code::kInvalidArgument, flag + ": given twice; allowed: once");
    }
    values.push_back(Value{flag, value});
  }
  return flags;
}

// ---- what depends on more than one option

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.rfind("127.", 0) == 0;
}

Status complete_admin(const Surroundings& surroundings, const std::string& place, Config& config) {
  constexpr std::string_view kTcp = "tcp://";
  if (config.admin.empty()) {
    std::string directory = "/run";
    if (!surroundings.root) {
      const char* runtime = surroundings.environment("XDG_RUNTIME_DIR");
      if (runtime == nullptr || *runtime != '/') {
        return make_error(
            Code::kInvalidArgument,
            "no place for the admin socket: set --admin ipc://PATH or XDG_RUNTIME_DIR (a directory)");
      }
      directory = runtime;
    }
    const std::string path = directory + "/cms/" + config.name + ".sock";
    if (path.size() > kSocketPathBytesMax) {
      return make_error(Code::kInvalidArgument, "the default admin socket '" + path.substr(0, 200) +
                                                    "' is longer than 107 bytes: set --admin ipc://PATH");
    }
    config.admin = "ipc://" + path;
    return ok_status();
  }
  if (config.admin.rfind(kTcp, 0) != 0) return ok_status();

  const std::string port = std::to_string(config.port_base + net::kAdminPort);
  const std::size_t colon = config.admin.rfind(':');
  std::string host = config.admin.substr(kTcp.size(), std::max(colon, kTcp.size()) - kTcp.size());
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  if (config.admin.substr(colon + 1) != port || (host != "*" && !is_address(host))) {
    return refused(place, config.admin, "tcp://ADDR:" + port + " (port_base + 4) with '*' or an IP address");
  }
  config.admin = net::Endpoint{host, config.port_base}.channel(net::kAdminPort);
  return ok_status();
}

Status check_peers(const std::string& place, const Config& config) {
  for (const net::Endpoint& peer : config.peers) {
    const bool reaches_loopback = config.bind == "*" || is_loopback(config.bind);
    if (peer.port == config.port_base &&
        (peer.host == config.bind || (is_loopback(peer.host) && reaches_loopback))) {
      return refused(place, peer.channel(net::kNotifyPort), "other cmsds; this is the one being started");
    }
  }
  return ok_status();
}

Result<Config> assemble(const Surroundings& surroundings, Flags flags) {
  const char* variable = surroundings.environment("CMSD_CONFIG");
  if (flags.config_file.empty() && variable != nullptr) flags.config_file = variable;
  File file;
  if (!flags.config_file.empty()) {
    auto read = FileReader(flags.config_file).read();
    if (!read) return std::move(read).error();
    file = std::move(*read);
  }
  const Values environment = from_environment(surroundings);

  Config config;
  config.retention = std::move(file.retention);
  std::map<std::string_view, std::string> places;
  std::string missing;
  for (const Option& option : options()) {
    const std::vector<Value>* chosen = nullptr;
    for (const Values* source : {&std::as_const(flags.values), &environment, &std::as_const(file.values)}) {
      const auto found = source->find(&option);
      if (found == source->end()) continue;
      chosen = &found->second;
      break;
    }
    if (chosen == nullptr) {
      if (option.required) {
        missing += (missing.empty() ? "" : ", ") + flag_of(option) + " (" + std::string(option.allowed) + ")";
      }
      if (!option.fallback.empty()) CMS_ASSERT(option.set(option.fallback, config));
      continue;
    }
    for (const Value& value : *chosen) {
      if (!option.set(value.text, config)) return refused(value.place, value.text, option.allowed);
      places[option.key] = value.place;
    }
  }
  if (!missing.empty()) {
    return make_error(Code::kInvalidArgument, "missing: " + missing);
  }
  if (Status status = storage::check_store_url(config.store_url); !status.ok()) {
    return make_error(Code::kInvalidArgument, places["store"] + ": " + status.error().context);
  }
  if (Status status = complete_admin(surroundings, places["admin"], config); !status.ok())
    return status.error();
  if (Status status = check_peers(places["peer"], config); !status.ok()) return status.error();
  return config;
}

std::string help_text() {
  std::string text =
      "usage: cmsd --name NAME --store URL --index DIR [FLAG VALUE]...\n\n"
      "Receives checkpoints of programs, keeps them in the store and gives them back.\n"
      "Each flag is also a key of the TOML file (--port-base: port_base) and an environment variable\n"
      "(CMSD_PORT_BASE; lists with commas). A flag wins over the variable, the variable over the file.\n"
      "What is kept can be told for single ECUs and programs too, by tables of the file: see cmsd.toml.\n\n";
  constexpr std::size_t kColumn = 28;
  const auto add = [&](std::string left, std::string_view right) {
    left.resize(std::max(left.size() + 1, kColumn), ' ');
    text += left;
    while (!right.empty()) {
      const std::size_t end = std::min(right.find('\n'), right.size());
      text += std::string(right.substr(0, end)) + '\n';
      right.remove_prefix(std::min(end + 1, right.size()));
      if (!right.empty()) text += std::string(kColumn, ' ');
    }
  };
  for (const Option& option : options()) {
    std::string right(option.help);
    if (option.form == Form::kList) right += "; may be repeated";
    if (option.required) right += "; required";
    if (!option.fallback.empty()) right += " (default: " + std::string(option.fallback) + ")";
    right += "\nallowed: " + std::string(option.allowed);
    add("  " + flag_of(option) + " " + std::string(option.value), right);
  }
  add("  --config FILE", "TOML file (also CMSD_CONFIG)");
  add("  --version", "print the version");
  add("  --help", "print this");
  text += "\nexit codes: 0 ended as asked, 1 failed, 2 wrong usage\n";
  return text;
}

}  // namespace

Surroundings process_surroundings() {
  Surroundings surroundings;
  surroundings.environment = [](const char* name) -> const char* { return std::getenv(name); };
  surroundings.root = ::geteuid() == 0;
  return surroundings;
}

ParsedConfig parse_config(int argc, const char* const* argv, const Surroundings& surroundings) {
  ParsedConfig parsed;
  const auto usage = [&](const Error& error) {
    parsed.exit_code = 2;
    parsed.text = "cmsd: " + error.context + "\n";
    return parsed;
  };
  auto flags = from_flags(argc, argv);
  if (!flags) return usage(flags.error());
  if (flags->help || flags->version) {
    parsed.text = flags->help ? help_text() : "cmsd " CMS_VERSION "\n";
    return parsed;
  }
  auto config = assemble(surroundings, std::move(*flags));
  if (!config) return usage(config.error());
  parsed.config = std::move(*config);
  return parsed;
}

}  // namespace cms::daemon
