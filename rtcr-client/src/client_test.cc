// The C ABI against a CMS on real sockets: publishing, receipts, waiting, withdrawing, closing.
#include "rtcr-client/src/client.h"

#include <gtest/gtest.h>

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

#include "base/digest.h"
#include "rtcr-client/src/client_fixture_test.h"

namespace cms::client {
namespace {

using test::FakeCms;
using test::FakePlan;
using test::FakeState;

FakePlan no_pulls() {
  FakePlan plan;
  plan.pull = false;
  return plan;
}

TEST(ClientTest, CopyArrivesBitForBitAndIsStored) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  const std::string bytes = blob_of(3 * 1024 * 1024 + 17);
  const std::uint64_t seq = client.publish_copy(7, bytes);
  EXPECT_EQ(client.wait(seq, RTCR_STORED), RTCR_OK) << rtcr_last_error();
  EXPECT_TRUE(cms.state().pulled.at(seq) == bytes);
}

TEST(ClientTest, EmptyCheckpointIsStored) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  EXPECT_EQ(client.wait(client.publish_copy(7, ""), RTCR_STORED), RTCR_OK) << rtcr_last_error();
}

TEST(ClientTest, SeqsCountFromOneThroughAllPrograms) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  EXPECT_EQ(client.publish_copy(7, "a"), 1U);
  EXPECT_EQ(client.publish_copy(8, "b"), 2U);
  EXPECT_EQ(client.wait(1, RTCR_STORED), RTCR_OK);
  EXPECT_EQ(client.wait(2, RTCR_STORED), RTCR_OK);
}

TEST(ClientTest, ReceiptsTellEveryStepInOrderWithTheIdentityOfTheCheckpoint) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  const std::uint64_t seq = client.publish_copy(7, "state");
  EXPECT_EQ(client.final_receipt(seq).level, static_cast<std::uint32_t>(RTCR_REPLICATED));
  const auto receipts = client.receipts();
  std::vector<std::uint32_t> levels;
  for (const rtcr_receipt& receipt : receipts) {
    levels.push_back(receipt.level);
    EXPECT_EQ(receipt.program_id, 7U);
    EXPECT_EQ(receipt.seq, seq);
    EXPECT_EQ(receipt.incarnation, cms.state().incarnation);
  }
  EXPECT_EQ(levels, (std::vector<std::uint32_t>{RTCR_ANNOUNCED, RTCR_PULLING, RTCR_STORED, RTCR_REPLICATED}));
}

TEST(ClientTest, EverythingKnownAboutACheckpointIsAnnounced) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  const char* labels[] = {"gpu", "left door"};
  rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
  checkpoint.source = RTCR_SOURCE_COPY;
  checkpoint.program_id = 7;
  checkpoint.data = "x";
  checkpoint.size_bytes = 1;
  checkpoint.chunk_size_bytes = 65536;
  checkpoint.program_name = "wiper";
  checkpoint.taken_at_us = 11;
  checkpoint.pause_us = 12;
  checkpoint.lineage[0] = 0xab;
  checkpoint.lineage[15] = 0xcd;
  checkpoint.owner_epoch = 13;
  checkpoint.arch = "arm_64";
  checkpoint.os = "genode";
  checkpoint.checkpoint_format = "rtcr";
  checkpoint.format_version = 14;
  checkpoint.ram_bytes = 15;
  checkpoint.labels = labels;
  checkpoint.label_count = 2;
  checkpoint.priority = -3;
  checkpoint.period_us = 16;
  checkpoint.deadline_us = 17;
  checkpoint.wcet_us = 18;
  checkpoint.tight = 1;
  checkpoint.release_policy = RTCR_RELEASE_STORED;
  checkpoint.on_isolation = RTCR_ON_ISOLATION_STOP;
  checkpoint.on_loss = RTCR_ON_LOSS_RESTORE;
  const std::uint64_t seq = client.publish(checkpoint);
  ASSERT_TRUE(cms.wait_until([&](const FakeState& state) { return state.heard.count(seq) != 0; }));
  const wire::Notification heard = cms.state().heard.at(seq);
  EXPECT_EQ(heard.program_id, 7U);
  EXPECT_EQ(heard.size_bytes, 1U);
  EXPECT_EQ(heard.chunk_size_bytes, 65536U);
  EXPECT_EQ(heard.program_name, "wiper");
  EXPECT_EQ(heard.taken_at_us, 11U);
  EXPECT_EQ(heard.pause_us, 12U);
  EXPECT_EQ(to_string(heard.lineage), "ab0000000000000000000000000000cd");
  EXPECT_EQ(heard.owner_epoch, 13U);
  EXPECT_EQ(heard.requirements.arch, "arm_64");
  EXPECT_EQ(heard.requirements.os, "genode");
  EXPECT_EQ(heard.requirements.checkpoint_format, "rtcr");
  EXPECT_EQ(heard.requirements.format_version, 14U);
  EXPECT_EQ(heard.requirements.ram_bytes, 15U);
  EXPECT_EQ(heard.requirements.labels, (std::vector<std::string>{"gpu", "left door"}));
  EXPECT_EQ(heard.real_time.priority, -3);
  EXPECT_EQ(heard.real_time.period_us, 16U);
  EXPECT_EQ(heard.real_time.deadline_us, 17U);
  EXPECT_EQ(heard.real_time.wcet_us, 18U);
  EXPECT_TRUE(heard.real_time.tight);
  EXPECT_EQ(heard.policies.release, wire::Release::kStored);
  EXPECT_EQ(heard.policies.on_isolation, wire::OnIsolation::kStop);
  EXPECT_EQ(heard.policies.on_loss, wire::OnLoss::kRestore);
}

