// The micro-kernel of contractions of codes. Included inside an instruction set's namespace, after vec.h.
//
// The sum of a term, a block of its own, is an integer below 2^31 and so the same in whatever order. Times its slot's
// scale it is added to a sum of floats, term after term, which at the end is multiplied by the column's scale.

#if defined(PF_DOT_OF_QUADS)

// Four channels side by side in each 32-bit lane.
struct Quads {
    U four;
};
PF_INLINE Quads quads(U four) { return {four}; }
PF_INLINE I add_products(I sum, const Quads& x, const Quads& w) {
    return (I)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x.four, (__m512i)w.four);
}
PF_INLINE Quads splat_codes(const Code* p) { return {splat(bits<uint32_t>(p))}; }
PF_INLINE Quads load_weights(const Code* p) { return {bits<U>(p)}; }

#else

// Channels 0 and 2, and channels 1 and 3, of the four in each 32-bit lane, as 16-bit numbers: sums of two products of
// 8-bit numbers do not fit 16 bits, which the instruction for them would saturate to.
struct Quads {
    S even, odd;
};
PF_INLINE I add_products(I sum, const Quads& x, const Quads& w) {
    return sum + dot_of_pairs(x.even, w.even) + dot_of_pairs(x.odd, w.odd);
}
PF_INLINE Quads splat_codes(const Code* p) {
    const U four = splat(bits<uint32_t>(p));
    return {(S)(four & 0x00FF00FFu), (S)((four >> 8) & 0x00FF00FFu)};
}
PF_INLINE Quads load_weights(const Code* p) {
    const S four = bits<S>(p);
    return {(S)((S)((U)four << 8) >> 8), four >> 8};
}

#endif

template <int rows, int vectors>
static void tile_of_codes(const Tile<Code>& tile) {
    constexpr int64_t step = kStep<Code>;
    constexpr int columns = vectors * kLanes;
    for (int64_t s = 0; s < tile.segment_count; ++s) {
        const Segment& segment = tile.segments[s];
        const Code* const* slots = tile.sources + segment.term * tile.source_stride;
        const Code* source[rows];
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) source[r] = slots[r] + segment.first;
        // Codes are larger by kZeroCode than what they stand for: the first step is what to start from instead of zero.
        const Code* weights = tile.panel + static_cast<int64_t>(segment.offset) * (columns * step);
        I sum[rows][vectors];
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r)
#pragma GCC unroll 3
            for (int v = 0; v < vectors; ++v) sum[r][v] = bits<I>(weights + v * (kLanes * step));
        for (int64_t k = 0; k < segment.count; k += step) {
            weights += columns * step;
            Quads w[vectors];
#pragma GCC unroll 3
            for (int v = 0; v < vectors; ++v) w[v] = load_weights(weights + v * (kLanes * step));
#pragma GCC unroll 8
            for (int r = 0; r < rows; ++r) {
                const Quads x = splat_codes(source[r] + k);
#pragma GCC unroll 3
                for (int v = 0; v < vectors; ++v) sum[r][v] = add_products(sum[r][v], x, w[v]);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) {
            float* destination = tile.destination + r * tile.destination_stride;
            const F scale = splat(bits<float>(slots[r]));
#pragma GCC unroll 3
            for (int v = 0; v < vectors; ++v) {
                const F before = s == 0 ? F{} : load(destination + v * kLanes);
                store(destination + v * kLanes, fma(scale, __builtin_convertvector(sum[r][v], F), before));
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
        float* destination = tile.destination + r * tile.destination_stride;
#pragma GCC unroll 3
        for (int v = 0; v < vectors; ++v) {
            const F total = tile.segment_count == 0 ? F{} : load(destination + v * kLanes);
            const F bias = load(tile.bias + v * kLanes);
            store(destination + v * kLanes, fma(total, load(tile.scales + v * kLanes), bias));
        }
    }
}
