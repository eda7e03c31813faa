#include <algorithm>
#include <vector>

#include "member_generated.h"
#include "schemas/common_codec.h"
#include "schemas/member_record.h"

namespace cms::wire {
namespace internal {

Status check(const MemberRecord& record, Side side) {
  Checker checker("MemberRecord", side);
  checker.that(!record.node.empty(), "node", 0, "a name");
  checker.text("node", record.node, kNodeBytesMax);
  checker.that(record.incarnation > 0, "incarnation", 0, "from 1");
  checker.that(record.counter > 0, "counter", 0, "from 1");
  checker.text("software", record.software, kNameBytesMax);
  checker.in_range("bars", record.bars.size(), 0, kBarCountMax);
  if (!checker.status().ok()) return checker.status();
  for (const SessionId& bar : record.bars) {
    checker.ecu_mac(bar.ecu_mac);
    checker.that(bar.incarnation > 0, "bars.incarnation", 0, "from 1");
  }
  return checker.status();
}

}  // namespace internal

Bytes encode(const MemberRecord& record) {
  internal::assert_sendable(record);
  internal::Builder builder(512);
  const auto node = internal::write_text(builder, record.node);
  const auto software = internal::write_text(builder, record.software);
  std::vector<fb::Bar> bars;
  bars.reserve(record.bars.size());
  for (const SessionId& bar : record.bars) bars.emplace_back(bar.ecu_mac.bits, bar.incarnation);
  const auto bars_written = bars.empty() ? internal::Offset<flatbuffers::Vector<const fb::Bar*>>()
                                         : builder.CreateVectorOfStructs(bars);
  const auto root =
      fb::CreateMemberRecord(builder, kMemberFormatVersion, node, record.incarnation, record.counter,
                             record.resigned, record.written_at_us, software, bars_written);
  return internal::finished(builder, root, fb::MemberRecordIdentifier(), kMemberRecordBytesMax);
}

Result<MemberRecord> decode_member_record(const void* data, std::size_t size_bytes) {
  const Status envelope = internal::check_envelope("MemberRecord", fb::MemberRecordIdentifier(), data,
                                                   size_bytes, kMemberRecordBytesMax);
  if (!envelope.ok()) return make_error(Code::kCorrupt, envelope.error().context);
  const internal::AlignedFrame frame(data, size_bytes);
  const auto* root = internal::verified_root<fb::MemberRecord>(frame, fb::MemberRecordIdentifier());
  if (root == nullptr) return make_error(Code::kCorrupt, internal::malformed("MemberRecord").context);
  if (root->format_version() > kMemberFormatVersion) {
    return make_error(Code::kUnsupported,
                      "MemberRecord.format_version: " + std::to_string(root->format_version()) +
                          " (allowed: up to " + std::to_string(kMemberFormatVersion) + ")");
  }
  if (root->format_version() == 0) {
    return make_error(Code::kCorrupt, "MemberRecord.format_version: 0 (allowed: from 1)");
  }
  MemberRecord record;
  record.node = internal::read_text(root->node(), kNodeBytesMax);
  record.incarnation = root->incarnation();
  record.counter = root->counter();
  record.resigned = root->resigned();
  record.written_at_us = root->written_at_us();
  record.software = internal::read_text(root->software(), kNameBytesMax);
  if (root->bars() != nullptr) {
    // One more than allowed is enough for the check to refuse it.
    const std::size_t count = std::min<std::size_t>(root->bars()->size(), kBarCountMax + 1);
    record.bars.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      const auto bar = internal::element_at(*root->bars(), i);
      record.bars.push_back(SessionId{EcuMac{bar.ecu_mac()}, bar.incarnation()});
    }
  }
  return internal::checked(std::move(record), Code::kCorrupt);
}

}  // namespace cms::wire