TEST(ClientTest, NewLineagesAreNeverZeroAndNeverTheSame) {
  std::uint8_t a[16] = {};
  std::uint8_t b[16] = {};
  ASSERT_EQ(rtcr_new_lineage(a), RTCR_OK);
  ASSERT_EQ(rtcr_new_lineage(b), RTCR_OK);
  EXPECT_NE(std::string(std::begin(a), std::end(a)), std::string(16, '\0'));
  EXPECT_NE(std::string(std::begin(a), std::end(a)), std::string(std::begin(b), std::end(b)));
}

TEST(ClientTest, PublishRefusesWhatIsOutOfItsLimitsAndNamesTheField) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  const auto refused = [&](const std::function<void(rtcr_checkpoint&)>& change) {
    rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
    checkpoint.source = RTCR_SOURCE_COPY;
    checkpoint.data = "x";
    checkpoint.size_bytes = 1;
    change(checkpoint);
    EXPECT_EQ(rtcr_publish(client.get(), &checkpoint, nullptr), RTCR_E_INVALID_ARGUMENT);
    return std::string(rtcr_last_error());
  };
  EXPECT_NE(refused([](auto& c) { c.source = 4; }).find("source: 4"), std::string::npos);
  EXPECT_NE(refused([](auto& c) { c.data = nullptr; }).find("data"), std::string::npos);
  EXPECT_NE(refused([](auto& c) { c.chunk_size_bytes = 1000; }).find("chunk_size_bytes"), std::string::npos);
  EXPECT_NE(refused([](auto& c) { c.release_policy = 256; }).find("release_policy: 256"), std::string::npos);
  EXPECT_NE(refused([](auto& c) { c.on_isolation = 2; }).find("on_isolation: 2"), std::string::npos);
  EXPECT_NE(refused([](auto& c) { c.on_loss = 2; }).find("on_loss: 2"), std::string::npos);
  EXPECT_NE(refused([](auto& c) { c.label_count = 17; }).find("label_count: 17"), std::string::npos);
  EXPECT_NE(refused([](auto& c) { c.label_count = 1; }).find("labels"), std::string::npos);
  const std::string long_name(129, 'n');
  EXPECT_NE(refused([&](auto& c) { c.program_name = long_name.c_str(); }).find("program_name"),
            std::string::npos);
  EXPECT_NE(refused([](auto& c) { c.program_name = "a\nb"; }).find("program_name"), std::string::npos);
  EXPECT_EQ(client.publish_copy(7, "x"), 1U) << "what was refused must not take a seq";
}

