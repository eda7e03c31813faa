// What it costs a cmsd's decisions when many of very many ECUs are lost at once: RestoreCore with a virtual clock, a store
// in memory and targets that answer at the next turn. No socket, no disk: what is measured is the deciding itself.
#include <sys/resource.h>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "cms/core/ecu_log.h"
#include "cms/core/restore.h"
#include "test/bench/bench.h"

namespace cms::bench {
namespace {

using core::RestoreCore;
using wire::ClaimRecord;

constexpr Duration kTurn = std::chrono::milliseconds(20);

struct Size {
  std::size_t ecus = 10000;
  std::size_t programs_each = 10;
  std::size_t lost = 100;
};

EcuMac ecu_of(std::size_t i) { return EcuMac{0x020000000000ULL + i}; }

std::uint64_t peak_resident_bytes() {
  rusage usage{};
  (void)::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * kKiB;
}

class World {
 public:
  explicit World(const Size& size)
      : members_(me_, core::MemberTimers{std::chrono::seconds(3), std::chrono::seconds(12)}),
        core_(config(), members_) {
    for (std::size_t i = 0; i < size.ecus; ++i) {
      core::Candidate candidate;
      candidate.session = SessionId{ecu_of(i), 65536};
      candidate.live = candidate.takes_restores = candidate.freezes = candidate.enforced = true;
      candidate.metrics.emplace();
      candidate.metrics->cpu_count = 4;
      candidate.metrics->cpu_load_permille = static_cast<std::uint32_t>(i % 500);
      candidate.metrics->ram_total_bytes = 8 * kGiB;
      candidate.metrics->ram_available_bytes = 4 * kGiB;
      candidate.metrics->arch = "aarch64";
      candidate.metrics->os = "linux";
      candidate.metrics->labels = {"rack=" + std::to_string(i % 50)};
      candidates_.push_back(candidate);
      for (std::size_t id = 0; id < size.programs_each; ++id) {
        const ProgramKey key{ecu_of(i), id};
        const ClaimRecord genesis = core::genesis(core::Stamp{me_, 1, 0}, lineage_of(key), candidate.session,
                                                  id, wire::OnIsolation::kStop, wire::OnLoss::kRestore);
        heads_.emplace(genesis.lineage, genesis);
      }
    }
    turn();  // Who is there.
    carry_out();
  }

  struct Outcome {
    double seconds = 0;  // Of this process.
    double virtual_seconds = 0;
    std::uint64_t steps = 0;  // Effects that were carried out, each with its answer.
  };
  Outcome lose(std::size_t count) {
    const Instant begun_at = now_;
    candidates_.erase(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(count));
    steps_ = 0;
    const Stopwatch watch;
    for (std::size_t i = 0; i < count; ++i) {
      wire::EcuRecord lost;
      lost.kind = wire::EcuRecordKind::kLost;
      lost.ecu_mac = ecu_of(i);
      lost.slot = 2;
      lost.incarnation = lost.lost_incarnation = 65536;
      lost.enforcer = wire::Enforcer::kGuard;
      core_.lose_session(now_, lost, effects_);
    }
    do {
      turn();
      carry_out();
      if (now_ - begun_at > std::chrono::hours(1)) {
        std::fprintf(stderr, "loss_bench: not all run again after an hour of virtual time\n");
        std::exit(1);
      }
    } while (!is_over(count));
    return Outcome{watch.seconds(), std::chrono::duration<double>(now_ - begun_at).count(), steps_};
  }

 private:
  core::RestoreConfig config() const {
    core::RestoreConfig restore;
    restore.me = me_;
    restore.bulk_port = 7403;
    restore.seed = 1;
    return restore;
  }

  bool is_over(std::size_t count) const {
    for (std::size_t i = 0; i < count; ++i) {
      const auto progress = core_.progress_of(ecu_of(i));
      if (!progress.scanned || progress.done != progress.total) return false;
    }
    return true;
  }

  void turn() {
    now_ += kTurn;
    members_.on_written(now_);
    members_.on_read(now_, now_, {});
    std::vector<core::Present> present;
    present.reserve(candidates_.size());
    for (const core::Candidate& one : candidates_) present.push_back(core::Present{one.session, true});
    core_.on_time(now_, 1, std::move(present), effects_);
    if (core_.wants_targets(now_)) core_.on_targets(now_, candidates_, 0, effects_);
  }

