// What NFS costs: our store on a NAS beside libnfs's raw calls in a pipeline, which it cannot be faster
// than, to a Ganesha on loopback; and the same bytes made durable in the same file system without it.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>

#include "base/memory.h"
#include "storage/blob_store.h"
#include "test/bench/bench.h"
#include "test/bench/nfs_store_side.h"
#include "test/bench/raw_nfs.h"
#include "test/bench/sides.h"
#include "test/support/ganesha.h"
#include "test/support/temp_dir.h"

namespace cms::bench {
namespace {

namespace fs = std::filesystem;

using Sides = std::vector<std::unique_ptr<Side>>;

[[noreturn]] void fail(const std::string& what) {
  std::cerr << "nfs_bench: " << what << '\n';
  std::exit(1);
}

// All sides in turn, `repeats` times; the first turn warms up and does not count.
void add_rows(Table& table, const std::string& what, const Sides& sides, const Source& source, double amount,
              std::size_t repeats, const std::string& directory) {
  std::vector<Samples> seconds(sides.size());
  for (std::size_t turn = 0; turn <= repeats; ++turn) {
    for (std::size_t i = 0; i < sides.size(); ++i) {
      settle(directory);
      const double taken = sides[i]->store(source);
      if (turn > 0) seconds[i].add(taken);
      sides[i]->clean_up();
    }
  }
  for (std::size_t i = 0; i < sides.size(); ++i) {
    table.add({what, sides[i]->name(), amount / seconds[i].median(), amount / seconds[i].max(),
               amount / seconds[i].min(), seconds[0].median() / seconds[i].median()});
  }
}

// A number counts only for bytes that have arrived: once more, and compared.
void check_file(const std::string& path, const char* data, std::uint64_t size_bytes) {
  std::vector<char> back(size_bytes + 1);
  std::ifstream file(path, std::ios::binary);
  file.read(back.data(), static_cast<std::streamsize>(back.size()));
  if (static_cast<std::uint64_t>(file.gcount()) != size_bytes ||
      std::memcmp(back.data(), data, size_bytes) != 0)
    fail(path + " holds other bytes than were written");
}

// Reading back is a side as well: the file is there, and in the page cache of the server's host.
class RawRead : public Side {
 public:
  RawRead(RawNfs& nfs, std::size_t in_flight) : nfs_(nfs), in_flight_(in_flight) {}
  std::string name() const override { return "raw NFS, 1 MiB x " + std::to_string(in_flight_); }
  double store(const Source& source) override {
    back_.resize(source.size_bytes);
    const Stopwatch watch;
    nfs_.read(fs::path(source.path).filename(), back_.data(), back_.size(), in_flight_);
    const double seconds = watch.seconds();
    if (std::memcmp(back_.data(), source.data, back_.size()) != 0) fail("NFS gave back other bytes");
    return seconds;
  }
  void clean_up() override {}

 private:
  RawNfs& nfs_;
  std::size_t in_flight_;
  std::vector<char> back_;
};

class LocalRead : public Side {
 public:
  std::string name() const override { return "read (local)"; }
  double store(const Source& source) override {
    back_.resize(source.size_bytes);
    const Stopwatch watch;
    std::ifstream file(source.path, std::ios::binary);
    file.rdbuf()->pubsetbuf(nullptr, 0);
    if (!file.read(back_.data(), static_cast<std::streamsize>(back_.size()))) fail("read " + source.path);
    return watch.seconds();
  }
  void clean_up() override {}

 private:
  std::vector<char> back_;
};

template <typename... OneSide>
Sides sides_of(OneSide... side) {
  Sides sides;
  (sides.push_back(std::move(side)), ...);
  return sides;
}

// What was asked for; all when nothing was.
class Only {
 public:
  explicit Only(std::set<std::string> names) : names_(std::move(names)) {}
  bool has(const std::string& name) const { return names_.empty() || names_.count(name) != 0; }

