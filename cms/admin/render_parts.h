#pragma once
// What the answers of a cmsd are printed with: values that may be missing, and tables.
//
// Threads: pure functions.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "cms/admin/render.h"

namespace cms::admin {

using Json = nlohmann::ordered_json;

// ---- values. What is missing or null is "-"; text is printed without control characters.
std::string printable(std::string text);
std::string text_of(const Json& value);
const Json& field(const Json& object, const char* name);
std::string text_at(const Json& object, const char* name);
std::string size_at(const Json& object, const char* name);
std::string age_at(const Json& object, const char* name);
std::uint64_t number_at(const Json& object, const char* name);  // 0: it is none.

// Null when it is no JSON, or nested deeper than any answer, so that reading it cannot overrun the stack.
Json parse_shallow(const std::string& text);
Error no_answer();

std::string counts_text(const Json& counts);  // Of a scrub: what it read.

// ---- layout
class Table {
 public:
  // A column whose title begins with '>' is aligned to the right.
  explicit Table(std::vector<std::string> titles);
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  bool empty() const { return rows_.size() == 1; }
  std::string text() const;

 private:
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;
};

std::string line(const std::string& name, const std::string& value);
std::string coloured(const std::string& text, const std::string& word, const Style& style);

// ---- placement (render_placement.cc)
std::string explain_table(const Json& whole);
bool is_plan(const Json& whole);  // The other answer to explain: of all programs of an ECU.
std::string plan_table(const Json& whole);

// ---- restores (render_restores.cc)
std::string restores_table(const Json& whole);
std::string history_table(const Json& whole);

}  // namespace cms::admin
