#include "cms/admin/render_parts.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <iterator>
#include <utility>

namespace cms::admin {

// ---- values. What is missing or null is "-"; text is printed without control characters.

std::string printable(std::string text) {
  // U+0080 to U+009F, in UTF-8 c2 80 to c2 9f, are control characters too.
  for (std::size_t i = 0; i + 1 < text.size(); ++i) {
    const auto next = static_cast<unsigned char>(text[i + 1]);
    if (static_cast<unsigned char>(text[i]) == 0xc2 && next >= 0x80 && next <= 0x9f) text.replace(i, 2, "??");
  }
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return text;
}

std::string text_of(const Json& value) {
  if (value.is_null()) return "-";
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  const std::string text = value.is_string() ? value.get<std::string>()
                                             : value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.empty() ? "-" : printable(text);
}

const Json& field(const Json& object, const char* name) {
  static const Json kNull;
  const auto found = object.find(name);
  return found == object.end() ? kNull : *found;
}

std::string text_at(const Json& object, const char* name) { return text_of(field(object, name)); }

std::string size_at(const Json& object, const char* name) {
  const Json& value = field(object, name);
  return value.is_number_unsigned() ? human_size(value.get<std::uint64_t>()) : "-";
}

std::string age_at(const Json& object, const char* name) {
  const Json& value = field(object, name);
  return value.is_number_unsigned() ? human_age(value.get<std::uint64_t>()) : "-";
}

std::string counts_text(const Json& counts) {
  return text_at(counts, "checkpoints") + " checkpoints, " + size_at(counts, "bytes") + ", " +
         text_at(counts, "corrupt") + " corrupt, " + text_at(counts, "unreadable") + " unreadable";
}

// ---- layout

namespace {

std::size_t width_of(const std::string& text) {  // Characters, not bytes.
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](unsigned char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

Table::Table(std::vector<std::string> titles) : right_(titles.size()) {
  for (std::size_t i = 0; i < titles.size(); ++i) {
    right_[i] = titles[i].front() == '>';
    if (right_[i]) titles[i].erase(0, 1);
  }
  rows_.push_back(std::move(titles));
}

std::string Table::text() const {
  std::vector<std::size_t> widths(right_.size());
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  std::string out;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - width_of(row[i]), ' ');
      line += (i > 0 ? "  " : "") + (right_[i] ? padding + row[i] : row[i] + padding);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  }
  return out;
}

std::string line(const std::string& name, const std::string& value) {
  std::string left = name;
  left.resize(std::max<std::size_t>(name.size() + 1, 22), ' ');
  return left + value + '\n';
}

std::string coloured(const std::string& text, const std::string& word, const Style& style) {
  if (!style.colour) return text;
  const char* code = word == "ok" || word == "notice"          ? "\033[32m"
                     : word == "degraded" || word == "warning" ? "\033[33m"
                                                               : "\033[31m";
  return code + text + "\033[0m";
}

// What is nested deeper than any answer is left out, so that reading it cannot overrun the stack.
Json parse_shallow(const std::string& text) {
  const auto shallow = [](int depth, Json::parse_event_t, const Json&) { return depth <= 16; };
  return Json::parse(text, shallow, false);
}

Error no_answer() {
  return make_error(Code::kProtocol, "the answer of cmsd cannot be read; is it of another version?");
}

std::uint64_t number_at(const Json& object, const char* name) {
  const Json& value = field(object, name);
  return value.is_number_unsigned() ? value.get<std::uint64_t>() : 0;
}

std::string human_size(std::uint64_t size_bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::size_t unit = 0;
  double value = static_cast<double>(size_bytes);
  // 1023.95 KiB would be printed as 1024.0 KiB.
  while (value >= (unit == 0 ? 1024 : 1023.95) && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text.data();
}

std::string human_age(std::uint64_t seconds) {
  const auto two = [](std::uint64_t large, const char* large_unit, std::uint64_t small,
                      const char* small_unit) {
    return std::to_string(large) + large_unit + (small == 0 ? "" : " " + std::to_string(small) + small_unit);
  };
  if (seconds < 60) return std::to_string(seconds) + "s";
  if (seconds < 3600) return two(seconds / 60, "m", seconds % 60, "s");
  if (seconds < 86400) return two(seconds / 3600, "h", seconds % 3600 / 60, "m");
  return two(seconds / 86400, "d", seconds % 86400 / 3600, "h");
}

}  // namespace cms::admin
