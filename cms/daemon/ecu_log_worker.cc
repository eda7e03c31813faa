#include "cms/daemon/ecu_log_worker.h"

#include <algorithm>
#include <iterator>

#include <spdlog/spdlog.h>

#include "cms/core/ecu_log.h"

namespace cms::daemon {
namespace {

using storage::ClaimStore;
using wire::EcuRecord;

// A slot that was lost to another cmsd is followed by reading what that wrote.
constexpr int kHelloTriesMax = 8;

static_assert(wire::kEcuRecordBytesMax <= storage::kRecordBytesMax);

std::string text_of(const EcuRecord& record) {
  const wire::Bytes bytes = wire::encode(record);
  return std::string(bytes.begin(), bytes.end());
}

Result<EcuRecord> record_of(const storage::LogRecord& record) {
  auto decoded = wire::decode_ecu_record(record.bytes.data(), record.bytes.size());
  if (!decoded.ok()) return decoded;
  if (!(storage::log_of(decoded->ecu_mac) == record.log) || decoded->slot != record.slot) {
    return make_error(Code::kCorrupt, to_string(record.log) + ", slot " + std::to_string(record.slot) +
                                          ": the record of another slot");
  }
  return decoded;
}

Result<EcuLogWorker::Head> head_of(const Result<storage::LogRecord>& read) {
  if (!read.ok()) {
    if (read.error().code == Code::kNotFound) return EcuLogWorker::Head();
    return read.error();
  }
  auto record = record_of(*read);
  if (!record.ok()) return record.error();
  return EcuLogWorker::Head(std::move(*record));
}

Result<EcuLogWorker::Appended> append_end(const Result<storage::Appended>& appended) {
  if (!appended.ok()) return appended.error();
  using End = storage::Appended::End;
  using AppendEnd = core::Leases::AppendEnd;
  switch (appended->end) {
    case End::kWon: return EcuLogWorker::Appended{AppendEnd::kWon, 0};
    case End::kLost: return EcuLogWorker::Appended{AppendEnd::kLost, 0};
    case End::kUnresolved: break;
  }
  return EcuLogWorker::Appended{AppendEnd::kUnresolved, appended->attempt};
}

}  // namespace

EcuLogWorker::EcuLogWorker(ClaimStore& claims, Outbox& outbox, const core::Writer& me)
    : claims_(claims), outbox_(outbox), me_(me), lister_("ecu-logs") {
  for (std::size_t i = 0; i < kEcuLogLaneCount; ++i) {
    auto lane = std::make_unique<Lane>();
    lane->worker = std::make_unique<Worker>("ecu-log" + std::to_string(i));
    lane->prng = Prng(random_u64());
    lanes_.push_back(std::move(lane));
  }
}

void EcuLogWorker::stop() {
  lister_.stop();
  for (const auto& lane : lanes_) lane->worker->stop();
}

template <typename T, typename Job>
void EcuLogWorker::post(Worker& worker, Job job, Then<T> then) {
  worker.post([this, job = std::move(job), then = std::move(then)] {
    Result<T> answer = job();
    outbox_.push([then, answer = std::move(answer)](Instant now, core::Effects& effects) {
      then(now, effects, answer);
    });
  });
}

EcuLogWorker::Heads EcuLogWorker::heads_now(const std::vector<EcuMac>& ecu_macs) {
  Heads heads;
  heads.asked_at = BootClock::now();
  std::vector<storage::LogSlot> logs;
  logs.reserve(ecu_macs.size());
  for (const EcuMac ecu_mac : ecu_macs) logs.push_back({storage::log_of(ecu_mac), 0});
  const auto read = claims_.heads(logs, ClaimStore::Read::kDurable);
  for (std::size_t i = 0; i < ecu_macs.size(); ++i) heads.heads.emplace_back(ecu_macs[i], head_of(read[i]));
  return heads;
}

Result<EcuLogWorker::Heads> EcuLogWorker::list_now() {
  std::vector<EcuMac> ecu_macs;
  for (std::uint32_t shard = 0; shard < storage::kLogShardCount; ++shard) {
    if (lister_.stopping()) return make_error(Code::kCancelled, "this cmsd ends");
    const Status listed = claims_.list_logs(
        shard,
        [&](const storage::LogId& log, storage::Slot) {
          if (log.kind == storage::LogId::Kind::kEcu) ecu_macs.push_back(EcuMac{log.id.low});
        },
        nullptr);
    if (!listed.ok()) return listed.error();
  }
  return heads_now(ecu_macs);
}

void EcuLogWorker::list(Then<Heads> then) {
  post<Heads>(
      lister_, [this] { return list_now(); }, std::move(then));
}

void EcuLogWorker::read(const std::vector<EcuMac>& ecu_macs, Then<Heads> then) {
  post<Heads>(
      *lane_of(ecu_macs.front()).worker, [this, ecu_macs] { return Result<Heads>(heads_now(ecu_macs)); },
      std::move(then));
}

void EcuLogWorker::append(const EcuRecord& record, Then<Appended> then) {
  post<Appended>(
      *lane_of(record.ecu_mac).worker,
      [this, record] {
        return append_end(claims_.append(storage::log_of(record.ecu_mac), record.slot, text_of(record)));
      },
      std::move(then));
}

void EcuLogWorker::settle(EcuMac ecu_mac, std::uint64_t attempt, Then<Appended> then) {
  post<Appended>(
      *lane_of(ecu_mac).worker, [this, attempt] { return append_end(claims_.settle(attempt)); },
      std::move(then));
}

// Of Hellos whose answer was that the slot's owner is not known: nobody waits for these, but they are to end.
void EcuLogWorker::settle_some(Lane& lane) {
  auto& attempts = lane.unsettled;
  attempts.erase(std::remove_if(attempts.begin(), attempts.end(),
                                [this](std::uint64_t attempt) {
                                  const auto end = claims_.settle(attempt);
                                  return !end.ok() || end->end != storage::Appended::End::kUnresolved;
                                }),
                 attempts.end());
}

// Each of those that are open: its end, or it stays open because another cmsd was first in its slot.
void EcuLogWorker::try_hellos(Lane& lane, const std::vector<AskedHello>& group, Tries& tries) {
  const Instant asked_at = BootClock::now();
  std::vector<storage::LogSlot> logs;
  for (const std::size_t i : tries.open)
    logs.push_back({storage::log_of(group[i].asked.asked.hello.ecu_mac), 0});
  const auto heads = claims_.heads(logs, ClaimStore::Read::kDurable);
  std::vector<storage::Append> appends;
  std::vector<std::pair<std::size_t, EcuRecord>> appended;  // Whose they are.
  for (std::size_t k = 0; k < tries.open.size(); ++k) {
    const std::size_t i = tries.open[k];
    const core::RecordHello& asked = group[i].asked;
    const wire::Hello& said = asked.asked.hello;
    const auto head = head_of(heads[k]);
    if (!head.ok()) {
      tries.ends[i] = head.error();
      continue;
    }
    const EcuRecord* record = *head ? &**head : nullptr;
    const core::HelloIs is = core::judge_hello(record, said);
    if (is == core::HelloIs::kHead) tries.ends[i] = Recorded{asked_at, *record};
    if (is == core::HelloIs::kOutdated)
      tries.ends[i] = make_error(Code::kFenced, "session " + std::to_string(said.incarnation) + " of " +
                                                    to_string(said.ecu_mac) + " has ended; begin a new one");
    if (is != core::HelloIs::kNew) continue;
    std::uint64_t uid = lane.prng.next();
    while (uid == 0) uid = lane.prng.next();
    auto next = core::hello(core::Stamp{me_, uid, wall_time_us()}, record, said, asked.incarnation_min);
    if (!next.ok()) {
      tries.ends[i] = next.error();
      continue;
    }
    appends.push_back({storage::log_of(said.ecu_mac), next->slot, text_of(*next)});
    appended.emplace_back(i, std::move(*next));
  }
  tries.open.clear();
  const auto ends = appends.empty() ? std::vector<Result<storage::Appended>>() : claims_.append_many(appends);
  for (std::size_t k = 0; k < ends.size(); ++k) {
    const auto& [i, next] = appended[k];
    if (!ends[k].ok()) {
      tries.ends[i] = ends[k].error();
    } else if (ends[k]->end == storage::Appended::End::kWon) {
      tries.ends[i] = Recorded{asked_at, next};
    } else if (ends[k]->end == storage::Appended::End::kLost) {
      tries.open.push_back(i);
    } else {
      lane.unsettled.push_back(ends[k]->attempt);
    }
  }
}

void EcuLogWorker::record_some(Lane& lane) {
  std::vector<AskedHello> group;
  {
    const std::lock_guard lock(lane.mutex);
    const auto count = static_cast<std::ptrdiff_t>(std::min(lane.hellos.size(), ClaimStore::kAppendGroupMax));
    const auto end = lane.hellos.begin() + count;
    group.assign(std::make_move_iterator(lane.hellos.begin()), std::make_move_iterator(end));
    lane.hellos.erase(lane.hellos.begin(), end);
    if (!lane.hellos.empty()) lane.worker->post([this, &lane] { record_some(lane); });
  }
  settle_some(lane);
  Tries tries;
  for (std::size_t i = 0; i < group.size(); ++i) {
    tries.open.push_back(i);
    tries.ends.emplace_back(
        make_error(Code::kUnavailable, "the log of " + to_string(group[i].asked.asked.hello.ecu_mac) +
                                           " could not be written just now; say Hello again"));
  }
  for (int i = 0; i < kHelloTriesMax && !tries.open.empty(); ++i) try_hellos(lane, group, tries);
  for (std::size_t i = 0; i < group.size(); ++i) {
    outbox_.push([then = std::move(group[i].then), end = std::move(tries.ends[i])](
                     Instant now, core::Effects& effects) { then(now, effects, end); });
  }
}

void EcuLogWorker::record_hello(const core::RecordHello& asked, Then<Recorded> then) {
  Lane& lane = lane_of(asked.asked.hello.ecu_mac);
  const std::lock_guard lock(lane.mutex);
  lane.hellos.push_back({asked, std::move(then)});
  if (lane.hellos.size() == 1) lane.worker->post([this, &lane] { record_some(lane); });
}

}  // namespace cms::daemon
