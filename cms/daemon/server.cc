#include "cms/daemon/server.h"

#include <sys/signalfd.h>
#include <unistd.h>
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <utility>

#include <spdlog/spdlog.h>
#include <systemd/sd-daemon.h>

#include "base/prng.h"
#include "cms/core/cms_core.h"
#include "cms/daemon/admin_service.h"
#include "cms/daemon/admin_socket.h"
#include "cms/daemon/blob_server.h"
#include "cms/daemon/channels.h"
#include "cms/daemon/claims_log.h"
#include "cms/daemon/index_keeper.h"
#include "cms/daemon/last_calls.h"
#include "cms/daemon/lease_keeper.h"
#include "cms/daemon/lineage_gate.h"
#include "cms/daemon/member_keeper.h"
#include "cms/daemon/replaceable_index.h"
#include "cms/daemon/restore_keeper.h"
#include "cms/daemon/retention_keeper.h"
#include "cms/daemon/scrubber.h"
#include "cms/daemon/store_watch.h"
#include "cms/daemon/store_workers.h"
#include "cms/daemon/worker.h"
#include "net/endpoint.h"
#include "storage/claim_store.h"

namespace cms::daemon {
namespace {

constexpr Duration kDrainMax = std::chrono::seconds(10);
// At the end: a store that has not answered for so long is not waited for, and what is still under way when
// no pull is gets so long.
constexpr Duration kHangMax = std::chrono::seconds(3);
constexpr Duration kLastCallsMax = std::chrono::seconds(2);
constexpr Duration kExpireInterval = std::chrono::seconds(5);
constexpr Duration kRebuildInterval = std::chrono::minutes(10);  // Of a damaged index.

std::uint64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::uint64_t total_pages = 0;
  std::uint64_t resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return resident_pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace

class Server::Impl {
 public:
  Impl(const Config& config, std::unique_ptr<AdminLock> lock, std::unique_ptr<storage::BlobStore> store,
       std::unique_ptr<storage::ClaimStore> claims, std::unique_ptr<ReplaceableIndex> index,
       std::uint64_t incarnation)
      : config_(config),
        lock_(std::move(lock)),
        last_calls_([end = store->call_ender()] {
          spdlog::warn("the store does not answer: its calls are ended; what they were about is not stored");
          end();
        }),
        store_(std::move(store)),
        claims_(std::move(claims)),
        index_(std::move(index)),
        core_(core_config(config, incarnation)),
        started_at_(BootClock::now()),
        gate_(*claims_, *index_, core::Writer{config.name, incarnation}),
        store_workers_(StoreWorkers::Config{config.store_workers}, core_, *store_, *index_, gate_, outbox_,
                       [this](const Lineage& lineage) { restores_.on_own_stored(lineage); }),
        keeper_(core_, *store_, *index_, gate_, outbox_, !config.peers.empty()),
        retention_(core_, *store_, *index_, gate_, outbox_, keeper_, config.retention),
        scrubber_(scrubber_config(config), *store_, *index_, keeper_, outbox_),
        blob_server_(*store_, *index_, keeper_, scrubber_, outbox_),
        members_(*claims_, outbox_, core::Writer{config.name, incarnation},
                 std::string("cmsd ") + CMS_VERSION),
        restores_(restore_config(config, incarnation), core_, members_.members(),
                  ClaimWorker::Parts{*claims_, *store_, *index_, gate_, keeper_, outbox_}),
        leases_(core::Writer{config.name, incarnation}, core_, members_, restores_, *claims_, outbox_),
        admin_service_({channels_.admin(), core_, keeper_, retention_, scrubber_, restores_, leases_, *store_,
                        *index_, outbox_},
                       [this](Instant now) { return facts(now); }),
        watch_(
            *store_, *claims_, outbox_,
            [this](Instant now, const Status& status, core::Effects& effects) {
              on_store_changed(now, status, effects);
            },
            [this](const ClaimsFacts& facts) {
              claims_log_.note(facts);
              if (facts.test) gate_.set_trusted(facts.test->trusted_with_claims());
            }) {
    keeper_.on_suspect([this](const storage::BlobName& name, const Error&) {
      scrubber_.suspect(name, std::nullopt, nullptr);
    });
  }