TEST(ClientTest, OpenRefusesWrongOptionsAndNamesThem) {
  const auto refused = [](const std::function<void(rtcr_options&)>& change) {
    rtcr_options options = rtcr_options_init();
    options.cms = "tcp://127.0.0.1:7400";
    options.ecu_mac = kEcuMac;
    change(options);
    rtcr_client* client = nullptr;
    EXPECT_EQ(rtcr_open(&options, &client), RTCR_E_INVALID_ARGUMENT);
    EXPECT_EQ(client, nullptr);
    return std::string(rtcr_last_error());
  };
  EXPECT_NE(refused([](auto& o) { o.cms = nullptr; }).find("cms: it is NULL"), std::string::npos);
  EXPECT_NE(refused([](auto& o) { o.cms = "10.0.0.1"; }).find("cms: '10.0.0.1'"), std::string::npos);
  EXPECT_NE(refused([](auto& o) { o.ecu_mac = "01:00:00:00:00:01"; }).find("ecu_mac"), std::string::npos);
  EXPECT_NE(refused([](auto& o) { o.bulk_ports = "9-1"; }).find("bulk_ports"), std::string::npos);
  EXPECT_NE(refused([](auto& o) { o.advertise_host = "a b"; }).find("advertise_host"), std::string::npos);
  EXPECT_NE(refused([](auto& o) { o.thread_name = "sixteen letters!"; }).find("thread_name"),
            std::string::npos);
  EXPECT_NE(refused([](auto& o) { o.thread_priority = 100; }).find("thread_priority"), std::string::npos);
  EXPECT_NE(refused([](auto& o) { o.flags = 4; }).find("flags: 4"), std::string::npos);
  EXPECT_NE(refused([](auto& o) { o.memory_budget_bytes = UINT64_MAX; }).find("memory_budget"),
            std::string::npos);
  EXPECT_NE(refused([](auto& o) {
              o.flags = RTCR_PIN_THREAD;
              o.thread_cpu = 100000;
            }).find("thread_cpu"),
            std::string::npos);
}

TEST(ClientTest, OpenSaysWhenNoBulkPortIsFree) {
  FakeCms cms;
  const std::string port = cms.endpoint().substr(cms.endpoint().rfind(':') + 1);  // Of its SUB.
  rtcr_options options = rtcr_options_init();
  options.cms = "tcp://127.0.0.1:7400";
  options.ecu_mac = kEcuMac;
  options.bulk_host = "127.0.0.1";
  const std::string range = port + "-" + port;
  options.bulk_ports = range.c_str();
  rtcr_client* client = nullptr;
  EXPECT_EQ(rtcr_open(&options, &client), RTCR_E_ALREADY_EXISTS);
}

TEST(ClientTest, MemoryIsReleasedOnceAndOnlyAfterItIsStored) {
  FakePlan plan;
  plan.store = false;
  FakeCms cms(plan);
  TestClient client(cms.endpoint());
  const std::string bytes = blob_of(2 * 1024 * 1024);
  struct Released {
    std::atomic<int> count{0};
    const void* data = nullptr;
    std::uint64_t size_bytes = 0;
    std::promise<void> done{};
  } released;
  rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
  checkpoint.source = RTCR_SOURCE_MEMORY;
  checkpoint.program_id = 7;
  checkpoint.data = bytes.data();
  checkpoint.size_bytes = bytes.size();
  checkpoint.release_context = &released;
  checkpoint.release = [](void* context, const void* data, std::uint64_t size_bytes) {
    auto* told = static_cast<Released*>(context);
    told->data = data;
    told->size_bytes = size_bytes;
    if (++told->count == 1) told->done.set_value();
  };
  const std::uint64_t seq = client.publish(checkpoint);
  ASSERT_TRUE(cms.wait_until([&](const FakeState& state) { return state.pulled.count(seq) != 0; }));
  EXPECT_TRUE(cms.state().pulled.at(seq) == bytes);
  EXPECT_EQ(released.count, 0) << "pulled is not stored";
  cms.say(7, seq, wire::ReceiptLevel::kStored);
  released.done.get_future().wait();
  EXPECT_EQ(released.data, bytes.data());
  EXPECT_EQ(released.size_bytes, bytes.size());
  client.close();
  EXPECT_EQ(released.count, 1);
}

