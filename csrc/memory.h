// Aligned float storage.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace pixelfast {

constexpr int64_t kLineFloats = 16;  // floats in a cache line, and in the widest vector

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

struct FreeMemory {
    void operator()(void* p) const { std::free(p); }
};

template <class T>
using Storage = std::unique_ptr<T[], FreeMemory>;

// Uninitialised, on huge pages where the system grants them: weights are streamed, and page walks would show.
template <class T>
Storage<T> allocate(int64_t count) {
    constexpr int64_t kHugePage = int64_t{1} << 21;
    const int64_t wanted = count * static_cast<int64_t>(sizeof(T));
    const int64_t alignment = wanted >= kHugePage ? kHugePage : 64;
    const int64_t bytes = round_up(wanted > 0 ? wanted : 1, alignment);
    void* memory = std::aligned_alloc(static_cast<size_t>(alignment), static_cast<size_t>(bytes));
    if (memory == nullptr) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (alignment == kHugePage) madvise(memory, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#endif
    return Storage<T>(static_cast<T*>(memory));
}

}  // namespace pixelfast