  // Answers what is asked now; what that leads to is answered at once, too.
  void carry_out() {
    while (!effects_.empty()) {
      for (const core::RestoreEffect& effect : std::exchange(effects_, {})) {
        ++steps_;
        std::visit([this](const auto& one) { answer(one); }, effect);
      }
    }
  }
  void answer(const core::ScanLogs& scan) {
    std::vector<ClaimRecord> found;
    for (const auto& [lineage, head] : heads_) {
      const bool wanted = scan.ecu_macs.empty() ? core::is_open(head.kind)
                                                : scan.ecu_macs.count(head.owner.program.ecu_mac) != 0;
      if (wanted) found.push_back(head);
    }
    core_.on_logs_scanned(now_, scan, found, effects_);
  }
  void answer(const core::ReadHead& read) {
    RestoreCore::Head head;
    head.record = heads_.at(read.lineage);
    head.has_own_checkpoint = true;
    if (head.record->kind == wire::ClaimKind::kAct) head.claim_uid = claims_.at(read.lineage);
    core_.on_head(now_, read.lineage, head, effects_);
  }
  void answer(const core::AppendRecord& append) {
    heads_.insert_or_assign(append.record.lineage, append.record);
    if (append.record.kind == wire::ClaimKind::kClaim) claims_[append.record.lineage] = append.record.uid;
    core_.on_appended(now_, append.record.lineage, RestoreCore::AppendEnd::kWon, 0, effects_);
  }
  void answer(const core::FindCheckpoint& find) {
    RestoreCore::Found found;
    const wire::ClaimOwner& owner = find.head.owner;
    found.name.checkpoint = CheckpointId{owner.program, Version{owner.incarnation, 1}};
    found.name.lineage = find.head.lineage;
    found.name.owner_epoch = owner.owner_epoch;
    found.name.size_bytes = kMiB;
    found.name.uid = 1;
    found.session = SessionId{owner.program.ecu_mac, owner.incarnation};
    found.notification.program_id = owner.program.program_id;
    found.notification.seq = 1;
    found.notification.lineage = find.head.lineage;
    found.notification.size_bytes = kMiB;
    found.notification.requirements.arch = "aarch64";
    core_.on_found(now_, find.head.lineage, found, effects_);
  }
  void answer(const core::SendToTarget& send) {
    wire::RestoreReport report;
    if (const auto* prepare = std::get_if<wire::Prepare>(&send.body)) {
      report.claim = prepare->claim;
      report.state = wire::RestoreState::kPrepared;
      report.received_bytes = kMiB;
    } else if (const auto* go = std::get_if<wire::Go>(&send.body)) {
      report.claim = go->claim;
      report.act_uid = go->act_uid;
      report.state = wire::RestoreState::kRunning;
      report.program_id = ++last_program_;
    } else {
      return;
    }
    core_.on_report(now_, send.target, report, effects_);
  }
  template <typename Effect>
  void answer(const Effect&) {}

  const core::Writer me_{"a", 1};
  Instant now_{std::chrono::hours(1)};
  core::Members members_;
  RestoreCore core_;
  std::vector<core::Candidate> candidates_;
  std::map<Lineage, ClaimRecord> heads_;
  std::map<Lineage, std::uint64_t> claims_;
  core::RestoreEffects effects_;
  std::uint64_t steps_ = 0;
  ProgramId last_program_ = 1000;
};

int run(Options options, Size size, std::size_t repeats) {
  begin(options);
  Samples seconds;
  Samples virtual_seconds;
  Samples rates;
  for (std::size_t i = 0; i < repeats; ++i) {
    World world(size);
    const World::Outcome outcome = world.lose(size.lost);
    seconds.add(outcome.seconds);
    virtual_seconds.add(outcome.virtual_seconds);
    rates.add(static_cast<double>(outcome.steps) / outcome.seconds);
  }
  Table table("Loss of " + std::to_string(size.lost) + " of " + std::to_string(size.ecus) + " ECUs, " +
                  std::to_string(size.lost * size.programs_each) + " of " +
                  std::to_string(size.ecus * size.programs_each) + " programs: one cmsd's decisions",
              {"CPU s", "virtual s", "steps/s", "peak MiB of the whole simulation"});
  table.add({seconds.median(), virtual_seconds.median(), rates.median(),
             static_cast<double>(peak_resident_bytes()) / static_cast<double>(kMiB)});
  finish(options, {table});
  return 0;
}

}  // namespace
}  // namespace cms::bench

int main(int argc, char** argv) {
  CLI::App app("What the loss of many ECUs costs one cmsd's decisions, with a virtual clock");
  cms::bench::Options options;
  cms::bench::add_options(app, options);
  cms::bench::Size size;
  std::size_t repeats = 5;
  app.add_option("--repeats", repeats, "runs, of which the median is told")->check(CLI::Range(1, 100));
  app.add_option("--ecus", size.ecus, "ECUs")->check(CLI::Range(2, 50000));
  app.add_option("--lost", size.lost, "that are lost, at most half of them")->check(CLI::Range(1, 25000));
  CLI11_PARSE(app, argc, argv);
  if (options.tiny) {
    size = {200, 5, 10};
    repeats = 1;
  }
  size.lost = std::min(size.lost, size.ecus / 2);
  return cms::bench::run(options, size, repeats);
}
