#pragma once
// The one table of what cmsd can be told. A key of it is also a flag and an environment variable; config.cc
// takes those two, config_file.cc the TOML file, and the table checks every value alike.
//
// Threads: none; pure functions.
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cms/daemon/config.h"
#include "cms/daemon/retention_config.h"

namespace cms::daemon {

inline constexpr std::size_t kSocketPathBytesMax = 107;  // sockaddr_un::sun_path without its NUL

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
const std::vector<Option>& options();
Form form_of(const RetentionKey& key);

std::string flag_of(const Option& option);
std::string variable_of(const Option& option);

// An IP address of either kind, without brackets.
bool is_address(const std::string& text);

// ---- errors

// "; did you mean 'port_base'?", or all of them when none is near.
std::string suggestion(std::string_view wrong, const std::vector<std::string>& names);
Error refused(const std::string& place, std::string_view value, std::string_view allowed);

}  // namespace cms::daemon
