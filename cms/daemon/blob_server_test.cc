#include "cms/daemon/blob_server.h"

#include <future>

#include "cms/daemon/daemon_fixture_test.h"
#include "net/socket.h"

namespace cms::daemon {
namespace {

using storage::FakeStore;
using storage::testing::Data;
using storage::testing::make_sample;
using storage::testing::publish;
using storage::testing::Sample;

// Somebody who fetches, over sockets as they are.
class BlobServerTest : public ::testing::Test {
 protected:
  BlobServerTest()
      : parts_(store_), server_(store_, parts_.index(), parts_.keeper, parts_.scrubber, parts_.outbox) {
    EXPECT_TRUE(net::bind(router_, "inproc://blobs").ok());
    EXPECT_TRUE(net::connect(dealer_, "inproc://blobs").ok());
  }
  ~BlobServerTest() override {
    released_.set_value();
    parts_.keeper.stop();
    server_.stop();
  }

  void fetch(const CheckpointId& checkpoint) {
    wire::Fetch fetch;
    fetch.transfer_id = ++transfer_id_;
    fetch.checkpoint = checkpoint;
    fetch.limit_bytes = std::uint64_t{1} << 30;
    const wire::Bytes bytes = wire::encode(wire::BulkBody{fetch});
    ASSERT_EQ(net::send(dealer_, bytes.data(), bytes.size(), false), net::Sent::kYes);
    std::vector<zmq::message_t> frames;
    ASSERT_TRUE(parts_.turn_until([&] { return net::receive(router_, frames); }));
    const auto message = wire::decode_bulk(frames[1].data(), frames[1].size());
    ASSERT_TRUE(message.ok());
    server_.on_message(BootClock::now(), router_, IndexKeeper::Purpose::kLook, frames[0].to_string(),
                       *message);
  }
  // What comes: the bytes of a blob of one chunk, or why not.
  Result<Data> answer() {
    std::vector<zmq::message_t> frames;
    if (!parts_.turn_until([&] { return net::receive(dealer_, frames); }))
      return make_error(Code::kTimeout, "no answer");
    const auto message = wire::decode_bulk(frames[0].data(), frames[0].size());
    if (!message.ok()) return message.error();
    if (const auto* error = std::get_if<wire::TransferError>(&*message))
      return make_error(error->code, error->context);
    const auto* bytes = static_cast<const unsigned char*>(frames.at(1).data());
    return Data(bytes, bytes + frames[1].size());
  }
  // The keeper waits for its NAS, until the end of the test.
  void hold_up_keeper() {
    parts_.keeper.post([held = std::shared_future<void>(released_.get_future())] { held.wait(); });
  }

  FakeStore store_;
  Parts parts_;
  BlobServer server_;
  std::promise<void> released_;
  zmq::context_t context_{1};
  zmq::socket_t router_ = net::make_bulk_router(context_);
  zmq::socket_t dealer_ = net::make_bulk_dealer(context_);
  std::uint64_t transfer_id_ = 0;
};

TEST_F(BlobServerTest, WhatIsAskedForByItsVersionDoesNotWaitForTheKeeper) {
  const Sample sample = make_sample(7, 2, 100);
  ASSERT_TRUE(publish(store_, sample).ok());
  ASSERT_TRUE(parts_.reconcile());
  hold_up_keeper();
  fetch(sample.name.checkpoint);
  const auto got = answer();
  ASSERT_TRUE(got.ok()) << got.error().message();
  EXPECT_EQ(*got, sample.data);
}

TEST_F(BlobServerTest, WhatTheIndexDoesNotHaveYetIsLookedFor) {
  const Sample sample = make_sample(7, 2, 100);
  ASSERT_TRUE(publish(store_, sample).ok());
  for (const CheckpointId& asked :
       {sample.name.checkpoint, CheckpointId{sample.name.checkpoint.program, {}}}) {
    fetch(asked);
    const auto got = answer();
    ASSERT_TRUE(got.ok()) << got.error().message();
    EXPECT_EQ(*got, sample.data);
  }
}

TEST_F(BlobServerTest, OfTwoBlobsOfACheckpointTheOtherOneIsServedWhenOneHasGone) {
  Sample first = make_sample(7, 2, 100);
  Sample second = first;
  second.name.uid = first.name.uid + 1;
  ASSERT_TRUE(publish(store_, first).ok());
  ASSERT_TRUE(publish(store_, second).ok());
  ASSERT_TRUE(parts_.reconcile());
  const auto row = parts_.index().find(first.name.checkpoint);
  ASSERT_TRUE(row.ok() && *row);
  ASSERT_TRUE(store_.remove((*row)->name).ok());
  fetch(first.name.checkpoint);
  const auto got = answer();
  ASSERT_TRUE(got.ok()) << got.error().message();
  EXPECT_EQ(*got, first.data);

  const auto other = parts_.index().find(first.name.checkpoint);
  ASSERT_TRUE(other.ok() && *other);
  ASSERT_TRUE(store_.remove((*other)->name).ok());
  fetch(first.name.checkpoint);
  const auto none = answer();
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, Code::kNotFound) << none.error().message();
}

}  // namespace
}  // namespace cms::daemon
