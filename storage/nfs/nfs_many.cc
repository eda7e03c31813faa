#include "storage/nfs/nfs_many.h"

namespace cms::storage {

std::vector<NfsReply> nfs_for_each(
    NfsPool& pool, std::size_t count,
    const std::function<void(NfsConnection& link, std::size_t i, NfsThen then)>& begin) {
  std::vector<NfsReply> replies(count);
  for (int attempt = 0; attempt < 2; ++attempt) {
    NfsInFlight in_flight;
    std::vector<NfsLink> links;  // Until all has ended: no callback ends the last holder of its connection.
    for (std::size_t i = 0; i < count; ++i) {
      if (replies[i].answered) continue;
      auto link = pool.get();
      if (!link) {
        replies[i].trouble = link.error().context;
        continue;
      }
      links.push_back(*link);
      in_flight.wait_until_at_most(kNfsManyInFlight - 1);
      in_flight.begin(1);
      begin(**link, i, [&reply = replies[i], &in_flight](const NfsReply& last) {
        reply = last;
        in_flight.end(1);
      });
    }
    in_flight.wait_until_at_most(0);
  }
  return replies;
}

}  // namespace cms::storage
