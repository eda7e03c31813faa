// Publishes a state, hears its receipts, and gets the newest checkpoint back.
// usage: restore CMS   (for example restore tcp://127.0.0.1:7400)
#include <rtcr/rtcr.hpp>

#include <chrono>
#include <cstdio>
#include <string>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s CMS\n", argv[0]);
    return 2;
  }
  rtcr::Options options;
  options.cms = argv[1];
  options.ecu_mac = "02:00:00:00:00:01";
  options.on_receipt = [](const rtcr::Receipt& receipt) {  // On the client's thread.
    std::printf("%s %llu %s\n", rtcr_level_string(receipt.level),
                static_cast<unsigned long long>(receipt.seq), receipt.reason.c_str());
  };
  auto client = rtcr::Client::open(options);
  if (!client) {
    std::fprintf(stderr, "open: %s\n", client.error().detail.c_str());
    return 1;
  }

  const std::string state = "the state of another program";
  rtcr::Facts facts;
  facts.program_id = 8;
  facts.program_name = "example";
  const auto seq =
      client.value().publish(facts, state.data(), state.size(), [] { std::puts("state released"); });
  if (!seq) {
    std::fprintf(stderr, "publish: %s\n", seq.error().detail.c_str());
    return 1;
  }
  if (const auto stored = client.value().wait(seq.value(), RTCR_STORED, std::chrono::seconds(5)); !stored) {
    std::fprintf(stderr, "wait: %s\n", stored.error().detail.c_str());
    return 1;
  }

  std::string restored(state.size(), '\0');
  const auto fetched = client.value().fetch_newest(8, restored.data(), restored.size());
  if (!fetched) {
    std::fprintf(stderr, "fetch: %s\n", fetched.error().detail.c_str());
    return 1;
  }
  std::printf("restored: %s\n", restored.c_str());
  return restored == state ? 0 : 1;
}
