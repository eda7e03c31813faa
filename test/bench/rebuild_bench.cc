// How fast cmsd makes a new index from the names of a store: on a directory, and the same one on a NAS, a Ganesha on
// loopback. Beside it the listing alone, which a rebuild cannot be faster than.
#include <array>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <thread>

#include <nlohmann/json.hpp>

#include "storage/blob_store.h"
#include "test/bench/bench.h"
#include "test/bench/nfs_store_side.h"
#include "test/support/cmsd_process.h"
#include "test/support/ganesha.h"
#include "test/support/temp_dir.h"

namespace cms::bench {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kListingThreads = 2;  // As cmsd has.

[[noreturn]] void fail(const std::string& what) {
  std::cerr << "rebuild_bench: " << what << '\n';
  std::exit(1);
}

std::unique_ptr<storage::BlobStore> open_store(const std::string& url) {
  auto made = storage::make_blob_store(storage::StoreOptions{url, "bench", 1});
  if (!made) fail(made.error().message());
  if (const Status opened = (*made)->open_store(); !opened.ok()) fail(opened.error().message());
  return std::move(*made);
}

// Two checkpoints of each program.
void fill(const std::string& url, std::uint64_t count) {
  const auto store = open_store(url);
  const std::array<char, 64> bytes{"state"};
  std::vector<storage::SmallBlob> blobs;
  for (std::uint64_t i = 0; i < count; ++i) {
    blobs.push_back(small_blob_of(i / 2, 1 + i % 2, bytes.data(), bytes.size()));
    if (blobs.size() < 1000 && i + 1 < count) continue;
    for (const Status& status : store->put_small(blobs)) {
      if (!status.ok()) fail(status.error().message());
    }
    blobs.clear();
  }
}

// Names in a second.
double list_all(const std::string& url, std::uint64_t count) {
  const auto store = open_store(url);
  std::atomic<std::uint32_t> next{0};
  std::atomic<std::uint64_t> seen{0};
  const Stopwatch watch;
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kListingThreads; ++i) {
    threads.emplace_back([&] {
      for (std::uint32_t shard = next++; shard < storage::kShardCount; shard = next++) {
        const Status listed = store->list(
            shard, [&](const storage::StoredEntry&) { ++seen; }, nullptr);
        if (!listed.ok()) fail(listed.error().message());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const double seconds = watch.seconds();
  if (seen != count) fail("the store lists " + std::to_string(seen) + " names");
  return static_cast<double>(count) / seconds;
}

// Rows in a second, as cmsd counts them: from the start of its first look until all is in the index.
double rebuild(const std::string& url, std::uint64_t count) {
  const test::TempDir dir;
  test::CmsdProcess::Options options;
  options.store_url = url;
  options.arguments = {"--keep-latest", "100"};
  test::CmsdProcess cmsd(dir, options);
  for (const Stopwatch watch; watch.seconds() < 300;) {
    // Each question costs cmsd a look at the whole index.
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
    const auto status = cmsd.admin({"status", "--output", "json"});
    const auto json = nlohmann::json::parse(status.output, nullptr, false);
    if (json.is_discarded() || !json.contains("index")) continue;
    const auto& index = json["index"];
    const std::string state = index["state"];
    if (state != "completing" && state != "ok") continue;
    if (index["rows_added"] != count) fail("the new index has " + index["rows_added"].dump() + " rows");
    return static_cast<double>(count) / index["duration_s"].get<double>();
  }
  fail("the index was not rebuilt within 300 s: " + cmsd.log());
}

Table measure(const std::string& directory, std::uint64_t count, std::size_t repeats) {
  test::Ganesha::Options server;
  server.export_path = directory;
  const auto ganesha = test::Ganesha::start(server);
  if (!ganesha.ok()) fail(ganesha.error().message());
  const std::string local = "file://" + directory;
  const std::string nas = (*ganesha)->url();
  fill(local, count);
  struct Way {
    std::string where;
    std::string what;
    std::string url;
    double (*run)(const std::string& url, std::uint64_t count);
    Samples rates{};
  };
  std::vector<Way> ways = {{"directory", "rebuild", local, &rebuild},
                           {"directory", "listing alone, 2 threads", local, &list_all},
                           {"NAS", "rebuild", nas, &rebuild},
                           {"NAS", "listing alone, 2 threads", nas, &list_all}};
  for (std::size_t turn = 0; turn <= repeats; ++turn) {  // The first warms up.
    for (Way& way : ways) {
      settle(directory);
      const double rate = way.run(way.url, count);
      if (turn > 0) way.rates.add(rate);
    }
  }
  Table table("A new index from " + std::to_string(count) + " names: names/s",
              {"store", "what", "median", "min", "max", "it / listing"});
  for (std::size_t i = 0; i < ways.size(); ++i) {
    const Samples& rates = ways[i].rates;
    table.add({ways[i].where, ways[i].what, rates.median(), rates.min(), rates.max(),
               rates.median() / ways[i / 2 * 2 + 1].rates.median()});
  }
  return table;
}

int run(Options options, std::size_t repeats, std::uint64_t count) {
  begin(options);
  const test::TempDir dir;
  finish(options, {measure(dir.path(), count, repeats)});
  return 0;
}

}  // namespace
}  // namespace cms::bench

int main(int argc, char** argv) {
  CLI::App app("How fast cmsd makes a new index from the names of a store");
  cms::bench::Options options;
  cms::bench::add_options(app, options);
  std::size_t repeats = 5;
  app.add_option("--repeats", repeats, "counted turns of each row")->check(CLI::Range(1, 1000));
  std::uint64_t count = 100000;
  app.add_option("--names", count, "checkpoints in the store")->check(CLI::Range(2, 10000000));
  CLI11_PARSE(app, argc, argv);
  return cms::bench::run(options, options.tiny ? 1 : repeats, options.tiny ? 200 : count);
}
