#include "rtcr-client/src/abi.h"

#include <utility>

#include "base/time.h"

namespace cms::client {
namespace {

template <typename E>
Status set_enumerator(E& target, const char* field, std::uint32_t value) {
  if (value > 1) return not_allowed(field, std::to_string(value), "0 or 1");
  target = static_cast<E>(value);
  return ok_status();
}

}  // namespace

void copy_text(char* target, std::size_t target_size, std::string_view text) {
  std::size_t size = std::min(text.size(), target_size - 1);
  // Not in the middle of a UTF-8 character.
  while (size < text.size() && size > 0 && (static_cast<unsigned char>(text[size]) & 0xc0) == 0x80) --size;
  std::copy_n(text.data(), size, target);
  target[size] = '\0';
}

std::string text_of(const char* text) { return text == nullptr ? std::string() : std::string(text); }

Error not_allowed(const char* field, const std::string& value, const std::string& allowed) {
  return make_error(Code::kInvalidArgument,
                    std::string(field) + ": " + value + " (allowed: " + allowed + ")");
}

Error in_field(const char* field, Error error) {
  error.context = std::string(field) + ": " + error.context;
  return error;
}

Id128 id_from(const std::uint8_t (&octets)[16]) {
  Id128 id;
  for (int i = 0; i < 8; ++i) id.high = id.high << 8 | octets[i];
  for (int i = 8; i < 16; ++i) id.low = id.low << 8 | octets[i];
  return id;
}

void id_to(const Id128& id, std::uint8_t* octets) {
  for (int i = 0; i < 8; ++i) {
    octets[i] = static_cast<std::uint8_t>(id.high >> (56 - 8 * i));
    octets[i + 8] = static_cast<std::uint8_t>(id.low >> (56 - 8 * i));
  }
}

Result<wire::Notification> notification_of(const rtcr_checkpoint& given) {
  wire::Notification notification;
  notification.program_id = given.program_id;
  notification.lineage = id_from(given.lineage);
  notification.owner_epoch = given.owner_epoch;
  notification.size_bytes = given.size_bytes;
  if (given.chunk_size_bytes != 0) notification.chunk_size_bytes = given.chunk_size_bytes;
  notification.taken_at_us = given.taken_at_us == 0 ? wall_time_us() : given.taken_at_us;
  notification.pause_us = given.pause_us;
  notification.program_name = text_of(given.program_name);
  wire::Requirements& requirements = notification.requirements;
  requirements.arch = text_of(given.arch);
  requirements.os = text_of(given.os);
  requirements.checkpoint_format = text_of(given.checkpoint_format);
  requirements.format_version = given.format_version;
  requirements.ram_bytes = given.ram_bytes;
  if (given.label_count > wire::kLabelCountMax) {
    return not_allowed("label_count", std::to_string(given.label_count), "at most 16");
  }
  if (given.label_count > 0 && given.labels == nullptr)
    return not_allowed("labels", "it is NULL", "label_count texts");
  for (std::uint32_t i = 0; i < given.label_count; ++i) {
    if (given.labels[i] == nullptr) return not_allowed("labels", "one is NULL", "label_count texts");
    requirements.labels.emplace_back(given.labels[i]);
  }
  notification.real_time.priority = given.priority;
  notification.real_time.period_us = given.period_us;
  notification.real_time.deadline_us = given.deadline_us;
  notification.real_time.wcet_us = given.wcet_us;
  notification.real_time.tight = given.tight != 0;
  wire::Policies& policies = notification.policies;
  Status set = set_enumerator(policies.release, "release_policy", given.release_policy);
  if (set.ok()) set = set_enumerator(policies.on_isolation, "on_isolation", given.on_isolation);
  if (set.ok()) set = set_enumerator(policies.on_loss, "on_loss", given.on_loss);
  if (!set.ok()) return std::move(set).error();
  return notification;
}

rtcr_checkpoint checkpoint_of(const wire::Notification& notification, std::vector<const char*>& labels) {
  rtcr_checkpoint result = rtcr_checkpoint_init();
  const auto text = [](const std::string& given) { return given.empty() ? nullptr : given.c_str(); };
  result.program_id = notification.program_id;
  result.size_bytes = notification.size_bytes;
  result.chunk_size_bytes = notification.chunk_size_bytes;
  result.program_name = text(notification.program_name);
  result.taken_at_us = notification.taken_at_us;
  result.pause_us = notification.pause_us;
  id_to(notification.lineage, result.lineage);
  result.owner_epoch = notification.owner_epoch;
  const wire::Requirements& requirements = notification.requirements;
  result.arch = text(requirements.arch);
  result.os = text(requirements.os);
  result.checkpoint_format = text(requirements.checkpoint_format);
  result.format_version = requirements.format_version;
  result.ram_bytes = requirements.ram_bytes;
  labels.clear();
  for (const std::string& label : requirements.labels) labels.push_back(label.c_str());
  result.labels = labels.data();
  result.label_count = static_cast<std::uint32_t>(labels.size());
  result.priority = notification.real_time.priority;
  result.period_us = notification.real_time.period_us;
  result.deadline_us = notification.real_time.deadline_us;
  result.wcet_us = notification.real_time.wcet_us;
  result.tight = notification.real_time.tight ? 1 : 0;
  result.release_policy = static_cast<std::uint32_t>(notification.policies.release);
  result.on_isolation = static_cast<std::uint32_t>(notification.policies.on_isolation);
  result.on_loss = static_cast<std::uint32_t>(notification.policies.on_loss);
  return result;
}

namespace {

// What a callback of the caller answers; `reason` is what it wrote.
Status status_of_answer(int answer, char (&reason)[RTCR_REASON_SIZE], const char* what) {
  if (answer == RTCR_OK) return ok_status();
  reason[sizeof(reason) - 1] = '\0';
  std::string text = reason;
  if (text.empty()) text = std::string(what) + " answered " + rtcr_error_string(answer);
  const bool is_code = answer > 0 && answer <= RTCR_E_PUBLISHER_GONE;
  return make_error(is_code ? static_cast<Code>(answer) : Code::kIo, text);
}

// ---- being a target

// A callback of the caller with what it is told; what it answers, as a Status.
class RestoreCall {
 public:
  explicit RestoreCall(RestoreJob& job)
      : job_(job), ecu_mac_(to_string(job.info.session.ecu_mac)), restore_(rtcr_restore_init()) {
    restore_.fd = job.fd;
    restore_.restore_id = job.id;
    restore_.path = job.path.empty() ? nullptr : job.path.c_str();
    restore_.ecu_mac = ecu_mac_.c_str();
    restore_.program_id = job.info.notification.program_id;
    restore_.incarnation = job.info.session.incarnation;
    restore_.seq = job.info.notification.seq;
    restore_.size_bytes = job.info.notification.size_bytes;
    restore_.claim_slot = job.info.claim.slot;
    checkpoint_ = checkpoint_of(job.info.notification, labels_);
    id_to(job.info.claim.lineage, checkpoint_.lineage);
    checkpoint_.owner_epoch = job.owner_epoch;
    restore_.checkpoint = &checkpoint_;
    restore_.user = job.user;
  }
  RestoreCall(const RestoreCall&) = delete;
  RestoreCall& operator=(const RestoreCall&) = delete;
  ~RestoreCall() { job_.user = restore_.user; }

