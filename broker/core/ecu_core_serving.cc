// The blobs that EcuCore gives to those who fetch them; what it holds and why is in ecu_core.cc.
#include <algorithm>
#include <utility>

#include "broker/core/ecu_core.h"

namespace cms::broker {

using wire::ReceiptLevel;

CheckpointId EcuCore::id_of(const Held& held) const {
  return CheckpointId{ProgramKey{config_.ecu_mac, held.notification.program_id},
                      Version{incarnation_, held.notification.seq}};
}

void EcuCore::on_bulk(Instant now, const PeerId& peer, const wire::BulkBody& message, Effects& effects) {
  if (stopped_) return;
  if (const auto* fetch = std::get_if<wire::Fetch>(&message)) {
    on_fetch(now, peer, *fetch, effects);
  } else if (const auto* credit = std::get_if<wire::Credit>(&message)) {
    server_.on_credit(now, peer, *credit);
  } else if (const auto* cancel = std::get_if<wire::Cancel>(&message)) {
    const auto checkpoint = server_.cancel(peer, cancel->transfer_id);
    if (checkpoint) release_if_superseded(*checkpoint, effects);
  }
}

void EcuCore::on_fetch(Instant now, const PeerId& peer, const wire::Fetch& fetch, Effects& effects) {
  const auto refuse = [&](Code code, std::string context) {
    effects.push_back(
        SendTransferError{peer, wire::TransferError{fetch.transfer_id, code, std::move(context)}});
  };
  const auto it = held_.find(fetch.checkpoint.version.seq);
  if (it == held_.end() || id_of(it->second) != fetch.checkpoint) {
    refuse(Code::kNotFound, to_string(fetch.checkpoint) + " is not held here");
    return;
  }
  Held& held = it->second;
  const wire::Notification& notification = held.notification;
  if (fetch.offset_bytes > held.digests.size() * std::uint64_t{notification.chunk_size_bytes}) {
    refuse(Code::kInvalidArgument,
           "offset " + std::to_string(fetch.offset_bytes) + " is beyond what was served so far; start at 0");
    return;
  }
  const Status started = server_.start(
      now, peer, fetch, ServedBlob{fetch.checkpoint, notification.size_bytes, notification.chunk_size_bytes});
  if (!started) {
    refuse(started.code(), started.error().context);
    return;
  }
  if (!held.pulling) {
    held.pulling = true;
    effects.push_back(ReceiptEvent{notification.program_id,
                                   notification.seq,
                                   ReceiptLevel::kPulling,
                                   Code::kOk,
                                   {},
                                   false,
                                   incarnation_});
  }
}

bool EcuCore::serve(std::size_t chunk_count_max, Effects& effects) {
  for (std::size_t i = 0; i < chunk_count_max; ++i) {
    const auto task = server_.next();
    if (!task) return false;
    send_chunk(*task, effects);
  }
  return server_.has_work();
}

void EcuCore::send_chunk(const ChunkTask& task, Effects& effects) {
  const auto it = held_.find(task.blob.checkpoint.version.seq);
  CMS_ASSERT(it != held_.end());  // release() ends the transfers of a blob first.
  Held& held = it->second;
  auto view = held.source->view(task.offset_bytes, task.size_bytes);
  Code failure = Code::kOk;
  std::string reason;
  wire::Chunk header;
  if (!view.ok()) {
    failure = view.error().code;
    reason = view.error().message();
  } else {
    CMS_ASSERT(view->size_bytes == task.size_bytes);
    header.digest = digest_of(view->data, view->size_bytes);
    const std::size_t index = task.offset_bytes / task.blob.chunk_size_bytes;
    if (index == held.digests.size()) {
      held.digests.push_back(header.digest);
      served_bytes_ += task.size_bytes;
    } else if (held.digests[index] != header.digest) {
      failure = Code::kSourceChanged;
      reason = "source changed: chunk " + std::to_string(index) + " is not what was sent before";
    }
  }
  if (failure != Code::kOk) {
    effects.push_back(SendTransferError{task.peer, wire::TransferError{task.transfer_id, failure, reason}});
    release(it, ReceiptLevel::kDropped, failure, reason, effects);
    return;
  }
  header.transfer_id = task.transfer_id;
  header.offset_bytes = task.offset_bytes;
  header.size_bytes = task.size_bytes;
  header.version = task.blob.checkpoint.version;
  header.blob_size_bytes = task.blob.size_bytes;
  header.chunk_size_bytes = task.blob.chunk_size_bytes;
  header.last = task.last;
  if (task.last) header.blob_digest = blob_digest_of(held.digests);
  effects.push_back(SendChunk{task.peer, header, std::move(*view)});
}

// A superseded blob was kept only for the pull that was under way, which has been given up.
void EcuCore::release_if_superseded(const CheckpointId& checkpoint, Effects& effects) {
  const auto it = held_.find(checkpoint.version.seq);
  if (it == held_.end() || !it->second.superseded || it->second.stored_by != 0) return;
  if (server_.serves(checkpoint)) return;
  release(it, ReceiptLevel::kSuperseded, Code::kSuperseded, "a newer checkpoint of the program was published",
          effects);
}

}  // namespace cms::broker