 private:
  const std::set<std::string> names_;
};

struct Bench {
  const Options& options;
  const std::size_t repeats;
  const std::string directory;  // What is exported.
  RawNfs& nfs;
  storage::BlobStore& store;
};

void measure_sizes(const Bench& bench, const Only& only, Table& writes, Table& reads) {
  const std::string& directory = bench.directory;
  RawNfs& nfs = bench.nfs;
  std::vector<std::uint64_t> sizes = {64 * kKiB, kMiB, 16 * kMiB, 256 * kMiB, kGiB};
  if (bench.options.tiny) sizes = {64 * kKiB, 17 * kMiB};
  for (const std::uint64_t size_bytes : sizes) {
    const std::string what = size_bytes >= 16 * kMiB ? "large" : "one";
    if (!only.has("write-" + what) && !only.has("read-" + what)) continue;
    std::vector<char> bytes(size_bytes);
    fill_random(bytes.data(), size_bytes, size_bytes);
    const Source source{directory + "/source", bytes.data(), size_bytes};
    write_file(source.path, source.data, size_bytes);
    const double megabytes = static_cast<double>(size_bytes) / 1e6;
    if (only.has("write-" + what)) {
      add_rows(writes, size_text(size_bytes),
               sides_of(make_raw_nfs(nfs, 8), make_raw_nfs(nfs, 1), make_store_write(bench.store),
                        make_dd(directory)),
               source, megabytes, bench.repeats, directory);
    }
    if (only.has("read-" + what)) {
      add_rows(reads, size_text(size_bytes),
               sides_of(std::make_unique<RawRead>(nfs, 8), std::make_unique<RawRead>(nfs, 1),
                        make_store_read(bench.store), std::make_unique<LocalRead>()),
               source, megabytes, bench.repeats, directory);
    }
    fs::remove(source.path);
    nfs.write("check", bytes.data(), size_bytes);
    check_file(directory + "/check", bytes.data(), size_bytes);
    nfs.remove("check");
  }
}

// Bytes of so many files of one size, also as files of a directory.
class ManyFiles {
 public:
  ManyFiles(const std::string& directory, std::size_t count, std::uint64_t size_bytes)
      : bytes_(count * size_bytes), files_(directory + "/many-" + std::to_string(size_bytes)) {
    fill_random(bytes_.data(), bytes_.size(), size_bytes);
    fs::create_directory(files_);
    for (std::size_t i = 0; i < count; ++i) {
      write_file(files_ + "/" + std::to_string(i), bytes_.data() + i * size_bytes, size_bytes);
    }
  }
  ~ManyFiles() { fs::remove_all(files_); }
  ManyFiles(const ManyFiles&) = delete;
  ManyFiles& operator=(const ManyFiles&) = delete;
  Source source() const { return Source{files_, bytes_.data(), bytes_.size()}; }

