#include <memory>
#include <optional>
#include <string>

#include "rtcr-client/cli/commands.h"
#include "rtcr-client/cli/json_lines.h"
#include "rtcr-client/cli/output_file.h"
#include "rtcr-client/cli/terminal.h"
#include "rtcr-client/cli/values.h"
#include "rtcr-client/src/fetch.h"

namespace cms::cli {

int run_get(const GetArguments& arguments, int end_fd) {
  const CommonArguments& common = arguments.common;
  const bool to_stdout = arguments.file == "-";
  client::FetchRequest request;
  request.program = ProgramKey{common.ecu_mac, common.program_id};
  request.version = arguments.version;
  request.patience = common.timeout;
  request.cancel_fd = end_fd;

  const auto failed = [&](const Error& error) {
    const std::string text = "get " + to_string(request.program) + ": " + error.message();
    print_error(common, error.code,
                error.code == Code::kUnavailable ? text + " (" + common.cms_text + ")" : text, !to_stdout);
    return error.code == Code::kUnavailable ? kExitUnreachable : kExitFailed;
  };

  // Before anything is fetched: a folder that is not there or not ours is found at once.
  auto file = OutputFile::create(arguments.file);
  if (!file.ok()) return failed(Error{Code::kIo, file.error().os_errno, file.error().context});
  Progress progress("get", std::nullopt);
  const auto blob =
      client::fetch_checkpoint(common.cms, request, [&](const client::FetchedBytes& bytes) -> Status {
        Status written = (*file)->write(bytes.data, bytes.size_bytes);
        if (!written.ok()) return Error{Code::kIo, written.error().os_errno, written.error().context};
        progress.set_size(bytes.blob_size_bytes);
        progress.show(bytes.offset_bytes + bytes.size_bytes);
        return ok_status();
      });
  progress.clear();
  if (!blob.ok()) return failed(blob.error());
  if (const Status finished = (*file)->finish(); !finished.ok()) {
    return failed(Error{Code::kIo, finished.error().os_errno, finished.error().context});
  }
  if (to_stdout) return kExitDone;
  const bool printed = common.output == Output::kJson
                           ? print_line(json_of_fetched(blob->checkpoint, blob->size_bytes, blob->digest))
                           : print_line(to_string(blob->checkpoint) + "  " +
                                        std::to_string(blob->size_bytes) + " bytes  " + arguments.file);
  return printed ? kExitDone : kExitFailed;
}

}  // namespace cms::cli