TEST(ClientTest, MemoryThatWasNotTakenIsNotReleased) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
  checkpoint.source = RTCR_SOURCE_MEMORY;
  checkpoint.data = "x";
  checkpoint.size_bytes = 1;
  checkpoint.on_loss = 9;
  int released = 0;
  checkpoint.release_context = &released;
  checkpoint.release = [](void* context, const void*, std::uint64_t) { ++*static_cast<int*>(context); };
  EXPECT_EQ(rtcr_publish(client.get(), &checkpoint, nullptr), RTCR_E_INVALID_ARGUMENT);
  checkpoint.on_loss = 0;
  checkpoint.chunk_size_bytes = 3;  // Found out later, when the source was made already.
  EXPECT_EQ(rtcr_publish(client.get(), &checkpoint, nullptr), RTCR_E_INVALID_ARGUMENT);
  client.close();
  EXPECT_EQ(released, 0);
}

TEST(ClientTest, WaitAnswersAtOnceForWhatEndedLongAgo) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  const std::uint64_t seq = client.publish_copy(7, "state");
  (void)client.final_receipt(seq);
  EXPECT_EQ(client.wait(seq, RTCR_STORED, 0), RTCR_OK);
  EXPECT_EQ(client.wait(seq, RTCR_ANNOUNCED, 0), RTCR_OK);
}

TEST(ClientTest, WaitTimesOutWhereNothingComes) {
  FakeCms cms(no_pulls());
  TestClient client(cms.endpoint());
  const std::uint64_t seq = client.publish_copy(7, "state");
  EXPECT_EQ(client.wait(seq, RTCR_ANNOUNCED), RTCR_OK);
  EXPECT_EQ(client.wait(seq, RTCR_STORED, 20), RTCR_E_TIMEOUT);
  EXPECT_EQ(client.wait(seq, RTCR_STORED, 0), RTCR_E_TIMEOUT);
}

TEST(ClientTest, WaitRefusesSeqsAndLevelsThatAreNone) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  const std::uint64_t seq = client.publish_copy(7, "state");
  EXPECT_EQ(client.wait(seq + 1, RTCR_STORED), RTCR_E_NOT_FOUND);
  EXPECT_EQ(client.wait(0, RTCR_STORED), RTCR_E_NOT_FOUND);
  EXPECT_EQ(client.wait(seq, RTCR_DROPPED), RTCR_E_INVALID_ARGUMENT);
}

TEST(ClientTest, WaitSaysThatANewerOneTookItsPlace) {
  FakeCms cms(no_pulls());
  TestClient client(cms.endpoint());
  const std::uint64_t older = client.publish_copy(7, "one");
  (void)client.publish_copy(7, "two");
  EXPECT_EQ(client.wait(older, RTCR_STORED), RTCR_E_SUPERSEDED);
}

TEST(ClientTest, WaitSaysWhatACmsRefused) {
  FakeCms cms(no_pulls());
  TestClient client(cms.endpoint());
  const std::uint64_t dropped = client.publish_copy(7, "one");
  const std::uint64_t fenced = client.publish_copy(8, "two");
  ASSERT_TRUE(cms.wait_until([&](const FakeState& state) { return state.heard.count(fenced) != 0; }));
  cms.say(7, dropped, wire::ReceiptLevel::kDropped, Code::kCorrupt, "its digests never match");
  cms.say(8, fenced, wire::ReceiptLevel::kFenced, Code::kFenced, "epoch 4 is over");
  EXPECT_EQ(client.wait(dropped, RTCR_STORED), RTCR_E_DROPPED);
  EXPECT_NE(std::string(rtcr_last_error()).find("its digests never match"), std::string::npos);
  EXPECT_EQ(client.wait(fenced, RTCR_STORED), RTCR_E_FENCED);
  EXPECT_EQ(client.final_receipt(dropped).code, static_cast<std::uint32_t>(RTCR_E_CORRUPT));
}

TEST(ClientTest, WaitSaysThatReplicatedNeverComesAfterAnEarlyRelease) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  const std::uint64_t seq = client.publish_copy(7, "state", RTCR_RELEASE_STORED);
  EXPECT_EQ(client.wait(seq, RTCR_REPLICATED), RTCR_E_ENDED);
  EXPECT_NE(std::string(rtcr_last_error()).find("released at STORED"), std::string::npos);
  EXPECT_EQ(client.wait(seq, RTCR_STORED), RTCR_OK);
}

