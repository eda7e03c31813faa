// publish → STORED against other ways to make the same bytes durable at the other end of a loopback
// connection: one large blob at a time, many small ones, and the latency of one. The sides alternate
// within one run, on one file system; README.md says what each row means.
#include <sys/mman.h>
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "base/assert.h"
#include "test/bench/bench.h"
#include "test/bench/cms_sides.h"
#include "test/bench/sides.h"
#include "test/support/cmsd_process.h"

namespace cms::bench {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const std::string& what) {
  std::cerr << "store_bench: " << what << '\n';
  std::exit(1);
}

struct Measured {
  Samples seconds;
  double cmsd_cpu_seconds = 0;
  double client_cpu_seconds = 0;
};

// All sides in turn, `repeats` times; the first turn warms up and does not count.
std::vector<Measured> measure(const std::vector<std::unique_ptr<Side>>& sides, const Source& source,
                              std::size_t repeats, const std::string& directory, pid_t cmsd) {
  std::vector<Measured> measured(sides.size());
  for (std::size_t turn = 0; turn <= repeats; ++turn) {
    for (std::size_t i = 0; i < sides.size(); ++i) {
      settle(directory);
      const double cmsd_before = cpu_seconds_of(cmsd);
      const double self_before = cpu_seconds_of_self();
      const double seconds = sides[i]->store(source);
      if (turn > 0) {
        measured[i].seconds.add(seconds);
        measured[i].cmsd_cpu_seconds += cpu_seconds_of(cmsd) - cmsd_before;
        measured[i].client_cpu_seconds += cpu_seconds_of_self() - self_before;
      }
      sides[i]->clean_up();
    }
  }
  return measured;
}

// Memory that is also a file; random, mapped anew for each so that none inherits the other's pages.
class SourceFile {
 public:
  SourceFile(const std::string& path, std::uint64_t size_bytes) {
    data_ = ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CMS_ASSERT(data_ != MAP_FAILED);
    fill_random(data_, size_bytes, size_bytes);
    write_file(path, data_, size_bytes);
    source_ = Source{path, data_, size_bytes};
  }
  ~SourceFile() {
    free_memory();
    fs::remove(source_.path);
  }
  SourceFile(const SourceFile&) = delete;
  SourceFile& operator=(const SourceFile&) = delete;
  const Source& source() const { return source_; }
  void free_memory() {  // The file stays.
    if (data_ != nullptr) ::munmap(data_, source_.size_bytes);
    data_ = nullptr;
    source_.data = nullptr;
  }

 private:
  void* data_ = nullptr;
  Source source_;
};

// One row for each side, rates by `per_second` of a run of so many seconds.
void add_rows(Table& table, const std::string& what, const std::vector<std::unique_ptr<Side>>& sides,
              const std::vector<Measured>& measured, double amount) {
  const double ours = amount / measured[0].seconds.median();
  double best = 0;
  for (std::size_t i = 0; i < sides.size(); ++i) {
    if (sides[i]->counts()) best = std::max(best, amount / measured[i].seconds.median());
  }
  for (std::size_t i = 0; i < sides.size(); ++i) {
    const Samples& seconds = measured[i].seconds;
    const double median = amount / seconds.median();
    const bool is_cms = sides[i]->name().rfind("cms", 0) == 0;
    table.add(
        {what, sides[i]->name(), median, amount / seconds.max(), amount / seconds.min(), ours / median,
         is_cms && best > 0 ? Cell(median / best) : Cell("-"),
         is_cms ? Cell(measured[i].cmsd_cpu_seconds / static_cast<double>(seconds.count())) : Cell("-"),
         is_cms ? Cell(measured[i].client_cpu_seconds / static_cast<double>(seconds.count())) : Cell("-")});
  }
}

template <typename... MaybeSide>
std::vector<std::unique_ptr<Side>> sides_of(MaybeSide... sides) {
  std::vector<std::unique_ptr<Side>> result;
  (..., (sides != nullptr ? result.push_back(std::move(sides)) : void()));
  return result;
}

