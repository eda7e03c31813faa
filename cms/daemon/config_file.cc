#include "cms/daemon/config_file.h"

#include <toml++/toml.h>
#include <algorithm>
#include <filesystem>
#include <functional>
#include <utility>

namespace cms::daemon {
namespace {

std::string_view form_name(Form form) {
  switch (form) {
    case Form::kText: return "a string";
    case Form::kNumber: return "an integer";
    case Form::kSize: return "a string or an integer";
    case Form::kList: return "an array of strings";
  }
  return "";
}

class FileReader {
 public:
  explicit FileReader(std::string path) : path_(std::move(path)) {}

  Result<ConfigFile> take(const std::function<toml::table()>& parse) {
    toml::table table;
    try {
      table = parse();
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
  ConfigFile file_;
};

}  // namespace

Result<ConfigFile> read_config_file(const std::string& path) {
  std::error_code ignored;  // Whatever it is, the parser says it better.
  if (std::filesystem::is_directory(path, ignored)) {
    return make_error(Code::kInvalidArgument, path + ": a directory; allowed: a TOML file");
  }
  return FileReader(path).take([&] { return toml::parse_file(path); });
}

Result<ConfigFile> parse_config_file(std::string_view text, const std::string& path) {
  return FileReader(path).take([&] { return toml::parse(text, path); });
}

}  // namespace cms::daemon