TEST(ClientTest, StoredStaysReachedWhenANewerOneTakesItsPlace) {
  FakeCms live;
  FakePlan silent;
  silent.silent = true;
  FakeCms dead(silent);  // So REPLICATED does not come, and the client goes on holding.
  TestClient client(live.endpoint() + "," + dead.endpoint());
  const std::uint64_t older = client.publish_copy(7, "one");
  EXPECT_EQ(client.wait(older, RTCR_STORED), RTCR_OK);
  const std::uint64_t newer = client.publish_copy(7, "two");
  EXPECT_EQ(client.wait(newer, RTCR_STORED), RTCR_OK);
  EXPECT_EQ(client.final_receipt(older).level, static_cast<std::uint32_t>(RTCR_SUPERSEDED));
  EXPECT_EQ(client.wait(older, RTCR_STORED, 0), RTCR_OK);
  EXPECT_EQ(client.wait(older, RTCR_REPLICATED, 0), RTCR_E_SUPERSEDED);
}

TEST(ClientTest, ReplicatedIsToldWhenBothCmsHaveIt) {
  FakeCms a;
  FakePlan by_hand;
  by_hand.store = false;
  FakeCms b(by_hand);
  TestClient client(a.endpoint() + "," + b.endpoint());
  const std::uint64_t seq = client.publish_copy(7, "state");
  EXPECT_EQ(client.wait(seq, RTCR_STORED), RTCR_OK);
  ASSERT_TRUE(b.wait_until([&](const FakeState& state) { return state.pulled.count(seq) != 0; }));
  EXPECT_EQ(client.wait(seq, RTCR_REPLICATED, 0), RTCR_E_TIMEOUT);
  b.say(7, seq, wire::ReceiptLevel::kStored);
  EXPECT_EQ(client.wait(seq, RTCR_REPLICATED), RTCR_OK);
}

TEST(ClientTest, PublishedBeforeAnyCmsIsThereArrivesWhenItComes) {
  FakePlan silent;
  silent.silent = true;
  FakeCms cms(silent);
  TestClient client(cms.endpoint());
  const std::uint64_t seq = client.publish_copy(7, "state");
  ASSERT_TRUE(cms.wait_until([](const FakeState& state) { return state.hello_count > 0; }));
  cms.set_plan(FakePlan{});
  EXPECT_EQ(client.wait(seq, RTCR_STORED), RTCR_OK);
}

TEST(ClientTest, ReceiptsCanBePolledFor) {
  FakeCms cms;
  TestClient client(cms.endpoint(), [](rtcr_options& options) { options.on_receipt = nullptr; });
  pollfd item{rtcr_poll_fd(client.get()), POLLIN, 0};
  ASSERT_GE(item.fd, 0);
  rtcr_receipt receipt = rtcr_receipt_init();
  EXPECT_EQ(rtcr_next_receipt(client.get(), &receipt), RTCR_E_NOT_FOUND);
  EXPECT_EQ(::poll(&item, 1, 0), 0);
  const std::uint64_t seq = client.publish_copy(7, "state");
  do {
    ASSERT_EQ(::poll(&item, 1, static_cast<int>(kPatienceMs)), 1);
    ASSERT_EQ(rtcr_next_receipt(client.get(), &receipt), RTCR_OK) << rtcr_last_error();
    EXPECT_EQ(receipt.seq, seq);
  } while (receipt.final == 0);
  EXPECT_EQ(rtcr_next_receipt(client.get(), &receipt), RTCR_E_NOT_FOUND);
  EXPECT_EQ(::poll(&item, 1, 0), 0) << "nothing left, nothing readable";
}

