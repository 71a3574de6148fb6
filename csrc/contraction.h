// The micro-kernel of contractions: a tile of `rows` rows by `vectors` vectors of columns.
//
// Each element goes through the same operations whatever the tile: blocks of channels are summed from zero, one step of
// channels after the other; block sums are added in order; then the bias. So results depend neither on how rows are
// gathered into tiles nor on how columns are cut into panels.

// Floats: one fused multiply-add per channel.
struct Floats {
    using Number = float;
    using Weights = F;
    PF_INLINE Weights load_weights(const Number* p) { return load(p); }
    PF_INLINE Weights splat_step(const Number* p) { return splat(*p); }
    PF_INLINE Weights splat_first(const Number* p) { return splat(*p); }
    PF_INLINE F add_product(F sum, Weights x, Weights w) { return fma(x, w, sum); }
};

// Narrow numbers: two channels side by side in each 32-bit lane, the even one in the lower half. Products of narrow
// numbers are exact in float; where the CPU has an instruction for the two of a lane, it says how their sum is rounded.
struct Pairs {
    using Number = Narrow;
    using Weights = U;
    PF_INLINE Weights load_weights(const Number* p) { return bits<U>(p); }
    PF_INLINE Weights splat_step(const Number* p) { return splat(bits<uint32_t>(p)); }
    PF_INLINE Weights splat_first(const Number* p) { return splat(uint32_t{bits<Narrow>(p)}); }
    PF_INLINE F add_product(F sum, Weights x, Weights w) {
#if defined(PF_DOT_OF_PAIRS)
        return (F)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)w);
#else
        sum = fma((F)(x << 16), (F)(w << 16), sum);
        return fma((F)(x & 0xFFFF0000u), (F)(w & 0xFFFF0000u), sum);
#endif
    }
};

template <class Kind, int rows, int vectors>
PF_INLINE void contraction_tile(const Tile<typename Kind::Number>& tile) {
    using Number = typename Kind::Number;
    using Weights = typename Kind::Weights;
    constexpr int64_t step = kStep<Number>;
    constexpr int columns = vectors * kLanes;
    F sum[rows][vectors];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 3
        for (int v = 0; v < vectors; ++v) sum[r][v] = F{};

    bool first_block = true;
    for (int64_t s = 0; s < tile.segment_count; ++s) {
        const Segment& segment = tile.segments[s];
        const Number* const* sources = tile.sources + segment.term * tile.source_stride;
        const Number* source[rows];
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) source[r] = sources[r] + segment.first;
        const Number* weights = tile.panel + static_cast<int64_t>(segment.offset) * (columns * step);
        const int64_t count = segment.count;
        const int64_t whole = count - count % step;
        for (int64_t k = 0; k < whole; k += step) {
            Weights w[vectors];
#pragma GCC unroll 3
            for (int v = 0; v < vectors; ++v) w[v] = Kind::load_weights(weights + v * (kLanes * step));
            weights += columns * step;
#pragma GCC unroll 8
            for (int r = 0; r < rows; ++r) {
                const Weights x = Kind::splat_step(source[r] + k);
#pragma GCC unroll 3
                for (int v = 0; v < vectors; ++v) sum[r][v] = Kind::add_product(sum[r][v], x, w[v]);
            }
        }
        // The last channel of an odd number has no partner.
        if (whole < count) {
#pragma GCC unroll 8
            for (int r = 0; r < rows; ++r) {
                const Weights x = Kind::splat_first(source[r] + whole);
#pragma GCC unroll 3
                for (int v = 0; v < vectors; ++v)
                    sum[r][v] =
                        Kind::add_product(sum[r][v], x, Kind::load_weights(weights + v * (kLanes * step)));
            }
        }
        if (!segment.last) continue;
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) {
            float* destination = tile.destination + r * tile.destination_stride;
#pragma GCC unroll 3
            for (int v = 0; v < vectors; ++v) {
                F total = sum[r][v];
                if (!first_block) total = load(destination + v * kLanes) + total;
                store(destination + v * kLanes, total);
                sum[r][v] = F{};
            }
        }
        first_block = false;
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
        float* destination = tile.destination + r * tile.destination_stride;
#pragma GCC unroll 3
        for (int v = 0; v < vectors; ++v) {
            const F total = first_block ? F{} : load(destination + v * kLanes);
            store(destination + v * kLanes, total + load(tile.bias + v * kLanes));
        }
    }
}

template <int rows, int vectors>
static void tile_of_floats(const Tile<float>& tile) {
    contraction_tile<Floats, rows, vectors>(tile);
}

template <int rows, int vectors>
static void tile_of_pairs(const Tile<Narrow>& tile) {
    contraction_tile<Pairs, rows, vectors>(tile);
}
