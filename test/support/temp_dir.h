#pragma once
// A directory of its own for one test, removed with all that is in it.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include "base/assert.h"

namespace cms::test {

// For tests that kill with -9, which takes nothing from the page cache: memory does as well as a disk
// there, and a busy disk does not stretch the test. Where there is too little of it, /tmp.
inline std::string memory_or_tmp() {
  constexpr std::uintmax_t kEnoughBytes = std::uintmax_t{2} << 30;
  std::error_code failed;
  const auto space = std::filesystem::space("/dev/shm", failed);
  return !failed && space.available >= kEnoughBytes ? "/dev/shm" : "/tmp";
}

class TempDir {
 public:
  // Below $CMS_TEST_DIR if set (for example on the file system that is to be tested), else /tmp.
  TempDir() : TempDir("/tmp") {}
  // Below $CMS_TEST_DIR if set, else `otherwise`.
  explicit TempDir(const std::string& otherwise) {
    const char* base = std::getenv("CMS_TEST_DIR");
    std::string pattern = (base != nullptr ? base : otherwise) + "/cms-test-XXXXXX";
    const char* made = ::mkdtemp(pattern.data());
    CMS_ASSERT(made != nullptr);
    path_ = made;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace cms::test
