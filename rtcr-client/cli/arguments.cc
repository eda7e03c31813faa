#include "rtcr-client/cli/arguments.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <map>

#include "rtcr-client/cli/values.h"
#include "rtcr/rtcr.h"

namespace cms::cli {
namespace {

const char* const kCommands = "publish, get, withdraw, request-migration, ecu";
const char* const kExitCodes = "Exit codes: 0 done, 1 refused or failed, 2 usage, 3 no CMS reachable.";

// Sets `target` from what `parse` makes of the text; CLI11 shows the Error as that of the option.
template <typename T, typename Parse>
CLI::Option* add_value(CLI::App* app, const std::string& flags, T& target, const Parse& parse,
                       const std::string& help) {
  return app->add_option_function<std::string>(
      flags,
      [&target, parse, flags](const std::string& text) {
        auto value = parse(text);
        if (!value.ok()) throw CLI::ValidationError(flags, value.error().context);
        target = std::move(value).value();
      },
      help);
}

// One of a few words.
template <typename T>
CLI::Option* add_choice(CLI::App* app, const std::string& flags, T& target,
                        const std::map<std::string, T>& choices, const std::string& help) {
  std::string allowed;
  for (const auto& [word, value] : choices) allowed += (allowed.empty() ? "" : ", ") + word;
  const auto parse = [choices, allowed](const std::string& text) -> Result<T> {
    const auto it = choices.find(text);
    if (it != choices.end()) return it->second;
    return make_error(Code::kInvalidArgument, "'" + text + "' is not one of: " + allowed);
  };
  return add_value(app, flags, target, parse, help)->type_name("{" + allowed + "}");
}

Result<Version> parse_version(const std::string& text) {
  const std::size_t dot = text.find('.');
  const auto incarnation = parse_u64(std::string_view(text).substr(0, dot));
  const auto seq = dot == std::string::npos ? incarnation : parse_u64(std::string_view(text).substr(dot + 1));
  if (dot == std::string::npos || !incarnation.ok() || !seq.ok() || *incarnation == 0 || *seq == 0) {
    return make_error(Code::kInvalidArgument,
                      "'" + text + "' is not a version: expected INCARNATION.SEQ, each from 1");
  }
  return Version{*incarnation, *seq};
}

void add_who(CLI::App* app, CommonArguments& common) {
  add_value(
      app, "--cms", common.cms,
      [&common](const std::string& text) -> Result<std::vector<net::Endpoint>> {
        common.cms_text = text;
        auto cms = net::parse_endpoint_list(text);
        if (cms.ok() && cms->size() > 16) return make_error(Code::kInvalidArgument, "more than 16 endpoints");
        return cms;
      },
      "The CMS instances, by their notify endpoints: tcp://HOST:PORT, with commas between")
      ->envname("RTCR_CMS")
      ->required()
      ->type_name("LIST");
  add_value(app, "--ecu-mac", common.ecu_mac, parse_ecu_mac, "The ECU, for example 02:00:00:00:00:01")
      ->envname("RTCR_ECU_MAC")
      ->required()
      ->type_name("ECU_MAC");
}

void add_common(CLI::App* app, CommonArguments& common, const char* timeout_help) {
  add_who(app, common);
  add_value(app, "--program,--program-id", common.program_id, parse_u64, "The program_id, unique on its ECU")
      ->required()
      ->type_name("N");
  add_value(app, "--timeout", common.timeout, parse_duration, timeout_help)->type_name("DURATION");
  add_choice<Output>(app, "--output", common.output, {{"table", Output::kTable}, {"json", Output::kJson}},
                     "Text for people (table), or a JSON object per line");
}

Result<std::string> parse_ports_text(const std::string& text) {
  const auto ports = net::parse_port_range(text);
  if (!ports.ok()) return ports.error();
  return text;
}

void add_bulk_ports(CLI::App* app, std::string& target) {
  add_value(app, "--bulk-ports", target, parse_ports_text,
            "CMS instances pull from the first free one of these ports (7600-7999)")
      ->type_name("A-B");
}

// Each of an option that may be given several times.
template <typename Take>
CLI::Option* add_each(CLI::App* app, const std::string& flags, const std::string& type, const Take& take,
                      const std::string& help) {
  return app
      ->add_option_function<std::vector<std::string>>(
          flags,
          [flags, take](const std::vector<std::string>& texts) {
            for (const std::string& text : texts) {
              if (const Status taken = take(text); !taken.ok())
                throw CLI::ValidationError(flags, taken.error().context);
            }
          },
          help)
      ->allow_extra_args(false)
      ->type_name(type);
}

void add_ecu_options(CLI::App* app, EcuArguments& ecu) {
  add_who(app, ecu.common);
  const auto add_file = [&ecu](std::map<ProgramId, std::string>& files, const std::string& text) -> Status {
    const std::size_t sign = text.find('=');
    const auto program_id = parse_u64(std::string_view(text).substr(0, sign));
    if (sign == std::string::npos || sign + 1 == text.size() || !program_id.ok())
      return make_error(Code::kInvalidArgument, "'" + text + "' is not ID=FILE, ID a program_id");
    if (ecu.programs.count(*program_id) + ecu.restarts.count(*program_id) > 0)
      return make_error(Code::kInvalidArgument, "program " + std::to_string(*program_id) + " is given twice");
    files[*program_id] = text.substr(sign + 1);
    return ok_status();
  };
  add_each(
      app, "--program", "ID=FILE",
      [&ecu, add_file](const std::string& text) { return add_file(ecu.programs, text); },
      "Publish this file as the checkpoint of this program; any number of times");
  auto* dir = app->add_option("--restore-dir", ecu.restore_dir,
                              "Be a target: what is restored here appears in this directory");
  dir->type_name("DIR");
  app->add_option("--restore-command", ecu.restore_command, "Be a target: this command restores")
      ->type_name("CMD")
      ->excludes(dir);
  add_each(
      app, "--label", "L",
      [&ecu](const std::string& text) -> Status {
        if (ecu.labels.size() >= wire::kLabelCountMax)
          return make_error(Code::kInvalidArgument, "more than 16 labels");
        ecu.labels.push_back(text);
        return ok_status();
      },
      "A label that a program may ask of its ECU; up to 16 times");
  add_each(
      app, "--format", "NAME=VERSION",
      [&ecu](const std::string& text) -> Status {
        const std::size_t sign = text.find('=');
        const auto version =
            sign == std::string::npos ? parse_u64("") : parse_u64(std::string_view(text).substr(sign + 1));
        if (sign == 0 || !version.ok() || *version > UINT32_MAX)
          return make_error(Code::kInvalidArgument, "'" + text + "' is not NAME=VERSION");
        if (ecu.formats.size() >= wire::kFormatCountMax)
          return make_error(Code::kInvalidArgument, "more than 16 formats");
        ecu.formats.emplace_back(text.substr(0, sign), static_cast<std::uint32_t>(*version));
        return ok_status();
      },
      "A checkpoint format that it restores, up to this version; up to 16 times");
  app->add_option("--arch", ecu.arch, "The architecture that it tells (as uname -m)")->type_name("A");
  add_bulk_ports(app, ecu.bulk_ports);
  app->add_option("--bulk-host", ecu.bulk_host, "Address to listen on for pulls (all)")->type_name("HOST");
  app->add_option("--advertise", ecu.advertise_host, "Where CMS instances reach this host")
      ->type_name("HOST");
  add_value(app, "--memory-budget", ecu.memory_budget_bytes, parse_size,
            "How much memory restored blobs may take with --restore-command (256MiB)")
      ->type_name("SIZE");
  add_choice<wire::OnIsolation>(app, "--on-isolation", ecu.on_isolation,
                                {{"keep", wire::OnIsolation::kKeep}, {"stop", wire::OnIsolation::kStop}},
                                "What becomes of each --program when the run lease ends (keep)");
  add_choice<wire::OnLoss>(app, "--on-loss", ecu.on_loss,
                           {{"ask", wire::OnLoss::kAsk}, {"restore", wire::OnLoss::kRestore}},
                           "What becomes of each --program when the ECU is lost (ask an operator)");
  auto* guarded = app->add_flag("--guarded", ecu.guarded, "Hold a run lease, and vouch for the programs");
  auto* enforcer = add_choice<wire::Enforcer>(
      app, "--enforcer", ecu.enforcer, {{"none", wire::Enforcer::kNone}, {"guard", wire::Enforcer::kGuard}},
      "Who ends the programs when this command cannot stop them (guard: a process of its own)");
  enforcer->needs(guarded);
  app->add_option_function<std::string>(
         "--watchdog",
         [&ecu](const std::string& device) {
           ecu.watchdog = device;
           ecu.enforcer = wire::Enforcer::kWatchdog;
         },
         "A guard that also kicks this watchdog, so that the ECU is reset where it cannot: /dev/watchdog")
      ->type_name("DEVICE")
      ->needs(guarded)
      ->excludes(enforcer);
  app->add_option("--boot-id", ecu.boot_id,
                  "Another text at each boot of what runs the programs (the kernel's)")
      ->type_name("TEXT")
      ->needs(guarded);
  add_each(
      app, "--restart", "ID=FILE",
      [&ecu, add_file](const std::string& text) { return add_file(ecu.restarts, text); },
      "Get this program's newest checkpoint into this file and go on with it here; any number of times")
      ->needs(guarded);
  app->footer(
      "Runs until SIGTERM or SIGINT, then says goodbye to every CMS and ends with 0. Prints a JSON\n"
      "object per line: published, receipt, cms_live, cms_silent, cms_refused, prepare, prepared,\n"
      "running, discarded, refused, frozen, freeze_refused, thawed, stopped, resumed, lease, fenced,\n"
      "restarted, restart_failed; ready, when all was\n"
      "published and every CMS knows the ECU, or one does and the others are silent; lost, when lines\n"
      "were not read in time.\n"
      "A restored blob appears as DIR/NEW_ID-ECU_MAC-ID of the program it was; NEW_ID is the smallest\n"
      "program_id that is free here, from 0. CMD is run by sh with a last word more: prepare, with\n"
      "the blob on standard input, then go or discard. Exit code 0 says that it has done that;\n"
      "RESTORE_* variables say what it is about, RESTORE_NEW_PROGRAM_ID at go what it is here.\n"
      "When a program is moved from here its file is published once more, as it is then; or CMD is\n"
      "run with the word freeze, and what it prints is published (nothing: it refuses, and is\n"
      "thawed). It stays so until fenced, and is never published again, or thawed, with CMD run with\n"
      "that word.\n"
      "With --guarded it holds a run lease. When that ends, what has --on-isolation stop (or came here\n"
      "with it) is stopped: CMD is run with the word stop, and with the word resume when it goes on.\n"
      "The same at the end of this command. With --enforcer guard the command is two processes: the\n"
      "one that was started kills the other and all that it has started, if that does not stop it in\n"
      "time, or dies; then it ends with 1.\n"
      "With --watchdog the guard also kicks a device of Linux's. That resets the ECU within 1 s after the\n"
      "lease if what is to stop may run even then, and 2 s (with some drivers up to 4 s) after the guard\n"
      "stands still, is killed or does not get the CPU; it is switched off when this command ends in\n"
      "order. It must be free: none that systemd has (RuntimeWatchdogSec=). With a driver that was loaded\n"
      "with nowayout the ECU is reset after every end of this command.\n"
      "A --restart is a program that ran here and was lost with this ECU, or with this command. It is\n"
      "claimed, so that nobody restores it elsewhere; then its file is published like a --program's.\n" +
      std::string(kExitCodes));
}

// "--cms, --ecu-mac, …": of the command that was given, or of `rtcr` itself.
std::string allowed_options(const CLI::App& app) {
  std::string allowed;
  for (const CLI::Option* option : app.get_options()) {
    if (option->nonpositional()) allowed += (allowed.empty() ? "" : ", ") + option->get_name(false, true);
  }
  return allowed;
}

Exit wrong_usage(const CLI::App& app, const std::string& problem) {
  std::fprintf(stderr, "%s: %s\n", app.get_parent() == nullptr ? "rtcr" : ("rtcr " + app.get_name()).c_str(),
               problem.c_str());
  return Exit{kExitUsage};
}

}  // namespace

Arguments parse_arguments(int argc, const char* const* argv) {
  CLI::App app("Publishes checkpoints of programs to a Checkpoint Management System, and gets them back.",
               "rtcr");
  app.set_version_flag("--version", std::string("rtcr ") + rtcr_version());
  app.set_help_flag("--help,-h", "Print this help and end");
  app.footer(std::string(kExitCodes) + "\n`rtcr COMMAND --help` tells more.");

  PublishArguments publish;
  CLI::App* publish_app = app.add_subcommand("publish", "Publish a file as the checkpoint of a program");
  add_common(publish_app, publish.common, "Give up after so long without a receipt or progress (5s)");
  publish_app->add_option("FILE", publish.file, "The checkpoint; - is standard input")
      ->required()
      ->type_name("");
  publish_app->add_option("--name", publish.program_name, "The program's name, for people")
      ->type_name("NAME");
  add_choice<wire::ReceiptLevel>(publish_app, "--wait", publish.wait,
                                 {{"announced", wire::ReceiptLevel::kAnnounced},
                                  {"stored", wire::ReceiptLevel::kStored},
                                  {"replicated", wire::ReceiptLevel::kReplicated}},
                                 "How far it must have come (stored). It is held only until then");
  add_choice<wire::Release>(publish_app, "--release", publish.release,
                            {{"stored", wire::Release::kStored}, {"replicated", wire::Release::kReplicated}},
                            "When it need not be held any more (replicated)");
  publish_app->add_flag("--new-lineage", publish.new_lineage,
                        "Begin a new life of the program, apart from what was published before");
  add_bulk_ports(publish_app, publish.bulk_ports);
  publish_app->add_option("--bulk-host", publish.bulk_host, "Address to listen on for pulls (all)")
      ->type_name("HOST");
  publish_app->add_option("--advertise", publish.advertise_host, "Where CMS instances reach this host")
      ->type_name("HOST");
  add_value(publish_app, "--memory-budget", publish.memory_budget_bytes, parse_size,
            "How much memory standard input may take (256MiB)")
      ->type_name("SIZE");
  publish_app->footer(
      "Prints each receipt as it comes. Ends with 1 when the checkpoint is superseded or\n"
      "dropped before it has come as far as --wait asks. A file that changes is dropped.\n" +
      std::string(kExitCodes));

  GetArguments get;
  CLI::App* get_app = app.add_subcommand("get", "Get the newest STORED checkpoint of a program back");
  add_common(get_app, get.common, "Give up after so long without an answer or progress (5s)");
  get_app->add_option("-o", get.file, "The file, replaced only when all has arrived; - is standard output")
      ->required()
      ->type_name("FILE");
  add_value(get_app, "--version", get.version, parse_version, "This one instead of the newest")
      ->type_name("I.S");
  get_app->footer(
      "Every chunk and the whole are verified. With -o - only exit code 0 makes what was\n"
      "written a checkpoint. Ends with 1 when there is none; never waits for one.\n" +
      std::string(kExitCodes));

  WithdrawArguments withdraw;
  CLI::App* withdraw_app =
      app.add_subcommand("withdraw", "Say that a program has ended for good: its checkpoints are removed");
  add_common(withdraw_app, withdraw.common, "Give up after so long without an answer (5s)");
  add_bulk_ports(withdraw_app, withdraw.bulk_ports);
  withdraw_app->footer(kExitCodes);

  RequestMigrationArguments migration;
  CLI::App* migration_app =
      app.add_subcommand("request-migration", "Ask for a program to be moved to another ECU while it runs");
  add_common(migration_app, migration.common, "Give up after so long without an answer (5s)");
  add_value(migration_app, "--to", migration.to, parse_ecu_mac, "Only to this ECU (whichever suits it best)")
      ->type_name("ECU_MAC");
  add_bulk_ports(migration_app, migration.bulk_ports);
  migration_app->footer(
      "Ends with 0 when the move has begun, or had: what becomes of it is told to the ECU that runs\n"
      "the program. Ends with 1 when a CMS says why it does not move it.\n" +
      std::string(kExitCodes));

  EcuArguments ecu;
  ecu.common.output = Output::kJson;
  CLI::App* ecu_app = app.add_subcommand(
      "ecu", "Be an ECU: publish files, hold them, answer metrics, restore and move programs");
  add_ecu_options(ecu_app, ecu);

  for (CLI::App* command : {publish_app, get_app, withdraw_app, migration_app, ecu_app})
    command->set_help_flag("--help,-h", "Print this help and end");
  const auto given = [&]() -> const CLI::App& {
    const auto commands = app.get_subcommands();
    return commands.empty() ? app : *commands.front();
  };
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help, --version
    return Exit{app.exit(success)};
  } catch (const CLI::ExtrasError&) {
    const auto extras = given().remaining().empty() ? app.remaining() : given().remaining();
    const std::string extra = extras.empty() ? std::string() : extras.front();
    const bool option = extra.size() > 1 && extra.front() == '-';
    if (&given() == &app && !option)
      return wrong_usage(app, "unknown command '" + extra + "'; allowed: " + kCommands);
    return wrong_usage(given(), (option ? "unknown option '" : "unexpected argument '") + extra +
                                    "'; allowed: " + allowed_options(given()));
  } catch (const CLI::ParseError& error) {
    return wrong_usage(given(), error.what());
  }
  if (app.get_subcommands().empty())
    return wrong_usage(app, std::string("no command; allowed: ") + kCommands);
  if (app.got_subcommand(get_app)) return get;
  if (app.got_subcommand(withdraw_app)) return withdraw;
  if (app.got_subcommand(migration_app)) return migration;
  if (app.got_subcommand(ecu_app)) return ecu;
  if (publish.wait == wire::ReceiptLevel::kReplicated && publish.release == wire::Release::kStored) {
    return wrong_usage(*publish_app, "--wait replicated can never be reached with --release stored");
  }
  return publish;
}

}  // namespace cms::cli
