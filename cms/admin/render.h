#pragma once
// Turns the JSON that a cmsd answers into what is printed: tables for people, or the same JSON, whole.
//
// Threads: pure functions. Errors: kProtocol, the text is not such an answer.
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "cms/admin/get.h"
#include "schemas/messages.h"

namespace cms::admin {

struct Style {
  bool json = false;
  bool colour = false;  // Of a terminal only.
};

// `pages`: the answers to one question, more than one when it went on. Ends with a line end.
Result<std::string> render(wire::AdminMethod method, const std::vector<std::string>& pages,
                           const Style& style);

// Something that a cmsd does for a while, as it tells it when asked.
struct TaskState {
  bool ended = false;
  std::string failure;     // Not empty: it ended, and not well.
  std::string progress;    // One line, without its end.
  std::string json;        // Of this task alone, for render().
  std::uint64_t done = 0;  // Of what was begun: programs that run elsewhere.
};
// `id`: of the scrub that was begun, by its answer.
Result<std::uint64_t> scrub_id(const std::string& json);
Result<TaskState> scrub_state(const std::string& json, std::uint64_t id);
Result<TaskState> index_state(const std::string& json);
Result<TaskState> loss_state(const std::string& json);   // Of an ECU whose programs are restored elsewhere.
Result<TaskState> moves_state(const std::string& json);  // Of a program that is moved, or all of an ECU.
Result<TaskState> maintenance_state(const std::string& json, bool wanted);

// Of the plan for an ECU's failure: why it would not go well; empty: all would go on elsewhere.
std::string plan_failure(const std::string& json);

// `passed_over`: newer checkpoints that turned out to be damaged.
std::string render_got(const Got& got, const std::string& path, double seconds,
                       const std::vector<std::string>& passed_over, const Style& style);

// Of a page of a retention: how far it has come.
struct JudgedPage {
  std::uint64_t judged = 0;
  std::uint64_t checkpoints = 0;  // In all.
};
JudgedPage judged_of(const std::string& page);

std::string human_size(std::uint64_t size_bytes);  // "17 B", "1.5 MiB"
std::string human_age(std::uint64_t seconds);      // "17s", "3m 5s", "2d 4h"

}  // namespace cms::admin
