#ifndef RTCR_RTCR_HPP
#define RTCR_RTCR_HPP
// The C++17 face of librtcr-client, header-only over <rtcr/rtcr.h>, which has the rules: threads,
// callbacks, fork, blocking, limits and errors of each call are the same here.
//
// Nothing throws but std::bad_alloc, and callbacks must not throw at all. A Client is moved, not
// copied; its callbacks live as long as it does.
#include <rtcr/rtcr.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace rtcr {

struct Error {
  int status = RTCR_OK;  // rtcr_status
  std::string detail{};  // What, where, and what would be allowed.
};

// A value or an Error. Look before you take: value() of an error is std::bad_variant_access.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: like std::expected
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT
  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  const Error& error() const { return std::get<1>(state_); }
  int status() const { return ok() ? static_cast<int>(RTCR_OK) : error().status; }

 private:
  std::variant<T, Error> state_;
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) {}  // NOLINT
  bool ok() const { return error_.status == RTCR_OK; }
  explicit operator bool() const { return ok(); }
  const Error& error() const { return error_; }
  int status() const { return error_.status; }

 private:
  Error error_{};
};

struct Receipt {
  rtcr_level level = RTCR_ANNOUNCED;
  std::uint64_t program_id = 0;
  std::uint64_t incarnation = 0;
  std::uint64_t seq = 0;
  int code = RTCR_OK;  // rtcr_status
  bool final = false;
  std::string reason{};
};

struct Event {
  rtcr_event_kind kind = RTCR_CMS_LIVE;
  std::size_t cms_index = 0;
  std::string text{};
};

using Lineage = std::array<std::uint8_t, 16>;

// One restore at a target; see rtcr_restore. Valid while the callback runs.
struct Restore {
  std::uint64_t restore_id = 0;
  int fd = -1;
  std::string path{};  // Empty: a memfd.
  std::uint64_t size_bytes = 0;
  std::string ecu_mac{};
  std::uint64_t program_id = 0;
  std::uint64_t incarnation = 0;
  std::uint64_t seq = 0;
  std::uint64_t claim_slot = 0;
  Lineage lineage{};
  std::uint64_t owner_epoch = 0;  // From go on.
  const rtcr_checkpoint* checkpoint = nullptr;
};

// That this ECU is a target; see rtcr_restore_handler.
struct Target {
  // An Error refuses for good.
  std::function<Status(const Restore&)> prepare{};
  std::function<Result<std::uint64_t>(const Restore&)> go{};  // The program_id.
  std::function<void(const Restore&)> discard{};
  std::function<void(rtcr_metrics&)> on_metrics{};
  unsigned thread_count = 0;
  std::string folder{};
  std::uint64_t received_bytes_max = 0;
  std::string arch{};
  std::vector<std::pair<std::string, std::uint32_t>> formats{};  // Name and newest version.
  std::vector<std::string> labels{};
};

// One command of a planned move; see rtcr_move.
struct Move {
  std::uint64_t program_id = 0;
  std::uint64_t claim_slot = 0;
  Lineage lineage{};
};

// That programs can be moved from this ECU; see rtcr_move_handler.
struct Source {
  // The seq of the last checkpoint; an Error: it runs on.
  std::function<Result<std::uint64_t>(const Move&)> freeze{};
  std::function<void(const Move&)> thaw{};
  unsigned thread_count = 0;
};

// How the run lease stands; see rtcr_lease.
struct Lease {
  bool lives = false;
  std::uint64_t ends_at_ns = 0;
  std::uint64_t enforce_at_ns = 0;
  std::string reason{};
};

// That the session is guarded; see rtcr_lease_handler.
struct LeaseHandler {
  std::function<Status(std::uint64_t program_id)> stop{};  // An Error: it may still run.
  std::function<void(std::uint64_t program_id)> resume{};
  std::function<void(const Lease&)> on_lease{};  // On the client's thread.
  unsigned thread_count = 0;
  std::string boot_id{};
  rtcr_enforcer enforcer = RTCR_ENFORCER_NONE;
};

