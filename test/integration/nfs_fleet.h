#pragma once
// What tests of cmsd on a NAS share: a server of their own, and what the status says of it.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "test/integration/fleet.h"
#include "test/support/ganesha.h"
#include "test/support/rpc_fault_proxy.h"

namespace cms::test {

// Whoever waits for this has STORED so fast after the NAS is back.
inline constexpr milliseconds kBackMax = std::chrono::seconds(10) * (kSlowBuild ? 3 : 1);
// So fast does a cmsd answer, whatever its NAS does.
inline constexpr milliseconds kAnswerMax = std::chrono::seconds(5);

inline std::unique_ptr<Ganesha> start_ganesha(const Ganesha::Options& options = {}) {
  auto ganesha = Ganesha::start(options);
  EXPECT_TRUE(ganesha.ok()) << (ganesha.ok() ? "" : ganesha.error().message());
  return ganesha.ok() ? std::move(*ganesha) : nullptr;
}

inline std::unique_ptr<RpcFaultProxy> start_proxy(const Ganesha& ganesha) {
  auto proxy = RpcFaultProxy::start(ganesha.nfs_port(), ganesha.mount_port());
  EXPECT_TRUE(proxy.ok()) << (proxy.ok() ? "" : proxy.error().message());
  return proxy.ok() ? std::move(*proxy) : nullptr;
}

// A directory of an export, which need not be there.
inline std::string url_below(std::string url, const std::string& directory) {
  return url.insert(url.find('?'), "/" + directory);
}

// What a cmsd says; null: nothing, or not in time.
inline nlohmann::json status_of(const CmsdProcess& cmsd) {
  const auto start = TestClock::now();
  const auto status = cmsd.admin({"status", "--output", "json"});
  EXPECT_LE(since(start), kAnswerMax) << "it took its time to answer";
  EXPECT_EQ(status.exit_code, 0) << status.output;
  return nlohmann::json::parse(status.output, nullptr, false);
}

// Until the state of the store is `state` ("ok", "unavailable", …); the status then.
inline nlohmann::json wait_for_store_state(const CmsdProcess& cmsd, const std::string& state) {
  const auto start = TestClock::now();
  nlohmann::json status;
  do {
    status = status_of(cmsd);
    if (status.is_object() && status["store"]["state"] == state) return status;
  } while (since(start) < kPatience);
  ADD_FAILURE() << "the store is not '" << state << "': " << status.dump(1) << "\n" << cmsd.log();
  return status;
}

// What it says is wrong and what to do, a line each.
inline std::string problems_of(const nlohmann::json& status) {
  std::string said;
  for (const auto& problem : status.at("problems")) {
    said += problem.at("what").get<std::string>() +
            "\n  to do: " + problem.at("what_to_do").get<std::string>() + "\n";
  }
  return said;
}

inline testing::AssertionResult says(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "'" << part << "' is not in:\n" << text;
}

}  // namespace cms::test