TEST(ClientTest, BlockingCallsAreRefusedInCallbacksAndPublishIsNot) {
  FakeCms cms;
  std::promise<std::vector<int>> answers;  // Before the client, whose last receipts may come while it closes.
  std::atomic<bool> told{false};
  TestClient client(cms.endpoint());
  client.also = [&](const rtcr_receipt& receipt) {
    if (told.exchange(true)) return;
    rtcr_fetch fetch = rtcr_fetch_init();
    rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
    checkpoint.source = RTCR_SOURCE_COPY;
    checkpoint.program_id = 8;
    std::vector<int> results;
    results.push_back(rtcr_wait(client.get(), receipt.seq, RTCR_STORED, 0));
    results.push_back(rtcr_withdraw(client.get(), 7, 0));
    results.push_back(rtcr_fetch_newest(client.get(), &fetch, nullptr));
    results.push_back(rtcr_close(client.get()));
    results.push_back(rtcr_publish(client.get(), &checkpoint, nullptr));
    answers.set_value(results);
  };
  (void)client.publish_copy(7, "state");
  EXPECT_EQ(answers.get_future().get(),
            (std::vector<int>{RTCR_E_CALLBACK, RTCR_E_CALLBACK, RTCR_E_CALLBACK, RTCR_E_CALLBACK, RTCR_OK}));
  EXPECT_EQ(client.wait(2, RTCR_STORED), RTCR_OK);
}

TEST(ClientTest, ManyThreadsMayPublishAtOnce) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  std::vector<std::thread> threads;
  std::atomic<int> stored{0};
  for (std::uint64_t program = 0; program < 4; ++program) {
    threads.emplace_back([&, program] {
      for (int i = 0; i < 25; ++i) {
        const std::uint64_t seq = client.publish_copy(program, blob_of(1000, static_cast<std::uint32_t>(i)));
        if (client.wait(seq, RTCR_STORED) == RTCR_OK) ++stored;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(stored, 100);
}

TEST(ClientTest, CloseReleasesWhatIsHeldInTheMiddleOfAPullAndSaysBye) {
  FakePlan slow;
  slow.credit_bytes_max = 1024 * 1024;
  FakeCms cms(slow);
  TestClient client(cms.endpoint());
  const std::string bytes = blob_of(4 * 1024 * 1024);
  std::atomic<int> released{0};
  rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
  checkpoint.source = RTCR_SOURCE_MEMORY;
  checkpoint.program_id = 7;
  checkpoint.data = bytes.data();
  checkpoint.size_bytes = bytes.size();
  checkpoint.release_context = &released;
  checkpoint.release = [](void* context, const void*, std::uint64_t) {
    ++*static_cast<std::atomic<int>*>(context);
  };
  const std::uint64_t seq = client.publish(checkpoint);
  ASSERT_TRUE(cms.wait_until([&](const FakeState& state) {
    return state.pulled_bytes.count(seq) != 0 && state.pulled_bytes.at(seq) >= 1024 * 1024;
  }));
  client.close();
  EXPECT_EQ(released, 1);
  const rtcr_receipt receipt = client.final_receipt(seq);
  EXPECT_EQ(receipt.level, static_cast<std::uint32_t>(RTCR_DROPPED));
  EXPECT_EQ(receipt.code, static_cast<std::uint32_t>(RTCR_E_CANCELLED));
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) { return state.bye_count == 1; }));
}

