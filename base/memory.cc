#include "base/memory.h"

#include <malloc.h>

namespace cms {

void keep_freed_memory() {
  // Chunks come and go on several threads: few arenas, or freed memory piles up in each.
  ::mallopt(M_ARENA_MAX, 2);
  ::mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024);
  ::mallopt(M_TRIM_THRESHOLD, 16 * 1024 * 1024);
}

}  // namespace cms
