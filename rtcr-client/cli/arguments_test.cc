#include "rtcr-client/cli/arguments.h"

#include <gtest/gtest.h>

namespace cms::cli {
namespace {

using Parsed = Arguments;

Parsed parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "rtcr");
  return parse_arguments(static_cast<int>(arguments.size()), arguments.data());
}

// Appends what every command needs.
Parsed parse_with_program(std::vector<const char*> arguments) {
  arguments.insert(arguments.end(),
                   {"--cms", "tcp://h:7400", "--ecu-mac", "02:00:00:00:00:01", "--program", "7"});
  return parse(std::move(arguments));
}

// What is wrong, as printed; the exit code must be that of wrong usage.
template <typename Parse>
std::string refusal(const Parse& parse_it) {
  testing::internal::CaptureStderr();
  const Parsed parsed = parse_it();
  const std::string text = testing::internal::GetCapturedStderr();
  const auto* exit = std::get_if<Exit>(&parsed);
  EXPECT_TRUE(exit != nullptr && exit->code == kExitUsage) << text;
  return text;
}

TEST(ArgumentsTest, PublishHasTheDefaultsThatScriptsRelyOn) {
  const Parsed parsed = parse_with_program({"publish", "core"});
  const auto* publish = std::get_if<PublishArguments>(&parsed);
  ASSERT_NE(publish, nullptr);
  EXPECT_EQ(publish->file, "core");
  EXPECT_EQ(publish->wait, wire::ReceiptLevel::kStored);
  EXPECT_EQ(publish->release, wire::Release::kReplicated);
  EXPECT_EQ(publish->common.timeout, std::chrono::seconds(5));
  EXPECT_EQ(publish->common.program_id, 7U);
  EXPECT_EQ(publish->common.cms.size(), 1U);
  EXPECT_EQ(publish->common.output, Output::kTable);
}

TEST(ArgumentsTest, DashesNameStandardInputAndOutput) {
  const Parsed publish = parse_with_program({"publish", "-"});
  EXPECT_EQ(std::get<PublishArguments>(publish).file, "-");
  const Parsed get = parse_with_program({"get", "-o", "-"});
  EXPECT_EQ(std::get<GetArguments>(get).file, "-");
}

TEST(ArgumentsTest, GetTakesAnExactVersion) {
  const Parsed get = parse_with_program({"get", "-o", "f", "--version", "65536.3"});
  const auto version = std::get<GetArguments>(get).version;
  ASSERT_TRUE(version.has_value());
  EXPECT_EQ(version->incarnation, 65536U);
  EXPECT_EQ(version->seq, 3U);
  for (const char* wrong : {"65536", "1.", ".1", "0.1", "1.0", "1.2.3"}) {
    EXPECT_NE(refusal([&] {
                return parse_with_program({"get", "-o", "f", "--version", wrong});
              }).find("INCARNATION.SEQ"),
              std::string::npos);
  }
}

TEST(ArgumentsTest, ADefaultOfTheCmsListAndTheEcuComesFromTheEnvironment) {
  ::setenv("RTCR_CMS", "tcp://a:7400,tcp://b:7400", 1);
  ::setenv("RTCR_ECU_MAC", "02:00:00:00:00:05", 1);
  const Parsed parsed = parse({"withdraw", "--program", "0"});
  ::unsetenv("RTCR_CMS");
  ::unsetenv("RTCR_ECU_MAC");
  const auto* withdraw = std::get_if<WithdrawArguments>(&parsed);
  ASSERT_NE(withdraw, nullptr);
  EXPECT_EQ(withdraw->common.cms.size(), 2U);
  EXPECT_EQ(to_string(withdraw->common.ecu_mac), "02:00:00:00:00:05");
}

TEST(ArgumentsTest, AMigrationMayNameItsTargetAndItsProgramInFull) {
  const std::vector<const char*> who{"request-migration", "--cms", "tcp://h:7400", "--ecu-mac",
                                     "02:00:00:00:00:01"};
  const auto with = [&](std::vector<const char*> more) {
    more.insert(more.begin(), who.begin(), who.end());
    return more;
  };
  const Parsed anywhere = parse(with({"--program-id", "7", "--timeout", "30s"}));
  const auto* migration = std::get_if<RequestMigrationArguments>(&anywhere);
  ASSERT_NE(migration, nullptr);
  EXPECT_EQ(migration->common.program_id, 7U);
  EXPECT_EQ(migration->common.timeout, std::chrono::seconds(30));
  EXPECT_FALSE(migration->to);
  const Parsed there = parse(with({"--program", "7", "--to", "02:00:00:00:00:09"}));
  migration = std::get_if<RequestMigrationArguments>(&there);
  ASSERT_NE(migration, nullptr);
  EXPECT_EQ(migration->to, EcuMac{0x020000000009});
  EXPECT_NE(refusal([&] {
              return parse(with({"--program", "7", "--to", "x"}));
            }).find("--to"),
            std::string::npos);
}

