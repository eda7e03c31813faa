// What a second cmsd on the same store costs a publisher: latency, throughput, and bytes on the network of a checkpoint,
// with one cmsd and with two that know each other, in turn.
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "net/endpoint.h"
#include "test/bench/bench.h"
#include "test/bench/cms_sides.h"
#include "test/integration/counting_proxy.h"
#include "test/support/cmsd_process.h"
#include "test/support/temp_dir.h"

namespace cms::bench {
namespace {

[[noreturn]] void fail(const std::string& what) {
  std::cerr << "two_cms_bench: " << what << '\n';
  std::exit(1);
}

// One cmsd, or two on one directory.
class Cmsds {
 public:
  // `peer_host`: where each is reached by the other.
  Cmsds(const test::TempDir& dir, std::size_t count, std::vector<std::uint16_t> bases = {},
        const std::string& peer_host = "127.0.0.1", const std::vector<std::string>& arguments = {}) {
    if (bases.empty()) bases = test::free_port_bases(count);
    for (std::size_t i = 0; i < count; ++i) {
      test::CmsdProcess::Options options;
      options.name = i == 0 ? "a" : "b";
      options.files = options.name + std::to_string(count);
      options.store = "store-of-" + std::to_string(count);
      options.port_base = bases[i];
      options.arguments = arguments;
      options.arguments.insert(options.arguments.end(), {"--keep-latest", "100"});
      if (count > 1) {
        options.arguments.insert(options.arguments.end(),
                                 {"--peer", "tcp://" + peer_host + ":" + std::to_string(bases[1 - i])});
      }
      cmsds_.push_back(std::make_unique<test::CmsdProcess>(dir, options));
    }
    for (std::size_t i = 0; i < count; ++i) {
      const auto& cmsd = cmsds_[i];
      if (!cmsd->process().running()) fail("cmsd did not start: " + cmsd->log());
      if (!cmsd->wait_for_log("the store is ready")) fail("no store: " + cmsd->log());
      if (count > 1 && !cmsd->wait_for_log(i == 0 ? "peer b at " : "peer a at "))
        fail("no peer: " + cmsd->log());
    }
  }
  std::string endpoints() const {
    std::string endpoints;
    for (const auto& cmsd : cmsds_) endpoints += (endpoints.empty() ? "" : ",") + cmsd->endpoint();
    return endpoints;
  }
  std::size_t count() const { return cmsds_.size(); }
  double cpu_seconds() const {
    double seconds = 0;
    for (const auto& cmsd : cmsds_) seconds += cpu_seconds_of(cmsd->process().pid());
    return seconds;
  }

