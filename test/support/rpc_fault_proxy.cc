#include "test/support/rpc_fault_proxy.h"

#include <mutex>
#include <utility>

#include "test/support/rpc_proxy_loop.h"

namespace cms::test {

RpcFaultProxy::RpcFaultProxy(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}

RpcFaultProxy::~RpcFaultProxy() = default;

Result<std::unique_ptr<RpcFaultProxy>> RpcFaultProxy::start(std::uint16_t nfs_port,
                                                            std::uint16_t mount_port) {
  auto loop = std::make_unique<Loop>();
  Status status = loop->start(nfs_port, mount_port);
  if (!status.ok()) return std::move(status).error();
  return std::unique_ptr<RpcFaultProxy>(new RpcFaultProxy(std::move(loop)));
}

std::uint16_t RpcFaultProxy::nfs_port() const { return loop_->port(0); }

std::uint16_t RpcFaultProxy::mount_port() const { return loop_->port(1); }

std::string RpcFaultProxy::url() const {
  return "nfs://127.0.0.1/cms?nfsport=" + std::to_string(nfs_port()) +
         "&mountport=" + std::to_string(mount_port());
}

void RpcFaultProxy::add(const FaultRule& rule) {
  const std::lock_guard lock(loop_->mutex_);
  loop_->rules_.push_back({rule});
}

void RpcFaultProxy::decide_by(Decide decide) {
  // In the loop, so that the one before it is not running any more.
  loop_->in_loop([&] {
    const std::lock_guard lock(loop_->mutex_);
    loop_->decide_ = decide ? std::make_shared<const Decide>(std::move(decide)) : nullptr;
  });
}

void RpcFaultProxy::blackhole(bool on) {
  loop_->in_loop([&] { loop_->blackhole_ = on; });
}

void RpcFaultProxy::refuse(bool on) {
  loop_->in_loop([&] { loop_->refuse_ = on; });
}

void RpcFaultProxy::cut_all() {
  loop_->in_loop([&] { loop_->cut_all(); });
}

bool RpcFaultProxy::release() {
  loop_->in_loop([&] { loop_->release_all(); });
  return loop_->wait_for_answers();
}

bool RpcFaultProxy::pass_all() {
  decide_by(nullptr);
  loop_->in_loop([&] {
    loop_->blackhole_ = loop_->refuse_ = false;
    loop_->release_all();
    const std::lock_guard lock(loop_->mutex_);
    loop_->rules_.clear();
  });
  return loop_->wait_for_answers();
}

std::size_t RpcFaultProxy::calls(Procedure procedure) const {
  const std::lock_guard lock(loop_->mutex_);
  return loop_->count_of(procedure);
}

std::vector<Procedure> RpcFaultProxy::sequence() const {
  const std::lock_guard lock(loop_->mutex_);
  return loop_->sequence_;
}

std::size_t RpcFaultProxy::struck() const {
  const std::lock_guard lock(loop_->mutex_);
  return loop_->struck_;
}

std::size_t RpcFaultProxy::held() const {
  const std::lock_guard lock(loop_->mutex_);
  return loop_->held_count_;
}

std::size_t RpcFaultProxy::late() const {
  const std::lock_guard lock(loop_->mutex_);
  return loop_->late_;
}

void RpcFaultProxy::reset_counts() {
  const std::lock_guard lock(loop_->mutex_);
  loop_->calls_ = 0;
  loop_->counts_.clear();
  loop_->sequence_.clear();
}

bool RpcFaultProxy::wait_for_calls(Procedure procedure, std::size_t count,
                                   std::chrono::milliseconds timeout) const {
  return loop_->wait_until(timeout, [&] { return loop_->count_of(procedure) >= count; });
}

bool RpcFaultProxy::wait_for_held(std::size_t count, std::chrono::milliseconds timeout) const {
  return loop_->wait_until(timeout, [&] { return loop_->held_count_ >= count; });
}

}  // namespace cms::test
