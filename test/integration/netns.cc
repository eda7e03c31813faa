#include "test/integration/netns.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "base/ids.h"
#include "test/support/process.h"

namespace cms::test {
namespace {

constexpr const char* kPrefix = "cms-test-";
constexpr const char* kBridge = "bridge";

std::string prefix() { return kPrefix + std::to_string(::getpid()) + "-"; }

int run(const std::vector<std::string>& command, bool quiet = false) {
  Process::Options options;
  if (quiet) options.stderr_path = "/dev/null";
  return Process(command, options).wait();
}

void must_run(const std::vector<std::string>& command) {
  std::string text;
  for (const std::string& word : command) text += word + " ";
  EXPECT_EQ(run(command), 0) << text;
}

// Of tests that were killed: their programs died with them, the namespaces did not.
void remove_leftovers() {
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator("/run/netns", none)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(kPrefix, 0) != 0) continue;
    const std::string rest = name.substr(std::string(kPrefix).size());
    const auto pid = parse_u64(rest.substr(0, rest.find('-')));
    if (pid.ok() && ::kill(static_cast<pid_t>(*pid), 0) != 0 && errno == ESRCH) {
      (void)run({"ip", "netns", "delete", name}, true);  // Another test may have been faster.
    }
  }
}

}  // namespace

std::string Netns::why_not() {
  if (::geteuid() != 0) return "network namespaces are made by root: run this as root (sudo)";
  if (run({"ip", "-Version"}, true) != 0 || run({"nft", "--version"}, true) != 0) {
    return "ip or nft is not installed (packages iproute2 and nftables): run tools/setup";
  }
  const std::string probe = prefix() + "probe";
  if (run({"ip", "netns", "add", probe}, true) != 0) return "no network namespaces can be made here";
  const bool has_nft = run({"ip", "netns", "exec", probe, "nft", "add table inet probe"}, true) == 0;
  (void)run({"ip", "netns", "delete", probe}, true);
  return has_nft ? "" : "this kernel has no nf_tables in a network namespace";
}

Netns::Netns(const std::vector<std::string>& hosts) {
  remove_leftovers();
  const std::string bridge = name_of(kBridge);
  const auto add = [&](const std::string& name) {
    must_run({"ip", "netns", "add", name});
    namespaces_.push_back(name);
  };
  add(bridge);
  must_run({"ip", "-netns", bridge, "link", "add", "br0", "type", "bridge"});
  must_run({"ip", "-netns", bridge, "link", "set", "br0", "up"});
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    const std::string& host = hosts[i];
    const std::string name = name_of(host);
    const std::string port = "port" + std::to_string(i);
    addresses_[host] = "10.77.0." + std::to_string(i + 1);
    add(name);
    must_run(
        {"ip", "-netns", name, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", bridge});
    must_run({"ip", "-netns", bridge, "link", "set", port, "master", "br0", "up"});
    must_run({"ip", "-netns", name, "address", "add", addresses_[host] + "/24", "dev", "eth0"});
    must_run({"ip", "-netns", name, "link", "set", "lo", "up"});
    must_run({"ip", "-netns", name, "link", "set", "eth0", "up"});
    nft(host,
        "table inet cut { set unheard { type ipv4_addr; }; "
        "set unheard_ports { type ipv4_addr . inet_service; }; "
        "chain arriving { type filter hook input priority 0; ip saddr @unheard drop; "
        "ip saddr . tcp dport @unheard_ports drop; }; }");
  }
}

Netns::~Netns() {
  for (const std::string& name : namespaces_) (void)run({"ip", "netns", "delete", name});
}

std::string Netns::name_of(const std::string& host) const { return prefix() + host; }

std::vector<std::string> Netns::launcher(const std::string& host) const {
  return {"ip", "netns", "exec", name_of(host)};
}

void Netns::nft(const std::string& host, const std::string& commands) const {
  std::vector<std::string> command = launcher(host);
  command.insert(command.end(), {"nft", commands});
  must_run(command);
}

void Netns::cut_one_way(const std::string& from, const std::string& to) {
  nft(to, "add element inet cut unheard { " + address(from) + " }");
}

void Netns::cut_port(const std::string& from, const std::string& to, std::uint16_t port) {
  nft(to, "add element inet cut unheard_ports { " + address(from) + " . " + std::to_string(port) + " }");
}

void Netns::cut(const std::string& one, const std::string& other) {
  cut_one_way(one, other);
  cut_one_way(other, one);
}

void Netns::heal() {
  for (const auto& [host, address] : addresses_)
    nft(host, "flush set inet cut unheard; flush set inet cut unheard_ports");
}

}  // namespace cms::test
