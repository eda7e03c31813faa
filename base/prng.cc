#include "base/prng.h"

#include <sys/random.h>

namespace cms {

std::uint64_t random_u64() {
  std::uint64_t value = 0;
  const ssize_t got = ::getrandom(&value, sizeof(value), 0);
  CMS_ASSERT(got == ssize_t{sizeof(value)});  // cannot fail for 8 bytes
  return value;
}

}  // namespace cms
