// How threads share a batch. Results do not depend on it.
#pragma once

#include <cstdint>

namespace pixelfast {

enum class Sharing {
    automatic,
    images,  // every thread samples images of its own
    tasks,   // all threads work on every task together
};

// Whether so much work is worth two meetings of the threads: multiply-adds of a contraction, or rows where there is none.
inline bool worth_sharing(double work, int64_t rows) {
    constexpr double kWork = 40000;
    constexpr int64_t kRows = 16;
    return work > 0 ? work >= kWork : rows >= kRows;
}

}  // namespace pixelfast
