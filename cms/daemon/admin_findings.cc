#include "cms/daemon/admin_findings.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <map>
#include <utility>

#include "cms/daemon/admin_leases.h"
#include "cms/daemon/admin_listing.h"

namespace cms::daemon {
namespace {

using Item = CoreSnapshot::Item;
using State = CoreSnapshot::State;
using Severity = Problem::Severity;

constexpr Duration kStatusScanMax = std::chrono::seconds(2);
constexpr std::size_t kClockRows = 4096;  // Rows between two looks at the clock.

std::string remedy_for_store(Code code, const std::string& url) {
  if (url.rfind("nfs://", 0) == 0) {
    switch (code) {
      case Code::kNotFound: return "see that the NAS of " + url + " exports it; cmsd goes on by itself";
      case Code::kUnavailable:
        return "see that the NAS of " + url + " is up and can be reached; cmsd goes on by itself";
      case Code::kReadOnly: return "let the NAS export " + url + " for writing; it goes on by itself";
      case Code::kPermission:
        return "see that the NAS exports " + url +
               ", that this host may mount it and that it is writable for the user of cmsd (or uid=N, and "
               "root squashing); it goes on by itself";
      case Code::kIo: return "look at the log of the NAS of " + url;
      default: break;  // As in a directory.
    }
  }
  switch (code) {
    case Code::kNoSpace:
      return "free space on " + url +
             ", retire programs or start cmsd with a lower --keep-latest; it goes on "
             "by itself";
    case Code::kQuota:
      return "the disk has room, the user of cmsd has not: raise its quota on " + url +
             ", retire programs or start cmsd with a lower --keep-latest; it goes on by itself";
    case Code::kNotFound:
    case Code::kUnavailable:
      return "see that " + url + " is mounted and its host is up; cmsd goes on by itself";
    case Code::kReadOnly:
      return "mount " + url +
             " for writing (a file system in trouble is often made read-only: see the kernel's "
             "log of its host); it goes on by itself";
    case Code::kPermission: return "make " + url + " writable for the user of cmsd; it goes on by itself";
    case Code::kCorrupt:
      return "restore the FORMAT file of " + url +
             " from another copy or see docs/formats/store-layout.md; nothing else of it was touched";
    case Code::kIo: return "look at the disk of " + url + " and the kernel's log of its host";
    case Code::kForeign: return "point --store to the fleet's store or to an empty directory";
    case Code::kUnsupported: return "update this cmsd: the store is of a newer format";
    default: return "look at the log of cmsd and at the host of " + url;
  }
}

// What a store that is away holds up; publishers keep it as long as their memory allows.
std::string waiting_text(const CoreSnapshot& snapshot) {
  const CoreSnapshot::Counts& counts = snapshot.counts;
  if (counts.waiting == 0) return "; no checkpoint waits for it";
  return "; " + std::to_string(counts.waiting) + " programs' newest checkpoints (" +
         std::to_string(counts.waiting_bytes / (1024 * 1024)) +
         " MiB) wait with their publishers, the first for " +
         std::to_string(seconds_of(counts.waiting_longest)) + " s";
}

void find_scrub_problems(const CoreSnapshot& snapshot, std::vector<Problem>& problems) {
  const DaemonFacts& facts = snapshot.facts;
  const ScrubFacts& scrub = facts.scrub;
  const std::string& url = facts.store_url;
  if (facts.quarantine.count > 0) {
    std::string what = std::to_string(facts.quarantine.count) +
                       " stored checkpoints were found damaged and are in quarantine, ";
    what += scrub.found.empty()
                ? "newest " + to_string(facts.quarantine.newest)
                : "last " + to_string(scrub.found.back().checkpoint) + ": " + scrub.found.back().reason;
    problems.push_back(Problem{Severity::kError, what, std::nullopt,
                               "look at the disks of " + url + "; run 'cms-admin scrub'; when all is well, " +
                                   "remove the files in its directory quarantine/ to end this alarm"});
  }
  if (!scrub.not_moved.reason.empty()) {
    problems.push_back(
        Problem{Severity::kError,
                to_string(scrub.not_moved.checkpoint) +
                    " is damaged and could not be moved to quarantine: " + scrub.not_moved.reason,
                age_of(facts.wall_us, scrub.not_moved.at_us),
                "make " + url + " writable, then run 'cms-admin scrub " +
                    to_string(scrub.not_moved.checkpoint.program) + "'"});
  }
  if (scrub.total.unreadable > 0) {
    problems.push_back(Problem{Severity::kWarning,
                               std::to_string(scrub.total.unreadable) +
                                   " times a stored checkpoint could not be read, last " +
                                   to_string(scrub.unreadable.checkpoint) + ": " + scrub.unreadable.reason,
                               age_of(facts.wall_us, scrub.unreadable.at_us),
                               "look at the disks of " + url + " and the kernel's log of its host"});
  }
  if (scrub.total.misread > 0) {
    problems.push_back(Problem{
        Severity::kWarning,
        std::to_string(scrub.total.misread) + " times a stored checkpoint read wrong once and right then",
        std::nullopt, "the store is right: test the memory of this host and its way to " + url});
  }
  if (scrub.total.unsupported > 0) {
    problems.push_back(Problem{
        Severity::kNotice,
        std::to_string(scrub.total.unsupported) + " times a stored checkpoint of a newer format was met",
        std::nullopt, "update this cmsd to have them checked"});
  }
}

void find_index_problems(const CoreSnapshot& snapshot, const Status& indexed,
                         std::vector<Problem>& problems) {
  const IndexFacts& index = snapshot.facts.index;
  if (!index.damage.empty()) {
    problems.push_back(Problem{Severity::kWarning, "the index is damaged: " + index.damage, std::nullopt,
                               "nothing; it is put aside and rebuilt from the store by itself; look at the "
                               "disk of --index"});
  } else if (!indexed.ok()) {
    problems.push_back(Problem{Severity::kError, "the index cannot be read: " + indexed.error().message(),
                               std::nullopt,
                               "look at the disk of --index; if it stays so, run 'cms-admin index rebuild'"});
  }
  if (!index.old_index.empty()) {
    problems.push_back(Problem{
        Severity::kNotice, "the index was damaged and was rebuilt; the old one is kept in " + index.old_index,
        std::nullopt, "remove that directory when nobody wants to look at it"});
  }
}

void find_store_problems(const CoreSnapshot& snapshot, std::vector<Problem>& problems) {
  const DaemonFacts& facts = snapshot.facts;
  if (!snapshot.store_status.ok()) {
    const Error& error = snapshot.store_status.error();
    problems.push_back(Problem{Severity::kError,
                               "nothing can be stored: " + error.message() + waiting_text(snapshot),
                               seconds_of(facts.store_since), remedy_for_store(error.code, facts.store_url)});
  } else if (facts.store_no_answer_for) {
    problems.push_back(Problem{
        Severity::kWarning,
        "the store has given no answer for " + std::to_string(seconds_of(*facts.store_no_answer_for)) +
            " s; what is under way to it waits" + waiting_text(snapshot),
        seconds_of(*facts.store_no_answer_for), remedy_for_store(Code::kUnavailable, facts.store_url)});
  } else if (facts.space && facts.space->free_bytes < facts.space->total_bytes / 10) {
    problems.push_back(Problem{
        Severity::kWarning,
        "the store is nearly full: " + std::to_string(facts.space->free_bytes / (1024 * 1024)) + " MiB of " +
            std::to_string(facts.space->total_bytes / (1024 * 1024)) + " MiB are free",
        std::nullopt, "free space on " + facts.store_url + ", retire programs or lower --keep-latest"});
  }
  if (!facts.reconcile_trouble.empty() && snapshot.store_status.ok()) {
    problems.push_back(Problem{Severity::kWarning,
                               "the index cannot be compared with the store: " + facts.reconcile_trouble,
                               std::nullopt, "look at the log of cmsd; it tries again by itself"});
  } else if (facts.reconcile_running && facts.index.rebuilding) {
    problems.push_back(Problem{Severity::kNotice,
                               "the index is being rebuilt from the store: " + facts.index.reason,
                               seconds_of(facts.index.took),
                               "nothing; lists are not complete until the end, all else is: see 'cms-admin "
                               "index status'"});
  } else if (facts.reconcile_running) {
    problems.push_back(Problem{Severity::kNotice, "the index is being compared with the store", std::nullopt,
                               "nothing; wait for the end"});
  }
  if (facts.unknown_files > 0) {
    problems.push_back(Problem{
        Severity::kNotice, std::to_string(facts.unknown_files) + " files in the store are not checkpoints",
        std::nullopt, "see who writes to " + facts.store_url + "; cmsd leaves them alone"});
  }
}

void find_restore_problems(const CoreSnapshot& snapshot, std::vector<Problem>& problems) {
  const RestoreFacts& restores = snapshot.facts.restores;
  if (restores.without_target > 0) {
    problems.push_back(
        Problem{Severity::kError,
                std::to_string(restores.without_target) +
                    " programs of lost ECUs run nowhere: " + restores.without_target_why,
                std::nullopt,
                "connect or free an ECU that can take them; they go on there by themselves: see "
                "'cms-admin restores' and 'cms-admin explain KEY'"});
  }
  if (restores.unanswered > 0) {
    problems.push_back(Problem{
        Severity::kError,
        std::to_string(restores.unanswered) + " programs were given to a target that does not answer, " +
            restores.unanswered_target + "; whether they run there is not known",
        std::nullopt,
        "see that it answers; if it is gone and stays off, say so: 'cms-admin ecu failed " +
            restores.unanswered_target + "'"});
  }
  if (restores.refused > 0) {
    problems.push_back(Problem{Severity::kWarning,
                               std::to_string(restores.refused) +
                                   " programs of lost ECUs cannot be restored, " + restores.refused_why,
                               std::nullopt, "see 'cms-admin restores' and 'cms-admin history KEY'"});
  }
  if (restores.standing_still > 0) {
    const auto seconds =
        std::chrono::duration_cast<std::chrono::seconds>(restores.standing_still_for).count();
    const std::string key = to_string(restores.standing_still_program);
    problems.push_back(Problem{Severity::kWarning,
                               std::to_string(restores.standing_still) +
                                   " programs stand still for a move that does not get on, " + key + " for " +
                                   std::to_string(seconds) + " s",
                               std::nullopt,
                               "see 'cms-admin history " + key +
                                   "': who claimed it, and whether that cmsd lives ('cms-admin peers'); to "
                                   "leave it where it is: 'cms-admin migrate " +
                                   key + " --cancel'"});
  }
  if (restores.drained > 0) {
    problems.push_back(
        Problem{Severity::kNotice,
                std::to_string(restores.drained) + " ECUs are drained, no program is placed on them: " +
                    to_string(restores.drained_ecu) + (restores.drained > 1 ? " and others" : ""),
                std::nullopt, "when they may have programs again: 'cms-admin ecu drain ECU_MAC --cancel'"});
  }
  if (restores.under_way > 0) {
    problems.push_back(Problem{Severity::kNotice,
                               std::to_string(restores.under_way) + " programs are being restored or moved",
                               std::nullopt, "nothing; see 'cms-admin restores'"});
  }
}

void find_claim_problems(const CoreSnapshot& snapshot, std::vector<Problem>& problems) {
  const ClaimsFacts& claims = snapshot.facts.claims;
  const std::string& url = snapshot.facts.store_url;
  // While the store is away nothing is known of it; that is one problem, not two.
  if (!snapshot.store_status.ok()) return;
  if (!claims.test) {
    if (claims.trouble.empty()) return;
    problems.push_back(Problem{Severity::kNotice,
                               "whether the store can be trusted with claims is not known: " + claims.trouble,
                               std::nullopt, "nothing; it is tried again by itself, and storing goes on"});
    return;
  }
  if (!claims.test->trusted_with_claims()) {
    problems.push_back(
        Problem{Severity::kWarning,
                "the store cannot be trusted with claims: " + what_does_not_hold(*claims.test), std::nullopt,
                "storing and getting back go on; restores will be refused until the server of " + url +
                    " can do that"});
  }
  const std::string clock = clock_in_words(*claims.test);
  if (!clock.empty()) {
    problems.push_back(Problem{Severity::kWarning, "the clock of the store is " + clock + " this host's",
                               std::nullopt,
                               "set both by NTP; nothing is decided by them, but times of files and logs do "
                               "not fit together"});
  }
}

void find_checkpoint_problems(const CoreSnapshot& snapshot, const Lasting& lasting,
                              std::vector<Problem>& problems) {
  const std::uint64_t wall_us = snapshot.facts.wall_us;
  const auto add_failures = [&](const std::vector<const Item*>& failures, const char* what) {
    if (failures.empty()) return;
    const Item& oldest =
        **std::min_element(failures.begin(), failures.end(),
                           [](const Item* a, const Item* b) { return a->failed_at_us < b->failed_at_us; });
    const std::string key = to_string(oldest.checkpoint);
    problems.push_back(Problem{Severity::kWarning,
                               std::to_string(failures.size()) + what + key + ": " +
                                   std::string(to_string(oldest.code)) + ": " + oldest.reason,
                               age_of(wall_us, oldest.failed_at_us),
                               "see 'cms-admin show " + key +
                                   "'; it ends when a newer checkpoint is stored or the program retired"});
  };
  add_failures(lasting.never_stored, " programs were never stored and their last checkpoint failed, first ");
  add_failures(lasting.out_of_date, " programs' newest checkpoint failed and an older one is kept, first ");
  // While the store is away everything waits; that is one problem, not two.
  if (snapshot.counts.late > 0 && snapshot.store_status.ok()) {
    problems.push_back(
        Problem{Severity::kWarning,
                std::to_string(snapshot.counts.late) + " programs' newest checkpoint waits to be pulled",
                seconds_of(snapshot.counts.longest_wait),
                "see the reasons in 'cms-admin checkpoints'; can this host reach their ECUs?"});
  }
}

void find_cms_problems(const CoreSnapshot& snapshot, std::vector<Problem>& problems) {
  using PeerState = CoreSnapshot::Peer::State;
  std::size_t heard_count = 0;
  for (const CoreSnapshot::Peer& peer : snapshot.peers) {
    ++heard_count;
    if (peer.state == PeerState::kSilent) {
      problems.push_back(
          Problem{Severity::kWarning,
                  "cmsd " + peer.name + " at " + peer.address + " is silent; this one pulls for it",
                  seconds_of(peer.since), "see that it runs, and that this host is among its peers"});
    } else if (peer.state == PeerState::kForeign) {
      problems.push_back(Problem{
          Severity::kWarning,
          "cmsd " + peer.name + " at " + peer.address + " is refused: its store is of fleet " + peer.fleet_id,
          seconds_of(peer.since), "point both to one store, or take it out of the lists of peers"});
    } else if (!peer.takes_pulls) {
      problems.push_back(Problem{Severity::kWarning,
                                 "cmsd " + peer.name + " pulls nothing: it is ending, or its store is away",
                                 std::nullopt, "see 'cms-admin status' of that one"});
    }
  }
  if (heard_count < snapshot.facts.peers_configured) {
    problems.push_back(Problem{Severity::kWarning,
                               std::to_string(snapshot.facts.peers_configured - heard_count) + " of " +
                                   std::to_string(snapshot.facts.peers_configured) +
                                   " configured peers have not been heard since the start",
                               seconds_of(snapshot.facts.uptime),
                               "see that they run and that their --peer lists name this cmsd"});
  }
}

void find_session_problems(const CoreSnapshot& snapshot, std::vector<Problem>& problems) {
  if (snapshot.counts.silent_sessions > 0) {
    problems.push_back(
        Problem{Severity::kWarning,
                std::to_string(snapshot.counts.silent_sessions) + " sessions are not heard any more",
                seconds_of(snapshot.counts.longest_silence),
                "see 'cms-admin ecus'; are these ECUs and their network up?"});
  }
  if (snapshot.counters.malformed > 0) {
    problems.push_back(
        Problem{Severity::kNotice,
                std::to_string(snapshot.counters.malformed) + " malformed messages have come since the start",
                std::nullopt, "look for 'malformed' in the log of cmsd: who sent them?"});
  }
  if (snapshot.facts.draining) {
    problems.push_back(Problem{Severity::kNotice,
                               "this cmsd is about to end: it finishes its pulls and begins no new ones",
                               std::nullopt, "nothing"});
  }
}

}  // namespace

std::optional<std::string> time_text(std::uint64_t at_us) {
  if (at_us == 0) return std::nullopt;
  const auto seconds = static_cast<std::time_t>(at_us / 1000000);
  std::tm utc{};
  if (::gmtime_r(&seconds, &utc) == nullptr || utc.tm_year > 9999 - 1900) return std::nullopt;
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  const std::string ms = std::to_string(1000 + at_us / 1000 % 1000).substr(1);
  return std::string(text.data()) + "." + ms + "Z";
}

std::uint64_t seconds_of(Duration duration) {
  return static_cast<std::uint64_t>(
      std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::seconds>(duration).count()));
}

