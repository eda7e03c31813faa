// The C ABI over Client: structs of any version in and out, names into values, and the place where
// exceptions end.
#include "rtcr/rtcr.h"

#include <poll.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/prng.h"
#include "base/time.h"
#include "net/socket.h"
#include "rtcr-client/src/abi.h"
#include "rtcr-client/src/callback_scope.h"
#include "rtcr-client/src/client.h"
#include "rtcr-client/src/fetch.h"

struct rtcr_client {
  std::unique_ptr<cms::client::Client> client{};
};

namespace {

using cms::Code;
using cms::Error;
using cms::make_error;
using cms::Result;
using cms::Status;
using cms::client::CallbackScope;
using cms::client::check_struct;
using cms::client::Client;
using cms::client::copy_text;
using cms::client::id_to;
using cms::client::in_field;
using cms::client::not_allowed;
using cms::client::notification_of;
using cms::client::read_struct;
using cms::client::text_of;
using cms::client::WaitOutcome;
using cms::client::write_struct;

static_assert(RTCR_E_PUBLISHER_GONE == static_cast<int>(Code::kPublisherGone));
static_assert(RTCR_E_LIMIT == static_cast<int>(Code::kLimit));
static_assert(RTCR_E_TIMEOUT == static_cast<int>(Code::kTimeout));
static_assert(RTCR_FENCED == static_cast<int>(cms::wire::ReceiptLevel::kFenced));
static_assert(RTCR_ENFORCER_WATCHDOG == static_cast<int>(cms::wire::Enforcer::kWatchdog));
static_assert(RTCR_STORED == static_cast<int>(cms::wire::ReceiptLevel::kStored));
static_assert(RTCR_REASON_SIZE > cms::wire::kReasonBytesMax);

constexpr std::int64_t kTimeoutMsMax = std::int64_t{1} << 40;  // 34 years; added to a clock's time.
constexpr std::int64_t kFetchTimeoutMs = 5000;

// ---- errors

thread_local char last_error[1024] = "";  // Of fixed size: keeping an error must not fail.

int fail(int status, std::string_view detail) {
  copy_text(last_error, sizeof(last_error), detail);
  return status;
}
int fail(const Error& error) { return fail(static_cast<int>(error.code), error.message()); }

// Runs `call`, which returns an rtcr_status; nothing thrown gets out.
template <typename Call>
int guarded(const Call& call) noexcept {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return fail(RTCR_E_NO_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return fail(RTCR_E_INTERNAL, error.what());
  } catch (...) {
    return fail(RTCR_E_INTERNAL, "an unknown exception");
  }
}

enum class Blocking { kNo, kYes };

// The same for a call on a client that may be used here and now.
template <typename Call>
int with_client(rtcr_client* handle, Blocking blocking, const Call& call) noexcept {
  return guarded([&] {
    if (handle == nullptr) return fail(RTCR_E_INVALID_ARGUMENT, "client: it is NULL");
    if (handle->client->is_forked()) {
      return fail(RTCR_E_FORKED,
                  "the client was opened by the parent of this process; open another one here");
    }
    if (blocking == Blocking::kYes && CallbackScope::active()) {
      return fail(RTCR_E_CALLBACK, "this call blocks and must not be made in a callback");
    }
    if (handle->client->failed()) {
      return fail(RTCR_E_INTERNAL, "the client's thread has failed: out of memory; close the client");
    }
    return call(*handle->client);
  });
}

// ---- values

std::chrono::milliseconds timeout_of(std::int64_t timeout_ms) {
  return std::chrono::milliseconds(timeout_ms < 0 ? -1 : std::min(timeout_ms, kTimeoutMsMax));
}

rtcr_receipt receipt_of(const cms::client::Receipt& receipt) {
  rtcr_receipt result = rtcr_receipt_init();
  result.level = static_cast<std::uint32_t>(receipt.event.level);
  result.program_id = receipt.event.program_id;
  result.incarnation = receipt.incarnation;
  result.seq = receipt.event.seq;
  result.code = static_cast<std::uint32_t>(receipt.event.code);
  result.final = receipt.event.final ? 1 : 0;
  copy_text(result.reason, sizeof(result.reason), receipt.event.reason);
  return result;
}

Result<cms::client::ClientOptions> options_of(const rtcr_options& given) {
  cms::client::ClientOptions options;
  if (given.cms == nullptr) return not_allowed("cms", "it is NULL", "tcp://HOST:PORT[,...]");
  auto cms_list = cms::net::parse_endpoint_list(given.cms);
  if (!cms_list.ok()) return in_field("cms", std::move(cms_list).error());
  if (cms_list->size() > cms::broker::kCmsCountMax) {
    return not_allowed("cms", std::to_string(cms_list->size()) + " endpoints",
                       "at most " + std::to_string(cms::broker::kCmsCountMax));
  }
  options.loop.cms = std::move(cms_list).value();
  if (given.ecu_mac == nullptr) return not_allowed("ecu_mac", "it is NULL", "for example 02:00:00:00:00:01");
  const auto ecu_mac = cms::parse_ecu_mac(given.ecu_mac);
  if (!ecu_mac.ok()) return in_field("ecu_mac", ecu_mac.error());
  options.loop.ecu_mac = *ecu_mac;

  if (given.memory_budget_bytes > cms::client::kMemoryBudgetBytesMax) {
    return not_allowed("memory_budget_bytes", std::to_string(given.memory_budget_bytes),
                       "0 (for 256 MiB) to " + std::to_string(cms::client::kMemoryBudgetBytesMax));
  }
  options.loop.memory_budget_bytes =
      given.memory_budget_bytes == 0 ? cms::client::kMemoryBudgetBytes : given.memory_budget_bytes;
  if (given.bulk_ports != nullptr) {
    const auto ports = cms::net::parse_port_range(given.bulk_ports);
    if (!ports.ok()) return in_field("bulk_ports", ports.error());
    options.loop.bulk_ports = *ports;
  }
  if (given.bulk_host != nullptr) options.loop.bulk_host = given.bulk_host;
  options.loop.advertise_host = text_of(given.advertise_host);
  const std::string& host = options.loop.advertise_host;
  const bool is_host = std::all_of(host.begin(), host.end(), [](unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
           c == '-' || c == '_' || c == ':' || c == '%';
  });
  if (!is_host || host.size() > cms::wire::kNameBytesMax) {
    return not_allowed("advertise_host", "'" + host + "'", "a host name or address of at most 128 bytes");
  }
  options.loop.software = std::string("rtcr-client ") + rtcr_version();

  if (given.thread_name != nullptr) options.thread_name = given.thread_name;
  if (options.thread_name.empty() || options.thread_name.size() > cms::client::kThreadNameBytesMax) {
    return not_allowed("thread_name", "'" + options.thread_name + "'", "1 to 15 bytes");
  }
  if (given.thread_priority < 0 || given.thread_priority > 99) {
    return not_allowed("thread_priority", std::to_string(given.thread_priority),
                       "0, or 1 to 99 for SCHED_FIFO");
  }
  options.thread_priority = given.thread_priority;
  if ((given.flags & ~(RTCR_LOCK_MEMORY | RTCR_PIN_THREAD)) != 0) {
    return not_allowed("flags", std::to_string(given.flags), "RTCR_LOCK_MEMORY and RTCR_PIN_THREAD");
  }
  options.lock_memory = (given.flags & RTCR_LOCK_MEMORY) != 0;
  if ((given.flags & RTCR_PIN_THREAD) != 0) options.thread_cpu = given.thread_cpu;
  if (given.on_receipt != nullptr) {
    options.on_receipt = [call = given.on_receipt,
                          context = given.receipt_context](const cms::client::Receipt& receipt) {
      const rtcr_receipt told = receipt_of(receipt);
      call(context, &told);
    };
  }
  if (given.on_event != nullptr) {
    options.on_event = [call = given.on_event,
                        context = given.event_context](const cms::broker::CmsEvent& event) {
      rtcr_event told{};
      told.struct_size = sizeof(told);
      told.kind = static_cast<std::uint32_t>(event.kind);
      told.cms_index = static_cast<std::uint32_t>(event.cms);
      copy_text(told.text, sizeof(told.text), event.text);
      call(context, &told);
    };
  }
  if (given.restore != nullptr) {
    const auto handler = read_struct(given.restore, "rtcr_restore_handler");
    if (!handler.ok()) return handler.error();
    auto target = cms::client::target_options_of(*handler);
    if (!target.ok()) return std::move(target).error();
    options.target = std::move(target).value();
  }
  if (given.move != nullptr) {
    const auto handler = read_struct(given.move, "rtcr_move_handler");
    if (!handler.ok()) return handler.error();
    auto move = cms::client::move_options_of(*handler);
    if (!move.ok()) return std::move(move).error();
    options.move = std::move(move).value();
  }
  if (given.lease != nullptr) {
    const auto handler = read_struct(given.lease, "rtcr_lease_handler");
    if (!handler.ok()) return handler.error();
    auto lease = cms::client::lease_options_of(*handler);
    if (!lease.ok()) return std::move(lease).error();
    options.lease = std::move(lease).value();
  }
  return options;
}

Result<cms::Seq> publish(Client& client, const rtcr_checkpoint& given) {
  auto notification = notification_of(given);
  if (!notification.ok()) return std::move(notification).error();
  if (given.source != RTCR_SOURCE_FD && given.data == nullptr && given.size_bytes > 0) {
    return not_allowed("data", "it is NULL", "size_bytes bytes");
  }
  switch (given.source) {
    case RTCR_SOURCE_MEMORY:
      return client.publish_memory(std::move(notification).value(), given.data, given.release,
                                   given.release_context);
    case RTCR_SOURCE_COPY: return client.publish_copy(std::move(notification).value(), given.data);
    case RTCR_SOURCE_FD: return client.publish_file(std::move(notification).value(), given.fd);
    case RTCR_SOURCE_ALLOC: return client.publish_allocation(std::move(notification).value(), given.data);
    default: return not_allowed("source", std::to_string(given.source), "an rtcr_source, 0 to 3");
  }
}

// ---- fetching

Status write_all(int fd, const void* data, std::size_t size_bytes) {
  const char* at = static_cast<const char*>(data);
  while (size_bytes > 0) {
    const ssize_t count = ::write(fd, at, size_bytes);
    if (count >= 0) {
      at += count;
      size_bytes -= static_cast<std::size_t>(count);
    } else if (errno == EAGAIN) {
      pollfd item{fd, POLLOUT, 0};
      (void)::poll(&item, 1, -1);  // Whatever it says, write() tells the same.
    } else if (errno != EINTR) {
      return cms::error_from_errno(errno, "write to fd " + std::to_string(fd));
    }
  }
  return cms::ok_status();
}

Result<cms::client::FetchSink> sink_of(const rtcr_fetch& given) {
  switch (given.target) {
    case RTCR_TARGET_MEMORY:
      if (given.buffer == nullptr && given.capacity_bytes > 0)
        return not_allowed("buffer", "it is NULL", "memory");
      return cms::client::FetchSink([given](const cms::client::FetchedBytes& bytes) -> Status {
        if (bytes.blob_size_bytes > given.capacity_bytes) {
          return make_error(Code::kLimit,
                            to_string(bytes.checkpoint) + " has " + std::to_string(bytes.blob_size_bytes) +
                                " bytes and the buffer " + std::to_string(given.capacity_bytes));
        }
        std::copy_n(static_cast<const char*>(bytes.data), bytes.size_bytes,
                    static_cast<char*>(given.buffer) + bytes.offset_bytes);
        return cms::ok_status();
      });
    case RTCR_TARGET_FD:
      return cms::client::FetchSink([given](const cms::client::FetchedBytes& bytes) {
        return write_all(given.fd, bytes.data, bytes.size_bytes);
      });
    case RTCR_TARGET_CALLBACK:
      if (given.on_bytes == nullptr) return not_allowed("on_bytes", "it is NULL", "a function");
      return cms::client::FetchSink([given](const cms::client::FetchedBytes& bytes) -> Status {
        const int answer = given.on_bytes(given.bytes_context, bytes.data, bytes.size_bytes,
                                          bytes.offset_bytes, bytes.blob_size_bytes);
        if (answer == 0) return cms::ok_status();
        return make_error(Code::kCancelled, "on_bytes answered " + std::to_string(answer));
      });
    default: return not_allowed("target", std::to_string(given.target), "an rtcr_target, 0 to 2");
  }
}

int fetch(Client& client, const rtcr_fetch* fetch, rtcr_fetched* fetched) {
  const auto given = read_struct(fetch, "rtcr_fetch");
  if (!given.ok()) return fail(given.error());
  if (fetched != nullptr) {
    if (const Status usable = check_struct(fetched, "rtcr_fetched"); !usable.ok())
      return fail(usable.error());
  }
  cms::client::FetchRequest request;
  request.program = cms::ProgramKey{client.ecu_mac(), given->program_id};
  if (given->ecu_mac != nullptr) {
    const auto ecu_mac = cms::parse_ecu_mac(given->ecu_mac);
    if (!ecu_mac.ok()) return fail(in_field("ecu_mac", ecu_mac.error()));
    request.program.ecu_mac = *ecu_mac;
  }
  if ((given->incarnation == 0) != (given->seq == 0)) {
    return fail(RTCR_E_INVALID_ARGUMENT,
                "incarnation, seq: only one is given (allowed: both, or none for the newest)");
  }
  if (given->seq != 0) request.version = cms::Version{given->incarnation, given->seq};
  request.patience = timeout_of(given->timeout_ms == 0 ? kFetchTimeoutMs : given->timeout_ms);
  const auto sink = sink_of(*given);
  if (!sink.ok()) return fail(sink.error());

  rtcr_fetched result = rtcr_fetched_init();
  const auto give = [&](const cms::client::FetchedBytes& bytes) {
    result.incarnation = bytes.checkpoint.version.incarnation;
    result.seq = bytes.checkpoint.version.seq;
    result.size_bytes = bytes.blob_size_bytes;
    return (*sink)(bytes);
  };
  const bool claims = client.is_guarded() && request.program.ecu_mac == client.ecu_mac() && !request.version;
  const auto blob = claims ? client.fetch_own(given->program_id, request.patience, give)
                           : cms::client::fetch_checkpoint(client.cms(), request, give);
  if (blob.ok()) {
    result.cms_index = static_cast<std::uint32_t>(blob->cms_index);
    id_to(blob->digest, result.digest);
  }
  if (fetched != nullptr) write_struct(fetched, result);
  return blob.ok() ? RTCR_OK : fail(blob.error());
}

}  // namespace

