#pragma once
// What the corpus is made of and some targets start from; the messages are those of
// schemas/samples_test.h.
#include "schemas/samples_test.h"
#include "storage/blob_store.h"

namespace cms::fuzz {

// That under which the fuzzer reads every file of a claim.
inline constexpr const char* kClaimFileName = "0123456789abcdef0123456789abcdef.0000000000000001.log";

// The name of a stored wire::full_manifest().
inline storage::BlobName sample_blob_name() {
  const wire::Manifest manifest = wire::full_manifest();
  storage::BlobName name;
  name.checkpoint.program = ProgramKey{manifest.session.ecu_mac, manifest.notification.program_id};
  name.checkpoint.version = Version{manifest.session.incarnation, manifest.notification.seq};
  name.lineage = manifest.notification.lineage;
  name.owner_epoch = manifest.notification.owner_epoch;
  name.size_bytes = manifest.notification.size_bytes;
  name.uid = 0xfedc;
  return name;
}

}  // namespace cms::fuzz
