// Makes the files of the corpus that can be made: real messages, records and texts, and what is wrong
// with them in a simple way. What a fuzzer found is kept beside them by hand.
//
//   fuzz_corpus test/fuzz/corpus
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include <flatbuffers/flatbuffers.h>

#include "storage/blob_file.h"
#include "storage/claim_names.h"
#include "storage/claim_record_file.h"
#include "storage/rocksdb/row_codec.h"
#include "storage/store_format.h"
#include "test/fuzz/samples.h"

namespace cms::fuzz {
namespace {

std::filesystem::path corpus;

void put(const std::string& target, const std::string& name, const void* data, std::size_t size_bytes) {
  std::filesystem::create_directories(corpus / target);
  std::ofstream file(corpus / target / name, std::ios::binary);
  file.write(static_cast<const char*>(data), static_cast<std::streamsize>(size_bytes));
  if (!file.flush()) {
    std::fprintf(stderr, "%s/%s: cannot be written\n", target.c_str(), name.c_str());
    std::exit(1);
  }
}
void put(const std::string& target, const std::string& name, const wire::Bytes& bytes) {
  put(target, name, bytes.data(), bytes.size());
}
void put(const std::string& target, const std::string& name, const std::string& text) {
  put(target, name, text.data(), text.size());
}

// One file for each message, and the first one cut off and under the name of another channel.
template <typename Message>
void put_messages(const std::string& target, const std::vector<Message>& messages) {
  for (std::size_t i = 0; i < messages.size(); ++i) {
    put(target, "ok-message-" + std::to_string(i), wire::encode(messages[i]));
  }
  wire::Bytes frame = wire::encode(messages.front());
  frame[7] = 'X';  // The last letter of the file identifier.
  put(target, "refused-identifier", frame);
  frame = wire::encode(messages.front());
  frame.resize(frame.size() / 2);
  put(target, "refused-cut", frame);
}

// Bytes of a FlatBuffer, found by what encode() put there, replaced by what it never would.
wire::Bytes with(wire::Bytes frame, const std::string& from, const std::string& to) {
  std::string text(frame.begin(), frame.end());
  const std::size_t at = text.find(from);
  CMS_ASSERT(at != std::string::npos && from.size() == to.size());
  text.replace(at, from.size(), to);
  return wire::Bytes(text.begin(), text.end());
}

void put_wire() {
  put_messages("notify", wire::notify_messages());
  put("notify", "refused-control-character",
      with(wire::encode(wire::notify_messages().front()), "aarch64", "aarch\033["));
  put("notify", "refused-broken-utf-8",
      with(wire::encode(wire::notify_messages().front()), "linux", "lin\xc3x"));
  put_messages("control", wire::control_messages());
  put("control", "ok-list-page-empty", wire::encode(wire::ControlMessage{1, wire::ListPage{}}));
  put_messages("bulk", wire::bulk_messages());
  put_messages("admin", wire::admin_messages());
  put_messages("peer", wire::peer_messages());

  wire::Manifest empty = wire::full_manifest();
  empty.notification.size_bytes = 0;
  empty.chunk_digests = {digest_of("", 0)};
  empty.zero_chunks = {false};
  empty.blob_digest = blob_digest_of(empty.chunk_digests);
  put_messages("manifest", std::vector<wire::Manifest>{wire::full_manifest(), empty});
  wire::Manifest wrong = wire::full_manifest();
  wire::Bytes record = wire::encode(wrong);
  const std::string digest = "\x01\xff\xff\xff\xff\xff\xff\xff\xff";  // The end of the first chunk's digest.
  put("manifest", "refused-blob-digest", with(record, digest, "\x02" + digest.substr(1)));

  put_messages("member_record", wire::member_records());
  put_messages("claim_record", wire::claim_records());
  put_messages("ecu_record", wire::ecu_records());
  put("ecu_record", "refused-control-character",
      with(wire::encode(wire::ecu_records().front()), "cms-a", "cms\033a"));
  put("claim_record", "refused-control-character",
      with(wire::encode(wire::claim_records().front()), "cms-a", "cms\033a"));
}

// A file of the store with these chunks, each of them one repeated byte; 0: a zero chunk.
wire::Bytes blob_file(wire::Manifest manifest, storage::EntryKind kind, const std::string& chunks) {
  const std::uint64_t uid = sample_blob_name().uid;
  const auto header = storage::encode_header(
      storage::BlobHeader{kind, manifest.chunk_size_bytes, manifest.notification.size_bytes, uid});
  wire::Bytes file(header.begin(), header.end());
  manifest.chunk_digests.clear();
  manifest.zero_chunks.clear();
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    const wire::Bytes chunk(storage::chunk_length(manifest, i), static_cast<std::uint8_t>(chunks[i]));
    const bool zero = storage::is_all_zero(chunk.data(), chunk.size());
    manifest.chunk_digests.push_back(digest_of(chunk.data(), chunk.size()));
    manifest.zero_chunks.push_back(zero);
    if (!zero) file.insert(file.end(), chunk.begin(), chunk.end());
  }
  manifest.blob_digest = blob_digest_of(manifest.chunk_digests);
  const wire::Bytes footer = storage::encode_footer(manifest, file.size());
  file.insert(file.end(), footer.begin(), footer.end());
  return file;
}

void put_store() {
  // Only the last of six chunks is not zero: the file is small.
  const wire::Bytes sparse =
      blob_file(wire::full_manifest(), storage::EntryKind::kBlob, std::string(5, '\0') + "x");
  put("blob_file", "ok-sparse", sparse);
  wire::Manifest small = wire::full_manifest();
  small.notification.size_bytes = 100;
  put("blob_file", "ok-one-chunk", blob_file(small, storage::EntryKind::kBlob, "x"));
  wire::Manifest empty = wire::full_manifest();
  empty.notification.size_bytes = 0;
  put("blob_file", "ok-empty", blob_file(empty, storage::EntryKind::kBlob, "x"));
  storage::BlobName gone = sample_blob_name();
  gone.size_bytes = 0;
  put("blob_file", "ok-tombstone",
      blob_file(storage::make_marker_manifest(gone, "cms-a", 42), storage::EntryKind::kTombstone, "x"));
  wire::Bytes damaged = sparse;
  damaged[70] ^= 1;  // In the manifest.
  put("blob_file", "refused-damaged", damaged);
  put("blob_file", "refused-cut", wire::Bytes(sparse.begin(), sparse.end() - 1));
  put("blob_file", "refused-longer", [&] {
    wire::Bytes longer = sparse;
    longer.insert(longer.begin() + storage::kBlobHeaderBytes, 'x');
    return longer;
  }());

  const std::string name = to_file_name(sample_blob_name());
  put("file_name", "ok-blob", name);
  gone.kind = storage::EntryKind::kTombstone;
  put("file_name", "ok-tombstone", to_file_name(gone));
  put("file_name", "refused-upper-case", [&] {
    std::string upper = name;
    upper[upper.find('a')] = 'A';
    return upper;
  }());
  put("file_name", "refused-suffix", name + "x");

  const std::string format =
      storage::encode_format({storage::kLayoutVersion, "0123456789abcdef0123456789abcdef"});
  put("format", "ok-written", format);
  put("format", "ok-by-hand",
      std::string("\r\nfleet_id=\"0123456789ABCDEF0123456789abcdef\"\nother = 1\n"
                  "shard_count=4096\n\tlayout_version = 1"));
  put("format", "refused-twice", format + "shard_count = 4096\n");
  put("format", "ok-of-before", format.substr(0, format.find("member_self_ms")));
  put("format", "refused-other-timer", [&] {
    std::string other = format;
    return other.replace(other.find("ecu_dead_ms = 8000"), 18, "ecu_dead_ms = 8001");
  }());
  put("format", "refused-newer", "layout_version = 2\n" + format.substr(format.find("fleet_id")));
}

void put_claims() {
  const storage::LogId lineage = storage::log_of(sample_blob_name().lineage);
  const storage::LogId ecu = storage::log_of(sample_blob_name().checkpoint.program.ecu_mac);
  const std::string name = kClaimFileName;
  using Kind = storage::ClaimFileKind;
  const std::string record = storage::encode_claim_file(name, {Kind::kRecord, Id128{1, 2}, "GENESIS"});
  put("claim_file", "ok-record", record);
  put("claim_file", "ok-full-record",
      storage::encode_claim_file(name,
                                 {Kind::kRecord, Id128{3, 4}, std::string(storage::kRecordBytesMax, 'x')}));
  put("claim_file", "ok-member", storage::encode_claim_file(name, {Kind::kMember, {}, "alive"}));
  // What a longer one left behind it is nothing; two sectors, of which one is missing or of another write.
  put("claim_file", "ok-member-over-longer",
      storage::encode_claim_file(name, {Kind::kMember, {}, "alive"}) + std::string(1024, 'x'));
  const std::string member = storage::encode_claim_file(name, {Kind::kMember, {}, std::string(961, 'a')});
  put("claim_file", "ok-member-of-two-sectors", member);
  put("claim_file", "refused-member-of-one-of-two-sectors", member.substr(0, 1024));
  put("claim_file", "refused-torn-member",
      member.substr(0, 1024) +
          storage::encode_claim_file(name, {Kind::kMember, {}, std::string(962, 'b')}).substr(1024));
  put("claim_file", "refused-cut", record.substr(0, 100));
  put("claim_file", "refused-longer", record + "x");
  put("claim_file", "refused-empty", std::string());
  std::string altered = record;
  altered[100] = 'x';
  put("claim_file", "refused-altered", altered);
  put("claim_file", "refused-other-name",
      storage::encode_claim_file("other", {Kind::kRecord, Id128{1, 2}, "GENESIS"}));

  put("claim_name", "ok-lineage", storage::slot_file_name(lineage, 1));
  put("claim_name", "ok-ecu", storage::slot_file_name(ecu, 0xfedcba9876543210ULL));
  put("claim_name", "ok-member", storage::member_file_name("cms-1.a", 7));
  put("claim_name", "refused-slot-zero", storage::slot_file_name(lineage, 0));
  put("claim_name", "refused-upper-case", std::string("ecu-0200000000A7.0000000000000001.log"));
  put("claim_name", "refused-lock", std::string("cms-1.a.lock"));
  put("claim_name", "refused-self-test", storage::self_test_name("a", 1, "linked"));
}

void put_index() {
  storage::IndexRow row;
  row.name = sample_blob_name();
  row.stored_bytes = 4096;
  row.stored_at_us = 42;
  row.taken_at_us = 41;
  row.pause_us = 1234;
  row.program_name = "W\u00e4rmepumpe";
  row.blob_digest = Digest{10, 11};
  const storage::keys::RowKey key = storage::keys::row_key_of(row.name);
  const std::string key_text = storage::keys::checkpoint(key);
  flatbuffers::FlatBufferBuilder builder;
  const auto value = [&] {
    storage::encode_row(row, builder);
    return std::string(reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize());
  };
  put("index_row", "ok-full", key_text + value());
  put("index_row", "refused-cut", key_text + value().substr(0, 40));
  row.name.uid ^= 1;
  put("index_row", "refused-other-row", key_text + value());
  row = storage::IndexRow{};
  row.name = sample_blob_name();
  put("index_row", "ok-from-name", key_text + value());

  put("index_key", "ok-row", key_text);
  put("index_key", "ok-by-age", storage::keys::by_age(42, key));
  storage::keys::RowKey older = key;
  older.checkpoint.version.seq -= 1;
  put("index_key", "refused-two-rows", key_text.substr(1) + storage::keys::checkpoint(older).substr(1));
  put("index_key", "refused-all-ones", std::string(46, '\xff'));
}

void put_texts() {
  put("ids", "ok-id128", std::string("0123456789abcdef0123456789ABCDEF"));
  put("ids", "ok-ecu-mac", std::string("02:00:00:00:00:0a"));
  put("ids", "ok-number", std::string("18446744073709551615"));
  put("ids", "ok-key", std::string("02:00:00:00:00:01/7"));
  put("ids", "ok-key-with-version", std::string("02:00:00:00:00:01/7@65536.3"));
  put("ids", "refused-number-too-large", std::string("18446744073709551616"));
  put("ids", "refused-multicast", std::string("01:00:00:00:00:01/7"));
  put("ids", "refused-version-zero", std::string("02:00:00:00:00:01/7@0.3"));

  put("endpoint", "ok-ipv4", std::string("tcp://10.0.0.1:7400"));
  put("endpoint", "ok-ipv6", std::string("tcp://[fe80::1%eth0]:7400"));
  put("endpoint", "ok-list", std::string("tcp://a.example:7400,tcp://b.example:65529"));
  put("endpoint", "ok-port-range", std::string("7600-7999"));
  put("endpoint", "refused-twice", std::string("tcp://a:7400,tcp://a:7400"));
  put("endpoint", "refused-port", std::string("tcp://a:65530"));
  put("endpoint", "refused-bare-ipv6", std::string("tcp://::1:7400"));

  put("nfs_url", "ok-short", std::string("nfs://nas.example/cms"));
  put("nfs_url", "ok-full", std::string("nfs://10.0.0.1/vol/cms/?nfsport=12049&mountport=12050&uid=7&gid=8"));
  put("nfs_url", "ok-ipv6", std::string("nfs://[2001:db8::1]/cms?version=3"));
  put("nfs_url", "refused-version", std::string("nfs://nas/cms?version=4"));
  put("nfs_url", "refused-port-in-host", std::string("nfs://nas:2049/cms"));
  put("nfs_url", "refused-twice", std::string("nfs://nas/cms?uid=1&uid=1"));
  put("nfs_url", "refused-number-too-large", std::string("nfs://nas/cms?gid=2147483648"));
  put("nfs_url", "refused-no-bracket", std::string("nfs://[::1/cms"));

  put("config", "ok-empty", std::string("# nothing\n"));
  put("config", "ok-all", std::string(R"(name = "a"
store = "nfs://nas/cms?uid=7"
index = "/var/lib/cms/index"
port_base = 7400
bind = "127.0.0.1"
admin = "tcp://127.0.0.1:7404"
peer = ["tcp://10.0.0.1:7400", "tcp://[2001:db8::1]:7400"]
pull = "every"
pull_budget = "64MiB"
allow_advertise = ["ecu.example"]
log_level = "warning"
store_workers = 4
ecu_dead_ms = 9000
scrub_rate = 65536
)"));
  put("config", "ok-retention", std::string(R"([retention]
keep_latest = 5
keep_hourly = 24
max_bytes = "10GiB"
[retention.ecu."02:00:00:00:00:01"]
keep_daily = 7
max_age = "30d"
[retention.program."02:00:00:00:00:01/7"]
keep_latest = 100
)"));
  put("config", "refused-not-toml", std::string("name = \n"));
  put("config", "refused-unknown-key", std::string("stroe = \"file:///s\"\n"));
  put("config", "refused-type", std::string("port_base = \"7400\"\n"));
  put("config", "refused-port", std::string("port_base = 65530\n"));
  put("config", "refused-twice", std::string("keep_latest = 3\n[retention]\nkeep_latest = 4\n"));
  put("config", "refused-itself", std::string("peer = [\"tcp://127.0.0.1:7400\"]\n"));
  put("config", "refused-level", std::string("[retention.ecu.\"pump\"]\nkeep_latest = 3\n"));

  put("values", "ok-milliseconds", std::string("500ms"));
  put("values", "ok-hours", std::string("8760h"));
  put("values", "ok-bytes", std::string("4096"));
  put("values", "ok-gibibytes", std::string("1048576GiB"));
  put("values", "refused-a-year-and-an-hour", std::string("8761h"));
  put("values", "refused-zero", std::string("0KiB"));

  const std::string row = R"({"key":"02:00:00:00:00:01/7@65536.3","state":"current","size_bytes":327681,)"
                          R"("stored_bytes":4096,"age_s":75,"program_name":"pump","reason":null})";
  put("admin_json", "ok-status",
      std::string("\x40") +
          R"({"health":"degraded","problems":[{"severity":"warning","what":"store is full","since_s":60,)"
          R"("what_to_do":"free space"}],"name":"a","version":"0.1.0","pid":7,"port_base":7400,"uptime_s":90000,)"
          R"("store":{"url":"file:///s","state":"full","since_s":60,"free_bytes":0,"total_bytes":1073741824,)"
          R"("reconcile":{"running":true,"shards_done":1,"shards_total":4096},"claims_trusted":false,)"
          R"("self_test":[{"trait":"hard links","holds":false,"detail":"d"}]},"peers":[{"name":"b",)"
          R"("state":"live","address":"10.0.0.2","since_s":1,"queued":0,"events":1,"gaps":0}],)"
          R"("never_stored":{"count":1,"first":[{"key":"k","state":"failed","age_s":1,"reason":"r"}]}})");
  put("admin_json", "ok-ecus",
      std::string("\x01") +
          R"({"ecus":[{"ecu_mac":"02:00:00:00:00:01","live":true,"session_count":1,"checkpoints":3,)"
          R"("size_bytes":1,"newest_age_s":3600,"sessions":[{"heard_ago_ms":12,"address":"10.0.0.1",)"
          R"("software":"rtcr 0.1"}]}]})");
  put("admin_json", "ok-checkpoints", std::string("\x82") + R"({"checkpoints":[)" + row + "," + row + "]}");
  put("admin_json", "ok-show",
      std::string("\x03") +
          R"({"key":"k","stored_count":1,"withdrawn":{"incarnation":1,"seq":2,"age_s":3},)" +
          R"("checkpoint":{"key":"k","manifest":{"requirements":{"labels":["a"]},"real_time":{},"policies":{}}},)"
          R"("in_motion":[)" +
          row + R"(],"failures":[{"code":"no space"}],"sessions":[{"incarnation":1}]})");
  put("admin_json", "ok-explain",
      std::string("\x0d") +
          R"({"key":"k","checkpoint":"k@1.2","program_name":"pump","needs":{"arch":"","ram_bytes":4096,)"
          R"("cpu_permille":50,"labels":["a","b"]},"target":"02:00:00:00:00:02","verdicts":{"eligible":1,)"
          R"("ram":2},"targets":[{"ecu_mac":"02:00:00:00:00:02","eligible":true,"verdict":"eligible",)"
          R"("why":"","score":500,"cpu_free_permille":400,"ram_free_permille":600}]})");
  put("admin_json", "ok-retire", std::string("\x04") + R"({"key":"02:00:00:00:00:01/7"})");
  put("admin_json", "ok-escape-in-text", std::string("\x04") + R"({"key":"\u001b[2J\u009b2J\n"})");
  put("admin_json", "refused-not-json", std::string("\x00{", 2));
  put("admin_json", "refused-no-list", std::string("\x01") + R"({"ecus":{}})");
}

}  // namespace
}  // namespace cms::fuzz

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
    return 2;
  }
  cms::fuzz::corpus = argv[1];
  cms::fuzz::put_wire();
  cms::fuzz::put_store();
  cms::fuzz::put_claims();
  cms::fuzz::put_index();
  cms::fuzz::put_texts();
  return 0;
}
