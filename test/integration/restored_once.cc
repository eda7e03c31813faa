#include "test/integration/restored_once.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include "base/crash_point.h"
#include "test/support/publisher.h"

namespace cms::test {
namespace {

std::vector<std::uint8_t> bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace

void expect_each_once(const std::string& lost, const std::vector<const EcuProcess*>& targets,
                      std::uint64_t count, std::size_t size_bytes) {
  std::map<ProgramId, int> copies;
  for (const EcuProcess* target : targets) {
    std::set<ProgramId> ids;
    for (const auto& [from, name] : target->restored()) {
      EXPECT_EQ(to_string(from.ecu_mac), lost);
      ++copies[from.program_id];
      ProgramId id = 0;
      ProgramKey ignored;
      ASSERT_TRUE(parse_restored_name(name, id, ignored));
      EXPECT_TRUE(ids.insert(id).second) << "two programs of " << target->ecu_mac() << " are called " << id;
      EXPECT_EQ(bytes_of(target->restore_dir() + "/" + name), blob_of(from.program_id, 1, size_bytes))
          << name;
    }
  }
  for (std::uint64_t id = 1; id <= count; ++id) EXPECT_EQ(copies[id], 1) << "program " << id;
  EXPECT_EQ(copies.size(), count);
}

std::vector<std::string> points_of_a_restore() {
  std::vector<std::string> points;
  for (const std::string& name : crash_point_names()) {
    if (name.rfind("restore.", 0) == 0) points.push_back(name);
  }
  return points;
}

std::string name_of_point(const testing::TestParamInfo<std::string>& point) {
  std::string name = point.param;
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

}  // namespace cms::test
