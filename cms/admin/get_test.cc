// cms-admin get: what it writes, and what it never does to a file.
#include "cms/admin/cli_fixture_test.h"

namespace cms::admin {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::uint32_t kChunkBytes = wire::kChunkSizeBytesMin;

std::string blob_bytes(std::size_t size_bytes) {
  std::string blob(size_bytes, '\0');
  for (std::size_t i = 0; i < size_bytes; ++i) blob[i] = static_cast<char>(i * 31 + i / 251);
  return blob;
}

// Serves one blob as a cmsd does; `spoil` may change each message before it is sent.
class BlobServer {
 public:
  using Spoil = std::function<void(wire::Chunk& chunk, Frame& data)>;
  explicit BlobServer(std::string blob, Spoil spoil = {}) : blob_(std::move(blob)), spoil_(std::move(spoil)) {
    for (std::size_t at = 0; at < blob_.size() || at == 0; at += kChunkBytes) {
      digests_.push_back(digest_of(blob_.data() + at, std::min<std::size_t>(kChunkBytes, blob_.size() - at)));
    }
  }
  std::vector<Message> operator()(const Frame& frame) {
    const auto body = wire::decode_bulk(frame.data(), frame.size());
    EXPECT_TRUE(body.ok());
    if (const auto* fetch = std::get_if<wire::Fetch>(&*body)) {
      fetch_ = *fetch;
      limit_bytes_ = fetch->limit_bytes;
    } else {
      limit_bytes_ = std::get<wire::Credit>(*body).limit_bytes;
    }
    std::vector<Message> messages;
    while (next_ < digests_.size()) {
      wire::Chunk chunk;
      chunk.transfer_id = fetch_.transfer_id;
      chunk.offset_bytes = next_ * kChunkBytes;
      chunk.size_bytes =
          static_cast<std::uint32_t>(std::min<std::size_t>(kChunkBytes, blob_.size() - chunk.offset_bytes));
      if (chunk.offset_bytes + chunk.size_bytes > limit_bytes_) break;
      chunk.digest = digests_[next_];
      chunk.version = fetch_.checkpoint.version.seq == 0 ? Version{65536, 9} : fetch_.checkpoint.version;
      chunk.blob_size_bytes = blob_.size();
      chunk.chunk_size_bytes = kChunkBytes;
      chunk.last = ++next_ == digests_.size();
      if (chunk.last) chunk.blob_digest = blob_digest_of(digests_);
      const auto* data = reinterpret_cast<const std::uint8_t*>(blob_.data()) + chunk.offset_bytes;
      Frame bytes(data, data + chunk.size_bytes);
      if (spoil_) spoil_(chunk, bytes);
      messages.push_back({wire::encode(wire::BulkBody{chunk}), std::move(bytes)});
    }
    return messages;
  }

