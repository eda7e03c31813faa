#include "admin_generated.h"
#include "schemas/common_codec.h"

namespace cms::wire {
namespace {

using internal::Builder;
using internal::Offset;
using internal::read_text;
using internal::write_text;

static_assert(static_cast<int>(fb::AdminMethod::MAX) == static_cast<int>(AdminMethod::kEcuMaintenance));

struct Body {
  fb::AdminBody type;
  Offset<void> table;
};

Body write(Builder& builder, const AdminRequest& request) {
  const auto continue_after = write_text(builder, request.continue_after);
  fb::AdminRequestBuilder table(builder);
  table.add_request_id(request.request_id);
  table.add_method(static_cast<fb::AdminMethod>(request.method));
  table.add_has_ecu_mac(request.has_ecu_mac);
  table.add_ecu_mac(request.ecu_mac.bits);
  table.add_has_program_id(request.has_program_id);
  table.add_program_id(request.program_id);
  table.add_has_version(request.has_version);
  table.add_incarnation(request.version.incarnation);
  table.add_seq(request.version.seq);
  table.add_all(request.all);
  table.add_continue_after(continue_after);
  table.add_has_to(request.has_to);
  table.add_to_ecu_mac(request.to_ecu_mac.bits);
  table.add_cancel(request.cancel);
  table.add_deadline_ms(request.deadline_ms);
  return {fb::AdminBody::AdminRequest, table.Finish().Union()};
}

Body write(Builder& builder, const AdminAnswer& answer) {
  const auto json = write_text(builder, answer.json);
  const auto context = write_text(builder, internal::cleaned_free_text(answer.context));
  const auto next = write_text(builder, answer.next);
  return {fb::AdminBody::AdminAnswer,
          fb::CreateAdminAnswer(builder, answer.request_id, static_cast<std::uint16_t>(answer.code), context,
                                json, next)
              .Union()};
}

AdminBody read(const fb::AdminRequest& table) {
  AdminRequest request;
  request.request_id = table.request_id();
  request.method = static_cast<AdminMethod>(table.method());
  request.has_ecu_mac = table.has_ecu_mac();
  request.ecu_mac = EcuMac{table.ecu_mac()};
  request.has_program_id = table.has_program_id();
  request.program_id = table.program_id();
  request.has_version = table.has_version();
  request.version = Version{table.incarnation(), table.seq()};
  request.all = table.all();
  request.continue_after = read_text(table.continue_after(), kNameBytesMax);
  request.has_to = table.has_to();
  request.to_ecu_mac = EcuMac{table.to_ecu_mac()};
  request.cancel = table.cancel();
  request.deadline_ms = table.deadline_ms();
  return request;
}

AdminBody read(const fb::AdminAnswer& table) {
  AdminAnswer answer;
  answer.request_id = table.request_id();
  answer.code = static_cast<Code>(table.code());
  answer.context = read_text(table.context(), kReasonBytesMax);
  answer.json = read_text(table.json(), kJsonBytesMax);
  answer.next = read_text(table.next(), kNameBytesMax);
  return answer;
}

}  // namespace

Bytes encode(const AdminBody& message) {
  internal::assert_sendable(message);
  Builder builder(1024);
  const Body body = std::visit([&](const auto& alternative) { return write(builder, alternative); }, message);
  const auto root = fb::CreateAdminMessage(builder, body.type, body.table);
  return internal::finished(builder, root, fb::AdminMessageIdentifier(), kAdminFrameBytesMax);
}

Result<AdminBody> decode_admin(const void* data, std::size_t size_bytes) {
  Status envelope = internal::check_envelope("AdminMessage", fb::AdminMessageIdentifier(), data, size_bytes,
                                             kAdminFrameBytesMax);
  if (!envelope.ok()) return std::move(envelope).error();
  const internal::AlignedFrame frame(data, size_bytes);
  const auto* root = internal::verified_root<fb::AdminMessage>(frame, fb::AdminMessageIdentifier());
  if (root == nullptr) return internal::malformed("AdminMessage");

  if (const auto* request = root->body_as_AdminRequest()) return internal::checked(read(*request));
  if (const auto* answer = root->body_as_AdminAnswer()) return internal::checked(read(*answer));
  return internal::unknown_body("AdminMessage", static_cast<unsigned>(root->body_type()));
}

}  // namespace cms::wire
