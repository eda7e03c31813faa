// Gives a fuzz target the files of its corpus, once each, in builds without libFuzzer. What a file's
// name promises is checked: ok-… is taken, refused-… is refused; of others only the properties hold.
//
//   fuzz_NAME FILE|DIRECTORY...      exit 0: all held, and there was at least one file
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "test/fuzz/fuzz.h"

namespace {

std::vector<std::filesystem::path> files_of(int count, char** arguments) {
  std::vector<std::filesystem::path> files;
  for (int i = 1; i < count; ++i) {
    if (std::filesystem::is_directory(arguments[i])) {
      for (const auto& entry : std::filesystem::directory_iterator(arguments[i]))
        files.push_back(entry.path());
    } else {
      files.emplace_back(arguments[i]);
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

bool starts_with(const std::string& text, const std::string& start) { return text.rfind(start, 0) == 0; }

}  // namespace

int main(int argc, char** argv) {
  const auto files = files_of(argc, argv);
  if (files.empty()) {
    std::fprintf(stderr, "usage: %s FILE|DIRECTORY...   (there is no input: nothing was tested)\n", argv[0]);
    return 2;
  }
  int failed = 0;
  for (const auto& path : files) {
    std::ifstream file(path, std::ios::binary);
    // Exactly as long as the input, so that a sanitizer sees every read beyond its end.
    const std::vector<char> input{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (!file.is_open() || file.bad()) {
      std::fprintf(stderr, "%s: cannot be read\n", path.c_str());
      return 1;
    }
    std::fprintf(stderr, "%s\n", path.c_str());  // Before it is tried: it may be the last line.
    const bool taken = cms::fuzz::take(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
    const std::string name = path.filename();
    if (starts_with(name, taken ? "refused-" : "ok-")) {
      std::fprintf(stderr, "  was %s, against its name\n", taken ? "taken" : "refused");
      ++failed;
    }
  }
  std::fprintf(stderr, "%zu inputs, %d not as their names say\n", files.size(), failed);
  return failed == 0 ? 0 : 1;
}
