// What is stored while a claim of its lineage is open waits for its end before it is called STORED; what is newer does
// not wait for that: a planned move needs it.
#include "cms/core/core_driver_test.h"

namespace cms::core {
namespace {

constexpr ProgramId kProgram = 7;

void waits(CoreDriver& cms, TransferId id) {
  cms.deliver_all(id);
  cms.feed([&](Effects& out) { cms.core.on_transfer_waits(cms.now, id, out); });
}

TEST(CmsClaimsTest, WhatWaitsForTheEndOfAClaimIsStoredWhenThatHasCome) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(kProgram, 1));
  const TransferId id = cms.transfer_of(client.program(kProgram));
  waits(cms, id);
  EXPECT_TRUE(cms.told(client).empty());
  EXPECT_EQ(cms.transfer_of(client.program(kProgram)), id);
  cms.stored(id);
  EXPECT_EQ(cms.told(client), Lines{"STORED 1"});
}

TEST(CmsClaimsTest, ANewerOneDoesNotWaitForOneThatWaits) {
  CoreDriver cms;
  const Client client = cms.open();
  const ProgramKey program = client.program(kProgram);
  cms.announce(client, notification_of(kProgram, 1));
  const TransferId first = cms.transfer_of(program);
  const storage::BlobName name = cms.core.transfers().at(first).name;
  waits(cms, first);
  cms.announce(client, notification_of(kProgram, 2));
  const TransferId second = cms.transfer_of(program);
  EXPECT_NE(second, first);
  EXPECT_EQ(cms.core.transfer_count(), 1U);
  cms.deliver_all(second);
  // The claim ends; both are called STORED now, and of the first nobody waits to hear it.
  storage::IndexRow row;
  row.name = name;
  cms.feed([&](Effects& out) { cms.core.on_transfer_stored(cms.now, first, row, out); });
  EXPECT_TRUE(cms.told(client).empty());
  cms.stored(second);
  EXPECT_EQ(cms.told(client), Lines{"STORED 2"});
  EXPECT_EQ(cms.core.in_flight_bytes(), 0U);
}

TEST(CmsClaimsTest, ANewerOneThatCameBeforeItBeganToWaitDoesNotWaitEither) {
  CoreDriver cms;
  const Client client = cms.open();
  const ProgramKey program = client.program(kProgram);
  cms.announce(client, notification_of(kProgram, 1));
  const TransferId first = cms.transfer_of(program);
  cms.announce(client, notification_of(kProgram, 2));
  EXPECT_EQ(cms.transfer_of(program), first);
  waits(cms, first);
  EXPECT_NE(cms.transfer_of(program), first);
  EXPECT_NE(cms.transfer_of(program), 0U);
}

TEST(CmsClaimsTest, WhatTheIndexHasUnderAnOpenClaimIsAskedForAgainAndANewerOnePulledAtOnce) {
  CoreDriver cms;
  const Client client = cms.open();
  const ProgramKey program = client.program(kProgram);
  CmsCore::ProgramFacts& facts = cms.facts[program];
  facts.newest = Version{client.incarnation, 1};
  facts.newest_waits = true;
  cms.announce(client, notification_of(kProgram, 1));
  EXPECT_TRUE(cms.told(client).empty());
  EXPECT_EQ(cms.transfer_of(program), 0U);  // It is there already.
  cms.announce(client, notification_of(kProgram, 2));
  EXPECT_NE(cms.transfer_of(program), 0U);
  cms.store(program);
  EXPECT_EQ(cms.told(client), Lines{"STORED 2"});
}

TEST(CmsClaimsTest, WhatHasGoneWhileItWaitedIsNotCalledStored) {
  CoreDriver cms;
  const Client client = cms.open();
  const ProgramKey program = client.program(kProgram);
  cms.facts[program].newest = Version{client.incarnation, 1};
  cms.facts[program].newest_waits = true;
  cms.announce(client, notification_of(kProgram, 1));
  cms.facts[program] = {};  // Its file was damaged, and went.
  for (int i = 0; i < 100 && cms.transfer_of(program) == 0; ++i) {
    cms.pass(seconds(1));
    cms.heartbeat(client, 1, 1);
    ASSERT_TRUE(cms.told(client).empty());
  }
  EXPECT_NE(cms.transfer_of(program), 0U);  // It is pulled again.
}

TEST(CmsClaimsTest, OnlySoManyMakeWayForNewerOnes) {
  CoreDriver cms;
  const Client client = cms.open();
  const ProgramKey program = client.program(kProgram);
  for (Seq seq = 1; seq <= kOvertakenMax + 10; ++seq) {
    cms.announce(client, notification_of(kProgram, seq));
    const TransferId id = cms.transfer_of(program);
    if (!cms.core.transfers().at(id).waits) waits(cms, id);
  }
  EXPECT_EQ(cms.core.transfers().at(cms.transfer_of(program)).announcement.version().seq, kOvertakenMax + 1);
  cms.stored(cms.transfer_of(program));
  EXPECT_EQ(cms.core.transfers().at(cms.transfer_of(program)).announcement.version().seq, kOvertakenMax + 10);
}

TEST(CmsClaimsTest, WhatTheIndexHasIsStoredWhenTheClaimHasEnded) {
  CoreDriver cms;
  const Client client = cms.open();
  CmsCore::ProgramFacts& facts = cms.facts[client.program(kProgram)];
  facts.newest = Version{client.incarnation, 1};
  facts.newest_waits = true;
  cms.announce(client, notification_of(kProgram, 1));
  for (int i = 0; i < 20; ++i) {
    cms.pass(seconds(1));
    cms.heartbeat(client, 1, 1);
    ASSERT_TRUE(cms.told(client).empty());
  }
  facts.newest_waits = false;
  Lines told;
  for (int i = 0; i < 100 && told.empty(); ++i) {
    cms.pass(seconds(1));
    told = cms.told(client);
    cms.heartbeat(client, 1, 1);
    if (told.empty()) told = cms.told(client);
  }
  EXPECT_EQ(told, Lines{"STORED 1"});
}

}  // namespace
}  // namespace cms::core
