// What giving slots of claim logs away costs, and reading heads: one by one, and many at once; on a directory and
// on a NAS, a Ganesha on loopback.
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>

#include "base/prng.h"
#include "storage/blob_store.h"
#include "storage/claim_store.h"
#include "test/bench/bench.h"
#include "test/support/ganesha.h"
#include "test/support/temp_dir.h"

namespace cms::bench {
namespace {

using storage::Append;
using storage::Appended;
using storage::ClaimStore;
using storage::LogSlot;

[[noreturn]] void fail(const std::string& what) {
  std::cerr << "claims_bench: " << what << '\n';
  std::exit(1);
}

// A store of its own, and its claims.
struct Stores {
  explicit Stores(const std::string& url) {
    auto made = storage::make_blob_store({url, "bench", 1});
    if (!made) fail(made.error().message());
    blobs = std::move(*made);
    if (const Status opened = blobs->open_store(); !opened.ok()) fail(opened.error().message());
    auto claims_made = storage::make_claim_store({url, "bench", 1});
    if (!claims_made) fail(claims_made.error().message());
    claims = std::move(*claims_made);
    if (const Status opened = claims->open_store(); !opened.ok()) fail(opened.error().message());
  }
  std::unique_ptr<storage::BlobStore> blobs;
  std::unique_ptr<ClaimStore> claims;
};

// Of logs that nobody has used.
std::vector<Append> fresh_appends(std::size_t count) {
  std::vector<Append> appends;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t high = random_u64();
    appends.push_back({storage::log_of(Lineage{high, random_u64()}), 1, std::string(200, 'g')});
  }
  return appends;
}

void expect_won(const Result<Appended>& end) {
  if (!end) fail(end.error().message());
  if (end->end != Appended::End::kWon) fail("an append was not won");
}

struct Way {
  std::string what;
  std::string side;
  std::function<double()> run;  // Of how many it was is done in a second.
};

template <typename Work>
double rate_of(std::size_t count, const Work& work) {
  const Stopwatch watch;
  work();
  return static_cast<double>(count) / watch.seconds();
}

// Ways of one store; in pairs, one by one before many at once.
std::vector<Way> ways_of(ClaimStore& claims, bool tiny) {
  const std::size_t few = tiny ? 4 : 200;
  const std::size_t many = tiny ? 40 : 1000;
  const auto appends = [&claims](std::size_t count) {
    const auto fresh = fresh_appends(count);
    return rate_of(count, [&] {
      for (const Append& one : fresh) expect_won(claims.append(one.log, one.slot, one.record));
    });
  };
  const auto appends_many = [&claims](std::size_t count) {
    const auto fresh = fresh_appends(count);
    return rate_of(count, [&] {
      for (const auto& end : claims.append_many(fresh)) expect_won(end);
    });
  };
  auto hints = std::make_shared<std::vector<LogSlot>>();
  const auto there = fresh_appends(many);
  for (const auto& end : claims.append_many(there)) expect_won(end);
  for (const Append& one : there) hints->push_back({one.log, 1});
  const auto heads = [&claims, hints](std::size_t count) {
    return rate_of(count, [&] {
      for (std::size_t i = 0; i < count; ++i) {
        const auto& [log, slot] = (*hints)[i];
        if (!claims.head(log, slot, ClaimStore::Read::kDurable)) fail("no head");
      }
    });
  };
  const auto heads_many = [&claims, hints] {
    return rate_of(hints->size(), [&] {
      for (const auto& head : claims.heads(*hints, ClaimStore::Read::kDurable)) {
        if (!head) fail(head.error().message());
      }
    });
  };
  const auto slots = [&claims, hints](std::size_t count) {
    return rate_of(count, [&] {
      for (std::size_t i = 0; i < count; ++i) {
        if (*claims.has_slot((*hints)[i].log, 2)) fail("a slot is taken");
      }
    });
  };
  const auto slots_many = [&claims, hints] {
    std::vector<LogSlot> next = *hints;
    for (LogSlot& one : next) one.slot = 2;
    return rate_of(next.size(), [&] {
      for (const auto& taken : claims.has_slots(next)) {
        if (*taken) fail("a slot is taken");
      }
    });
  };
  const std::string together = ", " + std::to_string(many) + " at once";
  return {{"append", "one by one", [=] { return appends(few); }},
          {"append", "append_many" + together, [=] { return appends_many(many); }},
          {"durable head, known hint", "one by one", [=] { return heads(few); }},
          {"durable head, known hint", "heads" + together, heads_many},
          {"is the next slot taken", "one by one", [=] { return slots(few); }},
          {"is the next slot taken", "has_slots" + together, slots_many}};
}

Table measure(const std::string& name, const std::string& url, bool tiny, std::size_t repeats) {
  const Stores stores(url);
  const std::vector<Way> ways = ways_of(*stores.claims, tiny);
  std::vector<Samples> rates(ways.size());
  for (std::size_t turn = 0; turn <= repeats; ++turn) {  // The first warms up.
    for (std::size_t i = 0; i < ways.size(); ++i) {
      const double rate = ways[i].run();
      if (turn > 0) rates[i].add(rate);
    }
  }
  Table table("Claims on " + name + ": per second",
              {"what", "how", "median", "min", "max", "it / one by one"});
  for (std::size_t i = 0; i < ways.size(); ++i) {
    table.add({ways[i].what, ways[i].side, rates[i].median(), rates[i].min(), rates[i].max(),
               rates[i].median() / rates[i / 2 * 2].median()});
  }
  return table;
}

int run(Options options, std::size_t repeats) {
  begin(options);
  const test::TempDir dir;
  std::vector<Table> tables;
  const std::string directory = dir.path() + "/directory";
  std::filesystem::create_directory(directory);
  tables.push_back(measure("a directory", "file://" + directory, options.tiny, repeats));
  test::Ganesha::Options server;
  server.export_path = dir.path() + "/export";
  std::filesystem::create_directory(server.export_path);
  const auto ganesha = test::Ganesha::start(server);
  if (!ganesha.ok()) fail(ganesha.error().message());
  tables.push_back(measure("a NAS", (*ganesha)->url(), options.tiny, repeats));
  finish(options, tables);
  return 0;
}

}  // namespace
}  // namespace cms::bench

int main(int argc, char** argv) {
  CLI::App app("What claims cost on the store: one by one, and many at once");
  cms::bench::Options options;
  cms::bench::add_options(app, options);
  std::size_t repeats = 5;
  app.add_option("--repeats", repeats, "counted turns of each row")->check(CLI::Range(1, 1000));
  CLI11_PARSE(app, argc, argv);
  return cms::bench::run(options, options.tiny ? 1 : repeats);
}