  ~Impl() {
    last_calls_.arm(store_hangs_ ? Duration::zero() : kLastCallsMax);
    // The workers' answers name the core and the sockets: they end first.
    watch_.stop();
    members_.stop();
    leases_.stop();
    restores_.stop();
    store_workers_.stop();
    blob_server_.stop();
    scrubber_.stop();
    admin_service_.stop();
    keeper_.stop();
    if (signal_fd_ >= 0) ::close(signal_fd_);
  }

  Status open() {
    if (Status opened = channels_.open(config_); !opened.ok()) return opened;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    signal_fd_ = ::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signal_fd_ < 0) return error_from_errno(errno, "signalfd");
    return ok_status();
  }

  Status run() {
    std::uint64_t watchdog_us = 0;
    const bool has_watchdog = ::sd_watchdog_enabled(0, &watchdog_us) > 0;
    Instant next_watchdog_at{};
    ::sd_notify(0, "READY=1");
    spdlog::info("cmsd {} is ready on port base {}, store {}, index {}, admin {}", config_.name,
                 config_.port_base, config_.store_url, config_.index_directory, config_.admin);
    core::Effects effects;
    while (gave_up_.ok() && !done(BootClock::now())) {
      wait();
      const Instant now = BootClock::now();
      take_completions(now, effects);
      channels_.receive(now, {core_, blob_server_, admin_service_}, effects);
      core_.set_reading(blob_server_.reading());
      if (now >= core_.next_deadline()) core_.on_time(now, wall_time_us(), effects);
      core_.tell_peers(effects);
      leases_.on_time(now, wall_time_us(), effects);
      restores_.on_time(now, wall_time_us(), effects);
      admin_service_.on_time(now);
      carry_out(now, effects);
      look_after_store(now);
      look_after_index(now);
      measure_pull_rate(now);
      if (now >= next_expire_at_) {
        next_expire_at_ = now + kExpireInterval;
        blob_server_.expire(now);
      }
      if (has_watchdog && now >= next_watchdog_at) {
        next_watchdog_at = now + std::chrono::microseconds(watchdog_us / 3);
        ::sd_notify(0, "WATCHDOG=1");
      }
    }
    if (!gave_up_.ok()) return gave_up_;
    spdlog::info("cmsd {} has ended; {} checkpoints were stored", config_.name, core_.counters().stored);
    return ok_status();
  }

 private:
  static core::CmsCoreConfig core_config(const Config& config, std::uint64_t incarnation) {
    core::CmsCoreConfig core;
    core.name = config.name;
    core.pull_budget_bytes = config.pull_budget_bytes;
    core.ecu_dead = config.ecu_dead;
    core.seed = random_u64();
    core.advertise_allowed = config.advertise_allowed;
    core.incarnation = incarnation;
    core.peer_count = config.peers.size();
    core.pull_every = config.pull_every;
    return core;
  }

  static core::RestoreConfig restore_config(const Config& config, std::uint64_t incarnation) {
    core::RestoreConfig restore;
    restore.me = core::Writer{config.name, incarnation};
    restore.bulk_port = static_cast<std::uint16_t>(config.port_base + net::kBulkPort);
    restore.seed = random_u64();
    restore.placement = config.placement;
    return restore;
  }

  static Scrubber::Config scrubber_config(const Config& config) {
    Scrubber::Config scrubber;
    scrubber.cms_name = config.name;
    scrubber.rate_bytes_per_s = config.scrub_rate_bytes_per_s;
    scrubber.seed = random_u64();
    return scrubber;
  }

  // A full store can be read.
  static bool is_readable(const Status& status) {
    return status.ok() || status.code() == Code::kNoSpace || status.code() == Code::kQuota ||
           status.code() == Code::kReadOnly || status.code() == Code::kPermission;
  }

  void on_store_changed(Instant now, const Status& status, core::Effects& effects) {
    if (status.code() == Code::kAlreadyExists) gave_up_ = status;  // Its name is taken.
    if (status.ok()) {
      const auto fleet_id = parse_id128(store_->fleet_id());
      if (fleet_id.ok()) core_.set_fleet_id(*fleet_id);
      keeper_.reconcile();
    }
    keeper_.on_store_looked_at();
    scrubber_.on_store_state(is_readable(status));
    core_.on_store_state(now, status, effects);
  }

