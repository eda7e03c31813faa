#pragma once
// FrozenPrograms is the source's side of planned moves without any I/O. A CMS says Freeze for a CLAIM in the
// program's log: the RTCR stops the program and publishes its last checkpoint, and it stays so. What ends
// that is Thaw, which a CMS says that has read the end of the claim, or the end of the program here (FENCED:
// it goes on elsewhere). What keeps a program alive and single (docs/adr/0010) is kept here:
// - Nothing is thawed by time, or because a CMS comes or goes.
// - Of a lineage the newest claim counts. A Thaw thaws only what is frozen for an older slot than its own, and
//   a Freeze for an older slot than that of a Thaw, or than the one that the program came here by, is one of
//   a move that is over.
// - A claim that was refused stays refused: a repeated Freeze does not stop a program that runs on.
// Each command is answered with the present state, so that it can be repeated by any CMS.
//
// Inputs are calls; what is to be done comes back in `FreezeEffects`, in order. Threads: none; one caller at a
// time. Bounds: the constants below.
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "broker/core/cms_index.h"
#include "schemas/messages.h"

namespace cms::broker {

using FreezeId = std::uint64_t;  // Of one freezing at this ECU; from 1, never used twice.

// Freezing or frozen; what is more is refused with kLimit. Each is told with each heartbeat.
inline constexpr std::size_t kFrozenCountMax = 512;
// Lineages that were refused or thawed; beyond it the one that was first is forgotten.
inline constexpr std::size_t kThawedCountMax = 16384;

// ---- effects for the transport
struct SendFreezeReport {
  std::optional<CmsIndex> cms{};  // Who has asked: it is told, whether it is live or not.
  bool to_all = false;            // So is every one that is live.
  wire::FreezeReport report{};
};
// ---- effects for the RTCR
struct FreezeProgram {  // Stop it and publish its last checkpoint. Ends with on_frozen().
  FreezeId id = 0;
  ProgramId program_id = 0;
  wire::ClaimRef claim{};
};
struct ThawProgram {  // It goes on: what was frozen under this id, or by an answer that was of no use.
  FreezeId id = 0;
  ProgramId program_id = 0;
  wire::ClaimRef record{};  // Of the RELEASE or ABORT; where the answer was of no use, the claim.
};
using FreezeEffect = std::variant<SendFreezeReport, FreezeProgram, ThawProgram>;
using FreezeEffects = std::vector<FreezeEffect>;

// The newest checkpoint that was published of a program here.
struct LastCheckpoint {
  Version version{};      // It was stored under; else that it is, or will be, announced under.
  Code lost = Code::kOk;  // Why it ended without being stored.
  OwnerEpoch owner_epoch = 0;
};

class FrozenPrograms {
 public:
  // `published`: nullopt, nothing is published here as this program of this lineage.
  void on_freeze(CmsIndex cms, const wire::Freeze& freeze, const std::optional<LastCheckpoint>& published,
                 FreezeEffects& effects);
  void on_thaw(CmsIndex cms, const wire::Thaw& thaw, FreezeEffects& effects);
  // The RTCR's answer: the seq of its last checkpoint, which must be `published`; an error says that the
  // program runs on. Of what has ended since, nothing comes of it.
  void on_frozen(FreezeId id, const Result<Seq>& seq, const std::optional<LastCheckpoint>& published,
                 FreezeEffects& effects);
  // Something became of the last checkpoint of a program that may be frozen.
  void on_last_checkpoint(ProgramId program_id, const LastCheckpoint& last, FreezeEffects& effects);
  // The program is here no more: fenced or withdrawn. A later claim may find its lineage here again.
  void on_program_ended(ProgramId program_id);

  // Reports what is frozen to one CMS.
  void tell(CmsIndex cms, FreezeEffects& effects) const;
  // Freezing or frozen.
  bool is_open(ProgramId program_id) const { return open_.count(program_id) != 0; }
  bool is_frozen(ProgramId program_id) const;
  // What the answer to this FreezeProgram is about; nullopt: nothing any more.
  struct Freezing {
    ProgramId program_id = 0;
    Lineage lineage{};
  };
  std::optional<Freezing> find(FreezeId id) const;
  std::vector<Freezing> open() const;
  // Of the claim that the program is freezing or frozen for.
  std::optional<std::uint64_t> claim_slot_of(ProgramId program_id) const;
  std::size_t known_count() const { return lineages_.size(); }

 private:
  struct Entry {
    wire::FreezeState state = wire::FreezeState::kThawed;
    FreezeId id = 0;
    ProgramId program_id = 0;
    wire::ClaimRef claim{};
    wire::ClaimRef thawed{};  // Of the newest Thaw; while freezing, to be carried out if above the claim's.
    LastCheckpoint last{};
    Code code = Code::kOk;  // Of a refusal.
    std::string context{};
    std::uint64_t end_order = 0;  // Its place in ended_; 0: not there.
  };
  using Lineages = std::map<Lineage, Entry>;

  static bool is_open(const Entry& entry);
  static wire::FreezeReport report_of(const Entry& entry);
  Status check_startable(const wire::Freeze& freeze, const std::optional<LastCheckpoint>& published) const;
  void refuse(Lineages::iterator it, Code code, std::string context);
  void thaw(Lineages::iterator it, FreezeEffects& effects);
  void end(Lineages::iterator it, wire::FreezeState state);

  Lineages lineages_{};
  std::map<ProgramId, Lineage> open_{};       // At most kFrozenCountMax.
  std::map<std::uint64_t, Lineage> ended_{};  // The others, in the order in which they ended.
  FreezeId last_id_ = 0;
  std::uint64_t last_end_order_ = 0;
};

}  // namespace cms::broker