extern "C" {

#define RTCR_TEXT_(value) #value
#define RTCR_TEXT(value) RTCR_TEXT_(value)

const char* rtcr_version(void) {
  return RTCR_TEXT(RTCR_VERSION_MAJOR) "." RTCR_TEXT(RTCR_VERSION_MINOR) "." RTCR_TEXT(RTCR_VERSION_PATCH);
}

const char* rtcr_last_error(void) { return last_error; }

const char* rtcr_error_string(int status) {
  switch (status) {
    case RTCR_E_DROPPED: return "dropped";
    case RTCR_E_ENDED: return "ended";
    case RTCR_E_FORKED: return "client of another process";
    case RTCR_E_CALLBACK: return "blocking call in a callback";
    case RTCR_E_NO_MEMORY: return "out of memory";
    case RTCR_E_INTERNAL: return "internal error";
    default: break;
  }
  if (status < 0 || status > RTCR_E_PUBLISHER_GONE) return "unknown status";
  return cms::to_string(static_cast<Code>(status)).data();  // Literals: they end with a zero.
}

const char* rtcr_level_string(int level) {
  if (level < RTCR_ANNOUNCED || level > RTCR_FENCED) return "UNKNOWN";
  return cms::wire::to_string(static_cast<cms::wire::ReceiptLevel>(level)).data();
}

int rtcr_open(const rtcr_options* options, rtcr_client** client) {
  return guarded([&] {
    if (client == nullptr) return fail(RTCR_E_INVALID_ARGUMENT, "client: it is NULL");
    *client = nullptr;
    const auto given = read_struct(options, "rtcr_options");
    if (!given.ok()) return fail(given.error());
    auto checked = options_of(*given);
    if (!checked.ok()) return fail(checked.error());
    auto handle = std::make_unique<rtcr_client>();
    auto opened = Client::open(std::move(checked).value());
    if (!opened.ok()) return fail(opened.error());
    handle->client = std::move(opened).value();
    *client = handle.release();
    return static_cast<int>(RTCR_OK);
  });
}

int rtcr_close(rtcr_client* client) {
  if (client == nullptr) return RTCR_OK;
  return guarded([&] {
    if (client->client->is_forked()) {
      return fail(RTCR_E_FORKED, "the client was opened by the parent of this process; nothing was closed");
    }
    if (CallbackScope::active()) return fail(RTCR_E_CALLBACK, "a client must not be closed in a callback");
    delete client;
    return static_cast<int>(RTCR_OK);
  });
}

int rtcr_publish(rtcr_client* client, const rtcr_checkpoint* checkpoint, uint64_t* seq) {
  return with_client(client, Blocking::kNo, [&](Client& opened) {
    const auto given = read_struct(checkpoint, "rtcr_checkpoint");
    if (!given.ok()) return fail(given.error());
    const auto published = publish(opened, *given);
    if (!published.ok()) return fail(published.error());
    if (seq != nullptr) *seq = *published;
    return static_cast<int>(RTCR_OK);
  });
}

int rtcr_alloc(rtcr_client* client, uint64_t size_bytes, void** data) {
  return with_client(client, Blocking::kNo, [&](Client& opened) {
    if (data == nullptr) return fail(RTCR_E_INVALID_ARGUMENT, "data: it is NULL");
    *data = nullptr;
    const auto allocated = opened.allocate(size_bytes);
    if (!allocated.ok()) return fail(allocated.error());
    *data = *allocated;
    return static_cast<int>(RTCR_OK);
  });
}

int rtcr_free(rtcr_client* client, void* data) {
  return with_client(client, Blocking::kNo, [&](Client& opened) {
    if (data == nullptr) return static_cast<int>(RTCR_OK);
    const Status freed = opened.free_allocation(data);
    return freed.ok() ? static_cast<int>(RTCR_OK) : fail(freed.error());
  });
}

int rtcr_new_lineage(uint8_t lineage[16]) {
  if (lineage == nullptr) return fail(RTCR_E_INVALID_ARGUMENT, "lineage: it is NULL");
  const std::uint64_t high = cms::random_u64();
  const std::uint64_t low = cms::random_u64() | 1;  // Never all zero, which means "not given".
  id_to(cms::Id128{high, low}, lineage);
  return RTCR_OK;
}

int rtcr_wait(rtcr_client* client, uint64_t seq, int level, int64_t timeout_ms) {
  return with_client(client, Blocking::kYes, [&](Client& opened) {
    if (level < RTCR_ANNOUNCED || level > RTCR_VERIFIED) {
      return fail(not_allowed("level", std::to_string(level), "RTCR_ANNOUNCED to RTCR_VERIFIED, 0 to 4"));
    }
    const auto result = opened.wait(seq, static_cast<cms::wire::ReceiptLevel>(level), timeout_of(timeout_ms));
    switch (result.outcome) {
      case WaitOutcome::kReached: return static_cast<int>(RTCR_OK);
      case WaitOutcome::kSuperseded: return fail(RTCR_E_SUPERSEDED, result.detail);
      case WaitOutcome::kDropped: return fail(RTCR_E_DROPPED, result.detail);
      case WaitOutcome::kFenced: return fail(RTCR_E_FENCED, result.detail);
      case WaitOutcome::kEnded: return fail(RTCR_E_ENDED, result.detail);
      case WaitOutcome::kTimeout: return fail(RTCR_E_TIMEOUT, result.detail);
      case WaitOutcome::kUnknown: return fail(RTCR_E_NOT_FOUND, result.detail);
      case WaitOutcome::kFailed: return fail(RTCR_E_INTERNAL, result.detail);
    }
    return fail(RTCR_E_INTERNAL, "no such outcome");
  });
}

int rtcr_poll_fd(rtcr_client* client) {
  int fd = -1;
  (void)with_client(client, Blocking::kNo, [&](Client& opened) {
    fd = opened.poll_fd();
    return static_cast<int>(RTCR_OK);
  });
  return fd;
}

int rtcr_next_receipt(rtcr_client* client, rtcr_receipt* receipt) {
  return with_client(client, Blocking::kNo, [&](Client& opened) {
    if (const Status usable = check_struct(receipt, "rtcr_receipt"); !usable.ok())
      return fail(usable.error());
    const auto next = opened.next_receipt();
    if (!next) return fail(RTCR_E_NOT_FOUND, "there is no receipt at this moment");
    write_struct(receipt, receipt_of(*next));
    return static_cast<int>(RTCR_OK);
  });
}

int rtcr_get_stats(rtcr_client* client, rtcr_stats* stats) {
  return with_client(client, Blocking::kNo, [&](Client& opened) {
    if (const Status usable = check_struct(stats, "rtcr_stats"); !usable.ok()) return fail(usable.error());
    const cms::broker::EcuLoopStats loop = opened.stats();
    rtcr_stats result = rtcr_stats_init();
    result.cms_live_count = loop.live_cms_count;
    result.incarnation = loop.incarnation;
    result.served_bytes = loop.served_bytes;
    result.held_count = loop.held_count;
    result.held_memory_bytes = loop.held_memory_bytes;
    result.receipts_lost_count = opened.receipts_lost_count();
    write_struct(stats, result);
    return static_cast<int>(RTCR_OK);
  });
}

int rtcr_withdraw(rtcr_client* client, uint64_t program_id, int64_t timeout_ms) {
  return with_client(client, Blocking::kYes, [&](Client& opened) {
    const Status withdrawn = opened.withdraw(program_id, timeout_of(timeout_ms));
    return withdrawn.ok() ? static_cast<int>(RTCR_OK) : fail(withdrawn.error());
  });
}

int rtcr_request_migration(rtcr_client* client, uint64_t program_id, const char* to_ecu_mac,
                           int64_t timeout_ms) {
  return with_client(client, Blocking::kYes, [&](Client& opened) {
    std::optional<cms::EcuMac> to;
    if (to_ecu_mac != nullptr) {
      const auto ecu_mac = cms::parse_ecu_mac(to_ecu_mac);
      if (!ecu_mac.ok()) return fail(in_field("to_ecu_mac", ecu_mac.error()));
      to = *ecu_mac;
    }
    const Status begun = opened.request_migration(program_id, to, timeout_of(timeout_ms));
    return begun.ok() ? static_cast<int>(RTCR_OK) : fail(begun.error());
  });
}

int rtcr_programs_told(rtcr_client* client) {
  return with_client(client, Blocking::kNo, [&](Client& opened) {
    const Status told = opened.programs_told();
    return told.ok() ? static_cast<int>(RTCR_OK) : fail(told.error());
  });
}

int rtcr_program_ended(rtcr_client* client, uint64_t program_id) {
  return with_client(client, Blocking::kNo, [&](Client& opened) {
    const Status told = opened.program_ended(program_id);
    return told.ok() ? static_cast<int>(RTCR_OK) : fail(told.error());
  });
}

int rtcr_fetch_newest(rtcr_client* client, const rtcr_fetch* given, rtcr_fetched* fetched) {
  return with_client(client, Blocking::kYes, [&](Client& opened) { return fetch(opened, given, fetched); });
}

}  // extern "C"