 private:
  std::vector<std::unique_ptr<test::CmsdProcess>> cmsds_;
};

std::string name_of(std::size_t count) { return count == 1 ? "one cmsd" : "two cmsd"; }

Table measure_latency(const Options& options, const std::vector<std::unique_ptr<Cmsds>>& fleets) {
  Table table("Latency of a checkpoint of 4 KiB, one after the other: milliseconds",
              {"until", "with", "count", "p50", "p99", "max", "p50 / one's"});
  std::vector<char> bytes(4 * kKiB);
  fill_random(bytes.data(), bytes.size(), 1);
  struct Row {
    std::string until;
    std::size_t cmsds;
    std::unique_ptr<Client> client;
    std::int32_t state;
    Samples ms{};
  };
  std::vector<Row> rows;
  for (const auto& fleet : fleets) {
    Client::Options client{fleet->endpoints(), "02:00:00:00:02:02"};
    rows.push_back({"STORED", fleet->count(), std::make_unique<Client>(client), RTCR_STORED});
    if (fleet->count() < 2) continue;
    client.ecu_mac = "02:00:00:00:02:03";
    client.release_policy = RTCR_RELEASE_REPLICATED;
    rows.push_back({"REPLICATED", fleet->count(), std::make_unique<Client>(client), RTCR_REPLICATED});
  }
  const std::size_t count = options.tiny ? 5 : 500;
  const std::size_t warm = options.tiny ? 1 : 20;
  for (std::size_t i = 0; i < warm + count; ++i) {
    for (Row& row : rows) {
      const Stopwatch watch;
      row.client->wait(row.client->publish(i % 8, bytes.data(), bytes.size()), row.state);
      if (i >= warm) row.ms.add(watch.seconds() * 1e3);
    }
  }
  for (const Row& row : rows) {
    table.add({row.until, name_of(row.cmsds), static_cast<double>(row.ms.count()), row.ms.median(),
               row.ms.percentile(99), row.ms.max(), row.ms.median() / rows[0].ms.median()});
  }
  return table;
}

Table measure_rates(const Options& options, const std::vector<std::unique_ptr<Cmsds>>& fleets,
                    const test::TempDir& dir, std::size_t repeats) {
  Table table("publish → STORED: checkpoints/s; CPU seconds of all cmsd for one run",
              {"what", "with", "median", "min", "max", "it / one's", "cmsd CPU"});
  struct What {
    std::size_t count;
    std::uint64_t size_bytes;
  };
  std::vector<What> all = {{1000, 4 * kKiB}, {1000, 64 * kKiB}, {16, 16 * kMiB}};
  if (options.tiny) all = {{30, 4 * kKiB}};
  for (const What& what : all) {
    std::vector<char> bytes(what.count * what.size_bytes);
    fill_random(bytes.data(), bytes.size(), what.size_bytes);
    const Source source{"", bytes.data(), bytes.size()};
    std::vector<std::unique_ptr<Side>> sides;
    for (const auto& fleet : fleets) {
      sides.push_back(
          make_cms_many(fleet->endpoints(), what.count, what.size_bytes, name_of(fleet->count())));
    }
    std::vector<Samples> rates(sides.size());
    std::vector<Samples> cpu(sides.size());
    for (std::size_t turn = 0; turn <= repeats; ++turn) {  // The first warms up.
      for (std::size_t i = 0; i < sides.size(); ++i) {
        settle(dir.path());
        const double before = fleets[i]->cpu_seconds();
        const double seconds = sides[i]->store(source);
        if (turn == 0) continue;
        rates[i].add(static_cast<double>(what.count) / seconds);
        cpu[i].add(fleets[i]->cpu_seconds() - before);
      }
    }
    for (std::size_t i = 0; i < sides.size(); ++i) {
      table.add({std::to_string(what.count) + " x " + size_text(what.size_bytes), sides[i]->name(),
                 rates[i].median(), rates[i].min(), rates[i].max(), rates[i].median() / rates[0].median(),
                 cpu[i].median()});
    }
  }
  return table;
}

// Everything between a publisher and the cmsds, and between these, goes through proxies that count.
void add_bytes(Table& table, std::size_t cmsd_count, std::size_t count, std::uint64_t size_bytes) {
  const test::TempDir dir;
  std::atomic<std::uint64_t> bytes{0};
  const std::vector<std::uint16_t> bases = test::free_port_bases(3);
  const std::string host = test::CountingProxy::kHost;
  std::vector<std::unique_ptr<test::CountingProxy>> proxies;
  proxies.push_back(std::make_unique<test::CountingProxy>(bases[2], bytes));
  Client::Options options;
  for (std::size_t i = 0; i < cmsd_count; ++i) {
    for (const std::uint16_t channel : {net::kNotifyPort, net::kControlPort, net::kPeerPort}) {
      proxies.push_back(
          std::make_unique<test::CountingProxy>(static_cast<std::uint16_t>(bases[i] + channel), bytes));
    }
    options.cms += (i == 0 ? "tcp://" : ",tcp://") + host + ":" + std::to_string(bases[i]);
  }
  const Cmsds cmsds(dir, cmsd_count, {bases[0], bases[1]}, host, {"--allow-advertise", host});
  options.ecu_mac = "02:00:00:00:00:01";
  if (cmsd_count > 1) options.release_policy = RTCR_RELEASE_REPLICATED;
  options.advertise_host = host;
  options.bulk_ports = std::to_string(bases[2]);
  Client client(options);
  std::vector<char> data(size_bytes);
  fill_random(data.data(), size_bytes, 1);
  const std::int32_t until = cmsd_count > 1 ? RTCR_REPLICATED : RTCR_STORED;
  client.wait(client.publish(1000, data.data(), size_bytes), until);
  const std::uint64_t before = bytes;
  std::vector<std::uint64_t> seqs;
  for (std::size_t i = 0; i < count; ++i) seqs.push_back(client.publish(i, data.data(), size_bytes));
  for (const std::uint64_t seq : seqs) client.wait(seq, until);
  const double each = static_cast<double>(bytes - before) / static_cast<double>(count);
  table.add({size_text(size_bytes), name_of(cmsd_count), each, each - static_cast<double>(size_bytes),
             each / static_cast<double>(size_bytes)});
}

int run(Options options, std::size_t repeats) {
  begin(options);
  std::vector<Table> tables;
  {
    const test::TempDir dir;
    std::vector<std::unique_ptr<Cmsds>> fleets;
    for (const std::size_t count : {1, 2}) fleets.push_back(std::make_unique<Cmsds>(dir, count));
    tables.push_back(measure_latency(options, fleets));
    tables.push_back(measure_rates(options, fleets, dir, repeats));
  }
  Table bytes("Bytes on the network of a checkpoint, all channels, until STORED by one or REPLICATED by two",
              {"size", "with", "bytes", "beside its own", "it / its own"});
  for (const std::uint64_t size_bytes : {4 * kKiB, kMiB}) {
    for (const std::size_t count : {1, 2}) add_bytes(bytes, count, options.tiny ? 5 : 200, size_bytes);
  }
  tables.push_back(bytes);
  finish(options, tables);
  return 0;
}

}  // namespace
}  // namespace cms::bench

int main(int argc, char** argv) {
  CLI::App app("What a second cmsd on the same store costs a publisher");
  cms::bench::Options options;
  cms::bench::add_options(app, options);
  std::size_t repeats = 5;
  app.add_option("--repeats", repeats, "counted turns of each side")->check(CLI::Range(1, 1000));
  CLI11_PARSE(app, argc, argv);
  return cms::bench::run(options, options.tiny ? 1 : repeats);
}
