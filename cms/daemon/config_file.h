#pragma once
// The TOML file of cmsd: what stands in it, by option, with its place for errors. Whether a value is allowed
// the table of options says, but for the rules of single ECUs and programs, which are checked here.
//
// Threads: none.
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cms/core/retention.h"
#include "cms/daemon/config_options.h"

namespace cms::daemon {

struct Value {
  std::string place;  // For errors: "--name", "environment CMSD_NAME", "/etc/cms/a.toml:3: name"
  std::string text;
};
using Values = std::map<const Option*, std::vector<Value>>;  // Of one source.

struct ConfigFile {
  Values values;
  core::RetentionPolicy retention;  // Of ECUs and programs.
};

// kInvalidArgument names file, line and key, and what is allowed.
Result<ConfigFile> read_config_file(const std::string& path);
// The same of a text; `path` is for errors.
Result<ConfigFile> parse_config_file(std::string_view text, const std::string& path);

}  // namespace cms::daemon
