#pragma once
// A small file system in memory for a test that fills one up. Only the thread that made it and the programs
// that it starts afterwards see it, so it is gone with them, also when they are killed.
//
// Needs root. That thread sees no mounts that are
// made elsewhere afterwards.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

namespace cms::test {

class SmallTmpfs {
 public:
  // On a directory, which exists. Ask mounted() first of all.
  SmallTmpfs(const std::string& directory, std::size_t size_mib) : directory_(directory) {
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", directory.c_str(), "tmpfs", 0, size_option(size_mib).c_str()) != 0) {
      trouble_ = std::strerror(errno);
    }
  }
  ~SmallTmpfs() {
    if (trouble_.empty()) (void)::umount2(directory_.c_str(), MNT_DETACH);
  }
  SmallTmpfs(const SmallTmpfs&) = delete;
  SmallTmpfs& operator=(const SmallTmpfs&) = delete;

  testing::AssertionResult mounted() const {
    if (trouble_.empty()) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "this test mounts a small tmpfs, which is not allowed here ("
                                       << trouble_ << "): run it as root (sudo)";
  }
  bool resize(std::size_t size_mib) { return remount(0, size_option(size_mib)); }
  bool set_read_only(bool read_only) { return remount(read_only ? MS_RDONLY : 0, ""); }
  // Takes all room that is left, with a file of this name.
  void fill(const std::string& name) const {
    std::ofstream file(directory_ + "/" + name, std::ios::binary);
    const std::vector<char> bytes(4096, 'f');
    while (file.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush()) {
    }
  }

 private:
  static std::string size_option(std::size_t size_mib) { return "size=" + std::to_string(size_mib) + "m"; }
  bool remount(unsigned long flags, const std::string& options) {
    return ::mount("tmpfs", directory_.c_str(), "tmpfs", MS_REMOUNT | flags, options.c_str()) == 0;
  }

  const std::string directory_;
  std::string trouble_;
};

}  // namespace cms::test