Table measure_sizes(const Options& options, std::size_t repeats, const test::TempDir& dir,
                    test::CmsdProcess& cmsd) {
  Table table(
      "publish → STORED, one at a time: MB/s; CPU seconds of one run",
      {"size", "side", "median", "min", "max", "cms / it", "it / best peer", "cmsd CPU", "client CPU"});
  const auto sides =
      sides_of(make_cms(cmsd.endpoint(), false), make_cms(cmsd.endpoint(), true), make_dd(dir.path()),
               make_rsync(dir.path()), make_nginx(dir.path()), make_naive_zmq(dir.path()));
  std::vector<std::uint64_t> sizes = {4 * kKiB, 64 * kKiB, kMiB, 16 * kMiB, 256 * kMiB, kGiB};
  if (options.tiny) sizes = {4 * kKiB, 2 * kMiB};
  for (const std::uint64_t size_bytes : sizes) {
    const SourceFile file(dir / "source", size_bytes);
    const auto measured = measure(sides, file.source(), repeats, dir.path(), cmsd.process().pid());
    add_rows(table, size_text(size_bytes), sides, measured, static_cast<double>(size_bytes) / 1e6);
  }
  return table;
}

Table measure_many(const Options& options, std::size_t repeats, const test::TempDir& dir,
                   test::CmsdProcess& cmsd) {
  Table table(
      "publish → STORED, many at once, each durable before its receipt: checkpoints/s; CPU seconds of one "
      "run",
      {"what", "side", "median", "min", "max", "cms / it", "it / best peer", "cmsd CPU", "client CPU"});
  const std::size_t count = options.tiny ? 30 : 1000;
  for (const std::uint64_t size_bytes : {4 * kKiB, 64 * kKiB}) {
    const std::string directory = dir / "many-" + std::to_string(size_bytes);
    fs::create_directory(directory);
    std::vector<char> bytes(count * size_bytes);
    fill_random(bytes.data(), bytes.size(), size_bytes);
    for (std::size_t i = 0; i < count; ++i) {
      write_file(directory + "/" + std::to_string(i), bytes.data() + i * size_bytes, size_bytes);
    }
    const auto sides = sides_of(make_cms_many(cmsd.endpoint(), count, size_bytes),
                                make_rsync_many(dir.path()), make_fsync_each(dir.path()));
    const auto measured = measure(sides, Source{directory, bytes.data(), bytes.size()}, repeats, dir.path(),
                                  cmsd.process().pid());
    add_rows(table, std::to_string(count) + " x " + size_text(size_bytes), sides, measured,
             static_cast<double>(count));
    fs::remove_all(dir / "rsync-many");
  }
  return table;
}

Table measure_latency(const Options& options, const test::TempDir& dir, test::CmsdProcess& cmsd) {
  Table table("Latency of one: milliseconds", {"what", "", "count", "p50", "p99", "max"});
  const SourceFile file(dir / "small", 4 * kKiB);
  const auto add = [&](const std::string& what, const std::string& detail, const Samples& ms) {
    table.add({what, detail, static_cast<double>(ms.count()), ms.median(), ms.percentile(99), ms.max()});
  };
  Samples fresh_ms;
  for (std::size_t i = 0; i < (options.tiny ? 3U : 31U); ++i) {
    settle(dir.path());
    const RunResult run =
        run_program({test::program_path("rtcr"), "publish", "--cms", cmsd.endpoint(), "--ecu-mac",
                     "02:00:00:00:02:01", "--program", "1", file.source().path});
    if (run.exit_code != 0) fail("rtcr publish ended with " + std::to_string(run.exit_code));
    fresh_ms.add(run.seconds * 1e3);
  }
  add("rtcr publish, 4 KiB", "a fresh process, from exec to exit", fresh_ms);
  Samples cms_ms;
  Samples file_ms;
  Client client({cmsd.endpoint(), "02:00:00:00:02:02"});
  const auto bare = make_fsync_each(dir / "steady");
  fs::create_directory(dir / "steady-source");
  write_file(dir / "steady-source/0", file.source().data, file.source().size_bytes);
  const Source one{dir / "steady-source", file.source().data, file.source().size_bytes};
  for (std::size_t i = 0; i < (options.tiny ? 5U : 500U); ++i) {
    const Stopwatch watch;
    client.wait_stored(client.publish(i % 8, file.source().data, file.source().size_bytes));
    cms_ms.add(watch.seconds() * 1e3);
    file_ms.add(bare->store(one) * 1e3);
  }
  add("publish → STORED, 4 KiB", "one after the other", cms_ms);
  add("write + fsync, 4 KiB", "the same, alternating; no network, no name synced", file_ms);
  return table;
}