struct Options {
  std::string cms{};
  std::string ecu_mac{};
  std::uint64_t memory_budget_bytes = 0;  // 0: 256 MiB
  std::string bulk_ports{};               // Empty, here and below: the default.
  std::string bulk_host{};
  std::string advertise_host{};
  std::string thread_name{};
  int thread_priority = 0;
  std::optional<std::uint32_t> thread_cpu{};
  bool lock_memory = false;
  std::function<void(const Receipt&)> on_receipt{};  // On the client's thread.
  std::function<void(const Event&)> on_event{};      // On the client's thread.
  std::optional<Target> target{};
  std::optional<Source> source{};
  std::optional<LeaseHandler> lease{};
};

// What is known about a checkpoint; all but program_id is optional.
struct Facts {
  std::uint64_t program_id = 0;
  std::string program_name{};
  std::uint32_t chunk_size_bytes = 0;
  std::uint64_t taken_at_us = 0;
  std::uint64_t pause_us = 0;
  Lineage lineage{};
  std::uint64_t owner_epoch = 0;
  std::string arch{};
  std::string os{};
  std::string checkpoint_format{};
  std::uint32_t format_version = 0;
  std::uint64_t ram_bytes = 0;
  std::vector<std::string> labels{};
  int priority = 0;
  std::uint64_t period_us = 0;
  std::uint64_t deadline_us = 0;
  std::uint64_t wcet_us = 0;
  bool tight = false;
  rtcr_release release = RTCR_RELEASE_REPLICATED;
  rtcr_on_isolation on_isolation = RTCR_ON_ISOLATION_KEEP;
  rtcr_on_loss on_loss = RTCR_ON_LOSS_ASK;
};

struct Version {
  std::uint64_t incarnation = 0;
  std::uint64_t seq = 0;
};

struct FetchOptions {
  std::string ecu_mac{};  // Empty: the client's own.
  std::optional<Version> version{};
  std::chrono::milliseconds timeout{5000};  // Without an answer or progress; negative: for ever.
};

struct Fetched {
  Version version{};
  std::uint64_t size_bytes = 0;
  std::array<std::uint8_t, 16> digest{};
  std::size_t cms_index = 0;
};

inline constexpr std::chrono::milliseconds kForever{-1};

// A new life for a program: see rtcr_new_lineage.
inline Lineage new_lineage() {
  Lineage lineage{};
  (void)rtcr_new_lineage(lineage.data());
  return lineage;
}

