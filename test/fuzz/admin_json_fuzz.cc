// The JSON of a cmsd as cms-admin prints it. The first byte chooses the question (its low bits) and
// colour (64) and two pages (128); the rest is the answer.
#include <algorithm>

#include "cms/admin/render.h"
#include "test/fuzz/fuzz.h"

namespace cms::fuzz {
namespace {

// Nothing of a cmsd steers the terminal: the colours and line ends are our own.
void expect_safe_to_print(const std::string& table) {
  std::string text;
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (table[i] == '\n') continue;
    if (table.compare(i, 4, "\033[0m") == 0) {
      i += 3;
    } else if (table.compare(i, 3, "\033[3") == 0 && i + 4 < table.size() && table[i + 4] == 'm') {
      i += 4;
    } else {
      text += table[i];
    }
  }
  CMS_FUZZ_HOLDS(is_printable(text), table);
}

}  // namespace

bool take(const std::uint8_t* data, std::size_t size_bytes) {
  if (size_bytes == 0) return false;
  const auto method = static_cast<wire::AdminMethod>(
      std::min(data[0] % 32, static_cast<int>(wire::AdminMethod::kEcuMaintenance)));
  const std::string json(reinterpret_cast<const char*>(data) + 1, size_bytes - 1);
  std::vector<std::string> pages{json};
  if (data[0] >= 128) pages.push_back(json);
  const auto table = admin::render(method, pages, admin::Style{false, (data[0] & 64) != 0});
  const auto printed = admin::render(method, pages, admin::Style{true, false});
  CMS_FUZZ_HOLDS(table.ok() == printed.ok(), "one style takes what the other refuses");
  if (!table.ok()) {
    expect_printable_error(table.error(), {Code::kProtocol}, 512);
    return false;
  }
  CMS_FUZZ_HOLDS(!table->empty() && table->back() == '\n', *table);
  if ((data[0] & 64) == 0) CMS_FUZZ_HOLDS(table->find('\033') == std::string::npos, *table);
  expect_safe_to_print(*table);
  // What is printed is the same JSON.
  const auto again = admin::render(method, {*printed}, admin::Style{true, false});
  CMS_FUZZ_HOLDS(again.ok() && *again == *printed, *printed);
  return true;
}

}  // namespace cms::fuzz
