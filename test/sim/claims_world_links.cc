// The world of claims with run leases, where links are cut at a step of a loss or of a planned move.
#include <algorithm>

#include "test/sim/claims_world.h"

namespace cms::sim {

using namespace std::chrono_literals;
using wire::ClaimRecord;

namespace {

constexpr Duration kBeginsAfter = 12s;  // All have a session and a lease, and there are checkpoints.
constexpr Duration kBootTime = 3s;
// Of a move of which one way of one ECU's link to one CMS is cut: until what stands still goes on, here or there. Most of it is
// the patience with a source, and then with who works at the claim.
constexpr Duration kGoesOnWithin = 12s;

}  // namespace

void ClaimsWorld::schedule_links() {
  if (verbose_) trace(describe(*scenario_.links));
  queue_.after(kBeginsAfter, [this] {
    steps_count_ = true;
    Ecu& source = ecus_.front();
    switch (scenario_.links->occasion) {
      case Occasion::kNone: break;
      case Occasion::kDies: power_off(source); break;
      case Occasion::kReboots:
        power_off(source);
        boot_later(source, kBootTime);
        break;
      case Occasion::kMove: move_first_program(); break;
    }
    note_step(Step::kBegun);
  });
}

void ClaimsWorld::move_first_program() {
  Cms& a = cms_.front();
  read_head(a, lineages_.front(), [this, &a](const Result<std::optional<ClaimRecord>>& head) {
    if (!head.ok() || !*head) return;  // It is cut from the NAS.
    answer(a, [&](core::RestoreCore& core, Instant now, core::RestoreEffects& effects) {
      (void)core.move(now, **head, ecus_[1].ecu_mac, effects);
    });
  });
}

// The cuts begin in the middle of what makes the step: whoever has caused it may already be cut off from its answer.
void ClaimsWorld::note_step(Step step) {
  if (!steps_count_ || cuts_made_ || step != scenario_.links->step) return;
  cuts_made_ = true;
  for (const Cut& cut : scenario_.links->cuts) make_cut(cut);
  const Cut& first = scenario_.links->cuts.front();
  const bool one_cms_is_enough = scenario_.links->occasion == Occasion::kMove &&
                                 scenario_.links->cuts.size() == 1 && first.way < Way::kAToNas;
  if (!one_cms_is_enough || first.lasts < kGoesOnWithin) return;
  queue_.after(kGoesOnWithin, [this] {
    for (const Lineage& lineage : lineages_) {
      const auto& copies = ledger_.copies();
      const bool goes_on = std::any_of(copies.begin(), copies.end(), [&](const Copy& copy) {
        return copy.lineage == lineage && copy.executes();
      });
      if (!goes_on) violated("stands still while one way is cut. " + picture(lineage));
    }
  });
}

void ClaimsWorld::make_cut(const Cut& cut) {
  const Instant until = queue_.now() + cut.lasts;
  const auto link = [this](std::size_t ecu, std::size_t cms) -> Link& {
    return ecus_[ecu].guarded->links[cms];
  };
  if (verbose_) trace("cut: " + describe(*scenario_.links));
  switch (cut.way) {
    case Way::kSourceToA: link(0, 0).out_cut_until = until; return;
    case Way::kAToSource: link(0, 0).in_cut_until = until; return;
    case Way::kSourceToB: link(0, 1).out_cut_until = until; return;
    case Way::kBToSource: link(0, 1).in_cut_until = until; return;
    case Way::kTargetToA: link(1, 0).out_cut_until = until; return;
    case Way::kAToTarget: link(1, 0).in_cut_until = until; return;
    case Way::kTargetToB: link(1, 1).out_cut_until = until; return;
    case Way::kBToTarget: link(1, 1).in_cut_until = until; return;
    case Way::kAToNas: cms_[0].away_until = until; return;
    case Way::kNasToA: cms_[0].unanswered_until = until; return;
    case Way::kBToNas: cms_[1].away_until = until; return;
    case Way::kNasToB: cms_[1].unanswered_until = until; return;
  }
}

// Invariants: for short cuts no ECU is LOST, and without an occasion every program runs where it began.
void ClaimsWorld::check_links() const {
  const LinksCase& links = *scenario_.links;
  const bool lives = links.occasion == Occasion::kNone || links.occasion == Occasion::kMove;
  const bool all_short = std::all_of(links.cuts.begin(), links.cuts.end(),
                                     [](const Cut& cut) { return cut.lasts == kShortCut; });
  if (!lives || !all_short) return;
  for (const Ecu& ecu : ecus_) {
    for (std::uint64_t slot = 1; const wire::EcuRecord* record = nas_.record(ecu.ecu_mac, slot); ++slot) {
      if (record->kind == wire::EcuRecordKind::kLost) violated("LOST for short cuts: " + describe(*record));
    }
  }
  if (links.occasion != Occasion::kNone) return;
  for (std::size_t i = 0; i < lineages_.size(); ++i) {
    const Copy* copy = ledger_.running(lineages_[i]);
    if (copy == nullptr || copy->session.ecu_mac != ecus_[i % ecus_.size()].ecu_mac)
      violated("short cuts have moved it, or ended it. " + picture(lineages_[i]));
  }
}

}  // namespace cms::sim