  rtcr_restore* get() { return &restore_; }
  char* reason() { return reason_; }
  Status status_of(int answer, const char* what) { return status_of_answer(answer, reason_, what); }

 private:
  RestoreJob& job_;
  std::string ecu_mac_;
  std::vector<const char*> labels_{};
  rtcr_checkpoint checkpoint_{};
  rtcr_restore restore_;
  char reason_[RTCR_REASON_SIZE] = "";
};

// What check() of a Metrics allows, so that an answer can always be sent.
Status take_offer(const rtcr_restore_handler& given, TargetOptions& options) {
  wire::Notification probe;  // Its check is that of the same words.
  options.arch = text_of(given.arch);
  if (given.format_count > wire::kFormatCountMax)
    return not_allowed("restore.format_count", std::to_string(given.format_count), "at most 16");
  if (given.label_count > wire::kLabelCountMax)
    return not_allowed("restore.label_count", std::to_string(given.label_count), "at most 16");
  if ((given.format_count > 0 && given.formats == nullptr) ||
      (given.label_count > 0 && given.labels == nullptr))
    return not_allowed("restore.formats, restore.labels", "one is NULL", "as many as counted");
  const auto check_words = [&probe](const char* field) -> Status {
    probe.seq = 1;
    if (Status good = wire::check_notification(probe); !good.ok())
      return in_field(field, std::move(good).error());
    return ok_status();
  };
  probe.requirements.arch = options.arch;
  if (Status good = check_words("restore.arch"); !good.ok()) return good;
  probe.requirements.arch.clear();
  for (std::uint32_t i = 0; i < given.format_count; ++i) {
    options.formats.push_back(
        wire::CheckpointFormat{text_of(given.formats[i].name), given.formats[i].version_max});
    probe.requirements.checkpoint_format = options.formats.back().name;
    if (Status good = check_words("restore.formats"); !good.ok()) return good;
  }
  probe.requirements.checkpoint_format.clear();
  for (std::uint32_t i = 0; i < given.label_count; ++i) {
    options.labels.push_back(text_of(given.labels[i]));
    probe.requirements.labels = {options.labels.back()};
    if (Status good = check_words("restore.labels"); !good.ok()) return good;
  }
  return ok_status();
}

}  // namespace

Result<TargetOptions> target_options_of(const rtcr_restore_handler& given) {
  TargetOptions options;
  if (given.prepare == nullptr || given.go == nullptr)
    return not_allowed("restore.prepare, restore.go", "one is NULL", "both are given");
  if (given.thread_count > kCallThreadCountMax)
    return not_allowed("restore.thread_count", std::to_string(given.thread_count), "0 (for 4) to 64");
  if (given.thread_count != 0) options.thread_count = given.thread_count;
  options.folder = text_of(given.folder);
  options.received_bytes_max = given.received_bytes_max;
  if (Status offer = take_offer(given, options); !offer.ok()) return std::move(offer).error();
  options.prepare = [call = given.prepare, context = given.context](RestoreJob& job) {
    RestoreCall restore(job);
    return restore.status_of(call(context, restore.get(), restore.reason()), "prepare");
  };
  options.go = [call = given.go, context = given.context](RestoreJob& job) -> Result<ProgramId> {
    RestoreCall restore(job);
    std::uint64_t program_id = 0;
    const int answer = call(context, restore.get(), &program_id, restore.reason());
    if (Status runs = restore.status_of(answer, "go"); !runs.ok()) return std::move(runs).error();
    return program_id;
  };
  if (given.discard != nullptr) {
    options.discard = [call = given.discard, context = given.context](RestoreJob& job) {
      RestoreCall restore(job);
      call(context, restore.get());
    };
  }
  if (given.on_metrics != nullptr) {
    options.on_metrics = [call = given.on_metrics, context = given.context](wire::Metrics& metrics) {
      rtcr_metrics told = rtcr_metrics_init();
      told.cpu_count = metrics.cpu_count;
      told.cpu_load_permille = metrics.cpu_load_permille;
      told.ram_total_bytes = metrics.ram_total_bytes;
      told.ram_available_bytes = metrics.ram_available_bytes;
      call(context, &told);
      metrics.cpu_count = told.cpu_count;
      metrics.cpu_load_permille = told.cpu_load_permille;
      metrics.ram_total_bytes = told.ram_total_bytes;
      metrics.ram_available_bytes = told.ram_available_bytes;
      metrics.draining = told.draining != 0;
    };
  }
  return options;
}

// ---- being a source

namespace {

rtcr_move move_of(const MoveJob& job) {
  rtcr_move move = rtcr_move_init();
  move.program_id = job.program_id;
  move.claim_slot = job.claim.slot;
  id_to(job.claim.lineage, move.lineage);
  return move;
}

}  // namespace

Result<MoveOptions> move_options_of(const rtcr_move_handler& given) {
  MoveOptions options;
  if (given.freeze == nullptr || given.thaw == nullptr)
    return not_allowed("move.freeze, move.thaw", "one is NULL", "both are given");
  if (given.thread_count > kCallThreadCountMax)
    return not_allowed("move.thread_count", std::to_string(given.thread_count), "0 (for 4) to 64");
  if (given.thread_count != 0) options.thread_count = given.thread_count;
  options.freeze = [call = given.freeze, context = given.context](const MoveJob& job) -> Result<Seq> {
    const rtcr_move move = move_of(job);
    std::uint64_t last_seq = 0;
    char reason[RTCR_REASON_SIZE] = "";
    const int answer = call(context, &move, &last_seq, reason);
    if (Status frozen = status_of_answer(answer, reason, "freeze"); !frozen.ok())
      return std::move(frozen).error();
    return last_seq;
  };
  options.thaw = [call = given.thaw, context = given.context](const MoveJob& job) {
    const rtcr_move move = move_of(job);
    call(context, &move);
  };
  return options;
}

// ---- being guarded

namespace {

// 0: never.
std::uint64_t boot_time_ns_of(Instant at) {
  return at == kNever ? 0 : static_cast<std::uint64_t>(at.time_since_epoch().count());
}

}  // namespace

Result<LeaseOptions> lease_options_of(const rtcr_lease_handler& given) {
  LeaseOptions options;
  if (given.stop == nullptr || given.resume == nullptr)
    return not_allowed("lease.stop, lease.resume", "one is NULL", "both are given");
  if (given.thread_count > kCallThreadCountMax)
    return not_allowed("lease.thread_count", std::to_string(given.thread_count), "0 (for 4) to 64");
  if (given.thread_count != 0) options.thread_count = given.thread_count;
  if (given.enforcer > RTCR_ENFORCER_WATCHDOG)
    return not_allowed("lease.enforcer", std::to_string(given.enforcer), "an rtcr_enforcer, 0 to 2");
  options.enforcer = static_cast<wire::Enforcer>(given.enforcer);
  options.boot_id = text_of(given.boot_id);
  options.stop = [call = given.stop, context = given.context](ProgramId program_id) {
    char reason[RTCR_REASON_SIZE] = "";
    const int answer = call(context, program_id, reason);
    return status_of_answer(answer, reason, "stop");
  };
  options.resume = [call = given.resume, context = given.context](ProgramId program_id) {
    call(context, program_id);
  };
  if (given.on_lease != nullptr) {
    options.on_lease = [call = given.on_lease, context = given.context](const broker::LeaseChanged& changed) {
      rtcr_lease lease = rtcr_lease_init();
      lease.lives = changed.lives ? 1 : 0;
      lease.ends_at_ns = boot_time_ns_of(changed.ends_at);
      lease.enforce_at_ns = boot_time_ns_of(changed.enforce_at);
      copy_text(lease.reason, sizeof(lease.reason), changed.text);
      call(context, &lease);
    };
  }
  return options;
}

}  // namespace cms::client
