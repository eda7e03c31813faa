#pragma once
// How malloc deals with memory in a process through which blobs pass.

namespace cms {

// Once, at the start of main. Buffers of up to 4 MiB, as those of chunks, of messages and of libnfs's replies, are
// kept for the next instead of being given back to the kernel with each free, and 16 MiB of them for good: a page
// that is new to the process costs more than copying into it (the first chunk of a 16 MiB file from a NAS takes
// 20 to 28 ms then: docs/performance.md). Two arenas, so at most twice as much. glibc: mallopt(3).
void keep_freed_memory();

}  // namespace cms