std::optional<std::uint64_t> age_of(std::uint64_t wall_us, std::uint64_t at_us) {
  if (at_us == 0) return std::nullopt;
  return wall_us > at_us ? (wall_us - at_us) / 1000000 : 0;
}

Status add_up(storage::CheckpointIndex& index, IndexTotals& totals) {
  const auto count = index.row_count();
  if (!count) return count.error();
  totals.checkpoints = *count;
  const Instant deadline = BootClock::now() + kStatusScanMax;
  std::size_t looks = 0;
  std::optional<ProgramKey> last;
  return index.scan(std::nullopt, std::nullopt, [&](const storage::IndexRow& row) {
    if (++looks % kClockRows == 0 && BootClock::now() >= deadline) {
      totals.complete = false;
      return false;
    }
    totals.size_bytes += row.name.size_bytes;
    totals.stored_bytes += row.stored_bytes;
    const ProgramKey& program = row.name.checkpoint.program;
    if (last == program) return true;
    ++totals.programs;
    if (!last || last->ecu_mac != program.ecu_mac) ++totals.ecus;
    last = program;
    if (row.stored_at_us != 0 &&
        (!totals.oldest_newest || row.stored_at_us < totals.oldest_newest->stored_at_us)) {
      totals.oldest_newest = row;
    }
    return true;
  });
}

