#pragma once
// The command line of cms-admin. Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no cmsd
// reachable.
#include <cstdio>

#include "cms/admin/client.h"

namespace cms::admin {

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitUnreachable = 3;

// `out` gets what was asked for, `err` everything else. `get -o -` writes to descriptor 1.
int run(int argc, const char* const* argv, const Surroundings& surroundings, std::FILE* out, std::FILE* err);

}  // namespace cms::admin
