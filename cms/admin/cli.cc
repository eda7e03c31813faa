#include "cms/admin/cli.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/ids.h"
#include "cms/admin/get.h"
#include "cms/admin/render.h"

namespace cms::admin {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kPollPauseMax{250};
constexpr std::size_t kPassedOverMax = 16;  // Damaged ones, before a get gives up.

struct Options {
  std::string cms;
  std::string output = "table";
  std::string timeout = "5s";
  std::string ecu_mac;
  std::string program;
  bool all = false;
  std::string key;
  std::string file;
  std::string action;  // Of retention: plan, apply.
  std::string to_ecu_mac;
  std::string deadline;
  bool cancel = false;
  std::string on_off{};
};

// "5s", "500ms", "2m", or a plain number of seconds.
std::optional<Client::Timeout> parse_timeout(std::string_view text) {
  std::uint64_t unit_ms = 1000;
  const auto ends_with = [&](std::string_view end) {
    return text.size() > end.size() && text.substr(text.size() - end.size()) == end;
  };
  if (ends_with("ms")) {
    unit_ms = 1;
    text.remove_suffix(2);
  } else if (ends_with("s")) {
    text.remove_suffix(1);
  } else if (ends_with("m")) {
    unit_ms = 60000;
    text.remove_suffix(1);
  }
  constexpr std::uint64_t kMaxMs = 24 * 3600 * 1000;
  const auto count = parse_u64(text);
  if (!count || *count == 0 || *count > kMaxMs / unit_ms) return std::nullopt;
  return Client::Timeout(static_cast<std::int64_t>(*count * unit_ms));
}

class Program {
 public:
  Program(const Surroundings& surroundings, std::FILE* out, std::FILE* err)
      : surroundings_(surroundings), out_(out), err_(err) {}

  int run(int argc, const char* const* argv);

 private:
  int usage(const std::string& what) { return complain(what, kExitUsage); }
  int complain(const std::string& what, int exit_code) {
    std::fprintf(err_, "cms-admin: %s\n", what.c_str());
    return exit_code;
  }
  int failed(const Error& error) {
    return complain(error.context.empty() ? error.message() : error.context,
                    client_->unanswered() ? kExitUnreachable : kExitFailed);
  }
  int print(const std::string& text) {
    if (std::fwrite(text.data(), 1, text.size(), out_) == text.size() && std::fflush(out_) == 0)
      return kExitDone;
    return complain("cannot write the answer", kExitFailed);
  }

  std::optional<int> connect();  // The exit code when it fails.
  int ask(wire::AdminRequest request);
  int ask_list(wire::AdminMethod method);
  int ask_key(wire::AdminMethod method, const Key& key);
  int get_file(const Key& key);
  int retention(const std::optional<Key>& key);
  void show_judged(const std::string& page, std::uint64_t& judged);
  int scrub(const std::optional<Key>& key);
  int rebuild_index();
  int ecu_failed();
  int migrate(const Key& key);
  int ecu_drain();
  int ecu_maintenance();
  // Tells it, and follows it to its end.
  int begin_moves(wire::AdminRequest request);
  int plan();
  // Asks until what was begun has ended, with its progress on a terminal.
  int follow(const wire::AdminRequest& request,
             const std::function<Result<TaskState>(const std::string& json)>& read);
  Result<std::string> ask_once(const wire::AdminRequest& request);
  static wire::AdminRequest request_of(wire::AdminMethod method, const Key& key);
  void show_progress(std::uint64_t received_bytes, std::uint64_t size_bytes);

