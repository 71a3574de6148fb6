// Floats to narrow numbers. Included inside an instruction set's namespace, after vec.h.

// Rounded to nearest, ties to even; NaN stays NaN.
PF_INLINE HalfN narrowed(F value) {
    const U pattern = (U)value;
    const U rounded = (pattern + 0x7FFFu + ((pattern >> 16) & 1u)) >> 16;
    return __builtin_convertvector(value != value ? splat(0x7FC0u) : rounded, HalfN);
}

static void narrow(const float* source, int64_t count, Narrow* destination) {
    for (int64_t i = 0; i < count; i += kLanes) {
        const HalfN value = narrowed(load(source + i));
        if (count - i >= kLanes) {
            __builtin_memcpy(destination + i, &value, sizeof(value));
        } else {
            __builtin_memcpy(destination + i, &value, static_cast<size_t>(count - i) * sizeof(Narrow));
        }
    }
}
