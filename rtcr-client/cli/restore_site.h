#pragma once
// RestoreSite has the programs of `rtcr ecu`: those that it publishes, and those that it restores, with a
// directory in which blobs appear or by a command. It gives them their program_ids, freezes and thaws them
// for moves, stops and resumes them for want of a run lease, and says what happens as events.
//
// Threads: prepare, go, discard, freeze, thaw, stop and resume on those of the client, several at once; the rest on any.
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "rtcr-client/cli/arguments.h"
#include "rtcr/rtcr.hpp"

namespace cms::cli {

// The file that is a program's state, for reading; the caller closes it.
rtcr::Result<int> open_state(const std::string& file);

class RestoreSite {
 public:
  using Say = std::function<void(std::string line)>;
  // Publishes the file as the program's checkpoint; returns its seq.
  using Publish = std::function<rtcr::Result<std::uint64_t>(const rtcr::Facts&, int fd)>;

  // `say` and `publish` are called on any thread.
  RestoreSite(const EcuArguments& arguments, Say say, Publish publish);
  RestoreSite(const RestoreSite&) = delete;
  RestoreSite& operator=(const RestoreSite&) = delete;

  rtcr::Target target();
  rtcr::Source source();
  // Of a guarded session; without on_lease.
  rtcr::LeaseHandler lease_handler();
  // The program was published; its receipts have seqs from this one on.
  void note_published(ProgramId program_id, std::uint64_t seq);
  // Whether the program was ours; it is not any more, and the program_id of a restored one is free.
  bool on_fenced(ProgramId program_id, std::uint64_t seq);

 private:
  struct Program {
    std::uint64_t first_seq = 0;  // 0: not published yet.
    bool restored = false;
    bool fenced = false;
    rtcr::Facts facts{};                   // To publish it with.
    std::string file{};                    // That is its state; empty: the command has it.
    std::vector<std::string> variables{};  // For the command.
  };

  rtcr::Status prepare(const rtcr::Restore& restore);
  rtcr::Result<std::uint64_t> go(const rtcr::Restore& restore);
  void discard(const rtcr::Restore& restore);
  // Of a move: publishes the program as it is now, for the last time. Its seq.
  rtcr::Result<std::uint64_t> freeze(const rtcr::Move& move);
  void thaw(const rtcr::Move& move);
  rtcr::Result<std::uint64_t> publish_last(const rtcr::Move& move);
  // What the command prints, in a sealed memfd; the caller closes it.
  rtcr::Result<int> run_freeze(const Program& program) const;
  void run_thaw(const Program& program) const;
  rtcr::Status stop(ProgramId program_id) const;
  void resume(ProgramId program_id) const;
  // nullopt: it is not here, or no more.
  std::optional<Program> find(ProgramId program_id) const;
  // Gives the blob its name; returns that.
  rtcr::Result<std::string> show(const rtcr::Restore& restore, ProgramId program_id) const;
  static rtcr::Facts facts_of(const rtcr::Restore& restore, ProgramId program_id);
  void publish_first(const rtcr::Facts& facts, int fd, const std::string& file);
  ProgramId take_program_id();
  void give_back(ProgramId program_id);

  const EcuArguments& arguments_;
  const Say say_;
  const Publish publish_;
  mutable std::mutex mutex_{};  // Guards the programs.
  std::map<ProgramId, Program> programs_{};
};

}  // namespace cms::cli
