// How a malformed program is refused: one exception, whose message says where.
#pragma once

#include <cstddef>
#include <cstdint>
#include <sstream>
#include <stdexcept>

namespace pixelfast {

// The message is put together only where it is needed: most conditions stand in loops over tables.
template <class... Parts>
void require(bool condition, const Parts&... parts) {
    if (condition) return;
    std::ostringstream message;
    message << "malformed program: ";
    (message << ... << parts);
    throw std::invalid_argument(message.str());
}

inline bool in_range(int64_t index, size_t size) { return index >= 0 && index < static_cast<int64_t>(size); }

}  // namespace pixelfast
