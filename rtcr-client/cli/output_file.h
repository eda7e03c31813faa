#pragma once
// A file that appears under its name only when it is whole, and standard output.
#include <cstddef>
#include <memory>
#include <string>

#include "base/result.h"

namespace cms::cli {

class OutputFile {
 public:
  // "-" is standard output. A regular or absent file is written beside itself, readable by its owner
  // only (a checkpoint is a program's memory), and renamed by finish(). Anything else that exists (a
  // device, a FIFO) is written to as it is.
  static Result<std::unique_ptr<OutputFile>> create(const std::string& path);
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile();  // Not finished? What was written beside is removed.

  Status write(const void* data, std::size_t size_bytes);
  // All is there: make it durable, then visible.
  Status finish();

 private:
  OutputFile(int fd, std::string path, std::string part_path)
      : fd_(fd), path_(std::move(path)), part_path_(std::move(part_path)) {}

  int fd_;
  std::string path_;
  std::string part_path_;  // Empty: written in place.
};

}  // namespace cms::cli
