#pragma once
// The messages of ONC RPC over TCP, as far as a proxy that alters them has to know them.
//
// Threads: none.
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>

#include "test/support/rpc_fault_proxy.h"

namespace cms::test {

std::uint32_t word_at(const std::string& bytes, std::size_t offset);
void put_word(std::string& bytes, std::size_t offset, std::uint32_t value);

// One RPC message: its bytes with their record marks, and its first words without.
struct Record {
  std::string raw;
  std::string head;
  bool counted = false;

  std::uint32_t xid() const { return word_at(head, 0); }
};

class RecordReader {
 public:
  // False: this is no stream of records, or one is too large.
  bool take(const char* bytes, std::size_t size_bytes, std::deque<Record>& records);

 private:
  // A call: xid, CALL, version of RPC, program, version, procedure. A reply has as many.
  static constexpr std::size_t kHeadBytes = 24;
  Record record_;
  std::string mark_;
  std::size_t left_ = 0;
  bool in_fragment_ = false;
  bool last_ = false;
};

Procedure procedure_of(const Record& call);
// The reply to a call that failed with an NFS3 status.
std::string answer_of(std::uint32_t xid, Procedure procedure, std::uint32_t status);
// The record with its message changed, in one fragment.
std::string edited(const std::string& raw, const std::function<void(std::string&)>& edit);

}  // namespace cms::test
