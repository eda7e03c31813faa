#include "rtcr-client/src/fetch.h"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>

#include "base/digest.h"
#include "base/time.h"
#include "broker/core/chunk_receiver.h"
#include "net/socket.h"
#include "schemas/messages.h"

namespace cms::client {
namespace {

constexpr int kCorruptCountMax = 3;
constexpr Duration kUnavailablePause = std::chrono::milliseconds(100);
constexpr Duration kAttemptMin = std::chrono::milliseconds(500);
constexpr Duration kAttemptMax = std::chrono::seconds(5);

class Fetcher {
 public:
  Fetcher(const std::vector<net::Endpoint>& cms, const FetchRequest& request, const FetchSink& sink)
      : cms_(cms), request_(request), sink_(sink), receiver_(1, expected(), broker::kTransferWindowBytes) {
    progress_at_ = BootClock::now();
  }

  Result<FetchedBlob> run() {
    while (true) {
      std::size_t none_count = 0;
      bool unavailable = false;
      for (std::size_t i = 0; i < cms_.size(); ++i) {
        const Answer answer = ask(i);
        if (answer == Answer::kWhole) return finish(i);
        if (answer == Answer::kFatal) return std::move(failure_);
        if (answer == Answer::kNone) ++none_count;
        if (answer == Answer::kUnavailable) unavailable = true;
      }
      // A CMS that is silent may be dead for good; one that says "not yet" may still have it.
      if (none_count > 0 && !unavailable) return std::move(failure_);
      if (given_up()) return give_up();
      if (unavailable && !pause()) return std::move(failure_);
    }
  }

 private:
  enum class Answer { kWhole, kNone, kUnavailable, kSilent, kFatal };

  broker::ExpectedBlob expected() const {
    broker::ExpectedBlob expected;
    expected.checkpoint.program = request_.program;
    if (request_.version) expected.checkpoint.version = *request_.version;
    return expected;
  }

  bool given_up() const {
    return request_.patience.count() >= 0 && BootClock::now() - progress_at_ >= request_.patience;
  }

  Error give_up() const {
    const std::string after = " for " + std::to_string(request_.patience.count()) + " ms";
    if (!answered_) return make_error(Code::kUnavailable, "no CMS has answered" + after);
    return make_error(Code::kTimeout,
                      "no progress" + after + (last_answer_.empty() ? "" : ": " + last_answer_));
  }

  // How long one CMS may be silent before the next is asked, or the same one anew: ZeroMQ connects
  // again by itself, but a CMS that was restarted knows nothing of the transfer.
  Duration attempt_time() const {
    if (request_.patience.count() < 0) return kAttemptMax;
    const Duration share = Duration(request_.patience) / static_cast<Duration::rep>(cms_.size() + 1);
    return std::clamp(share, kAttemptMin, kAttemptMax);
  }

  bool pause() { return wait(nullptr, BootClock::now() + kUnavailablePause) != Waited::kCancelled; }

  enum class Waited { kReadable, kTime, kCancelled };
  Waited wait(zmq::socket_t* socket, Instant until) {
    std::vector<zmq::pollitem_t> items;
    if (request_.cancel_fd >= 0) items.push_back({nullptr, request_.cancel_fd, ZMQ_POLLIN, 0});
    if (socket != nullptr) items.push_back({socket->handle(), 0, ZMQ_POLLIN, 0});
    const Duration left = std::max(until - BootClock::now(), Duration::zero());
    try {
      zmq::poll(items.data(), items.size(), std::chrono::ceil<std::chrono::milliseconds>(left));
    } catch (const zmq::error_t& error) {
      if (error.num() != EINTR) throw;
    }
    if (request_.cancel_fd >= 0 && items.front().revents != 0) {
      failure_ = make_error(Code::kCancelled, "the fetch was given up");
      return Waited::kCancelled;
    }
    if (socket != nullptr && items.back().revents != 0) return Waited::kReadable;
    return BootClock::now() >= until ? Waited::kTime : Waited::kReadable;
  }

  Answer ask(std::size_t cms) {
    zmq::socket_t socket = net::make_bulk_dealer(context_);
    if (Status connected = net::connect(socket, cms_[cms].channel(net::kBulkPort)); !connected.ok()) {
      return fatal(std::move(connected).error());
    }
    send(socket, receiver_.fetch());
    Instant silent_since = BootClock::now();
    std::vector<zmq::message_t> frames;
    while (true) {
      const Waited waited = wait(&socket, silent_since + attempt_time());
      if (waited == Waited::kCancelled) return Answer::kFatal;
      if (waited == Waited::kTime) return Answer::kSilent;
      while (net::receive(socket, frames)) {
        const auto message = wire::decode_bulk(frames[0].data(), frames[0].size());
        if (!message.ok()) return broken(message.error());
        if (const auto* refusal = std::get_if<wire::TransferError>(&*message)) return refused(*refusal);
        const auto* chunk = std::get_if<wire::Chunk>(&*message);
        if (chunk == nullptr || frames.size() != 2 || chunk->transfer_id != receiver_.transfer_id()) {
          return broken(make_error(Code::kProtocol, "the CMS answers Fetch with something else"));
        }
        if (const auto answer = take(socket, *chunk, frames[1])) return *answer;
        silent_since = progress_at_;
      }
    }
  }

