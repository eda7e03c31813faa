#pragma once
// A small seeded generator (SplitMix64, Steele et al. 2014): equal seeds give equal sequences on
// every compiler. For jitter, nonces mixed with real entropy, and the simulator; never for keys.
// Draw once per statement: the order of evaluation of arguments is not defined.
#include <cstdint>

#include "base/assert.h"

namespace cms {

class Prng {
 public:
  explicit Prng(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    state_ += 0x9e3779b97f4a7c15ULL;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  // A value in [0, bound); `bound` > 0. (The bias of at most bound / 2^64 does not matter here.)
  std::uint64_t below(std::uint64_t bound) {
    CMS_ASSERT(bound > 0);
    return next() % bound;
  }
  bool chance(std::uint64_t numerator, std::uint64_t denominator) { return below(denominator) < numerator; }

 private:
  std::uint64_t state_;
};

// 64 bits from the kernel's random source (getrandom): node uids and nonces.
std::uint64_t random_u64();

}  // namespace cms
