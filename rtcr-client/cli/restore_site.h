#pragma once
// RestoreSite is what `rtcr ecu` restores programs with: a directory in which blobs appear, or a command.
// It gives them their program_ids, and says what happens as events.
//
// Threads: prepare, go and discard on those of the client, several at once; the rest on any.
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "base/ids.h"
#include "base/result.h"
#include "rtcr-client/cli/arguments.h"
#include "rtcr/rtcr.hpp"

namespace cms::cli {

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
  // The program was published; its receipts have seqs from this one on.
  void note_published(ProgramId program_id, std::uint64_t seq);
  // Whether the program was ours; it is not any more, and the program_id of a restored one is free.
  bool on_fenced(ProgramId program_id, std::uint64_t seq);

 private:
  struct Program {
    std::uint64_t first_seq = 0;  // 0: not published yet.
    bool restored = false;
    bool fenced = false;
  };

  rtcr::Status prepare(const rtcr::Restore& restore);
  rtcr::Result<std::uint64_t> go(const rtcr::Restore& restore);
  void discard(const rtcr::Restore& restore);
  rtcr::Status run_command(const char* verb, const rtcr::Restore& restore, const ProgramId* program_id,
                           int stdin_fd) const;
  // Gives the blob its name; returns that.
  rtcr::Result<std::string> show(const rtcr::Restore& restore, ProgramId program_id) const;
  void publish_first(const rtcr::Restore& restore, ProgramId program_id, const std::string& file);
  ProgramId take_program_id();
  void give_back(ProgramId program_id);

  const EcuArguments& arguments_;
  const Say say_;
  const Publish publish_;
  mutable std::mutex mutex_{};  // Guards the programs.
  std::map<ProgramId, Program> programs_{};
};

}  // namespace cms::cli
