#pragma once
#include <cstddef>

namespace cms::broker {

using CmsIndex = std::size_t;  // Position in --cms.

inline constexpr std::size_t kCmsCountMax = 16;

}  // namespace cms::broker
