#include "schemas/common_codec.h"

#include <algorithm>
#include <vector>

namespace cms::wire::internal {

static_assert(static_cast<int>(fb::CheckpointKind::MAX) == static_cast<int>(CheckpointKind::kDelta));
static_assert(static_cast<int>(fb::Release::MAX) == static_cast<int>(Release::kStored));
static_assert(static_cast<int>(fb::OnIsolation::MAX) == static_cast<int>(OnIsolation::kStop));
static_assert(static_cast<int>(fb::OnLoss::MAX) == static_cast<int>(OnLoss::kRestore));

AlignedFrame::AlignedFrame(const void* data, std::size_t size_bytes)
    : data_(static_cast<const std::uint8_t*>(data)), size_bytes_(size_bytes) {
  if (reinterpret_cast<std::uintptr_t>(data) % alignof(std::uint64_t) == 0) return;
  copy_.reset(new std::uint64_t[(size_bytes + 7) / 8]);
  std::memcpy(copy_.get(), data, size_bytes);
  data_ = reinterpret_cast<const std::uint8_t*>(copy_.get());
}

Status check_envelope(std::string_view message, const char* identifier, const void* data,
                      std::size_t size_bytes, std::size_t size_bytes_max) {
  // The smallest buffer: offset of the root, identifier, an empty table and its vtable.
  constexpr std::size_t kSizeBytesMin = 16;
  if (size_bytes < kSizeBytesMin || size_bytes > size_bytes_max) {
    return make_error(Code::kProtocol, std::string(message) + ": " + std::to_string(size_bytes) +
                                           " bytes (allowed: " + std::to_string(kSizeBytesMin) + " to " +
                                           std::to_string(size_bytes_max) + ")");
  }
  const std::string_view found(static_cast<const char*>(data) + sizeof(flatbuffers::uoffset_t),
                               flatbuffers::kFileIdentifierLength);
  if (found != identifier) {
    return make_error(Code::kProtocol, std::string(message) + ": file identifier '" +
                                           cleaned_free_text(found) + "' (allowed: '" + identifier + "')");
  }
  return ok_status();
}

Error malformed(std::string_view message) {
  return make_error(Code::kProtocol, std::string(message) + ": not a well-formed FlatBuffer");
}

Error unknown_body(std::string_view message, unsigned type) {
  return make_error(Code::kProtocol,
                    std::string(message) + ".body: missing, or of the unknown type " + std::to_string(type));
}

std::string read_text(const flatbuffers::String* text, std::size_t bytes_max) {
  if (text == nullptr) return std::string();
  return std::string(text->c_str(), std::min<std::size_t>(text->size(), bytes_max + 1));
}

Offset<flatbuffers::String> write_text(Builder& builder, std::string_view text) {
  return text.empty() ? Offset<flatbuffers::String>() : builder.CreateString(text.data(), text.size());
}

namespace {

Requirements read_requirements(const fb::Requirements& table) {
  Requirements requirements;
  requirements.arch = read_text(table.arch(), kNameBytesMax);
  requirements.os = read_text(table.os(), kNameBytesMax);
  requirements.checkpoint_format = read_text(table.checkpoint_format(), kNameBytesMax);
  requirements.format_version = table.format_version();
  requirements.ram_bytes = table.ram_bytes();
  if (table.labels() != nullptr) {
    const std::size_t count = std::min<std::size_t>(table.labels()->size(), kLabelCountMax + 1);
    requirements.labels.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      const auto* label = table.labels()->Get(static_cast<flatbuffers::uoffset_t>(i));
      requirements.labels.push_back(read_text(label, kLabelBytesMax));
    }
  }
  return requirements;
}

Offset<fb::Requirements> write_requirements(Builder& builder, const Requirements& requirements) {
  const auto arch = write_text(builder, requirements.arch);
  const auto os = write_text(builder, requirements.os);
  const auto checkpoint_format = write_text(builder, requirements.checkpoint_format);
  Offset<flatbuffers::Vector<Offset<flatbuffers::String>>> labels;
  if (!requirements.labels.empty()) {
    std::vector<Offset<flatbuffers::String>> offsets;
    offsets.reserve(requirements.labels.size());
    for (const std::string& label : requirements.labels) {
      offsets.push_back(builder.CreateString(label.data(), label.size()));
    }
    labels = builder.CreateVector(offsets);
  }
  return fb::CreateRequirements(builder, arch, os, checkpoint_format, requirements.format_version,
                                requirements.ram_bytes, labels);
}

}  // namespace

Result<Notification> read_notification(const fb::Notification& table) {
  // Reserved fields mean that the bytes are to be read in a way that we do not know.
  if (table.codec() != fb::Codec::none || table.key_id() != 0) {
    return make_error(Code::kProtocol,
                      "Notification: codec " + std::to_string(static_cast<unsigned>(table.codec())) +
                          ", key_id " + std::to_string(table.key_id()) + " (allowed: 0, both are reserved)");
  }
  Notification notification;
  notification.program_id = table.program_id();
  notification.seq = table.seq();
  notification.lineage = read_id128(table.lineage());
  notification.owner_epoch = table.owner_epoch();
  notification.size_bytes = table.size_bytes();
  notification.chunk_size_bytes = table.chunk_size_bytes();
  notification.kind = static_cast<CheckpointKind>(table.kind());
  notification.taken_at_us = table.taken_at_us();
  notification.pause_us = table.pause_us();
  notification.program_name = read_text(table.program_name(), kNameBytesMax);
  if (table.requirements() != nullptr) notification.requirements = read_requirements(*table.requirements());
  if (const auto* real_time = table.real_time()) {
    notification.real_time = RealTime{real_time->priority(), real_time->period_us(), real_time->deadline_us(),
                                      real_time->wcet_us(), real_time->tight()};
  }
  if (const auto* policies = table.policies()) {
    notification.policies = Policies{static_cast<Release>(policies->release()),
                                     static_cast<OnIsolation>(policies->on_isolation()),
                                     static_cast<OnLoss>(policies->on_loss())};
  }
  return notification;
}

Offset<fb::Notification> write_notification(Builder& builder, const Notification& notification) {
  const auto program_name = write_text(builder, notification.program_name);
  const auto requirements = write_requirements(builder, notification.requirements);
  const auto real_time = fb::CreateRealTime(
      builder, notification.real_time.priority, notification.real_time.period_us,
      notification.real_time.deadline_us, notification.real_time.wcet_us, notification.real_time.tight);
  const auto policies = fb::CreatePolicies(builder, static_cast<fb::Release>(notification.policies.release),
                                           static_cast<fb::OnIsolation>(notification.policies.on_isolation),
                                           static_cast<fb::OnLoss>(notification.policies.on_loss));
  const fb::Id128 lineage = write_id128(notification.lineage);
  fb::NotificationBuilder table(builder);
  table.add_program_id(notification.program_id);
  table.add_seq(notification.seq);
  if (notification.lineage != Lineage{}) table.add_lineage(&lineage);
  table.add_owner_epoch(notification.owner_epoch);
  table.add_size_bytes(notification.size_bytes);
  table.add_taken_at_us(notification.taken_at_us);
  table.add_pause_us(notification.pause_us);
  table.add_chunk_size_bytes(notification.chunk_size_bytes);
  table.add_program_name(program_name);
  table.add_requirements(requirements);
  table.add_real_time(real_time);
  table.add_policies(policies);
  table.add_kind(static_cast<fb::CheckpointKind>(notification.kind));
  return table.Finish();
}

}  // namespace cms::wire::internal
