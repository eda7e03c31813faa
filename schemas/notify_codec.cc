#include "notify_generated.h"
#include "schemas/common_codec.h"

namespace cms::wire {

using internal::Builder;
using internal::Offset;

Bytes encode(const NotifyMessage& message) {
  internal::assert_sendable(message);
  Builder builder(kNotificationBytesMax);
  fb::NotifyBody type = fb::NotifyBody::Beat;
  Offset<void> body;
  if (const auto* notification = std::get_if<Notification>(&message.body)) {
    type = fb::NotifyBody::Notification;
    body = internal::write_notification(builder, *notification).Union();
  } else {
    body = fb::CreateBeat(builder, std::get<Beat>(message.body).last_seq).Union();
  }
  const auto root =
      fb::CreateNotifyMessage(builder, message.session.ecu_mac.bits, message.session.incarnation, type, body);
  return internal::finished(builder, root, fb::NotifyMessageIdentifier(), kNotificationBytesMax);
}

Result<NotifyMessage> decode_notify(const void* data, std::size_t size_bytes) {
  Status envelope = internal::check_envelope("NotifyMessage", fb::NotifyMessageIdentifier(), data, size_bytes,
                                             kNotificationBytesMax);
  if (!envelope.ok()) return std::move(envelope).error();
  const internal::AlignedFrame frame(data, size_bytes);
  const auto* root = internal::verified_root<fb::NotifyMessage>(frame, fb::NotifyMessageIdentifier());
  if (root == nullptr) return internal::malformed("NotifyMessage");

  NotifyMessage message;
  message.session = SessionId{EcuMac{root->ecu_mac()}, root->incarnation()};
  if (const auto* table = root->body_as_Notification()) {
    auto notification = internal::read_notification(*table);
    if (!notification) return std::move(notification).error();
    message.body = std::move(notification).value();
  } else if (const auto* beat = root->body_as_Beat()) {
    message.body = Beat{beat->last_seq()};
  } else {
    return internal::unknown_body("NotifyMessage", static_cast<unsigned>(root->body_type()));
  }
  return internal::checked(std::move(message));
}

}  // namespace cms::wire