// Of processes of their own, so that what the benchmark itself holds does not count.
Table measure_memory(const Options& options, const test::TempDir& dir, test::CmsdProcess& cmsd) {
  Table table("Peak resident memory, MiB", {"who", "doing what", "peak"});
  const std::uint64_t size_bytes = options.tiny ? 2 * kMiB : kGiB;
  SourceFile file(dir / "large", size_bytes);
  file.free_memory();
  const RunResult run =
      run_program({test::program_path("rtcr"), "publish", "--cms", cmsd.endpoint(), "--ecu-mac",
                   "02:00:00:00:02:03", "--program", "1", "--timeout", "120s", file.source().path},
                  Start::kFork);
  if (run.exit_code != 0) fail("rtcr publish ended with " + std::to_string(run.exit_code));
  table.add({"rtcr publish", "a file of " + size_text(size_bytes),
             static_cast<double>(run.peak_resident_bytes) / kMiB});
  table.add({"cmsd", "everything above (without file mappings)",
             static_cast<double>(cmsd.peak_memory_bytes()) / kMiB});
  return table;
}

int run(Options options, std::size_t repeats, const std::set<std::string>& only) {
  begin(options);
  if (!options.tiny) touch_and_free(6 * kGiB);
  const test::TempDir dir;
  test::CmsdProcess::Options cmsd_options;
  cmsd_options.arguments = {"--keep-latest", "100"};  // Removing does not run into somebody else's turn.
  test::CmsdProcess cmsd(dir, cmsd_options);
  if (!cmsd.process().running()) fail("cmsd did not start: " + cmsd.log());
  const auto wanted = [&](const char* part) { return only.empty() || only.count(part) != 0; };
  std::vector<Table> tables;
  if (wanted("sizes")) tables.push_back(measure_sizes(options, repeats, dir, cmsd));
  if (wanted("many")) tables.push_back(measure_many(options, repeats, dir, cmsd));
  if (wanted("latency")) tables.push_back(measure_latency(options, dir, cmsd));
  if (wanted("memory")) tables.push_back(measure_memory(options, dir, cmsd));
  finish(options, tables);
  return 0;
}

}  // namespace
}  // namespace cms::bench

int main(int argc, char** argv) {
  CLI::App app("publish -> STORED against other ways to make the same bytes durable");
  cms::bench::Options options;
  cms::bench::add_options(app, options);
  std::size_t repeats = 5;
  app.add_option("--repeats", repeats, "counted turns of each side")->check(CLI::Range(1, 1000));
  std::set<std::string> only;
  app.add_option("--only", only, "sizes, many, latency, memory; all when not given")
      ->delimiter(',')
      ->check(CLI::IsMember({"sizes", "many", "latency", "memory"}));
  std::string naive_sink;
  app.add_option("--naive-sink", naive_sink)->group("");  // Of the other process of one side.
  CLI11_PARSE(app, argc, argv);
  if (!naive_sink.empty()) return cms::bench::run_naive_sink(naive_sink, options.directory);
  return cms::bench::run(options, options.tiny ? 1 : repeats, only);
}
