// Where activations lie, and how they are written.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels.h"
#include "program.h"

namespace pixelfast {

// Where the slots of a buffer lie: in the arena of each image, or among the constants. A buffer is kept as floats, as
// narrow numbers or as codes, or as several of these, as its readers want it.
struct Slots {
    bool constant = false;
    int64_t offset = kNone;  // in floats; kNone: not kept as floats
    int64_t stride = 0;
    int64_t narrow_offset = kNone;  // in narrow numbers; kNone: not kept as these
    int64_t narrow_stride = 0;
    int64_t code_offset = kNone;  // in codes, of the scales; kNone: not kept as these
    int64_t code_stride = 0;
    int64_t slots = 0;
    int64_t channels = 0;
};

inline Narrow* narrow_memory(float* memory) { return reinterpret_cast<Narrow*>(memory); }
inline const Narrow* narrow_memory(const float* memory) { return reinterpret_cast<const Narrow*>(memory); }
inline Code* code_memory(float* memory) { return reinterpret_cast<Code*>(memory); }
inline const Code* code_memory(const float* memory) { return reinterpret_cast<const Code*>(memory); }

// The first `count` channels of a slot, in every form that is kept; all of its channels where that is codes. Up to a
// vector past the end of `source` is read.
inline void write_slot(const KernelTable& isa, const Slots& slots, int64_t slot, const float* source, int64_t count,
                       float* memory) {
    if (slots.offset != kNone)
        std::memmove(memory + slots.offset + slot * slots.stride, source, static_cast<size_t>(count) * sizeof(float));
    if (slots.narrow_offset != kNone)
        isa.narrow(source, count, narrow_memory(memory) + slots.narrow_offset + slot * slots.narrow_stride);
    if (slots.code_offset != kNone)
        isa.quantise(source, count, code_memory(memory) + slots.code_offset + slot * slots.code_stride);
}

}  // namespace pixelfast
