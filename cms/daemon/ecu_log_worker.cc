#include "cms/daemon/ecu_log_worker.h"

#include <algorithm>

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

Result<EcuLogWorker::Head> EcuLogWorker::head_now(EcuMac ecu_mac) {
  return head_of(claims_.head(storage::log_of(ecu_mac), 0, ClaimStore::Read::kDurable));
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

Result<EcuLogWorker::Recorded> EcuLogWorker::record_now(Lane& lane, const core::RecordHello& asked) {
  const wire::Hello& said = asked.asked.hello;
  settle_some(lane);
  for (int i = 0; i < kHelloTriesMax; ++i) {
    const Instant asked_at = BootClock::now();
    const auto head = head_now(said.ecu_mac);
    if (!head.ok()) return head.error();
    const EcuRecord* record = *head ? &**head : nullptr;
    switch (core::judge_hello(record, said)) {
      case core::HelloIs::kHead: return Recorded{asked_at, *record};
      case core::HelloIs::kOutdated:
        return make_error(Code::kFenced, "session " + std::to_string(said.incarnation) + " of " +
                                             to_string(said.ecu_mac) + " has ended; begin a new one");
      case core::HelloIs::kNew: break;
    }
    std::uint64_t uid = lane.prng.next();
    while (uid == 0) uid = lane.prng.next();
    const auto next = core::hello(core::Stamp{me_, uid, wall_time_us()}, record, said, asked.incarnation_min);
    if (!next.ok()) return next.error();
    const auto end = claims_.append(storage::log_of(said.ecu_mac), next->slot, text_of(*next));
    if (!end.ok()) return end.error();
    if (end->end == storage::Appended::End::kWon) return Recorded{asked_at, *next};
    if (end->end == storage::Appended::End::kUnresolved) {
      lane.unsettled.push_back(end->attempt);
      break;
    }
  }
  return make_error(Code::kUnavailable, "the log of " + to_string(said.ecu_mac) +
                                            " could not be written just now; say Hello again");
}

void EcuLogWorker::record_hello(const core::RecordHello& asked, Then<Recorded> then) {
  Lane& lane = lane_of(asked.asked.hello.ecu_mac);
  post<Recorded>(
      *lane.worker, [this, &lane, asked] { return record_now(lane, asked); }, std::move(then));
}

}  // namespace cms::daemon
