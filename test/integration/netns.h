#pragma once
// A network of its own for a test: hosts on one bridge, each a network namespace, and links between them that are cut,
// both ways or one way. A cut is what a host drops of what arrives, so that who sends learns nothing.
//
// Needs root, ip and nft. The names have the process in them: tests run side by side. All is gone with the object; what a
// killed test left goes when the next one begins.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace cms::test {

class Netns {
 public:
  // Empty: a network can be made here. Else why not, and what to do.
  static std::string why_not();

  // Host i has the address 10.77.0.(i + 1). What fails is reported as a failure of the test.
  explicit Netns(const std::vector<std::string>& hosts);
  ~Netns();
  Netns(const Netns&) = delete;
  Netns& operator=(const Netns&) = delete;

  const std::string& address(const std::string& host) const { return addresses_.at(host); }
  // Stands before a command that is to run on this host, and becomes it: the pid is the command's.
  std::vector<std::string> launcher(const std::string& host) const;

  void cut(const std::string& one, const std::string& other);
  void cut_one_way(const std::string& from, const std::string& to);
  // What `from` sends to one port of `to`: other connections live on.
  void cut_port(const std::string& from, const std::string& to, std::uint16_t port);
  void heal();  // All that was cut.

 private:
  std::string name_of(const std::string& host) const;
  void nft(const std::string& host, const std::string& commands) const;

  std::map<std::string, std::string> addresses_;
  std::vector<std::string> namespaces_;  // That were made.
};

}  // namespace cms::test
