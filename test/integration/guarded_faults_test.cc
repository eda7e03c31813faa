// Processes of the guarded world that stand still, and go on: the guard, the RTCR, a cmsd. The programs are real processes,
// whose ledger shows that none ever runs twice.
#include <gtest/gtest.h>

#include <csignal>

#include "test/integration/leases.h"
#include "test/integration/ledger.h"

namespace cms::test {
namespace {

class GuardedFaultsTest : public testing::Test {
 protected:
  GuardedFaultsTest() : dir_(memory_or_tmp()), fleet_(dir_), ecus_(dir_, fleet_) {}
  void SetUp() override { ASSERT_NO_FATAL_FAILURE(ecus_.begin()); }
  void signal_cmsd(int number) {
    for (const std::size_t i : {0U, 1U}) fleet_[i].process().signal(number);
  }
  CountingEcu& ecu() { return ecus_.ecu(); }
  std::uint64_t session() {
    return lease_of(fleet_[1], CountingEcus::kMac).value("incarnation", std::uint64_t{0});
  }

  TempDir dir_;
  Fleet fleet_;
  CountingEcus ecus_;
};
// These wait for T_member.
using GuardedFaultsLongTest = GuardedFaultsTest;

TEST_F(GuardedFaultsTest, WithoutAGuardThatRunsTheBrokerStopsTheProgramsAndTheyGoOn) {
  ecu().guard().signal(SIGSTOP);
  signal_cmsd(SIGSTOP);  // Nobody renews the lease.
  ASSERT_TRUE(ecus_.until([&] { return ecu().count("stopped") == CountingEcus::kPrograms; })) << ecus_.log();
  const std::size_t lines = ecus_.ledger().lines().size();
  signal_cmsd(SIGCONT);
  EXPECT_EQ(ecus_.ledger().lines().size(), lines) << "they stand still";
  ASSERT_TRUE(ecus_.until([&] { return ecu().count("resumed") == CountingEcus::kPrograms; })) << ecus_.log();
  // It has missed the end of a lease; by now nothing of that is to be enforced.
  ecu().guard().signal(SIGCONT);
  EXPECT_TRUE(ecus_.go_on(0));
  ecu().guard().signal(SIGTERM);
  EXPECT_EQ(ecu().guard().wait(), 0) << ecus_.log();
  EXPECT_FALSE(ecus_.any_restored());
  ecus_.expect_single();
}

TEST_F(GuardedFaultsTest, OfABrokerThatStandsStillTheGuardEndsTheProgramsBeforeTheyGoOnElsewhere) {
  ASSERT_EQ(::kill(ecu().broker(), SIGSTOP), 0);
  EXPECT_EQ(ecu().guard().wait(), 1);
  const std::size_t lines = ecus_.ledger().lines().size();
  (void)::kill(ecu().broker(), SIGCONT);  // Nothing is left to go on.
  EXPECT_EQ(ecus_.ledger().lines().size(), lines);
  EXPECT_TRUE(ecus_.go_on(CountingEcus::kPrograms));
  ecus_.expect_single();
}

TEST_F(GuardedFaultsLongTest, ACmsdThatStandsStillForLongerThanTMemberEndsNoLease) {
  const std::uint64_t before = session();
  fleet_[0].process().signal(SIGSTOP);
  EXPECT_TRUE(wait_until_stale(fleet_[1], "a")) << ecus_.log();
  EXPECT_TRUE(comes_to(fleet_[1], CountingEcus::kMac, "leased"));
  fleet_[0].process().signal(SIGCONT);
  EXPECT_TRUE(comes_to(fleet_[0], CountingEcus::kMac, "leased")) << ecus_.log();
  EXPECT_TRUE(comes_to(fleet_[1], CountingEcus::kMac, "leased")) << ecus_.log();
  EXPECT_TRUE(ecus_.go_on(0));
  EXPECT_EQ(session(), before);
  EXPECT_EQ(ecu().count("stopped"), 0U) << ecus_.log();
  EXPECT_FALSE(ecus_.any_restored());
  ecus_.expect_single();
}

TEST_F(GuardedFaultsLongTest, ACmsdThatGoesOnWhileTheOtherRestoresTakesNoPartInIt) {
  fleet_[0].process().signal(SIGSTOP);
  ecu().guard().signal(SIGKILL);
  ASSERT_TRUE(ecus_.until([&] { return ecus_.any_restored(); })) << ecus_.log();
  fleet_[0].process().signal(SIGCONT);
  EXPECT_TRUE(ecus_.go_on(CountingEcus::kPrograms));
  EXPECT_TRUE(comes_to(fleet_[0], CountingEcus::kFirstMac, "leased")) << ecus_.log();
  EXPECT_TRUE(ecus_.go_on(CountingEcus::kPrograms)) << "and not a third time";
  ecus_.expect_single();
}

}  // namespace
}  // namespace cms::test
