#include "cms/daemon/config.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <utility>

#include "base/result.h"
#include "cms/daemon/config_file.h"
#include "cms/daemon/config_options.h"
#include "storage/blob_store.h"

namespace cms::daemon {
namespace {

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
  ConfigFile file;
  if (!flags.config_file.empty()) {
    auto read = read_config_file(flags.config_file);
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
