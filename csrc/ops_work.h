// Work of the operations for training: shared out over threads, in memory that threads keep.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "memory.h"
#include "parallel.h"

namespace pixelfast {

enum class Use { work, weights, sums };

// Memory for the calling thread, kept from call to call: fresh pages cost more than the work on small images.
template <Use use>
char* kept_memory(int64_t bytes) {
    constexpr int64_t kHugePage = int64_t{1} << 21;
    thread_local Storage<char> memory;
    thread_local int64_t size = 0;
    if (size < bytes) {
        memory.reset();
        size = 0;
        memory = allocate<char>(round_up(bytes, kHugePage));
        size = round_up(bytes, kHugePage);
    }
    return memory.get();
}

// One call of work(item) for each item, on several threads; each item's result is its own.
template <class Work>
void for_each(int64_t items, int64_t threads, const Work& work) {
    std::atomic<int64_t> next{0};
    const int wanted = static_cast<int>(std::max<int64_t>(1, std::min(items, threads)));
    parallel(wanted, [](int) {}, [&](int) {
        for (int64_t item = next++; item < items; item = next++) work(item);
    });
}

}  // namespace pixelfast