 private:
  std::string blob_;
  Spoil spoil_;
  std::vector<Digest> digests_;
  wire::Fetch fetch_;
  std::uint64_t limit_bytes_ = 0;
  std::size_t next_ = 0;
};

TEST_F(CliTest, GetWritesTheBlobAndReplacesTheFile) {
  const std::string file = directory_ + "/f";
  for (const std::size_t size_bytes :
       {std::size_t{0}, std::size_t{1}, std::size_t{kChunkBytes}, std::size_t{20000001}}) {
    const std::string blob = blob_bytes(size_bytes);  // The last is more than two windows of credit.
    FakeCmsd cmsd(endpoint_, BlobServer(blob));
    EXPECT_EQ(run_at({"get", "02:00:00:00:00:01/7", "-o", file}), kExitDone) << err_;
    EXPECT_TRUE(content(file) == blob) << size_bytes;
    EXPECT_THAT(out_, AllOf(HasSubstr("02:00:00:00:00:01/7@65536.9"), HasSubstr(file)));
  }
}

TEST_F(CliTest, GetAsksForExactlyTheVersionNamed) {
  FakeCmsd cmsd(endpoint_, BlobServer("x"));
  EXPECT_EQ(run_at({"get", "02:00:00:00:00:01/7@1.2", "-o", directory_ + "/f", "--output", "json"}),
            kExitDone)
      << err_;
  EXPECT_THAT(out_, AllOf(HasSubstr("\"02:00:00:00:00:01/7@1.2\""), HasSubstr("\"size_bytes\": 1")));
}

TEST_F(CliTest, GetOfNothingStoredIsExitCode1) {
  FakeCmsd cmsd(endpoint_, [](const Frame& frame) {
    const auto body = wire::decode_bulk(frame.data(), frame.size());
    const auto& fetch = std::get<wire::Fetch>(*body);
    return std::vector<Message>{{wire::encode(
        wire::BulkBody{wire::TransferError{fetch.transfer_id, Code::kNotFound, "nothing is stored"}})}};
  });
  EXPECT_EQ(run_at({"get", "02:00:00:00:00:01/7", "-o", directory_ + "/f"}), kExitFailed);
  EXPECT_THAT(err_, HasSubstr("nothing is stored"));
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/f"));
}

TEST_F(CliTest, GetOfSpoiledBytesNeverTouchesTheFile) {
  const std::string file = directory_ + "/f";
  std::ofstream(file) << "what was there before";
  const std::vector<std::pair<const char*, BlobServer::Spoil>> spoils = {
      {"a bit of a middle chunk",
       [](wire::Chunk& chunk, Frame& data) {
         if (chunk.offset_bytes == kChunkBytes) data[5] ^= 1;
       }},
      {"a bit of the last chunk",
       [](wire::Chunk& chunk, Frame& data) {
         if (chunk.last) data[0] ^= 0x80;
       }},
      {"a chunk and its digest, alike",
       [](wire::Chunk& chunk, Frame& data) {
         if (chunk.offset_bytes == 0) {
           data[0] ^= 1;
           chunk.digest = digest_of(data.data(), data.size());
         }
       }},
      {"the digest of the blob",
       [](wire::Chunk& chunk, Frame&) {
         if (chunk.last) chunk.blob_digest.low ^= 1;
       }},
      {"a short frame",
       [](wire::Chunk& chunk, Frame& data) {
         if (chunk.last) data.pop_back();
       }},
      {"another version half way",
       [](wire::Chunk& chunk, Frame&) {
         if (chunk.last) ++chunk.version.seq;
       }},
      {"a chunk left out",
       [](wire::Chunk& chunk, Frame&) {
         if (chunk.offset_bytes == kChunkBytes) chunk.offset_bytes *= 2;
       }},
  };
  const auto before = files();
  for (const auto& [what, spoil] : spoils) {
    {
      FakeCmsd cmsd(endpoint_, BlobServer(blob_bytes(4 * kChunkBytes + 3), spoil));
      EXPECT_EQ(run_at({"get", "02:00:00:00:00:01/7", "-o", file, "--timeout", "1m"}), kExitFailed) << what;
    }
    EXPECT_EQ(content(file), "what was there before") << what;
    for (const std::string& name : files()) EXPECT_THAT(name, Not(HasSubstr(".cms-admin."))) << what;
  }
}

TEST_F(CliTest, GetThatBreaksOffLeavesTheFileAndIsExitCode3) {
  const std::string file = directory_ + "/f";
  std::ofstream(file) << "before";
  BlobServer server(blob_bytes(4 * kChunkBytes));
  FakeCmsd cmsd(endpoint_, [&](const Frame& frame) {
    auto messages = server(frame);
    if (messages.size() > 2) messages.resize(2);
    return messages;
  });
  EXPECT_EQ(run_at({"get", "02:00:00:00:00:01/7", "-o", file, "--timeout", "50ms"}), kExitUnreachable);
  EXPECT_EQ(content(file), "before");
}

TEST_F(CliTest, GetRefusesWhatIsNoFile) {
  FakeCmsd cmsd(endpoint_, BlobServer("x"));
  EXPECT_EQ(run_at({"get", "02:00:00:00:00:01/7", "-o", "/dev/null"}), kExitFailed);
  EXPECT_THAT(err_, HasSubstr("/dev/null"));
  EXPECT_EQ(run_at({"get", "02:00:00:00:00:01/7", "-o", directory_}), kExitFailed);
  EXPECT_EQ(run_at({"get", "02:00:00:00:00:01/7", "-o", directory_ + "/none/f"}), kExitFailed);
  EXPECT_THAT(err_, HasSubstr(directory_ + "/none"));
}

}  // namespace
}  // namespace cms::admin
