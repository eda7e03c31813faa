#include "cms/daemon/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

namespace cms::daemon {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A command line, an environment and a file, and what comes of them.
class ConfigTest : public ::testing::Test {
 protected:
  ConfigTest() {
    std::string directory = ::testing::TempDir() + "cms_config_XXXXXX";
    directory_ = ::mkdtemp(directory.data());
  }
  ~ConfigTest() override { std::filesystem::remove_all(directory_); }

  ParsedConfig parse(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "cmsd");
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    Surroundings surroundings;
    surroundings.environment = [this](const char* name) -> const char* {
      const auto found = environment_.find(name);
      return found == environment_.end() ? nullptr : found->second.c_str();
    };
    surroundings.root = root_;
    return parse_config(static_cast<int>(argv.size()), argv.data(), surroundings);
  }
  // With what is required.
  ParsedConfig parse_with(const std::vector<std::string>& arguments) {
    std::vector<std::string> all = {"--name", "a", "--store", "file:///srv/store", "--index", "/var/lib/cms"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return parse(all);
  }
  Config config_with(const std::vector<std::string>& arguments) {
    ParsedConfig parsed = parse_with(arguments);
    EXPECT_TRUE(parsed.config.has_value()) << parsed.text;
    return parsed.config.value_or(Config{});
  }
  std::string error_with(const std::vector<std::string>& arguments) {
    const ParsedConfig parsed = parse_with(arguments);
    EXPECT_FALSE(parsed.config.has_value());
    EXPECT_EQ(parsed.exit_code, 2);
    EXPECT_EQ(std::count(parsed.text.begin(), parsed.text.end(), '\n'), 1) << parsed.text;
    return parsed.text;
  }
  std::string file(const std::string& text) {
    const std::string path = directory_ + "/a.toml";
    std::ofstream(path) << text;
    return path;
  }

  std::string directory_;
  std::map<std::string, std::string> environment_;
  bool root_ = true;
};

TEST_F(ConfigTest, HasDocumentedDefaults) {
  const Config config = config_with({});
  EXPECT_EQ(config.name, "a");
  EXPECT_EQ(config.store_url, "file:///srv/store");
  EXPECT_EQ(config.index_directory, "/var/lib/cms");
  EXPECT_EQ(config.port_base, 7400);
  EXPECT_EQ(config.bind, "*");
  EXPECT_EQ(config.admin, "ipc:///run/cms/a.sock");
  EXPECT_TRUE(config.peers.empty());
  EXPECT_EQ(config.retention.fleet.keep_latest, 3U);
  EXPECT_EQ(config.retention.fleet.keep_hourly, 0U);
  EXPECT_EQ(config.retention.fleet.max_age_s, 0U);
  EXPECT_TRUE(config.retention.ecus.empty() && config.retention.programs.empty());
  EXPECT_EQ(config.pull_budget_bytes, 268435456U);
  EXPECT_TRUE(config.advertise_allowed.empty());
  EXPECT_EQ(config.log_level, "info");
  EXPECT_EQ(config.store_workers, 2U);
  EXPECT_EQ(config.ecu_dead, std::chrono::seconds(8));
  EXPECT_TRUE(config.placement.failure_groups.empty());
  EXPECT_EQ(config.placement.real_time_max_permille, 800U);
}

TEST_F(ConfigTest, TakesEveryFlagInBothForms) {
  const Config config = config_with({"--port-base=9000",
                                     "--bind",
                                     "[fe80::1]",
                                     "--admin=ipc:///tmp/a.sock",
                                     "--peer",
                                     "tcp://b:7400",
                                     "--peer=tcp://[::1]:7400",
                                     "--keep-latest",
                                     "5",
                                     "--pull-budget",
                                     "1GiB",
                                     "--allow-advertise",
                                     "gateway",
                                     "--allow-advertise",
                                     "10.0.0.1",
                                     "--log-level",
                                     "debug",
                                     "--store-workers",
                                     "4",
                                     "--ecu-dead-ms",
                                     "2000",
                                     "--failure-group",
                                     "power",
                                     "--failure-group=rack",
                                     "--real-time-max",
                                     "55",
                                     "--near-ecu",
                                     "02:00:00:00:00:01",
                                     "--near-ecu=02:00:00:00:00:02"});
  EXPECT_EQ(config.port_base, 9000);
  EXPECT_EQ(config.bind, "fe80::1");
  EXPECT_EQ(config.admin, "ipc:///tmp/a.sock");
  ASSERT_EQ(config.peers.size(), 2U);
  EXPECT_EQ(config.peers[0].host, "b");
  EXPECT_EQ(config.peers[1].host, "::1");
  EXPECT_EQ(config.retention.fleet.keep_latest, 5U);
  EXPECT_EQ(config.pull_budget_bytes, 1073741824U);
  EXPECT_THAT(config.advertise_allowed, ElementsAre("10.0.0.1", "gateway"));
  EXPECT_EQ(config.log_level, "debug");
  EXPECT_EQ(config.store_workers, 4U);
  EXPECT_EQ(config.ecu_dead, std::chrono::seconds(2));
  EXPECT_THAT(config.placement.failure_groups, ElementsAre("power", "rack"));
  EXPECT_EQ(config.placement.real_time_max_permille, 550U);
  EXPECT_THAT(config.placement.near_ecus, ElementsAre(EcuMac{0x020000000001}, EcuMac{0x020000000002}));
}

TEST_F(ConfigTest, TakesEveryKeyOfAFile) {
  const ParsedConfig parsed = parse({"--config", file(R"(
name = "b"
store = "file:///s"
index = "/i"
port_base = 9000
bind = "127.0.0.1"
admin = "tcp://127.0.0.1:9004"
peer = ["tcp://c:7400", "tcp://d:7400"]
keep_latest = 1
pull_budget = 8388608
allow_advertise = ["gateway"]
log_level = "off"
store_workers = 64
ecu_dead_ms = 600000
failure_group = ["power"]
real_time_max = 100
near_ecu = ["02:00:00:00:00:01"]
)")});
  ASSERT_TRUE(parsed.config.has_value()) << parsed.text;
  EXPECT_EQ(parsed.config->name, "b");
  EXPECT_EQ(parsed.config->store_url, "file:///s");
  EXPECT_EQ(parsed.config->index_directory, "/i");
  EXPECT_EQ(parsed.config->port_base, 9000);
  EXPECT_EQ(parsed.config->bind, "127.0.0.1");
  EXPECT_EQ(parsed.config->admin, "tcp://127.0.0.1:9004");
  EXPECT_EQ(parsed.config->peers.size(), 2U);
  EXPECT_EQ(parsed.config->retention.fleet.keep_latest, 1U);
  EXPECT_EQ(parsed.config->pull_budget_bytes, 8388608U);
  EXPECT_THAT(parsed.config->advertise_allowed, ElementsAre("gateway"));
  EXPECT_EQ(parsed.config->log_level, "off");
  EXPECT_EQ(parsed.config->store_workers, 64U);
  EXPECT_EQ(parsed.config->ecu_dead, std::chrono::minutes(10));
  EXPECT_THAT(parsed.config->placement.failure_groups, ElementsAre("power"));
  EXPECT_EQ(parsed.config->placement.real_time_max_permille, 1000U);
  EXPECT_THAT(parsed.config->placement.near_ecus, ElementsAre(EcuMac{0x020000000001}));
}

TEST_F(ConfigTest, FlagWinsOverEnvironmentOverFileOverDefault) {
  const std::string path =
      file("port_base = 1000\nkeep_latest = 11\nstore_workers = 21\npeer = [\"tcp://f:1\"]\n");
  environment_ = {
      {"CMSD_PORT_BASE", "2000"}, {"CMSD_KEEP_LATEST", "12"}, {"CMSD_PEER", "tcp://e:1,tcp://e:2"}};
  const Config config = config_with({"--config", path, "--port-base", "3000"});
  EXPECT_EQ(config.port_base, 3000);
  EXPECT_EQ(config.retention.fleet.keep_latest, 12U);
  EXPECT_EQ(config.store_workers, 21U);
  EXPECT_EQ(config.log_level, "info");
  ASSERT_EQ(config.peers.size(), 2U);  // The list of one source, not of all.
  EXPECT_EQ(config.peers[0].host, "e");
  EXPECT_EQ(config_with({"--peer", "tcp://g:1"}).peers.at(0).host, "g");
}

TEST_F(ConfigTest, TakesTheFileFromTheEnvironmentAndEmptyVariablesAsNotSet) {
  environment_ = {{"CMSD_CONFIG", file("keep_latest = 7")}, {"CMSD_STORE_WORKERS", ""}};
  const Config config = config_with({});
  EXPECT_EQ(config.retention.fleet.keep_latest, 7U);
  EXPECT_EQ(config.store_workers, 2U);
}

TEST_F(ConfigTest, NamesAllThatIsMissing) {
  const ParsedConfig parsed = parse({"--store", "file:///s"});
  EXPECT_FALSE(parsed.config.has_value());
  EXPECT_EQ(parsed.exit_code, 2);
  EXPECT_THAT(parsed.text, AllOf(HasSubstr("missing"), HasSubstr("--name"), HasSubstr("--index")));
  EXPECT_THAT(parsed.text, ::testing::Not(HasSubstr("--store")));
}

TEST_F(ConfigTest, UnknownFlagIsRefusedWithTheNearestOne) {
  EXPECT_THAT(error_with({"--port-bse", "1"}), AllOf(HasSubstr("'--port-bse'"), HasSubstr("'--port-base'")));
  EXPECT_THAT(error_with({"--colour"}), AllOf(HasSubstr("'--colour'"), HasSubstr("--store-workers")));
  EXPECT_THAT(error_with({"start"}), HasSubstr("unexpected argument 'start'"));
}

TEST_F(ConfigTest, FlagWithoutValueOrGivenTwiceIsRefused) {
  EXPECT_THAT(error_with({"--port-base"}),
              AllOf(HasSubstr("--port-base"), HasSubstr("missing"), HasSubstr("65529")));
  EXPECT_THAT(error_with({"--config"}), HasSubstr("missing"));
  EXPECT_THAT(error_with({"--name", "b"}), HasSubstr("--name: given twice"));
}

TEST_F(ConfigTest, WrongValuesAreRefusedWithWhatIsAllowed) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--port-base", "0"}, "1 to 65529"},
      {{"--port-base", "65530"}, "1 to 65529"},
      {{"--port-base", "abc"}, "1 to 65529"},
      {{"--port-base", ""}, "1 to 65529"},
      {{"--bind", "example"}, "IP address"},
      {{"--bind", ""}, "IP address"},
      {{"--admin", ""}, "ipc://PATH"},
      {{"--admin", "/run/a.sock"}, "ipc://PATH"},
      {{"--admin", "ipc://*"}, "ipc://PATH"},
      {{"--admin", "ipc:///" + std::string(107, 'x')}, "107 bytes"},
      {{"--admin", "tcp://*"}, "tcp://ADDR:7404"},
      {{"--admin", "tcp://*:7405"}, "tcp://ADDR:7404"},
      {{"--admin", "tcp://here:7404"}, "tcp://ADDR:7404"},
      {{"--peer", "b:7400"}, "tcp://HOST:PORT"},
      {{"--peer", "tcp://b:7400", "--peer", "tcp://b:7400"}, "each once"},
      {{"--keep-latest", "0"}, "1 to 1000000"},
      {{"--pull-budget", "8388607"}, "8MiB to 1TiB"},
      {{"--pull-budget", "7MiB"}, "8MiB to 1TiB"},
      {{"--pull-budget", "2TiB"}, "8MiB to 1TiB"},
      {{"--pull-budget", "18446744073709551615GiB"}, "8MiB to 1TiB"},
      {{"--pull-budget", "256MB"}, "8MiB to 1TiB"},
      {{"--pull-budget", "MiB"}, "8MiB to 1TiB"},
      {{"--allow-advertise", "a b"}, "host name"},
      {{"--log-level", "loud"}, "trace, debug, info"},
      {{"--store-workers", "65"}, "1 to 64"},
      {{"--ecu-dead-ms", "1999"}, "2000 to 600000"},
      {{"--failure-group", ""}, "without '='"},
      {{"--failure-group", "power=a"}, "without '='"},
      {{"--failure-group", "!power"}, "'!'"},
      {{"--failure-group", "po wer"}, "printable"},
      {{"--failure-group", std::string(64, 'x')}, "63"},
      {{"--failure-group", "power", "--failure-group", "power"}, "each once"},
      {{"--real-time-max", "0"}, "1 to 100"},
      {{"--real-time-max", "101"}, "1 to 100"},
      {{"--config", ""}, "TOML"},
  };
  for (const auto& [arguments, allowed] : cases) {
    EXPECT_THAT(error_with(arguments), AllOf(HasSubstr(arguments[0]), HasSubstr(allowed))) << arguments[1];
  }
}

TEST_F(ConfigTest, RequiredValuesAreCheckedToo) {
  for (const std::string name : {"", ".a", "-a", "a/b", "a b", "ä"}) {
    EXPECT_THAT(parse({"--name", name, "--store", "file:///s", "--index", "i"}).text, HasSubstr("--name: '"))
        << name;
  }
  EXPECT_THAT(parse({"--name", std::string(65, 'a'), "--store", "file:///s", "--index", "i"}).text,
              HasSubstr("64"));
  EXPECT_TRUE(
      parse({"--name", std::string(64, 'a'), "--store", "file:///s", "--index", "i"}).config.has_value());
  for (const std::string store :
       {"", "/s", "file:///", "file://s", "file:///a%20b", "nfs://h", "nfs://h/s?version=4"}) {
    EXPECT_THAT(parse({"--name", "a", "--store", store, "--index", "i"}).text,
                HasSubstr(store.empty() ? "file:///DIR" : "is not a store"))
        << store;
  }
  EXPECT_THAT(parse({"--name", "a", "--store", "file:///s", "--index", ""}).text, HasSubstr("--index: '"));
}

TEST_F(ConfigTest, EnvironmentErrorsNameTheVariable) {
  environment_ = {{"CMSD_PULL_BUDGET", "1"}};
  EXPECT_THAT(error_with({}), AllOf(HasSubstr("CMSD_PULL_BUDGET"), HasSubstr("'1'"), HasSubstr("8MiB")));
}

TEST_F(ConfigTest, FileErrorsNameFileLineAndKey) {
  const auto error_of = [this](const std::string& text) { return error_with({"--config", file(text)}); };
  const std::string at = directory_ + "/a.toml:";
  EXPECT_THAT(error_of("\n\nport_bas = 1\n"), AllOf(HasSubstr(at + "3: port_bas"), HasSubstr("'port_base'")));
  EXPECT_THAT(error_of("\nport_base = 0\n"), AllOf(HasSubstr(at + "2: port_base: '0'"), HasSubstr("65529")));
  EXPECT_THAT(error_of("port_base = -1\n"), HasSubstr("'-1' is not allowed"));
  EXPECT_THAT(error_of("port_base = \"1\"\n"),
              AllOf(HasSubstr(at + "1: port_base"), HasSubstr("an integer")));
  EXPECT_THAT(error_of("log_level = 1\n"), HasSubstr("a string"));
  EXPECT_THAT(error_of("pull_budget = true\n"), HasSubstr("a string or an integer"));
  EXPECT_THAT(error_of("peer = \"tcp://b:7400\"\n"), HasSubstr("an array of strings"));
  EXPECT_THAT(error_of("peer = [1]\n"), HasSubstr("an array of strings"));
  EXPECT_THAT(error_of("peer = [\n\"tcp://b:7400\",\n\"b\"]\n"), HasSubstr(at + "3: peer: 'b'"));
  EXPECT_THAT(error_of("[port_base]\nx = 1\n"), HasSubstr(at + "1: port_base"));
  EXPECT_THAT(error_of("port_base = 1\nport_base = 2\n"), HasSubstr(at + "2"));
  EXPECT_THAT(error_of("port_base = \n"), HasSubstr(at + "1"));
  EXPECT_THAT(error_of("[x\n"), HasSubstr(at + "1"));
  EXPECT_THAT(error_with({"--config", directory_ + "/none.toml"}), HasSubstr(directory_ + "/none.toml"));
  EXPECT_THAT(error_with({"--config", directory_}), HasSubstr(directory_));
}

TEST_F(ConfigTest, AdminSocketOfOthersThanRootIsInTheirRuntimeDirectory) {
  root_ = false;
  EXPECT_THAT(error_with({}), AllOf(HasSubstr("--admin"), HasSubstr("XDG_RUNTIME_DIR")));
  environment_["XDG_RUNTIME_DIR"] = "/run/user/1000";
  EXPECT_EQ(config_with({}).admin, "ipc:///run/user/1000/cms/a.sock");
  environment_["XDG_RUNTIME_DIR"] = "/" + std::string(100, 'x');
  EXPECT_THAT(error_with({}), HasSubstr("--admin"));
  EXPECT_EQ(config_with({"--admin", "ipc://a.sock"}).admin, "ipc://a.sock");
}

TEST_F(ConfigTest, AdminByTcpIsOnTheFourthPortAboveTheBase) {
  EXPECT_EQ(config_with({"--admin", "tcp://*:7404"}).admin, "tcp://*:7404");
  EXPECT_EQ(config_with({"--admin", "tcp://[::1]:9004", "--port-base", "9000"}).admin, "tcp://[::1]:9004");
}

TEST_F(ConfigTest, PeerThatIsThisCmsdIsRefused) {
  EXPECT_THAT(error_with({"--bind", "10.0.0.1", "--peer", "tcp://10.0.0.1:7400"}), HasSubstr("--peer"));
  EXPECT_THAT(error_with({"--peer", "tcp://localhost:7400"}), HasSubstr("--peer"));
  EXPECT_THAT(error_with({"--peer", "tcp://[::1]:7400"}), HasSubstr("--peer"));
  EXPECT_EQ(config_with({"--peer", "tcp://localhost:7500"}).peers.size(), 1U);
  EXPECT_EQ(config_with({"--bind", "10.0.0.1", "--peer", "tcp://localhost:7400"}).peers.size(), 1U);
}

TEST_F(ConfigTest, HelpAndVersionArePrintedWhateverElseIsWrong) {
  for (const std::string flag : {"--help", "-h"}) {
    const ParsedConfig help = parse({"--port-base", "x", flag});
    EXPECT_FALSE(help.config.has_value());
    EXPECT_EQ(help.exit_code, 0);
    for (const std::string option : {"--name", "--store", "--index", "--port-base", "--bind", "--admin",
                                     "--peer", "--keep-latest", "--pull-budget", "--allow-advertise",
                                     "--log-level", "--store-workers", "--ecu-dead-ms", "--config"}) {
      EXPECT_THAT(help.text, HasSubstr("\n  " + option + " "));
    }
    EXPECT_THAT(help.text, HasSubstr("(default: 256MiB)"));
  }
  const ParsedConfig version = parse({"--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_THAT(version.text, ::testing::MatchesRegex("cmsd [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

// ---- retention

TEST_F(ConfigTest, TakesRulesOfEachLevel) {
  const std::string path = file(
      "keep_hourly = 5\n"
      "[retention]\n"
      "keep_latest = 4\n"
      "max_age = \"30d\"\n"
      "max_bytes = \"10GiB\"\n"
      "[retention.ecu.\"02:00:00:00:00:01\"]\n"
      "keep_daily = 7\n"
      "max_age = \"none\"\n"
      "max_bytes = 4096\n"
      "[retention.program.\"02:00:00:00:00:01/7\"]\n"
      "keep_latest = 100\n"
      "max_age = \"90m\"\n");
  const Config config = config_with({"--config", path, "--keep-daily", "2"});
  const ProgramKey program{EcuMac{0x020000000001}, 7};
  const core::RetentionRules own = config.retention.rules_of(program);
  EXPECT_EQ(own.keep_latest, 100U);
  EXPECT_EQ(own.keep_hourly, 5U);
  EXPECT_EQ(own.keep_daily, 7U);
  EXPECT_EQ(own.max_age_s, 5400U);
  EXPECT_EQ(own.max_bytes, 0U);
  const core::RetentionRules other = config.retention.rules_of(ProgramKey{EcuMac{0x020000000001}, 8});
  EXPECT_EQ(other.keep_latest, 4U);
  EXPECT_EQ(other.max_age_s, 0U);
  const core::RetentionRules fleet = config.retention.rules_of(ProgramKey{EcuMac{2}, 7});
  EXPECT_EQ(fleet.keep_daily, 2U);
  EXPECT_EQ(fleet.max_age_s, 30U * 86400);
  const auto bounds = config.retention.bounds();
  ASSERT_EQ(bounds.size(), 2U);
  EXPECT_EQ(bounds[0].max_bytes, 4096U);
  EXPECT_EQ(bounds[1].max_bytes, std::uint64_t{10} << 30);
}

TEST_F(ConfigTest, RulesOfTheFleetAreFlagsAndVariables) {
  environment_ = {{"CMSD_MAX_AGE", "12h"}, {"CMSD_KEEP_HOURLY", "6"}};
  const Config config = config_with({"--keep-hourly", "7", "--max-bytes=1TiB"});
  EXPECT_EQ(config.retention.fleet.max_age_s, 43200U);
  EXPECT_EQ(config.retention.fleet.keep_hourly, 7U);
  EXPECT_EQ(config.retention.fleet.max_bytes, std::uint64_t{1} << 40);
}

TEST_F(ConfigTest, RefusesWrongRulesWithTheirPlaceAndWhatIsAllowed) {
  const struct {
    std::string text;
    std::vector<std::string> wanted;
  } cases[] = {
      {"[retention]\nkeep_lately = 1", {":2: keep_lately: unknown key; did you mean 'keep_latest'?"}},
      {"[retention]\nkeep_latest = 0", {":2: keep_latest: '0'", "1 to 1000000"}},
      {"[retention]\nkeep_latest = \"3\"", {":2: keep_latest", "an integer"}},
      {"[retention]\nmax_age = \"30\"", {":2: max_age: '30'", "m, h or d"}},
      {"[retention]\nmax_age = \"0d\"", {":2: max_age: '0d'"}},
      {"[retention]\nmax_age = \"36501d\"", {":2: max_age: '36501d'"}},
      {"[retention]\nmax_bytes = \"10GB\"", {":2: max_bytes: '10GB'", "KiB, MiB, GiB, TiB"}},
      {"[retention]\nmax_bytes = 0", {":2: max_bytes: '0'"}},
      {"keep_latest = 2\n[retention]\nkeep_latest = 3", {":3: keep_latest: given twice", ":1: keep_latest"}},
      {"retention = 3", {":1: retention: the value must be a table"}},
      {"[retention.ecus]\n", {":1: ecus: unknown key; did you mean 'ecu'?"}},
      {"[retention.ecu.\"02:00\"]\nkeep_daily = 3", {":1: ecu: '02:00' is not allowed", "an ecu_mac"}},
      {"[retention.program.\"02:00:00:00:00:01\"]\nkeep_daily = 3", {"is not allowed", "a program as"}},
      {"[retention.program.\"02:00:00:00:00:01/7@1.2\"]\nkeep_daily = 3", {"is not allowed"}},
      {"[retention.ecu.\"02:00:00:00:00:01\"]\nname = \"a\"",
       {":2: name: unknown key; allowed: keep_latest"}},
      {"[retention.ecu.\"02:00:00:00:00:01\"]\nmax_age = 3", {":2: max_age: '3' is not allowed"}},
      {"[retention.ecu]\n\"02:00:00:00:00:01\" = 3", {"must be a table of rules"}},
      {"[retention]\necu = 3", {":2: ecu: the value must be a table for each"}},
  };
  for (const auto& one : cases) {
    const std::string text = error_with({"--config", file(one.text)});
    for (const std::string& wanted : one.wanted) EXPECT_THAT(text, HasSubstr(wanted)) << one.text;
  }
}

}  // namespace
}  // namespace cms::daemon
