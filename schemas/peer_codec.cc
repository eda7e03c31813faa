#include "peer_generated.h"
#include "schemas/common_codec.h"

namespace cms::wire {

using internal::Builder;
using internal::Offset;

namespace {

fb::PeerBody type_of(const PeerBody& body) {
  if (std::holds_alternative<PeerBeat>(body)) return fb::PeerBody::PeerBeat;
  if (std::holds_alternative<PeerStored>(body)) return fb::PeerBody::PeerStored;
  if (std::holds_alternative<PeerWithdrawn>(body)) return fb::PeerBody::PeerWithdrawn;
  if (std::holds_alternative<PeerIncarnations>(body)) return fb::PeerBody::PeerIncarnations;
  if (std::holds_alternative<PeerQuarantined>(body)) return fb::PeerBody::PeerQuarantined;
  if (std::holds_alternative<PeerRemoved>(body)) return fb::PeerBody::PeerRemoved;
  return fb::PeerBody::PeerPinned;
}

fb::CheckpointRef write_ref(const CheckpointId& checkpoint) {
  return fb::CheckpointRef(checkpoint.program.ecu_mac.bits, checkpoint.program.program_id,
                           checkpoint.version.incarnation, checkpoint.version.seq);
}

// Of a CheckpointRef or a BlobRef.
template <typename Ref>
CheckpointId read_ref(const Ref& ref) {
  return CheckpointId{ProgramKey{EcuMac{ref.ecu_mac()}, ref.program_id()},
                      Version{ref.incarnation(), ref.seq()}};
}

Offset<void> write(Builder& builder, const PeerBeat& beat) {
  std::vector<fb::ProgramRef> pulling;
  for (const ProgramKey& program : beat.pulling)
    pulling.emplace_back(program.ecu_mac.bits, program.program_id);
  const auto pulling_offset = builder.CreateVectorOfStructs(pulling);
  const auto wants_greeting = builder.CreateVector(beat.wants_greeting);
  std::vector<fb::CheckpointRef> reading;
  for (const CheckpointId& checkpoint : beat.reading) reading.push_back(write_ref(checkpoint));
  const auto reading_offset = builder.CreateVectorOfStructs(reading);
  return fb::CreatePeerBeat(builder, beat.uptime_ms, beat.takes_pulls, beat.pull_every, beat.queued,
                            beat.pulled_bytes, pulling_offset, wants_greeting, beat.features, reading_offset)
      .Union();
}

using StoredVector = flatbuffers::Vector<Offset<fb::StoredCheckpoint>>;

Offset<StoredVector> write_stored(Builder& builder, const std::vector<StoredCheckpoint>& stored) {
  std::vector<Offset<fb::StoredCheckpoint>> checkpoints;
  for (const StoredCheckpoint& one : stored) {
    const fb::Id128 lineage = internal::write_id128(one.lineage);
    const fb::Id128 digest = internal::write_id128(one.blob_digest);
    const auto name = internal::write_text(builder, one.program_name);
    checkpoints.push_back(fb::CreateStoredCheckpoint(
        builder, one.checkpoint.program.ecu_mac.bits, one.checkpoint.program.program_id,
        one.checkpoint.version.incarnation, one.checkpoint.version.seq, &lineage, one.owner_epoch,
        one.size_bytes, one.uid, one.stored_bytes, one.stored_at_us, one.taken_at_us, one.pause_us, name,
        &digest));
  }
  return builder.CreateVector(checkpoints);
}

Offset<void> write(Builder& builder, const PeerStored& stored) {
  return fb::CreatePeerStored(builder, write_stored(builder, stored.checkpoints)).Union();
}

Offset<void> write(Builder& builder, const PeerQuarantined& quarantined) {
  return fb::CreatePeerQuarantined(builder, write_stored(builder, quarantined.checkpoints)).Union();
}

Offset<void> write(Builder& builder, const PeerWithdrawn& withdrawn) {
  return fb::CreatePeerWithdrawn(builder, withdrawn.program.ecu_mac.bits, withdrawn.program.program_id,
                                 withdrawn.up_to.incarnation, withdrawn.up_to.seq)
      .Union();
}

Offset<void> write(Builder& builder, const PeerIncarnations& message) {
  std::vector<fb::IncarnationRef> incarnations;
  for (const SessionId& session : message.incarnations)
    incarnations.emplace_back(session.ecu_mac.bits, session.incarnation);
  return fb::CreatePeerIncarnations(builder, builder.CreateVectorOfStructs(incarnations), message.greets)
      .Union();
}

Offset<void> write(Builder& builder, const PeerRemoved& removed) {
  std::vector<fb::BlobRef> blobs;
  for (const RemovedBlob& blob : removed.blobs) {
    blobs.emplace_back(blob.checkpoint.program.ecu_mac.bits, blob.checkpoint.program.program_id,
                       blob.checkpoint.version.incarnation, blob.checkpoint.version.seq, blob.owner_epoch,
                       blob.uid);
  }
  return fb::CreatePeerRemoved(builder, builder.CreateVectorOfStructs(blobs)).Union();
}

Offset<void> write(Builder& builder, const PeerPinned& pinned) {
  const fb::CheckpointRef checkpoint = write_ref(pinned.checkpoint);
  return fb::CreatePeerPinned(builder, &checkpoint, pinned.pinned).Union();
}

PeerBeat read(const fb::PeerBeat& table) {
  PeerBeat beat;
  beat.uptime_ms = table.uptime_ms();
  beat.takes_pulls = table.takes_pulls();
  beat.pull_every = table.pull_every();
  beat.queued = table.queued();
  beat.pulled_bytes = table.pulled_bytes();
  if (table.pulling() != nullptr) {
    for (std::size_t i = 0; i < table.pulling()->size(); ++i) {
      const auto program = internal::element_at(*table.pulling(), i);
      beat.pulling.push_back(ProgramKey{EcuMac{program.ecu_mac()}, program.program_id()});
    }
  }
  if (table.wants_greeting() != nullptr) {
    for (std::size_t i = 0; i < table.wants_greeting()->size(); ++i)
      beat.wants_greeting.push_back(internal::element_at(*table.wants_greeting(), i));
  }
  beat.features = table.features();
  if (table.reading() != nullptr) {
    for (std::size_t i = 0; i < table.reading()->size(); ++i)
      beat.reading.push_back(read_ref(internal::element_at(*table.reading(), i)));
  }
  return beat;
}

std::vector<StoredCheckpoint> read_stored(const StoredVector* checkpoints) {
  std::vector<StoredCheckpoint> stored;
  if (checkpoints == nullptr) return stored;
  for (const fb::StoredCheckpoint* one : *checkpoints) {
    StoredCheckpoint checkpoint;
    checkpoint.checkpoint.program = ProgramKey{EcuMac{one->ecu_mac()}, one->program_id()};
    checkpoint.checkpoint.version = Version{one->incarnation(), one->seq()};
    checkpoint.lineage = internal::read_id128(one->lineage());
    checkpoint.owner_epoch = one->owner_epoch();
    checkpoint.size_bytes = one->size_bytes();
    checkpoint.uid = one->uid();
    checkpoint.stored_bytes = one->stored_bytes();
    checkpoint.stored_at_us = one->stored_at_us();
    checkpoint.taken_at_us = one->taken_at_us();
    checkpoint.pause_us = one->pause_us();
    checkpoint.program_name = internal::read_text(one->program_name(), kNameBytesMax);
    checkpoint.blob_digest = internal::read_id128(one->blob_digest());
    stored.push_back(std::move(checkpoint));
  }
  return stored;
}

PeerRemoved read(const fb::PeerRemoved& table) {
  PeerRemoved removed;
  if (table.blobs() == nullptr) return removed;
  for (std::size_t i = 0; i < table.blobs()->size(); ++i) {
    const auto one = internal::element_at(*table.blobs(), i);
    removed.blobs.push_back(RemovedBlob{read_ref(one), one.owner_epoch(), one.uid()});
  }
  return removed;
}

PeerPinned read(const fb::PeerPinned& table) {
  PeerPinned pinned;
  if (table.checkpoint() != nullptr) pinned.checkpoint = read_ref(*table.checkpoint());
  pinned.pinned = table.pinned();
  return pinned;
}

PeerIncarnations read(const fb::PeerIncarnations& table) {
  PeerIncarnations message;
  message.greets = table.greets();
  if (table.incarnations() != nullptr) {
    for (std::size_t i = 0; i < table.incarnations()->size(); ++i) {
      const auto one = internal::element_at(*table.incarnations(), i);
      message.incarnations.push_back(SessionId{EcuMac{one.ecu_mac()}, one.incarnation()});
    }
  }
  return message;
}

}  // namespace

Bytes encode(const PeerMessage& message) {
  internal::assert_sendable(message);
  Builder builder(1024);
  const auto name = internal::write_text(builder, message.cms_name);
  const Offset<void> body = std::visit([&](const auto& one) { return write(builder, one); }, message.body);
  const fb::Id128 fleet_id = internal::write_id128(message.fleet_id);
  const auto root = fb::CreatePeerMessage(builder, message.protocol_version, name, message.incarnation,
                                          &fleet_id, message.event, type_of(message.body), body);
  return internal::finished(builder, root, fb::PeerMessageIdentifier(), kControlFrameBytesMax);
}

Result<PeerMessage> decode_peer(const void* data, std::size_t size_bytes) {
  Status envelope = internal::check_envelope("PeerMessage", fb::PeerMessageIdentifier(), data, size_bytes,
                                             kControlFrameBytesMax);
  if (!envelope.ok()) return std::move(envelope).error();
  const internal::AlignedFrame frame(data, size_bytes);
  const auto* root = internal::verified_root<fb::PeerMessage>(frame, fb::PeerMessageIdentifier());
  if (root == nullptr) return internal::malformed("PeerMessage");

  PeerMessage message;
  message.protocol_version = root->protocol_version();
  message.cms_name = internal::read_text(root->cms_name(), kNameBytesMax);
  message.incarnation = root->incarnation();
  message.fleet_id = internal::read_id128(root->fleet_id());
  message.event = root->event();
  if (const auto* beat = root->body_as_PeerBeat()) {
    message.body = read(*beat);
  } else if (const auto* stored = root->body_as_PeerStored()) {
    message.body = PeerStored{read_stored(stored->checkpoints())};
  } else if (const auto* quarantined = root->body_as_PeerQuarantined()) {
    message.body = PeerQuarantined{read_stored(quarantined->checkpoints())};
  } else if (const auto* withdrawn = root->body_as_PeerWithdrawn()) {
    message.body = PeerWithdrawn{ProgramKey{EcuMac{withdrawn->ecu_mac()}, withdrawn->program_id()},
                                 Version{withdrawn->incarnation(), withdrawn->seq()}};
  } else if (const auto* incarnations = root->body_as_PeerIncarnations()) {
    message.body = read(*incarnations);
  } else if (const auto* removed = root->body_as_PeerRemoved()) {
    message.body = read(*removed);
  } else if (const auto* pinned = root->body_as_PeerPinned()) {
    message.body = read(*pinned);
  } else {
    return internal::unknown_body("PeerMessage", static_cast<unsigned>(root->body_type()));
  }
  return internal::checked(std::move(message));
}

}  // namespace cms::wire
