#include "manifest_generated.h"
#include "schemas/common_codec.h"

namespace cms::wire {
namespace {

constexpr std::size_t kDigestBytes = 16;

void store_big_endian(std::uint8_t* target, std::uint64_t value) {
  for (int i = 7; i >= 0; --i) {
    target[i] = static_cast<std::uint8_t>(value & 0xff);
    value >>= 8;
  }
}

std::uint64_t load_big_endian(const std::uint8_t* source) {
  std::uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value = (value << 8) | source[i];
  return value;
}

constexpr std::size_t bitmap_bytes(std::size_t count) { return (count + 7) / 8; }

// Digests and zero bits, once their vectors are known to be as long as `count` asks for.
void read_chunks(const fb::Manifest& table, std::size_t count, Manifest& manifest) {
  const std::uint8_t* digests = table.chunk_digests()->data();
  const std::uint8_t* zero_bits = table.zero_chunks()->data();
  manifest.chunk_digests.resize(count);
  manifest.zero_chunks.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint8_t* digest = digests + i * kDigestBytes;
    manifest.chunk_digests[i] = Digest{load_big_endian(digest), load_big_endian(digest + 8)};
    manifest.zero_chunks[i] = ((zero_bits[i / 8] >> (i % 8)) & 1) != 0;
  }
}

Error corrupt(const std::string& what) { return make_error(Code::kCorrupt, "Manifest" + what); }

}  // namespace

Bytes encode(const Manifest& manifest) {
  internal::assert_sendable(manifest);
  const std::size_t count = manifest.chunk_digests.size();
  internal::Builder builder(count * kDigestBytes + bitmap_bytes(count) + 2048);

  std::uint8_t* digests = nullptr;
  const auto chunk_digests = builder.CreateUninitializedVector(count * kDigestBytes, &digests);
  for (const Digest& digest : manifest.chunk_digests) {
    store_big_endian(digests, digest.high);
    store_big_endian(digests + 8, digest.low);
    digests += kDigestBytes;
  }
  std::uint8_t* zero_bits = nullptr;
  const auto zero_chunks = builder.CreateUninitializedVector(bitmap_bytes(count), &zero_bits);
  std::memset(zero_bits, 0, bitmap_bytes(count));
  for (std::size_t i = 0; i < count; ++i) {
    if (manifest.zero_chunks[i])
      zero_bits[i / 8] = static_cast<std::uint8_t>(zero_bits[i / 8] | (1U << (i % 8)));
  }
  const auto notification = internal::write_notification(builder, manifest.notification);
  const auto stored_by = internal::write_text(builder, manifest.stored_by);
  const fb::Id128 blob_digest = internal::write_id128(manifest.blob_digest);
  fb::ManifestBuilder table(builder);
  table.add_format_version(kManifestFormatVersion);
  table.add_ecu_mac(manifest.session.ecu_mac.bits);
  table.add_incarnation(manifest.session.incarnation);
  table.add_notification(notification);
  table.add_chunk_size_bytes(manifest.chunk_size_bytes);
  table.add_chunk_digests(chunk_digests);
  table.add_zero_chunks(zero_chunks);
  table.add_blob_digest(&blob_digest);
  table.add_stored_at_us(manifest.stored_at_us);
  table.add_stored_by(stored_by);
  return internal::finished(builder, table.Finish(), fb::ManifestIdentifier(), kManifestBytesMax);
}

Result<Manifest> decode_manifest(const void* data, std::size_t size_bytes) {
  Status envelope =
      internal::check_envelope("Manifest", fb::ManifestIdentifier(), data, size_bytes, kManifestBytesMax);
  if (!envelope.ok()) return make_error(Code::kCorrupt, envelope.error().context);
  const internal::AlignedFrame frame(data, size_bytes);
  const auto* root = internal::verified_root<fb::Manifest>(frame, fb::ManifestIdentifier());
  if (root == nullptr) return make_error(Code::kCorrupt, internal::malformed("Manifest").context);

  // What is newer than we are may mean anything: nothing else of it is looked at.
  if (root->format_version() > kManifestFormatVersion) {
    return make_error(Code::kUnsupported,
                      "Manifest.format_version: " + std::to_string(root->format_version()) +
                          " (allowed: up to " + std::to_string(kManifestFormatVersion) + ")");
  }
  if (root->format_version() == 0) return corrupt(".format_version: 0 (allowed: from 1)");
  if (root->codec() != fb::Codec::none || root->key_id() != 0) {
    return make_error(Code::kUnsupported, "Manifest: its chunks are compressed or sealed (codec " +
                                              std::to_string(static_cast<unsigned>(root->codec())) +
                                              ", key_id " + std::to_string(root->key_id()) +
                                              "), which this program cannot read");
  }
  if (root->notification() == nullptr) return corrupt(".notification: missing");

  Manifest manifest;
  manifest.session = SessionId{EcuMac{root->ecu_mac()}, root->incarnation()};
  auto notification = internal::read_notification(*root->notification());
  if (!notification) return corrupt("." + notification.error().context);
  manifest.notification = std::move(notification).value();
  manifest.chunk_size_bytes = root->chunk_size_bytes();
  manifest.blob_digest = internal::read_id128(root->blob_digest());
  manifest.stored_at_us = root->stored_at_us();
  manifest.stored_by = internal::read_text(root->stored_by(), kNameBytesMax);

  const std::size_t digests_bytes = root->chunk_digests() == nullptr ? 0 : root->chunk_digests()->size();
  const std::size_t zero_bytes = root->zero_chunks() == nullptr ? 0 : root->zero_chunks()->size();
  const std::size_t count = digests_bytes / kDigestBytes;
  if (count == 0 || digests_bytes % kDigestBytes != 0) {
    return corrupt(".chunk_digests: " + std::to_string(digests_bytes) +
                   " bytes (allowed: 16 for each chunk)");
  }
  if (zero_bytes != bitmap_bytes(count)) {
    return corrupt(".zero_chunks: " + std::to_string(zero_bytes) + " bytes (allowed: " +
                   std::to_string(bitmap_bytes(count)) + " for " + std::to_string(count) + " chunks)");
  }
  if (count % 8 != 0 &&
      (root->zero_chunks()->Get(static_cast<flatbuffers::uoffset_t>(zero_bytes - 1)) >> (count % 8)) != 0) {
    return corrupt(".zero_chunks: bits set beyond the last of " + std::to_string(count) + " chunks");
  }
  read_chunks(*root, count, manifest);
  return internal::checked(std::move(manifest), Code::kCorrupt);
}

}  // namespace cms::wire