TEST(ArgumentsTest, WrongUsageNamesWhatIsAllowed) {
  const auto contains = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_TRUE(
      contains(refusal([] { return parse({}); }), "allowed: publish, get, withdraw, request-migration, ecu"));
  EXPECT_TRUE(contains(refusal([] { return parse({"pubish"}); }),
                       "unknown command 'pubish'; allowed: publish, get, withdraw"));
  EXPECT_TRUE(contains(refusal([] {
                         return parse_with_program({"publish", "--wat", "f"});
                       }),
                       "'--wat'; allowed: --cms, --ecu-mac"));
  EXPECT_TRUE(contains(refusal([] {
                         return parse_with_program({"publish", "f", "g"});
                       }),
                       "unexpected argument 'g'"));
  EXPECT_TRUE(contains(refusal([] {
                         return parse_with_program({"publish", "f", "--wait", "never"});
                       }),
                       "'never' is not one of: announced, replicated, stored"));
  EXPECT_TRUE(contains(refusal([] { return parse_with_program({"publish"}); }), "FILE"));
  EXPECT_TRUE(contains(refusal([] { return parse_with_program({"get"}); }), "-o"));
  EXPECT_TRUE(contains(refusal([] {
                         return parse_with_program({"get", "-o", "f", "--program", "x"});
                       }),
                       "--program"));
  EXPECT_TRUE(
      contains(refusal([] {
                 return parse_with_program({"publish", "f", "--wait", "replicated", "--release", "stored"});
               }),
               "never be reached"));
}

Parsed parse_ecu(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), {"ecu", "--cms", "tcp://h:7400", "--ecu-mac", "02:00:00:00:00:01"});
  return parse(std::move(arguments));
}

TEST(ArgumentsTest, AnEcuTakesAnyNumberOfProgramsLabelsAndFormats) {
  const Parsed parsed = parse_ecu({"--program", "0=a", "--program", "7=b=c", "--label", "x", "--label", "y",
                                   "--format", "criu=4", "--restore-dir", "d"});
  const auto* ecu = std::get_if<EcuArguments>(&parsed);
  ASSERT_NE(ecu, nullptr);
  EXPECT_EQ(ecu->programs, (std::map<ProgramId, std::string>{{0, "a"}, {7, "b=c"}}));
  EXPECT_EQ(ecu->labels, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(ecu->formats.at(0).first, "criu");
  EXPECT_EQ(ecu->formats.at(0).second, 4U);
  EXPECT_EQ(ecu->restore_dir, "d");
}

TEST(ArgumentsTest, AnEcuRestartsOnlyWhatItDoesNotPublishAndOnlyWhenGuarded) {
  const Parsed parsed = parse_ecu({"--guarded", "--program", "0=a", "--restart", "7=b", "--restart", "8=c"});
  const auto* ecu = std::get_if<EcuArguments>(&parsed);
  ASSERT_NE(ecu, nullptr);
  EXPECT_EQ(ecu->restarts, (std::map<ProgramId, std::string>{{7, "b"}, {8, "c"}}));
  const auto said = [](std::vector<const char*> arguments, const char* part) {
    const std::string text = refusal([&] { return parse_ecu(std::move(arguments)); });
    return text.find(part) != std::string::npos;
  };
  EXPECT_TRUE(said({"--guarded", "--program", "7=a", "--restart", "7=b"}, "given twice"));
  EXPECT_TRUE(said({"--guarded", "--restart", "x=b"}, "ID=FILE"));
  EXPECT_TRUE(said({"--restart", "7=b"}, "--guarded"));
}

TEST(ArgumentsTest, AnEcuRefusesWhatItCannotMean) {
  const auto names = [](const char* word, std::vector<const char*> arguments) {
    const std::string text = refusal([&] { return parse_ecu(arguments); });
    EXPECT_NE(text.find(word), std::string::npos) << text;
  };
  names("ID=FILE", {"--program", "a"});
  names("ID=FILE", {"--program", "1="});
  names("ID=FILE", {"--program", "x=a"});
  names("twice", {"--program", "1=a", "--program", "1=b"});
  names("NAME=VERSION", {"--format", "criu"});
  names("--restore-dir", {"--restore-dir", "d", "--restore-command", "c"});
  names("16 labels", std::vector<const char*>(34, "--label=x"));
}

TEST(ArgumentsTest, AnEcuMayBeGuarded) {
  const Parsed plain = parse_ecu({});
  EXPECT_FALSE(std::get<EcuArguments>(plain).guarded);
  const Parsed guarded =
      parse_ecu({"--guarded", "--boot-id", "one", "--on-isolation", "stop", "--on-loss", "restore"});
  const auto* ecu = std::get_if<EcuArguments>(&guarded);
  ASSERT_NE(ecu, nullptr);
  EXPECT_TRUE(ecu->guarded);
  EXPECT_EQ(ecu->enforcer, wire::Enforcer::kGuard);
  EXPECT_EQ(ecu->boot_id, "one");
  EXPECT_EQ(ecu->on_isolation, wire::OnIsolation::kStop);
  EXPECT_EQ(ecu->on_loss, wire::OnLoss::kRestore);
  const Parsed bare = parse_ecu({"--guarded", "--enforcer", "none"});
  EXPECT_EQ(std::get<EcuArguments>(bare).enforcer, wire::Enforcer::kNone);
  const Parsed watched = parse_ecu({"--guarded", "--watchdog", "/dev/watchdog"});
  EXPECT_EQ(std::get<EcuArguments>(watched).enforcer, wire::Enforcer::kWatchdog);
  EXPECT_EQ(std::get<EcuArguments>(watched).watchdog, "/dev/watchdog");
  // Without a lease there is nothing to enforce, and no boot to tell; and there is one enforcer.
  for (const std::vector<const char*>& words :
       {std::vector<const char*>{"--enforcer", "guard"}, std::vector<const char*>{"--boot-id", "one"},
        std::vector<const char*>{"--guarded", "--enforcer", "watchdog"},
        std::vector<const char*>{"--watchdog", "/dev/watchdog"},
        std::vector<const char*>{"--guarded", "--enforcer", "none", "--watchdog", "/dev/watchdog"}})
    EXPECT_NE(refusal([&] { return parse_ecu(words); }), "");
}

}  // namespace
}  // namespace cms::cli