  bool done(Instant now) {
    if (!stopping_at_) return false;
    if (core_.transfer_count() == 0 && restores_.core().claim_count() == 0) return true;
    const auto no_answer = watch_.no_answer_for(now);
    if (no_answer && *no_answer >= kHangMax) {
      spdlog::warn("{} pulls are given up: the store has given no answer for {} s", core_.transfer_count(),
                   std::chrono::duration_cast<std::chrono::seconds>(*no_answer).count());
      store_hangs_ = true;
      return true;
    }
    if (now < *stopping_at_ + kDrainMax) return false;
    spdlog::warn("{} pulls were still under way when the time to drain was over", core_.transfer_count());
    return true;
  }

  void wait() {
    constexpr Duration kLongest = std::chrono::milliseconds(500);
    const Instant next =
        std::min({core_.next_deadline(), restores_.next_deadline(), leases_.next_deadline()});
    const Duration left = std::clamp<Duration>(next - BootClock::now(), Duration::zero(), kLongest);
    const auto readable = channels_.wait({outbox_.waker().fd(), signal_fd_},
                                         std::chrono::ceil<std::chrono::milliseconds>(left));
    if (readable[0]) outbox_.waker().drain();
    if (readable[1]) take_signal();
  }

  void take_signal() {
    signalfd_siginfo info{};
    if (::read(signal_fd_, &info, sizeof(info)) != sizeof(info)) return;
    if (stopping_at_) {
      spdlog::warn("a second signal: ending at once");
      *stopping_at_ -= kDrainMax;
      return;
    }
    stopping_at_ = BootClock::now();
    watch_.suspect(*stopping_at_);  // Whether it still answers.
    core_.drain();
    restores_.drain();
    ::sd_notify(0, "STOPPING=1");
    spdlog::info("ending: {} pulls under way are finished first", core_.transfer_count());
  }

  // ---- inputs

  void take_completions(Instant now, core::Effects& effects) {
    outbox_.take(completions_);
    for (Completion& completion : completions_) {
      completion(now, effects);
      completion = nullptr;
    }
  }

  // ---- for people

  DaemonFacts facts(Instant now) const {
    const IndexKeeper::Progress& progress = keeper_.progress();
    DaemonFacts facts;
    facts.name = config_.name;
    facts.version = CMS_VERSION;
    facts.pid = ::getpid();
    facts.uptime = now - started_at_;
    facts.wall_us = wall_time_us();
    facts.port_base = config_.port_base;
    facts.draining = stopping_at_.has_value();
    facts.peers_configured = config_.peers.size();
    facts.store_url = config_.store_url;
    facts.store_since = watch_.since() == Instant{} ? facts.uptime : now - watch_.since();
    facts.store_no_answer_for = watch_.no_answer_for(now);
    facts.space = watch_.space();
    facts.reconcile_running = progress.running;
    facts.reconcile_done = progress.done;
    facts.reconcile_shards_done = progress.shards_done;
    facts.reconcile_trouble = progress.trouble;
    facts.unknown_files = progress.unknown_files;
    facts.index = keeper_.facts(now);
    facts.scrub = scrubber_.facts();
    facts.quarantine = watch_.quarantine();
    facts.claims = watch_.claims();
    facts.store_queue_length = store_workers_.queue_length();
    facts.index_queue_length = keeper_.queue_length();
    facts.query_queue_length = admin_service_.queue_length();
    facts.pull_bytes_per_s = pull_rate_.bytes_per_s;
    facts.rss_bytes = resident_bytes();
    facts.retention = retention_.facts(now);
    facts.members = members_.facts(now);
    facts.restores = restores_.facts(now);
    facts.leases = leases_.facts(now);
    return facts;
  }

  // Of the last whole second or more.
  struct PullRate {
    Instant since{};
    std::uint64_t bytes_at_since = 0;
    std::uint64_t bytes_per_s = 0;
  };
  void measure_pull_rate(Instant now) {
    const Duration span = now - pull_rate_.since;
    if (span < std::chrono::seconds(1)) return;
    const std::uint64_t bytes = core_.counters().pulled_bytes;
    const double seconds = std::chrono::duration<double>(span).count();
    pull_rate_.bytes_per_s =
        static_cast<std::uint64_t>(static_cast<double>(bytes - pull_rate_.bytes_at_since) / seconds);
    pull_rate_.since = now;
    pull_rate_.bytes_at_since = bytes;
  }

  // ---- the store