  // nullopt: more is to come.
  std::optional<Answer> take(zmq::socket_t& socket, const wire::Chunk& chunk, const zmq::message_t& bytes) {
    answered_ = true;
    // Before the receiver counts it, so that a damaged chunk is asked for again.
    if (digest_of(bytes.data(), bytes.size()) != chunk.digest) {
      return damaged("chunk at " + std::to_string(chunk.offset_bytes) + " does not match its digest");
    }
    const std::uint64_t received_before = receiver_.received_bytes();
    if (Status good = receiver_.on_chunk(chunk, bytes.size()); !good.ok()) {
      if (good.code() == Code::kAlreadyExists) return std::nullopt;
      return broken(good.error());
    }
    progress_at_ = BootClock::now();
    digests_.push_back(chunk.digest);
    FetchedBytes fetched;
    fetched.checkpoint = receiver_.checkpoint();
    fetched.blob_size_bytes = receiver_.size_bytes();
    fetched.offset_bytes = received_before;
    fetched.data = bytes.data();
    fetched.size_bytes = bytes.size();
    if (Status taken = sink_(fetched); !taken.ok()) {
      send(socket, wire::Cancel{receiver_.transfer_id()});
      return fatal(std::move(taken).error());
    }
    if (receiver_.received_all()) {
      if (blob_digest_of(digests_) == receiver_.blob_digest()) return Answer::kWhole;
      return fatal(
          make_error(Code::kCorrupt, to_string(receiver_.checkpoint()) + " does not match its digest"));
    }
    if (const auto credit = receiver_.on_taken(bytes.size())) send(socket, *credit);
    return std::nullopt;
  }

  Answer refused(const wire::TransferError& refusal) {
    answered_ = true;
    last_answer_ = refusal.context;
    switch (refusal.code) {
      case Code::kNotFound: failure_ = make_error(Code::kNotFound, refusal.context); return Answer::kNone;
      case Code::kCorrupt:
        // What has come is of a checkpoint that the store has lost; what is older is the newest now.
        if (receiver_.received_bytes() > 0) return fatal(make_error(Code::kCorrupt, refusal.context));
        return damaged(refusal.context);
      case Code::kInvalidArgument:
      case Code::kUnsupported:
      case Code::kPermission:
      case Code::kFenced: return fatal(make_error(refusal.code, refusal.context));
      default: return Answer::kUnavailable;  // Reconciling, too many transfers, its store is away: not yet.
    }
  }

  Answer damaged(const std::string& what) {
    last_answer_ = what;
    if (++corrupt_count_ >= kCorruptCountMax) return fatal(make_error(Code::kCorrupt, what));
    return Answer::kUnavailable;  // From another CMS, or a moment later, it may be whole.
  }

  // A CMS that breaks the protocol does so again; another one may be better.
  Answer broken(const Error& error) { return damaged(error.context); }

  Answer fatal(Error error) {
    failure_ = std::move(error);
    return Answer::kFatal;
  }

  Result<FetchedBlob> finish(std::size_t cms) const {
    FetchedBlob blob;
    blob.checkpoint = receiver_.checkpoint();
    blob.size_bytes = receiver_.size_bytes();
    blob.digest = receiver_.blob_digest();
    blob.cms_index = cms;
    return blob;
  }

  static void send(zmq::socket_t& socket, const wire::BulkBody& message) {
    const wire::Bytes bytes = wire::encode(message);
    // Full is impossible with this little; a lost connection shows as silence.
    (void)net::send(socket, bytes.data(), bytes.size(), false);
  }

  const std::vector<net::Endpoint>& cms_;
  const FetchRequest& request_;
  const FetchSink& sink_;
  zmq::context_t context_{1};
  broker::ChunkReceiver receiver_;
  std::vector<Digest> digests_{};
  Instant progress_at_{};
  Error failure_{};
  std::string last_answer_{};
  bool answered_ = false;
  int corrupt_count_ = 0;
};

}  // namespace

Result<FetchedBlob> fetch_checkpoint(const std::vector<net::Endpoint>& cms, const FetchRequest& request,
                                     const FetchSink& sink) {
  try {
    return Fetcher(cms, request, sink).run();
  } catch (const zmq::error_t& error) {
    return error_from_errno(error.num(), "cannot make the sockets of a fetch");
  }
}

}  // namespace cms::client