  const Surroundings& surroundings_;
  std::FILE* out_;
  std::FILE* err_;
  Options options_;
  Style style_;
  std::unique_ptr<Client> client_;
  Clock::time_point started_at_;
  Clock::time_point progress_at_;
};

std::optional<int> Program::connect() {
  std::string where = options_.cms;
  if (where.empty()) {
    const char* variable = surroundings_.environment("CMS_ADMIN");
    if (variable != nullptr) where = variable;
  }
  const auto endpoint = where.empty() ? only_endpoint(surroundings_) : admin_endpoint(where);
  if (!endpoint) {
    return complain(endpoint.error().context,
                    endpoint.error().code == Code::kNotFound ? kExitUnreachable : kExitUsage);
  }
  auto client = Client::connect(*endpoint, *parse_timeout(options_.timeout));
  if (!client) return complain(client.error().context, kExitUnreachable);
  client_ = std::move(*client);
  return std::nullopt;
}

int Program::ask(wire::AdminRequest request) {
  std::vector<std::string> pages;
  const wire::AdminMethod method = request.method;
  const bool applies = method == wire::AdminMethod::kRetentionApply && ::isatty(::fileno(err_)) != 0;
  started_at_ = progress_at_ = Clock::now();
  std::uint64_t judged = 0;
  while (true) {
    auto answer = client_->ask(request);
    if (!answer) return failed(answer.error());
    if (answer->code != Code::kOk) return failed(make_error(answer->code, std::move(answer->context)));
    pages.push_back(std::move(answer->json));
    if (answer->next.empty()) break;
    if (answer->next == request.continue_after)
      return complain("the answer of cmsd does not move on", kExitFailed);
    request.continue_after = std::move(answer->next);
    if (applies) show_judged(pages.back(), judged);
  }
  if (progress_at_ != started_at_) std::fprintf(err_, "\r\033[K");
  const auto text = render(method, pages, style_);
  return text.ok() ? print(*text) : failed(text.error());
}

int Program::ask_list(wire::AdminMethod method) {
  wire::AdminRequest request;
  request.method = method;
  request.all = options_.all;
  if (!options_.ecu_mac.empty()) {
    request.has_ecu_mac = true;
    request.ecu_mac = *parse_ecu_mac(options_.ecu_mac);
  }
  if (!options_.program.empty()) {
    request.has_program_id = true;
    request.program_id = *parse_u64(options_.program);
  }
  if (const auto exit_code = connect()) return *exit_code;
  return ask(std::move(request));
}

wire::AdminRequest Program::request_of(wire::AdminMethod method, const Key& key) {
  wire::AdminRequest request;
  request.method = method;
  request.has_ecu_mac = true;
  request.ecu_mac = key.program.ecu_mac;
  request.has_program_id = true;
  request.program_id = key.program.program_id;
  request.has_version = key.has_version;
  request.version = key.version;
  return request;
}

int Program::ask_key(wire::AdminMethod method, const Key& key) {
  if (const auto exit_code = connect()) return *exit_code;
  return ask(request_of(method, key));
}

Result<std::string> Program::ask_once(const wire::AdminRequest& request) {
  auto answer = client_->ask(request);
  if (!answer) return std::move(answer).error();
  if (answer->code != Code::kOk) return make_error(answer->code, std::move(answer->context));
  return std::move(answer->json);
}

int Program::follow(const wire::AdminRequest& request,
                    const std::function<Result<TaskState>(const std::string& json)>& read) {
  const bool terminal = ::isatty(::fileno(err_)) != 0;
  const auto clear = [&] {
    if (terminal && progress_at_ != started_at_) std::fprintf(err_, "\r\033[K");
  };
  started_at_ = progress_at_ = Clock::now();
  for (auto pause = std::chrono::milliseconds(10);; pause = std::min(2 * pause, kPollPauseMax)) {
    const auto json = ask_once(request);
    const auto task = json ? read(*json) : Result<TaskState>(json.error());
    if (!task) {
      clear();
      return failed(task.error());
    }
    if (task->ended) {
      clear();
      const auto text = render(request.method, {task->json}, style_);
      if (!text) return failed(text.error());
      const int printed = print(*text);
      return task->failure.empty() ? printed : complain(task->failure, kExitFailed);
    }
    if (terminal && Clock::now() - started_at_ >= std::chrono::seconds(1)) {
      progress_at_ = Clock::now();
      std::fprintf(err_, "\r%s\033[K", task->progress.c_str());
      std::fflush(err_);
    }
    std::this_thread::sleep_for(pause);
  }
}

int Program::scrub(const std::optional<Key>& key) {
  wire::AdminRequest request;
  request.method = wire::AdminMethod::kScrub;
  if (key) request = request_of(wire::AdminMethod::kScrub, *key);
  if (const auto exit_code = connect()) return *exit_code;
  const auto begun = ask_once(request);
  if (!begun) return failed(begun.error());
  const auto id = scrub_id(*begun);
  if (!id) return failed(id.error());
  request = {};
  request.method = wire::AdminMethod::kScrubStatus;
  return follow(request, [&](const std::string& json) { return scrub_state(json, *id); });
}

int Program::rebuild_index() {
  wire::AdminRequest request;
  request.method = wire::AdminMethod::kIndexRebuild;
  if (const auto exit_code = connect()) return *exit_code;
  const auto begun = ask_once(request);
  if (!begun) return failed(begun.error());
  request.method = wire::AdminMethod::kIndexStatus;
  return follow(request, index_state);
}

int Program::ecu_failed() {
  wire::AdminRequest request;
  request.method = wire::AdminMethod::kEcuFailed;
  request.has_ecu_mac = true;
  request.ecu_mac = *parse_ecu_mac(options_.ecu_mac);
  if (const auto exit_code = connect()) return *exit_code;
  const auto begun = ask_once(request);
  if (!begun) return failed(begun.error());
  request.all = true;  // From now on only how far it is.
  return follow(request, loss_state);
}

int Program::migrate(const Key& key) {
  if (key.has_version) {
    return usage("migrate moves a program as it is; allowed: ECU_MAC/PROGRAM_ID without a version");
  }
  wire::AdminRequest request = request_of(wire::AdminMethod::kMigrate, key);
  request.cancel = options_.cancel;
  request.has_to = !options_.to_ecu_mac.empty();
  if (request.has_to) request.to_ecu_mac = *parse_ecu_mac(options_.to_ecu_mac);
  return begin_moves(request);
}

int Program::ecu_drain() {
  wire::AdminRequest request;
  request.method = wire::AdminMethod::kEcuDrain;
  request.has_ecu_mac = true;
  request.ecu_mac = *parse_ecu_mac(options_.ecu_mac);
  request.cancel = options_.cancel;
  if (!options_.deadline.empty()) {
    request.deadline_ms = static_cast<std::uint64_t>(parse_timeout(options_.deadline)->count());
  }
  return begin_moves(request);
}

int Program::ecu_maintenance() {
  wire::AdminRequest request;
  request.method = wire::AdminMethod::kEcuMaintenance;
  request.has_ecu_mac = true;
  request.ecu_mac = *parse_ecu_mac(options_.ecu_mac);
  const bool wanted = options_.on_off == "on";
  request.cancel = !wanted;
  if (const auto exit_code = connect()) return *exit_code;
  const auto begun = ask_once(request);
  if (!begun) return failed(begun.error());
  request.all = true;  // From now on only whether it is so.
  return follow(request, [wanted](const std::string& json) { return maintenance_state(json, wanted); });
}

int Program::begin_moves(wire::AdminRequest request) {
  if (const auto exit_code = connect()) return *exit_code;
  const auto begun = ask_once(request);
  if (!begun) return failed(begun.error());
  const bool cancels = request.cancel;
  const bool one = request.method == wire::AdminMethod::kMigrate;
  request.cancel = false;
  request.all = true;  // From now on only how far it is.
  return follow(request, [cancels, one](const std::string& json) {
    auto task = moves_state(json);
    // That something stays where it is, is what was asked for.
    if (task && cancels) task->failure = one && task->done > 0 ? "it had moved already" : "";
    return task;
  });
}

int Program::plan() {
  wire::AdminRequest request;
  request.method = wire::AdminMethod::kExplain;  // Of all programs of an ECU.
  request.has_ecu_mac = true;
  request.ecu_mac = *parse_ecu_mac(options_.ecu_mac);
  if (const auto exit_code = connect()) return *exit_code;
  const auto answer = ask_once(request);
  if (!answer) return failed(answer.error());
  const auto text = render(request.method, {*answer}, style_);
  if (!text) return failed(text.error());
  const int printed = print(*text);
  const std::string failure = plan_failure(*answer);
  return printed != kExitDone || failure.empty() ? printed : complain(failure, kExitFailed);
}

void Program::show_progress(std::uint64_t received_bytes, std::uint64_t size_bytes) {
  const Clock::time_point now = Clock::now();
  if (now - started_at_ < std::chrono::seconds(1) || now - progress_at_ < std::chrono::milliseconds(200))
    return;
  progress_at_ = now;
  const double rate =
      static_cast<double>(received_bytes) / std::chrono::duration<double>(now - started_at_).count();
  const double left_s = rate > 0 ? static_cast<double>(size_bytes - received_bytes) / rate : 0;
  const std::uint64_t percent = size_bytes == 0 ? 100 : received_bytes * 100 / size_bytes;
  std::fprintf(err_, "\r%3llu%%  %s of %s  %s/s  %s left\033[K", static_cast<unsigned long long>(percent),
               human_size(received_bytes).c_str(), human_size(size_bytes).c_str(),
               human_size(static_cast<std::uint64_t>(rate)).c_str(),
               human_age(static_cast<std::uint64_t>(left_s + 0.5)).c_str());
  std::fflush(err_);
}

void Program::show_judged(const std::string& page, std::uint64_t& judged) {
  const JudgedPage counts = judged_of(page);
  judged += counts.judged;
  const Clock::time_point now = Clock::now();
  if (now - started_at_ < std::chrono::seconds(1) || now - progress_at_ < std::chrono::milliseconds(200))
    return;
  progress_at_ = now;
  const double rate = static_cast<double>(judged) / std::chrono::duration<double>(now - started_at_).count();
  const std::uint64_t left = counts.checkpoints > judged ? counts.checkpoints - judged : 0;
  const double left_s = rate > 0 ? static_cast<double>(left) / rate : 0;
  std::fprintf(err_, "\r%llu of %llu checkpoints judged  %.0f/s  %s left\033[K",
               static_cast<unsigned long long>(judged),
               static_cast<unsigned long long>(std::max(judged, counts.checkpoints)), rate,
               human_age(static_cast<std::uint64_t>(left_s + 0.5)).c_str());
  std::fflush(err_);
}

int Program::retention(const std::optional<Key>& key) {
  const auto method =
      options_.action == "plan" ? wire::AdminMethod::kRetentionPlan : wire::AdminMethod::kRetentionApply;
  if (!key) return ask_list(method);
  if (key->has_version || !options_.ecu_mac.empty())
    return usage(
        "retention is of all, of an ECU or of a program; allowed: ECU_MAC/PROGRAM_ID without a version, "
        "or --ecu-mac");
  return ask_key(method, *key);
}

int Program::get_file(const Key& key) {
  const bool to_stdout = options_.file == "-";
  if (to_stdout && ::isatty(STDOUT_FILENO) != 0)
    return usage("standard output is a terminal: use -o FILE or a pipe");
  if (const auto exit_code = connect()) return *exit_code;
  const bool terminal = ::isatty(::fileno(err_)) != 0;
  started_at_ = progress_at_ = Clock::now();
  std::vector<std::string> passed_over;
  const auto get_once = [&](bool& begun) {
    auto result =
        get(*client_, key, options_.file, [&](std::uint64_t received_bytes, std::uint64_t size_bytes) {
          begun = true;
          if (terminal) show_progress(received_bytes, size_bytes);
        });
    if (terminal && progress_at_ != started_at_) std::fprintf(err_, "\r\033[K");
    return result;
  };
  bool begun = false;
  auto got = get_once(begun);
  // The newest turned out to be damaged: it has been put aside, and there may be an older one. What
  // standard output has got cannot be taken back.
  while (!got && got.error().code == Code::kCorrupt && !key.has_version && !(begun && to_stdout) &&
         passed_over.size() < kPassedOverMax) {
    std::fprintf(err_, "cms-admin: %s; asking for the next older one\n", got.error().context.c_str());
    passed_over.push_back(got.error().context);
    got = get_once(begun);
  }
  if (!got) return failed(got.error());
  if (!passed_over.empty()) {
    std::fprintf(err_, "cms-admin: this is an older checkpoint, %s\n", to_string(got->checkpoint).c_str());
  }
  if (to_stdout) return kExitDone;
  const double seconds = std::chrono::duration<double>(Clock::now() - started_at_).count();
  return print(render_got(*got, options_.file, seconds, passed_over, style_));
}

int Program::run(int argc, const char* const* argv) {
  CLI::App app("Asks a cmsd what it has, and gets checkpoints from it.", "cms-admin");
  app.set_version_flag("--version", "cms-admin " CMS_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(
      "KEY is ECU_MAC/PROGRAM_ID, its newest checkpoint, or ECU_MAC/PROGRAM_ID@INCARNATION.SEQ.\n"
      "Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no cmsd reachable.");
  app.add_option(
      "--cms", options_.cms,
      "Where the cmsd is: ipc://PATH of its admin socket, or tcp://HOST:PORT with its port base; also "
      "CMS_ADMIN (default: the only socket in /run/cms or $XDG_RUNTIME_DIR/cms)");
  app.add_option("--output", options_.output, "How answers are printed")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  app.add_option("--timeout", options_.timeout, "How long to wait for an answer: 500ms, 5s, 2m")
      ->capture_default_str();

  const auto key_option = [this](CLI::App* command) { command->add_option("KEY", options_.key)->required(); };
  const CLI::App* status =
      app.add_subcommand("status", "How the cmsd is, what is wrong and what to do about it");
  const CLI::App* peers = app.add_subcommand(
      "peers", "The other cmsd: as heard on the network, and by their records on the store");
  CLI::App* ecus = app.add_subcommand("ecus", "The ECUs that have sessions or checkpoints");
  CLI::App* checkpoints = app.add_subcommand("checkpoints", "The newest checkpoint of each program");
  for (CLI::App* command : {ecus, checkpoints})
    command->add_option("--ecu-mac", options_.ecu_mac, "Of this ECU only");
  checkpoints->add_option("--program", options_.program, "Of this program_id only");
  checkpoints->add_flag("--all", options_.all, "All versions, not only the newest");
  CLI::App* ecu = app.add_subcommand("ecu", "What an operator tells of an ECU");
  ecu->require_subcommand(1);
  CLI::App* ecu_failed = ecu->add_subcommand(
      "failed",
      "It is gone: all its programs go on elsewhere, each from its newest checkpoint. Ends when each runs "
      "again or was refused; may be told again, and to every cmsd. By this you vouch that nothing runs "
      "there, and will not until this has ended");
  ecu_failed->add_option("ECU_MAC", options_.ecu_mac)->required();
  CLI::App* ecu_drain = ecu->add_subcommand("drain",
                                            "Moves all its programs to other ECUs while it lives, and places "
                                            "none there any more. Ends when each was "
                                            "moved or cannot be now; what cannot is tried again by and by. "
                                            "Tell it to every cmsd: each places nothing "
                                            "there until the drain is cancelled, or the cmsd starts again");
  ecu_drain->add_option("ECU_MAC", options_.ecu_mac)->required();
  ecu_drain->add_option("--deadline", options_.deadline,
                        "For so long: 30s, 10m; what has not moved by then stays where it is");
  ecu_drain->add_flag("--cancel", options_.cancel,
                      "What has not moved yet stays, and programs may come again");
  CLI::App* ecu_maintenance = ecu->add_subcommand("maintenance",
                                                  "on: the silence of this guarded ECU is no loss, and "
                                                  "nothing is placed there; for all cmsd, until it is off");
  ecu_maintenance->add_option("ECU_MAC", options_.ecu_mac)->required();
  ecu_maintenance->add_option("WORD", options_.on_off, "on or off")->required()->type_name("on|off");
  CLI::App* migrate =
      app.add_subcommand("migrate",
                         "Moves a program to another ECU while it runs: it is frozen, its last checkpoint "
                         "restored there, and only "
                         "if that fails it goes on where it was. Ends when it is decided where it runs");
  key_option(migrate);
  migrate->add_option("--to", options_.to_ecu_mac, "To this ECU only")->type_name("ECU_MAC");
  migrate->add_flag("--cancel", options_.cancel, "It stays where it is, if it can still");
  CLI::App* restores =
      app.add_subcommand("restores", "What this cmsd restores and has restored since it began");
  restores->add_option("--ecu-mac", options_.ecu_mac, "Of programs that this ECU lost only");
  CLI::App* history = app.add_subcommand(
      "history", "Who owned a program and who restored it: the claim log of its lineage, with times");
  history->add_option("KEY", options_.key, "Of this program");
  history->add_option("--ecu-mac", options_.ecu_mac, "Of every program that this ECU owns or owned");
  CLI::App* show = app.add_subcommand("show", "Everything that is known of a program or checkpoint");
  key_option(show);
  CLI::App* explain =
      app.add_subcommand("explain", "Where a program would go now: each ECU with its verdict and score");
  key_option(explain);
  CLI::App* plan = app.add_subcommand(
      "plan",
      "What would become of each program if an ECU failed now: its target, or why there is none, and how old "
      "its checkpoint is. Nothing is moved. Ends with 1 when not every program would go on elsewhere");
  plan->add_option("--fail", options_.ecu_mac, "This ECU")->required()->type_name("ECU_MAC");
  CLI::App* get = app.add_subcommand("get", "Gets a stored checkpoint, the newest or the one named");
  key_option(get);
  get->add_option("-o,--output-file", options_.file,
                  "Where to: a file, replaced when all has come and is right; - is standard output")
      ->required();
  CLI::App* retire = app.add_subcommand("retire", "Ends a program for good: all its checkpoints go");
  key_option(retire);
  CLI::App* pin =
      app.add_subcommand("pin", "Keeps a stored checkpoint, the newest or the one named, for good");
  key_option(pin);
  CLI::App* unpin = app.add_subcommand("unpin", "Leaves a pinned checkpoint to the rules again");
  key_option(unpin);
  CLI::App* retention =
      app.add_subcommand("retention", "What the rules remove, and why: plan shows it, apply does it now");
  retention->add_option("ACTION", options_.action, "plan or apply")
      ->required()
      ->check(CLI::IsMember({"plan", "apply"}));
  retention->add_option("KEY", options_.key, "Of this program only");
  retention->add_option("--ecu-mac", options_.ecu_mac, "Of this ECU only");
  CLI::App* scrub = app.add_subcommand(
      "scrub", "Reads stored checkpoints again, now, and puts damaged ones into quarantine");
  scrub->add_option("KEY", options_.key, "Of this program, or this checkpoint, only; all when not given");
  CLI::App* index = app.add_subcommand("index", "The index of the cmsd, which is a cache of the store");
  index->require_subcommand(1);
  const CLI::App* index_rebuild =
      index->add_subcommand("rebuild", "Makes it anew from the store, while the cmsd goes on serving");
  const CLI::App* index_status = index->add_subcommand("status", "How it is, and how far a rebuild has come");

  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& error) {
    if (app.get_subcommands().empty()) {
      const std::vector<std::string> others = app.remaining();
      return usage(
          (others.empty() ? std::string("which command?") : "'" + others.front() + "' is no command;") +
          " allowed: status, peers, ecus, checkpoints, ecu, migrate, restores, history, show, explain, plan, "
          "get, "
          "retire, pin, unpin, retention, scrub, index; "
          "more with --help");
    }
    return usage(error.what());
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    std::ostringstream err;
    const bool asked = app.exit(error, out, err) == 0;  // --help, --version
    if (asked) return print(out.str());
    std::fprintf(err_, "cms-admin: %s", err.str().c_str());
    return kExitUsage;
  }

  if (!parse_timeout(options_.timeout)) {
    return usage("--timeout: '" + options_.timeout +
                 "' is not allowed; allowed: 1ms to 24h as 500ms, 5s, 2m");
  }
  if (!options_.ecu_mac.empty() && !parse_ecu_mac(options_.ecu_mac)) {
    const std::string option = plan->parsed() ? "--fail: " : ecu->parsed() ? "ECU_MAC: " : "--ecu-mac: ";
    return usage(option + parse_ecu_mac(options_.ecu_mac).error().context);
  }
  if (!options_.to_ecu_mac.empty() && !parse_ecu_mac(options_.to_ecu_mac)) {
    return usage("--to: " + parse_ecu_mac(options_.to_ecu_mac).error().context);
  }
  if (!options_.deadline.empty() && !parse_timeout(options_.deadline)) {
    return usage("--deadline: '" + options_.deadline + "' is not allowed; allowed: 1ms to 24h as 30s, 10m");
  }
  if (options_.cancel && (!options_.to_ecu_mac.empty() || !options_.deadline.empty())) {
    return usage("--cancel goes alone; without it: --to ECU_MAC, --deadline TIME");
  }
  if (!options_.on_off.empty() && options_.on_off != "on" && options_.on_off != "off") {
    return usage("ecu maintenance: '" + options_.on_off + "' is not allowed; allowed: on, off");
  }
  if (!options_.program.empty() && !parse_u64(options_.program)) {
    return usage("--program: '" + options_.program + "' is not allowed; allowed: a decimal program_id");
  }
  style_.json = options_.output == "json";
  style_.colour = ::isatty(::fileno(out_)) != 0 && surroundings_.environment("NO_COLOR") == nullptr;
  if (status->parsed()) return ask_list(wire::AdminMethod::kStatus);
  if (peers->parsed()) return ask_list(wire::AdminMethod::kPeers);
  if (ecus->parsed()) return ask_list(wire::AdminMethod::kEcus);
  if (checkpoints->parsed()) return ask_list(wire::AdminMethod::kCheckpoints);
  if (ecu_failed->parsed()) return this->ecu_failed();
  if (ecu_drain->parsed()) return this->ecu_drain();
  if (ecu_maintenance->parsed()) return this->ecu_maintenance();
  if (plan->parsed()) return this->plan();
  if (restores->parsed()) return ask_list(wire::AdminMethod::kRestores);
  if (history->parsed() && options_.key.empty()) {
    return options_.ecu_mac.empty() ? usage("history of what? allowed: KEY, or --ecu-mac ECU_MAC")
                                    : ask_list(wire::AdminMethod::kHistory);
  }

  if (retention->parsed() && options_.key.empty()) return this->retention(std::nullopt);

  if (index_rebuild->parsed()) return rebuild_index();
  if (index_status->parsed()) return ask_list(wire::AdminMethod::kIndexStatus);
  if (scrub->parsed() && options_.key.empty()) return this->scrub(std::nullopt);

  const auto key = parse_key(options_.key);
  if (!key) return usage(key.error().context);
  if (retention->parsed()) return this->retention(*key);
  if (pin->parsed()) return ask_key(wire::AdminMethod::kPin, *key);
  if (unpin->parsed()) return ask_key(wire::AdminMethod::kUnpin, *key);
  if (show->parsed()) return ask_key(wire::AdminMethod::kShow, *key);
  if (history->parsed()) return ask_key(wire::AdminMethod::kHistory, *key);
  if (explain->parsed()) return ask_key(wire::AdminMethod::kExplain, *key);
  if (get->parsed()) return get_file(*key);
  if (migrate->parsed()) return this->migrate(*key);
  if (scrub->parsed()) return this->scrub(*key);
  CMS_ASSERT(retire->parsed());
  if (key->has_version)
    return usage("retire ends a whole program; allowed: ECU_MAC/PROGRAM_ID without a version");
  return ask_key(wire::AdminMethod::kRetire, *key);
}

}  // namespace

int run(int argc, const char* const* argv, const Surroundings& surroundings, std::FILE* out, std::FILE* err) {
  return Program(surroundings, out, err).run(argc, argv);
}

}  // namespace cms::admin