 private:
  std::vector<char> bytes_;
  const std::string files_;
};

Table measure_small(const Bench& bench) {
  Table table("Many small files, each durable with its name: files/s",
              {"what", "side", "median", "min", "max", "it / x 16"});
  const std::string& directory = bench.directory;
  RawNfs& nfs = bench.nfs;
  const std::size_t count = bench.options.tiny ? 30 : 1000;
  for (const std::uint64_t size_bytes : {4 * kKiB, 64 * kKiB}) {
    {
      const ManyFiles files(directory, count, size_bytes);
      add_rows(table, std::to_string(count) + " x " + size_text(size_bytes),
               sides_of(make_raw_nfs_many(nfs, count, 16), make_raw_nfs_many(nfs, count, 1),
                        make_raw_nfs_many(nfs, count, 64), make_store_many(bench.store, count, 64),
                        make_store_many(bench.store, count, 1000), make_fsync_each(directory)),
               files.source(), static_cast<double>(count), bench.repeats, directory);
    }
    std::vector<char> bytes(count * size_bytes);
    fill_random(bytes.data(), bytes.size(), size_bytes);
    nfs.write_many("check-", bytes.data(), count, size_bytes, 16, RawNfs::Naming::kRename);
    for (std::size_t i = 0; i < count; ++i) {
      const std::string name = "check-" + std::to_string(i);
      check_file(directory + "/" + name, bytes.data() + i * size_bytes, size_bytes);
      nfs.remove(name);
    }
  }
  return table;
}

// What is gained by so many at a time: ours in groups of that many, the raw calls with as many under way.
std::vector<Table> measure_in_flight(const Bench& bench) {
  std::vector<Table> tables;
  const std::size_t count = bench.options.tiny ? 30 : 1000;
  const ManyFiles files(bench.directory, count, 4 * kKiB);
  for (const std::size_t in_flight : {1, 8, 32, 128}) {
    Table table("4 KiB, " + std::to_string(in_flight) + " at a time, each durable with its name: files/s",
                {"what", "side", "median", "min", "max", "it / raw"});
    add_rows(table, std::to_string(count) + " x 4 KiB",
             sides_of(make_raw_nfs_many(bench.nfs, count, in_flight, RawNfs::Naming::kLink),
                      make_raw_nfs_many(bench.nfs, count, in_flight),
                      make_store_many(bench.store, count, in_flight)),
             files.source(), static_cast<double>(count), bench.repeats, bench.directory);
    tables.push_back(table);
  }
  return tables;
}

int run(Options options, std::size_t repeats, const Only& only) {
  begin(options);
  const test::TempDir dir;
  test::Ganesha::Options server;
  server.export_path = dir.path();
  const auto ganesha = test::Ganesha::start(server);
  if (!ganesha.ok()) fail(ganesha.error().message());
  RawNfs nfs((*ganesha)->nfs_port(), (*ganesha)->mount_port());
  const std::string store_name = "store";
  fs::create_directory(dir.path() + "/" + store_name);
  std::string url = (*ganesha)->url();
  url.insert(url.find('?'), "/" + store_name);
  auto made = storage::make_blob_store(storage::StoreOptions{url, "bench", 1});
  if (!made.ok()) fail(made.error().message());
  storage::BlobStore& store = **made;
  if (const Status opened = store.open_store(); !opened.ok()) fail(opened.error().message());
  std::vector<Table> tables;
  const Bench bench{options, repeats, dir.path(), nfs, store};
  Table writes("Write of one file until it is durable: MB/s",
               {"size", "side", "median", "min", "max", "it / x 8"});
  Table reads("Read of one file: MB/s", {"size", "side", "median", "min", "max", "it / x 8"});
  measure_sizes(bench, only, writes, reads);
  if (!writes.rows().empty()) tables.push_back(writes);
  if (!reads.rows().empty()) tables.push_back(reads);
  if (only.has("small")) tables.push_back(measure_small(bench));
  if (only.has("in-flight")) {
    for (Table& table : measure_in_flight(bench)) tables.push_back(std::move(table));
  }
  finish(options, tables);
  return 0;
}

}  // namespace
}  // namespace cms::bench

int main(int argc, char** argv) {
  CLI::App app("What NFS costs: our store beside libnfs's raw calls, to a Ganesha on loopback");
  cms::keep_freed_memory();  // As cmsd does.
  cms::bench::Options options;
  cms::bench::add_options(app, options);
  std::size_t repeats = 5;
  app.add_option("--repeats", repeats, "counted turns of each side")->check(CLI::Range(1, 1000));
  std::set<std::string> only;
  const std::vector<std::string> names = {"write-one",  "read-one", "write-large",
                                          "read-large", "small",    "in-flight"};
  app.add_option("--only", only,
                 "write-one, read-one (up to 1 MiB), write-large, read-large (from 16 MiB), small, "
                 "in-flight; all when not given")
      ->delimiter(',')
      ->check(CLI::IsMember(names));
  CLI11_PARSE(app, argc, argv);
  return cms::bench::run(options, options.tiny ? 1 : repeats, cms::bench::Only(only));
}