  void look_after_store(Instant now) {
    if (core_.counters().store_troubles != store_troubles_seen_) {
      store_troubles_seen_ = core_.counters().store_troubles;
      watch_.suspect(now);
    }
    if (core_.counters().quarantined != quarantined_seen_) {
      quarantined_seen_ = core_.counters().quarantined;
      watch_.suspect(now);  // Looks into quarantine as well.
    }
    watch_.on_time(now);
    members_.on_time(now, is_readable(watch_.status()));  // A full store has room for what is there.
    retention_.on_time(now, watch_.status().ok() && keeper_.progress().done);
    // Reconciling stops when the store goes away between two looks; it starts over by itself.
    if (watch_.status().ok() && !keeper_.progress().trouble.empty() && now >= next_reconcile_at_) {
      next_reconcile_at_ = now + std::chrono::seconds(5);
      keeper_.reconcile();
    }
  }

  // What the scrubber and the keeper cannot know of themselves.
  void look_after_index(Instant now) {
    if (now < next_care_at_) return;
    next_care_at_ = now + std::chrono::seconds(1);
    std::set<std::string> peers;
    for (const auto& [name, peer] : core_.peers().peers()) {
      if (peer.live && peer.takes_pulls && !peer.foreign) peers.insert(name);
    }
    scrubber_.set_peers(std::move(peers));
    const auto damage = index_->damage();
    if (!damage || now < next_rebuild_at_) return;
    // Seldom: each leaves the damaged one behind.
    next_rebuild_at_ = now + kRebuildInterval;
    spdlog::error("the index is damaged ({}); it is put aside and rebuilt from the store", *damage);
    keeper_.rebuild("it was damaged: " + *damage, true, [this](const Status& begun) {
      if (begun.ok()) return;
      next_rebuild_at_ = BootClock::now() + std::chrono::seconds(5);
      spdlog::error("the index cannot be rebuilt now: {}", begun.error().message());
    });
  }

  // ---- effects

  void carry_out(Instant now, core::Effects& effects) {
    for (core::Effect& effect : effects) {
      std::visit([this, now](auto& one) { carry_out_one(now, one); }, effect);
    }
    effects.clear();
    // A closed link can only be taken away when nobody iterates over the links.
    core::Effects more;
    for (const auto& [link, error] : channels_.take_failed_links()) {
      core_.on_malformed_bulk(now, link, error, more);
    }
    if (!more.empty()) carry_out(now, more);
  }

  void carry_out_one(Instant, core::SendControl& effect) { channels_.send(effect); }
  void carry_out_one(Instant, core::SendPeer& effect) { channels_.send(effect); }
  void carry_out_one(Instant, core::SendBulk& effect) { channels_.send(effect); }
  void carry_out_one(Instant, core::OpenLink& effect) { channels_.open_link(effect); }
  void carry_out_one(Instant, core::CloseLink& effect) { channels_.close_link(effect); }
  void carry_out_one(Instant, core::StartStore& effect) { store_workers_.start(std::move(effect)); }
  void carry_out_one(Instant, core::AppendStore& effect) { store_workers_.append(std::move(effect)); }
  void carry_out_one(Instant, core::FinishStore& effect) { store_workers_.finish(effect); }
  void carry_out_one(Instant, core::DropStore& effect) { store_workers_.drop(effect); }
  void carry_out_one(Instant, core::StoreSmall& effect) { store_workers_.put_small(std::move(effect)); }
  void carry_out_one(Instant, core::LookUpProgram& effect) { keeper_.look_up(effect); }
  void carry_out_one(Instant, core::ReserveIncarnation& effect) {
    keeper_.reserve_incarnation(std::move(effect));
  }
  void carry_out_one(Instant, core::WithdrawProgram& effect) {
    keeper_.withdraw(effect, admin_service_.take_retirement(effect.ticket));
  }
  void carry_out_one(Instant, core::RemoveBlobs& effect) { keeper_.remove(std::move(effect)); }
  void carry_out_one(Instant now, core::SourceReported& effect) {
    core::Effects more;
    restores_.on_freeze_report(now, effect, more);
    if (!more.empty()) carry_out(now, more);
  }
  void carry_out_one(Instant, core::RecordHello& effect) { leases_.record_hello(effect); }
  void carry_out_one(Instant now, core::GuardedBegun& effect) {
    core::Effects more;
    leases_.on_guarded_begun(now, effect, more);
    if (!more.empty()) carry_out(now, more);
  }
  void carry_out_one(Instant now, core::ProgramsTold& effect) {
    core::Effects more;
    restores_.on_programs(now, effect, more);
    if (!more.empty()) carry_out(now, more);
  }
  void carry_out_one(Instant, core::MigrateAsked& effect) { restores_.on_migrate_asked(effect); }
  void carry_out_one(Instant now, core::TargetReported& effect) {
    core::Effects more;
    restores_.on_report(now, effect, more);
    if (!more.empty()) carry_out(now, more);
  }
  void carry_out_one(Instant, core::ApplyRetention& effect) { retention_.apply(effect); }
  void carry_out_one(Instant, core::FreeSpace&) { retention_.free_space(); }
  void carry_out_one(Instant, core::NoteRemoved& effect) { retention_.note_removed(std::move(effect)); }
  void carry_out_one(Instant, core::NotePinned& effect) { retention_.note_pinned(effect); }
  void carry_out_one(Instant, core::IndexStored& effect) { keeper_.note_stored(std::move(effect)); }
  void carry_out_one(Instant, core::NoteWithdrawn& effect) { keeper_.note_withdrawn(effect); }
  void carry_out_one(Instant, core::NoteQuarantined& effect) { keeper_.note_quarantined(std::move(effect)); }
  void carry_out_one(Instant, core::NoteIncarnations& effect) {
    keeper_.note_incarnations(std::move(effect));
  }
  void carry_out_one(Instant, core::ReconcileStore&) { keeper_.reconcile(); }
  void carry_out_one(Instant, core::GiveUp& effect) { gave_up_ = make_error(effect.code, effect.reason); }
  void carry_out_one(Instant, core::LogEvent& effect) {
    switch (effect.level) {
      case core::LogEvent::Level::kInfo: spdlog::info("{}", effect.text); break;
      case core::LogEvent::Level::kWarning: spdlog::warn("{}", effect.text); break;
      case core::LogEvent::Level::kError: spdlog::error("{}", effect.text); break;
    }
  }

