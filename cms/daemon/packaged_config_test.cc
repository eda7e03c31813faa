// The configuration that the packages install explains every key as --help does, and is accepted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>
#include <utility>
#include <vector>

#include "cms/daemon/config.h"

namespace cms::daemon {
namespace {

ParsedConfig parse(const std::vector<const char*>& argv) {
  Surroundings surroundings;
  surroundings.environment = [](const char*) -> const char* { return nullptr; };
  return parse_config(static_cast<int>(argv.size()), argv.data(), surroundings);
}

struct Key {
  std::string allowed;
  std::string value;  // As --help has its default, as the file has it without quotes.
  bool is_list = false;
};

// What --help says of each key.
std::map<std::string, Key> keys_of_help() {
  std::map<std::string, Key> keys;
  std::istringstream help(parse({"cmsd", "--help"}).text);
  const std::regex flag("  --([a-z-]+) [A-Z]+ .*");
  const std::regex fallback(R"(\(default: ([^)]*)\))");
  const std::regex allowed(" +allowed: (.*)");
  std::smatch match;
  std::string key;
  for (std::string line; std::getline(help, line);) {
    if (std::regex_match(line, match, flag)) {
      key = match[1];
      std::replace(key.begin(), key.end(), '-', '_');
      if (key == "config") continue;
      keys[key].is_list = line.find("may be repeated") != line.npos;
    }
    if (key == "config" || key.empty()) continue;
    if (std::regex_search(line, match, fallback)) keys[key].value = match[1];
    if (std::regex_match(line, match, allowed)) keys[key].allowed = match[1];
  }
  return keys;
}

struct File {
  std::map<std::string, Key> keys;
  std::map<std::string, bool> set;  // false: with '# ' before it.
  std::string all_set;              // The file with these taken away.
};

File packaged_file() {
  File file;
  std::ifstream stream(CMS_PACKAGED_CONFIG);
  EXPECT_TRUE(stream.good());
  const std::regex assignment(R"re((# )?([a-z_]+) = "?([^"\[]*)"?|(# )?([a-z_]+) = \[.*\])re");
  std::smatch match;
  std::string allowed;
  for (std::string line; std::getline(stream, line);) {
    if (line.rfind("# Allowed: ", 0) == 0) allowed = line.substr(11);
    const bool assigns = std::regex_match(line, match, assignment);
    if (assigns) {
      const bool is_list = match[5].matched;
      const std::string key = is_list ? match[5] : match[2];
      EXPECT_EQ(file.keys.count(key), 0U) << key << " is there twice";
      file.keys[key] = Key{std::exchange(allowed, ""), match[3], is_list};
      file.set[key] = line.front() != '#';
      if (!file.set[key]) line.erase(0, 2);
    }
    file.all_set += line + "\n";
  }
  return file;
}

TEST(PackagedConfigTest, ExplainsEveryKeyAsHelpDoes) {
  const std::map<std::string, Key> wanted = keys_of_help();
  const File file = packaged_file();
  ASSERT_GT(wanted.size(), 10U);
  for (const auto& [name, key] : wanted) {
    ASSERT_EQ(file.keys.count(name), 1U) << "packaging/cmsd.toml does not explain " << name;
    const Key& found = file.keys.at(name);
    EXPECT_EQ(found.allowed, key.allowed) << name;
    EXPECT_EQ(found.is_list, key.is_list) << name;
    // Of a list, an example is shown.
    if (!file.set.at(name) && !key.is_list) {
      EXPECT_EQ(found.value, key.value) << name;
    }
  }
  for (const auto& [name, key] : file.keys) EXPECT_EQ(wanted.count(name), 1U) << "there is no key " << name;
}

TEST(PackagedConfigTest, IsAcceptedAndListensToNobodyElse) {
  const ParsedConfig parsed = parse({"cmsd", "--config", CMS_PACKAGED_CONFIG});
  ASSERT_TRUE(parsed.config.has_value()) << parsed.text;
  EXPECT_EQ(parsed.config->bind, "127.0.0.1");
  EXPECT_EQ(parsed.config->store_url, "file:///var/lib/cms/store");
  EXPECT_EQ(parsed.config->index_directory, "/var/lib/cms/index");
  EXPECT_EQ(parsed.config->admin, "ipc:///run/cms/cms.sock");
}

TEST(PackagedConfigTest, IsAcceptedWithEveryKeySet) {
  std::string directory = ::testing::TempDir() + "cms_packaged_XXXXXX";
  ASSERT_NE(::mkdtemp(directory.data()), nullptr);
  const std::string path = directory + "/cmsd.toml";
  std::ofstream(path) << packaged_file().all_set;
  const ParsedConfig parsed = parse({"cmsd", "--config", path.c_str()});
  EXPECT_TRUE(parsed.config.has_value()) << parsed.text;
  (void)std::remove(path.c_str());
  (void)::rmdir(directory.c_str());
}

}  // namespace
}  // namespace cms::daemon