// Memory of rtcr_alloc; must go before its client does.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept
      : client_(std::exchange(other.client_, nullptr)),
        data_(std::exchange(other.data_, nullptr)),
        size_bytes_(std::exchange(other.size_bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    if (this != &other) {
      reset();
      client_ = std::exchange(other.client_, nullptr);
      data_ = std::exchange(other.data_, nullptr);
      size_bytes_ = std::exchange(other.size_bytes_, 0);
    }
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { reset(); }

  void* data() const { return data_; }
  std::uint64_t size_bytes() const { return size_bytes_; }

 private:
  friend class Client;
  Buffer(rtcr_client* client, void* data, std::uint64_t size_bytes)
      : client_(client), data_(data), size_bytes_(size_bytes) {}
  void reset() {
    if (data_ != nullptr) (void)rtcr_free(client_, data_);
    data_ = nullptr;
  }
  void release() { data_ = nullptr; }

  rtcr_client* client_ = nullptr;
  void* data_ = nullptr;
  std::uint64_t size_bytes_ = 0;
};

class Client {
 public:
  static Result<Client> open(const Options& options) {
    auto callbacks = std::make_unique<Callbacks>();
    callbacks->on_receipt = options.on_receipt;
    callbacks->on_event = options.on_event;
    rtcr_options given = rtcr_options_init();
    given.cms = options.cms.c_str();
    given.ecu_mac = options.ecu_mac.c_str();
    given.memory_budget_bytes = options.memory_budget_bytes;
    given.bulk_ports = text_or_null(options.bulk_ports);
    given.bulk_host = text_or_null(options.bulk_host);
    given.advertise_host = text_or_null(options.advertise_host);
    given.thread_name = text_or_null(options.thread_name);
    given.thread_priority = options.thread_priority;
    if (options.thread_cpu) {
      given.flags |= RTCR_PIN_THREAD;
      given.thread_cpu = *options.thread_cpu;
    }
    if (options.lock_memory) given.flags |= RTCR_LOCK_MEMORY;
    if (options.on_receipt) {
      given.on_receipt = tell_receipt;
      given.receipt_context = callbacks.get();
    }
    if (options.on_event) {
      given.on_event = tell_event;
      given.event_context = callbacks.get();
    }
    rtcr_restore_handler handler = rtcr_restore_handler_init();
    std::vector<rtcr_format> formats;
    std::vector<const char*> labels;
    if (options.target) {
      callbacks->target = *options.target;
      const Target& target = callbacks->target;
      for (const auto& [name, version_max] : target.formats)
        formats.push_back(rtcr_format{name.c_str(), version_max, 0});
      for (const std::string& label : target.labels) labels.push_back(label.c_str());
      handler.thread_count = target.thread_count;
      if (target.prepare) handler.prepare = call_prepare;
      if (target.go) handler.go = call_go;
      if (target.discard) handler.discard = call_discard;
      if (target.on_metrics) handler.on_metrics = call_on_metrics;
      handler.context = callbacks.get();
      handler.folder = text_or_null(target.folder);
      handler.received_bytes_max = target.received_bytes_max;
      handler.arch = text_or_null(target.arch);
      handler.formats = formats.data();
      handler.format_count = static_cast<std::uint32_t>(formats.size());
      handler.labels = labels.data();
      handler.label_count = static_cast<std::uint32_t>(labels.size());
      given.restore = &handler;
    }
    rtcr_move_handler mover = rtcr_move_handler_init();
    rtcr_lease_handler stopper = rtcr_lease_handler_init();
    if (options.lease) {
      callbacks->lease = *options.lease;
      stopper.thread_count = callbacks->lease.thread_count;
      if (callbacks->lease.stop) stopper.stop = call_stop;
      if (callbacks->lease.resume) stopper.resume = call_resume;
      if (callbacks->lease.on_lease) stopper.on_lease = tell_lease;
      stopper.context = callbacks.get();
      stopper.boot_id = text_or_null(callbacks->lease.boot_id);
      stopper.enforcer = callbacks->lease.enforcer;
      given.lease = &stopper;
    }
    if (options.source) {
      callbacks->source = *options.source;
      mover.thread_count = callbacks->source.thread_count;
      if (callbacks->source.freeze) mover.freeze = call_freeze;
      if (callbacks->source.thaw) mover.thaw = call_thaw;
      mover.context = callbacks.get();
      given.move = &mover;
    }
    rtcr_client* opened = nullptr;
    const int status = rtcr_open(&given, &opened);
    if (status != RTCR_OK) return last_error(status);
    return Client(opened, std::move(callbacks));
  }

  Client(Client&& other) noexcept
      : callbacks_(std::move(other.callbacks_)), client_(std::exchange(other.client_, nullptr)) {}
  Client& operator=(Client&& other) noexcept {
    if (this != &other) {
      (void)close();
      callbacks_ = std::move(other.callbacks_);
      client_ = std::exchange(other.client_, nullptr);
    }
    return *this;
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  // In a fork of the process that opened it nothing is closed, and the callbacks leak with the rest.
  ~Client() {
    if (!close().ok()) (void)callbacks_.release();
  }

  // On an error the client lives on (RTCR_E_CALLBACK, RTCR_E_FORKED).
  Status close() {
    const int status = rtcr_close(client_);
    if (status != RTCR_OK) return last_error(status);
    client_ = nullptr;
    return Status();
  }

  // Each returns the seq. Sent from where it is; `release` is called when it is not used any more.
  Result<std::uint64_t> publish(const Facts& facts, const void* data, std::uint64_t size_bytes,
                                std::function<void()> release) {
    auto held = std::make_unique<std::function<void()>>(std::move(release));
    auto seq = publish_with(facts, [&](rtcr_checkpoint& checkpoint) {
      checkpoint.source = RTCR_SOURCE_MEMORY;
      checkpoint.data = data;
      checkpoint.size_bytes = size_bytes;
      checkpoint.release = call_release;
      checkpoint.release_context = held.get();
    });
    if (seq.ok()) (void)held.release();  // call_release deletes it.
    return seq;
  }
  Result<std::uint64_t> publish_copy(const Facts& facts, const void* data, std::uint64_t size_bytes) {
    return publish_with(facts, [&](rtcr_checkpoint& checkpoint) {
      checkpoint.source = RTCR_SOURCE_COPY;
      checkpoint.data = data;
      checkpoint.size_bytes = size_bytes;
    });
  }
  Result<std::uint64_t> publish_file(const Facts& facts, int fd) {
    return publish_with(facts, [&](rtcr_checkpoint& checkpoint) {
      checkpoint.source = RTCR_SOURCE_FD;
      checkpoint.fd = fd;
    });
  }
  // The first `size_bytes` of the buffer, which is empty afterwards; on an error it is as it was.
  Result<std::uint64_t> publish(const Facts& facts, Buffer&& buffer, std::uint64_t size_bytes) {
    auto seq = publish_with(facts, [&](rtcr_checkpoint& checkpoint) {
      checkpoint.source = RTCR_SOURCE_ALLOC;
      checkpoint.data = buffer.data();
      checkpoint.size_bytes = size_bytes;
    });
    if (seq.ok()) buffer.release();
    return seq;
  }
  Result<Buffer> alloc(std::uint64_t size_bytes) {
    void* data = nullptr;
    const int status = rtcr_alloc(client_, size_bytes, &data);
    if (status != RTCR_OK) return last_error(status);
    return Buffer(client_, data, size_bytes);
  }

  Status wait(std::uint64_t seq, rtcr_level level, std::chrono::milliseconds timeout) {
    return status_of(rtcr_wait(client_, seq, level, timeout.count()));
  }
  Status withdraw(std::uint64_t program_id, std::chrono::milliseconds timeout) {
    return status_of(rtcr_withdraw(client_, program_id, timeout.count()));
  }
  // `to_ecu_mac` empty: wherever it suits best.
  Status request_migration(std::uint64_t program_id, const std::string& to_ecu_mac,
                           std::chrono::milliseconds timeout) {
    return status_of(rtcr_request_migration(client_, program_id, text_or_null(to_ecu_mac), timeout.count()));
  }

  Status programs_told() { return status_of(rtcr_programs_told(client_)); }
  Status program_ended(std::uint64_t program_id) {
    return status_of(rtcr_program_ended(client_, program_id));
  }

  int poll_fd() const { return rtcr_poll_fd(client_); }
  std::optional<Receipt> next_receipt() {
    rtcr_receipt receipt = rtcr_receipt_init();
    if (rtcr_next_receipt(client_, &receipt) != RTCR_OK) return std::nullopt;
    return receipt_of(receipt);
  }
  Result<rtcr_stats> stats() const {
    rtcr_stats stats = rtcr_stats_init();
    const int status = rtcr_get_stats(client_, &stats);
    if (status != RTCR_OK) return last_error(status);
    return stats;
  }

  // The next bytes, their offset, and the size of the whole; false: give up.
  using OnBytes = std::function<bool(const void* data, std::uint64_t size_bytes, std::uint64_t offset_bytes,
                                     std::uint64_t blob_size_bytes)>;
  // Of a guarded client and its own program: claims it; see rtcr_fetch_newest.
  Result<Fetched> fetch_newest(std::uint64_t program_id, const OnBytes& on_bytes,
                               const FetchOptions& options = {}) {
    return fetch_with(program_id, options, [&](rtcr_fetch& fetch) {
      fetch.target = RTCR_TARGET_CALLBACK;
      fetch.on_bytes = call_on_bytes;
      fetch.bytes_context = const_cast<OnBytes*>(&on_bytes);
    });
  }
  Result<Fetched> fetch_newest(std::uint64_t program_id, int fd, const FetchOptions& options = {}) {
    return fetch_with(program_id, options, [&](rtcr_fetch& fetch) {
      fetch.target = RTCR_TARGET_FD;
      fetch.fd = fd;
    });
  }
  Result<Fetched> fetch_newest(std::uint64_t program_id, void* buffer, std::uint64_t capacity_bytes,
                               const FetchOptions& options = {}) {
    return fetch_with(program_id, options, [&](rtcr_fetch& fetch) {
      fetch.target = RTCR_TARGET_MEMORY;
      fetch.buffer = buffer;
      fetch.capacity_bytes = capacity_bytes;
    });
  }

  rtcr_client* get() const { return client_; }

 private:
  struct Callbacks {
    std::function<void(const Receipt&)> on_receipt{};
    std::function<void(const Event&)> on_event{};
    Target target{};
    Source source{};
    LeaseHandler lease{};
  };

  Client(rtcr_client* client, std::unique_ptr<Callbacks> callbacks)
      : callbacks_(std::move(callbacks)), client_(client) {}

  static const char* text_or_null(const std::string& text) { return text.empty() ? nullptr : text.c_str(); }
  static Error last_error(int status) { return Error{status, rtcr_last_error()}; }
  static Status status_of(int status) { return status == RTCR_OK ? Status() : Status(last_error(status)); }

  static Receipt receipt_of(const rtcr_receipt& receipt) {
    return Receipt{
        static_cast<rtcr_level>(receipt.level), receipt.program_id, receipt.incarnation, receipt.seq,
        static_cast<int>(receipt.code),         receipt.final != 0, receipt.reason};
  }
  static void tell_receipt(void* context, const rtcr_receipt* receipt) noexcept {
    static_cast<Callbacks*>(context)->on_receipt(receipt_of(*receipt));
  }
  static void tell_event(void* context, const rtcr_event* event) noexcept {
    static_cast<Callbacks*>(context)->on_event(
        Event{static_cast<rtcr_event_kind>(event->kind), event->cms_index, event->text});
  }
  static Restore restore_of(const rtcr_restore& restore) {
    Restore result;
    result.restore_id = restore.restore_id;
    result.fd = restore.fd;
    if (restore.path != nullptr) result.path = restore.path;
    result.size_bytes = restore.size_bytes;
    result.ecu_mac = restore.ecu_mac;
    result.program_id = restore.program_id;
    result.incarnation = restore.incarnation;
    result.seq = restore.seq;
    result.claim_slot = restore.claim_slot;
    for (std::size_t i = 0; i < result.lineage.size(); ++i)
      result.lineage[i] = restore.checkpoint->lineage[i];
    result.owner_epoch = restore.checkpoint->owner_epoch;
    result.checkpoint = restore.checkpoint;
    return result;
  }
  static int refusal_of(const Error& error, char* reason) {
    const std::size_t size = error.detail.copy(reason, RTCR_REASON_SIZE - 1);
    reason[size] = '\0';
    return error.status == RTCR_OK ? static_cast<int>(RTCR_E_IO) : error.status;
  }
  static int call_prepare(void* context, rtcr_restore* restore, char* reason) noexcept {
    const Status status = static_cast<Callbacks*>(context)->target.prepare(restore_of(*restore));
    return status.ok() ? static_cast<int>(RTCR_OK) : refusal_of(status.error(), reason);
  }
  static int call_go(void* context, rtcr_restore* restore, std::uint64_t* program_id, char* reason) noexcept {
    const auto runs = static_cast<Callbacks*>(context)->target.go(restore_of(*restore));
    if (!runs.ok()) return refusal_of(runs.error(), reason);
    *program_id = runs.value();
    return RTCR_OK;
  }
  static void call_discard(void* context, rtcr_restore* restore) noexcept {
    static_cast<Callbacks*>(context)->target.discard(restore_of(*restore));
  }
  static void call_on_metrics(void* context, rtcr_metrics* metrics) noexcept {
    static_cast<Callbacks*>(context)->target.on_metrics(*metrics);
  }
  static Move move_of(const rtcr_move& move) {
    Move result;
    result.program_id = move.program_id;
    result.claim_slot = move.claim_slot;
    for (std::size_t i = 0; i < result.lineage.size(); ++i) result.lineage[i] = move.lineage[i];
    return result;
  }
  static int call_freeze(void* context, const rtcr_move* move, std::uint64_t* last_seq,
                         char* reason) noexcept {
    const auto frozen = static_cast<Callbacks*>(context)->source.freeze(move_of(*move));
    if (!frozen.ok()) return refusal_of(frozen.error(), reason);
    *last_seq = frozen.value();
    return RTCR_OK;
  }
  static void call_thaw(void* context, const rtcr_move* move) noexcept {
    static_cast<Callbacks*>(context)->source.thaw(move_of(*move));
  }
  static int call_stop(void* context, std::uint64_t program_id, char* reason) noexcept {
    const Status stopped = static_cast<Callbacks*>(context)->lease.stop(program_id);
    return stopped.ok() ? static_cast<int>(RTCR_OK) : refusal_of(stopped.error(), reason);
  }
  static void call_resume(void* context, std::uint64_t program_id) noexcept {
    static_cast<Callbacks*>(context)->lease.resume(program_id);
  }
  static void tell_lease(void* context, const rtcr_lease* lease) noexcept {
    static_cast<Callbacks*>(context)->lease.on_lease(
        Lease{lease->lives != 0, lease->ends_at_ns, lease->enforce_at_ns, lease->reason});
  }
  static void call_release(void* context, const void*, std::uint64_t) noexcept {
    const std::unique_ptr<std::function<void()>> release(static_cast<std::function<void()>*>(context));
    if (*release) (*release)();
  }
  static int call_on_bytes(void* context, const void* data, std::uint64_t size_bytes,
                           std::uint64_t offset_bytes, std::uint64_t blob_size_bytes) noexcept {
    return (*static_cast<OnBytes*>(context))(data, size_bytes, offset_bytes, blob_size_bytes) ? 0 : 1;
  }

  template <typename SetSource>
  Result<std::uint64_t> publish_with(const Facts& facts, const SetSource& set_source) {
    std::vector<const char*> labels;
    for (const std::string& label : facts.labels) labels.push_back(label.c_str());
    rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
    checkpoint.program_id = facts.program_id;
    checkpoint.program_name = facts.program_name.c_str();
    checkpoint.chunk_size_bytes = facts.chunk_size_bytes;
    checkpoint.taken_at_us = facts.taken_at_us;
    checkpoint.pause_us = facts.pause_us;
    for (std::size_t i = 0; i < facts.lineage.size(); ++i) checkpoint.lineage[i] = facts.lineage[i];
    checkpoint.owner_epoch = facts.owner_epoch;
    checkpoint.arch = facts.arch.c_str();
    checkpoint.os = facts.os.c_str();
    checkpoint.checkpoint_format = facts.checkpoint_format.c_str();
    checkpoint.format_version = facts.format_version;
    checkpoint.ram_bytes = facts.ram_bytes;
    checkpoint.labels = labels.data();
    checkpoint.label_count = static_cast<std::uint32_t>(labels.size());
    checkpoint.priority = facts.priority;
    checkpoint.period_us = facts.period_us;
    checkpoint.deadline_us = facts.deadline_us;
    checkpoint.wcet_us = facts.wcet_us;
    checkpoint.tight = facts.tight ? 1 : 0;
    checkpoint.release_policy = facts.release;
    checkpoint.on_isolation = facts.on_isolation;
    checkpoint.on_loss = facts.on_loss;
    set_source(checkpoint);
    std::uint64_t seq = 0;
    const int status = rtcr_publish(client_, &checkpoint, &seq);
    if (status != RTCR_OK) return last_error(status);
    return seq;
  }

  template <typename SetTarget>
  Result<Fetched> fetch_with(std::uint64_t program_id, const FetchOptions& options,
                             const SetTarget& set_target) {
    rtcr_fetch fetch = rtcr_fetch_init();
    fetch.ecu_mac = text_or_null(options.ecu_mac);
    fetch.program_id = program_id;
    if (options.version) {
      fetch.incarnation = options.version->incarnation;
      fetch.seq = options.version->seq;
    }
    fetch.timeout_ms = options.timeout.count();
    set_target(fetch);
    rtcr_fetched fetched = rtcr_fetched_init();
    const int status = rtcr_fetch_newest(client_, &fetch, &fetched);
    if (status != RTCR_OK) return last_error(status);
    Fetched result;
    result.version = Version{fetched.incarnation, fetched.seq};
    result.size_bytes = fetched.size_bytes;
    for (std::size_t i = 0; i < result.digest.size(); ++i) result.digest[i] = fetched.digest[i];
    result.cms_index = fetched.cms_index;
    return result;
  }

  std::unique_ptr<Callbacks> callbacks_{};  // Before the client: it goes after it.
  rtcr_client* client_ = nullptr;
};

}  // namespace rtcr

#endif  // RTCR_RTCR_HPP
