#pragma once
// The command line of `rtcr`, checked: what comes out of here can be carried out.
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "net/endpoint.h"
#include "schemas/messages.h"

namespace cms::cli {

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitUnreachable = 3;

enum class Output { kTable, kJson };

// What every command has.
struct CommonArguments {
  std::string cms_text{};
  std::vector<net::Endpoint> cms{};
  EcuMac ecu_mac{};
  ProgramId program_id = 0;
  std::chrono::milliseconds timeout{5000};
  Output output = Output::kTable;
};
struct PublishArguments {
  CommonArguments common{};
  std::string file{};  // "-": standard input
  std::string program_name{};
  wire::ReceiptLevel wait = wire::ReceiptLevel::kStored;  // Up to kReplicated.
  wire::Release release = wire::Release::kReplicated;
  bool new_lineage = false;
  std::string bulk_ports{};
  std::string bulk_host{};
  std::string advertise_host{};
  std::uint64_t memory_budget_bytes = 0;  // 0: the library's default
};
struct GetArguments {
  CommonArguments common{};
  std::optional<Version> version{};
  std::string file{};  // "-": standard output
};
struct WithdrawArguments {
  CommonArguments common{};
  std::string bulk_ports{};
};
struct RequestMigrationArguments {
  CommonArguments common{};
  std::optional<EcuMac> to{};  // None: wherever it suits best.
  std::string bulk_ports{};
};
struct EcuArguments {
  CommonArguments common{};  // Without a program; the output is JSON.
  std::map<ProgramId, std::string> programs{};
  std::map<ProgramId, std::string> restarts{};  // Guarded; none of `programs`.
  std::string restore_dir{};                    // At most one of the two; none: it is no target.
  std::string restore_command{};
  std::vector<std::string> labels{};
  std::vector<std::pair<std::string, std::uint32_t>> formats{};  // Name and newest version.
  std::string arch{};
  std::string bulk_ports{};
  std::string bulk_host{};
  std::string advertise_host{};
  std::uint64_t memory_budget_bytes = 0;                      // 0: the library's default
  wire::OnIsolation on_isolation = wire::OnIsolation::kKeep;  // Of `programs`.
  wire::OnLoss on_loss = wire::OnLoss::kAsk;                  // The same.
  bool guarded = false;
  wire::Enforcer enforcer = wire::Enforcer::kGuard;  // Guarded. So are the next two.
  std::string watchdog{};                            // Its device, of kWatchdog.
  std::string boot_id{};                             // Empty: the kernel's.
};
struct Exit {  // Help was asked for and printed, or the usage was wrong and the error printed.
  int code = kExitDone;
};

using Arguments = std::variant<PublishArguments, GetArguments, WithdrawArguments, RequestMigrationArguments,
                               EcuArguments, Exit>;

Arguments parse_arguments(int argc, const char* const* argv);

}  // namespace cms::cli