Status find_lasting(const CoreSnapshot& snapshot, storage::CheckpointIndex& index, Lasting& lasting) {
  std::map<ProgramKey, const Item*> newest_failure;
  for (const Item& item : snapshot.items) {
    if (item.state != State::kFailed) continue;
    const Item*& newest = newest_failure[item.checkpoint.program];
    if (newest == nullptr || newest->checkpoint.version < item.checkpoint.version) newest = &item;
  }
  for (const auto& [program, failure] : newest_failure) {
    const auto row = index.newest(program);
    if (!row) return row.error();
    const auto facts = index.program(program);
    if (!facts) return facts.error();
    if (*facts && is_withdrawn(failure->checkpoint.version, (*facts)->withdrawn)) continue;
    if (!*row) {
      lasting.never_stored.push_back(failure);
    } else if ((*row)->name.checkpoint.version < failure->checkpoint.version) {
      lasting.out_of_date.push_back(failure);
    }
  }
  return ok_status();
}

std::vector<Problem> find_problems(const CoreSnapshot& snapshot, const Status& indexed,
                                   const Lasting& lasting) {
  std::vector<Problem> problems;
  find_store_problems(snapshot, problems);
  find_claim_problems(snapshot, problems);
  find_restore_problems(snapshot, problems);
  find_lease_problems(snapshot, problems);
  find_index_problems(snapshot, indexed, problems);
  find_scrub_problems(snapshot, problems);
  find_checkpoint_problems(snapshot, lasting, problems);
  find_cms_problems(snapshot, problems);
  find_session_problems(snapshot, problems);
  return problems;
}

}  // namespace cms::daemon
