#pragma once
// FakeCms is a CMS as its publishers see it, on real loopback sockets, in the process of the test: it
// answers Hello, asks LIST, pulls, says receipts, gives offered blobs back, and commands restores. What it shall do
// differently, a Plan says; what it has seen, a State. It stores nothing.
//
// Threads: one of its own; every function may be called from any other.
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "schemas/messages.h"

namespace cms::test {

struct FakePlan {
  bool silent = false;                            // Answers nothing on control.
  std::string refusal{};                          // Not empty: every Hello is refused with it.
  bool pull = true;                               // Fetches whatever it hears of.
  std::uint64_t credit_bytes_max = UINT64_MAX;    // A pull gets no credit beyond this.
  bool store = true;                              // Says STORED when a pull is whole.
  std::optional<Code> withdraw_code = Code::kOk;  // nullopt: no answer.
  std::optional<Code> migrate_code = Code::kOk;   // The same.
  bool answers_beats = true;                      // Heartbeats.
  std::uint32_t lease_ms = 0;                     // Of a guarded session; 0: it has none.
  bool grants = true;                             // With each answer to its heartbeats, where it has one.
  // For Fetch of an offered blob, each until it is used up:
  int unavailable_count = 0;                          // so often "not yet",
  int damage_count = 0;                               // so many chunks damaged,
  std::optional<std::uint64_t> silent_after_bytes{};  // silent once after so many bytes.
};

struct FakeState {
  int hello_count = 0;
  int bye_count = 0;
  Incarnation incarnation = 0;                  // The last one assigned; the next four are of its session.
  std::map<Seq, wire::Notification> heard{};    // By notify or LIST.
  std::map<Seq, std::uint64_t> pulled_bytes{};  // So far.
  std::map<Seq, std::string> pulled{};          // The whole ones.
  std::map<Seq, Code> pull_errors{};            // TransferError instead.
  std::vector<ProgramId> withdrawn{};
  std::vector<wire::Migrate> migrations{};
  std::vector<wire::FreezeReport> freeze_reports{};
  // Of a guarded session:
  wire::Hello hello{};  // The last one.
  int session_count = 0;
  Incarnation heartbeat_of = 0;  // Whose the last heartbeat was.
  std::vector<wire::Programs> programs{};
  std::uint64_t programs_changed = 0;
  int fetch_count = 0;  // Of offered blobs.
  // Of a target:
  std::uint64_t features = 0;
  std::vector<wire::RestoreReport> reports{};
  std::vector<wire::Metrics> metrics{};
};

class FakeCms {
 public:
  explicit FakeCms(FakePlan plan = {});
  FakeCms(const FakeCms&) = delete;
  FakeCms& operator=(const FakeCms&) = delete;
  ~FakeCms();

  std::string endpoint() const;  // Of its notify channel.
  FakeState state() const;
  // False: it did not become so within 20 s.
  bool wait_until(const std::function<bool(const FakeState&)>& condition) const;

  void set_plan(FakePlan plan);
  // Says a receipt to the last session.
  void say(ProgramId program_id, Seq seq, wire::ReceiptLevel level, Code code = Code::kOk,
           std::string reason = {});
  // Says anything to the last session: a Prepare, Go, Discard, Freeze, Thaw, MetricsAsk.
  void command(const wire::ControlBody& body);
  // Tells the last session that it has ended.
  void end_session();
  std::uint16_t bulk_port() const;
  // Gives it to whoever fetches it, or (the last one offered of its program) the newest.
  void offer(const CheckpointId& checkpoint, std::string bytes);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cms::test
