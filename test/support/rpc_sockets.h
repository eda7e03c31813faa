#pragma once
// The sockets of a proxy for RPC, and what is on its way by them.
//
// Threads: none.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "test/support/rpc_fault_proxy.h"
#include "test/support/rpc_record.h"

namespace cms::test {

// Of 127.0.0.1; -1: it cannot, errno says why.
int listen_on_any_port(std::uint16_t& port);
// -1: refused.
int connect_to(std::uint16_t port);
void close_with_reset(int& fd);

// One direction's socket: what came by it, and what is to go out by it.
struct Side {
  int fd = -1;
  RecordReader reader;
  std::deque<Record> in;
  std::size_t in_bytes = 0;
  std::deque<std::string> out;
  std::size_t out_bytes = 0;
  std::size_t out_sent = 0;  // Of the first of `out`.

  void send(std::string bytes) {
    out_bytes += bytes.size();
    out.push_back(std::move(bytes));
  }
  Record pop() {
    Record record = std::move(in.front());
    in.pop_front();
    in_bytes -= record.raw.size();
    return record;
  }
  void push_back_again(Record record) {
    in_bytes += record.raw.size();
    in.push_front(std::move(record));
  }
};

struct Call {
  Procedure procedure = Procedure::kOther;
  std::size_t index = 0;
  std::size_t procedure_index = 0;
  std::uint64_t order = 0;  // Of its arrival; never reset.
};

struct Connection {
  std::size_t number = 0;
  Side client;
  Side server;
  std::map<std::uint32_t, Call> forwarded;  // By xid: those the server has not answered.
  std::set<std::uint32_t> swallow;          // Second replies to these go nowhere.
  bool cut_when_sent = false;               // kCutAfter of a reply.
  std::uint64_t gone_at = 0;                // Order of the first call after its client's end; 0: lives.
  std::chrono::steady_clock::time_point drain_until{};  // When its client is gone: no longer than this.

  bool client_lives() const { return client.fd >= 0; }
};

struct Held {
  Connection* connection = nullptr;
  Record record;
  Way way = Way::kRequest;
  Call call;
  bool late = false;
  std::size_t after_calls = 0;
  bool bounded = false;
  std::chrono::steady_clock::time_point until{};
};

}  // namespace cms::test