  const Config config_;
  std::unique_ptr<AdminLock> lock_;
  LastCalls last_calls_;  // Before the store: it bounds its end as well.
  std::unique_ptr<storage::BlobStore> store_;
  std::unique_ptr<storage::ClaimStore> claims_;
  std::unique_ptr<ReplaceableIndex> index_;
  Outbox outbox_;
  core::CmsCore core_;
  Channels channels_;
  int signal_fd_ = -1;
  Instant started_at_;
  bool store_hangs_ = false;  // Found out while ending.
  Status gave_up_;            // Why this cmsd must not go on.
  std::optional<Instant> stopping_at_;
  Instant next_expire_at_{};
  Instant next_reconcile_at_{};
  Instant next_care_at_{};
  Instant next_rebuild_at_{};
  ClaimsLog claims_log_;
  std::uint64_t store_troubles_seen_ = 0;
  std::uint64_t quarantined_seen_ = 0;
  PullRate pull_rate_;
  std::vector<Completion> completions_;
  LineageGate gate_;
  StoreWorkers store_workers_;
  IndexKeeper keeper_;
  RetentionKeeper retention_;
  Scrubber scrubber_;
  BlobServer blob_server_;
  MemberKeeper members_;
  RestoreKeeper restores_;
  LeaseKeeper leases_;
  AdminService admin_service_;
  StoreWatch watch_;
};

Result<std::unique_ptr<Server>> Server::create(const Config& config) {
  auto lock = AdminLock::take(config.admin);
  if (!lock.ok()) return std::move(lock).error();
  storage::StoreOptions options;
  options.url = config.store_url;
  options.node = config.name;
  const std::uint64_t incarnation = random_u64() | 1;  // One for all that tells this life from others.
  options.node_incarnation = incarnation;
  auto store = storage::make_blob_store(options);
  if (!store.ok()) return std::move(store).error();
  auto claims = storage::make_claim_store(options);
  if (!claims.ok()) return std::move(claims).error();
  auto index = ReplaceableIndex::open(config.index_directory);
  if (!index.ok()) return std::move(index).error();
  if (!(*index)->opening().empty()) spdlog::error("index: {}", (*index)->opening());
  try {
    auto impl = std::make_unique<Impl>(config, std::move(*lock), std::move(*store), std::move(*claims),
                                       std::move(*index), incarnation);
    const Status opened = impl->open();
    if (!opened.ok()) return opened.error();
    return std::unique_ptr<Server>(new Server(std::move(impl)));
  } catch (const zmq::error_t& error) {
    return error_from_errno(error.num(), "cannot make the sockets of cmsd");
  }
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;
Status Server::run() { return impl_->run(); }

}  // namespace cms::daemon