TEST(ClientTest, CloseDoesNotWaitForACmsThatIsNotThere) {
  TestClient client("tcp://127.0.0.1:9");
  (void)client.publish_copy(7, "state");
  const auto start = std::chrono::steady_clock::now();
  client.close();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST(ClientTest, WithdrawEndsTheProgramHereAndAtTheCms) {
  FakeCms cms(no_pulls());
  TestClient client(cms.endpoint());
  const std::uint64_t seq = client.publish_copy(7, "state");
  EXPECT_EQ(rtcr_withdraw(client.get(), 7, kPatienceMs), RTCR_OK) << rtcr_last_error();
  EXPECT_EQ(cms.state().withdrawn.front(), 7U);
  EXPECT_EQ(client.final_receipt(seq).code, static_cast<std::uint32_t>(RTCR_E_WITHDRAWN));
}

TEST(ClientTest, WithdrawSaysWhatTheCmsAnswersAndThatItDoesNot) {
  FakePlan plan;
  plan.withdraw_code = Code::kReadOnly;
  FakeCms cms(plan);
  TestClient client(cms.endpoint());
  EXPECT_EQ(rtcr_withdraw(client.get(), 7, kPatienceMs), RTCR_E_READ_ONLY);
  EXPECT_NE(std::string(rtcr_last_error()).find("as planned"), std::string::npos);
  plan.withdraw_code.reset();
  cms.set_plan(plan);
  EXPECT_EQ(rtcr_withdraw(client.get(), 8, 20), RTCR_E_TIMEOUT);
}

TEST(ClientTest, EventsTellOfCmsThatAreLiveAndThatRefuse) {
  FakePlan plan;
  plan.refusal = "the fleet is full";
  FakeCms refusing(plan);
  FakeCms live;
  struct Told {
    std::promise<std::string> live{};
    std::promise<std::string> refused{};
    std::atomic<bool> told_refused{false};
  } told;
  TestClient client(refusing.endpoint() + "," + live.endpoint(), [&](rtcr_options& options) {
    options.event_context = &told;
    options.on_event = [](void* context, const rtcr_event* event) {
      auto* to = static_cast<Told*>(context);
      if (event->kind == RTCR_CMS_LIVE && event->cms_index == 1) to->live.set_value(event->text);
      if (event->kind == RTCR_CMS_REFUSED && event->cms_index == 0 && !to->told_refused.exchange(true)) {
        to->refused.set_value(event->text);
      }
    };
  });
  EXPECT_EQ(told.live.get_future().get(), "fake");
  EXPECT_EQ(told.refused.get_future().get(), "the fleet is full");
}

TEST(ClientTest, StatsCountEachServedByteOnce) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  const std::uint64_t seq = client.publish_copy(7, blob_of(1500000));
  EXPECT_EQ(client.wait(seq, RTCR_REPLICATED), RTCR_OK);
  (void)client.final_receipt(seq);
  rtcr_stats stats = rtcr_stats_init();
  ASSERT_EQ(rtcr_get_stats(client.get(), &stats), RTCR_OK);
  EXPECT_EQ(stats.served_bytes, 1500000U);
  EXPECT_EQ(stats.cms_live_count, 1U);
  EXPECT_EQ(stats.incarnation, cms.state().incarnation);
  EXPECT_EQ(stats.receipts_lost_count, 0U);
}

// The threads of this process with this name, by their SigBlk.
std::vector<std::string> blocked_signals_of_threads(const std::string& name) {
  std::vector<std::string> blocked;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream comm(task.path() / "comm");
    std::string line;
    if (!std::getline(comm, line) || line != name) continue;
    std::ifstream status(task.path() / "status");
    while (std::getline(status, line)) {
      if (line.rfind("SigBlk:", 0) == 0) blocked.push_back(line.substr(8));
    }
  }
  return blocked;
}

TEST(ClientTest, ItsThreadHasTheNameGivenAndBlocksAllSignals) {
  FakeCms cms;
  TestClient client(cms.endpoint(), [](rtcr_options& options) { options.thread_name = "my-publisher"; });
  const auto blocked = blocked_signals_of_threads("my-publisher");
  ASSERT_FALSE(blocked.empty());  // ZeroMQ's threads have the name as well until they take their own.
  for (const std::string& signals : blocked) {
    // All 64 but KILL (9) and STOP (19), which nobody can block, and two that glibc keeps (32, 33).
    EXPECT_EQ(std::stoull(signals, nullptr, 16) | 0x180000000ULL, ~((1ULL << 8) | (1ULL << 18)));
  }
}

TEST(ClientTest, AForkedChildIsToldThatTheClientIsNotIts) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  const pid_t child = ::fork();
  if (child == 0) {
    rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
    checkpoint.source = RTCR_SOURCE_COPY;
    bool as_told = rtcr_publish(client.get(), &checkpoint, nullptr) == RTCR_E_FORKED;
    as_told = as_told && rtcr_wait(client.get(), 1, RTCR_STORED, RTCR_FOREVER) == RTCR_E_FORKED;
    as_told = as_told && rtcr_poll_fd(client.get()) == -1;
    as_told = as_told && rtcr_close(client.get()) == RTCR_E_FORKED;
    ::_exit(as_told ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(client.wait(client.publish_copy(7, "still here"), RTCR_STORED), RTCR_OK);
}

}  // namespace
}  // namespace cms::client
