#pragma once
// What the tests of broken RPCs share: a server with a proxy before it, and a client without patience.
#include <gtest/gtest.h>

#include <chrono>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "base/sanitized.h"
#include "storage/nfs/nfs_connection.h"
#include "test/support/ganesha.h"
#include "test/support/rpc_fault_proxy.h"

namespace cms::storage::testing {

// Short: what is lost is found out by waiting.
inline NfsTimeouts impatient() {
  NfsTimeouts timeouts;
  timeouts.connect = std::chrono::milliseconds(400);
  timeouts.connect_pause = Duration::zero();
  timeouts.call = timeouts.write = timeouts.commit = std::chrono::milliseconds(100);
  return timeouts;
}

// All; those that make a step go another way, where every run takes its time.
inline std::vector<test::WalkFault> walked_faults() {
#if CMS_SANITIZED
  return {test::WalkFault::kReplyLost, test::WalkFault::kRequestCut, test::WalkFault::kReplyCut};
#else
  return {std::begin(test::kWalkFaults), std::end(test::kWalkFaults)};
#endif
}

class ServerBehindProxy : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = test::Ganesha::start();
    ASSERT_TRUE(server.ok()) << server.error().message();
    server_ = std::move(*server);
    auto proxy = test::RpcFaultProxy::start(server_->nfs_port(), server_->mount_port());
    ASSERT_TRUE(proxy.ok()) << proxy.error().message();
    proxy_ = std::move(*proxy);
  }
  test::Ganesha& server() { return *server_; }
  test::RpcFaultProxy& proxy() { return *proxy_; }

 private:
  std::unique_ptr<test::Ganesha> server_;
  std::unique_ptr<test::RpcFaultProxy> proxy_;
};

}  // namespace cms::storage::testing
