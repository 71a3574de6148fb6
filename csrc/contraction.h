// The micro-kernel of contractions: a tile of `rows` rows by `vectors` vectors of columns.
//
// Each element goes through the same operations whatever the tile: blocks of channels are summed from zero, one fused
// multiply-add per channel; block sums are added in order; then the bias. So results depend neither on how rows are
// gathered into tiles nor on how columns are cut into panels.

template <int rows, int vectors>
static void contraction_tile(const Tile& tile) {
    constexpr int columns = vectors * kLanes;
    F sum[rows][vectors];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 3
        for (int v = 0; v < vectors; ++v) sum[r][v] = F{};

    bool first_block = true;
    for (int64_t s = 0; s < tile.segment_count; ++s) {
        const Segment& segment = tile.segments[s];
        const float* const* sources = tile.sources + segment.term * tile.source_stride;
        const float* source[rows];
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) source[r] = sources[r] + segment.first;
        const float* weights = tile.panel + static_cast<int64_t>(segment.offset) * columns;
        const int64_t count = segment.count;
        for (int64_t k = 0; k < count; ++k) {
            F w[vectors];
#pragma GCC unroll 3
            for (int v = 0; v < vectors; ++v) w[v] = load(weights + v * kLanes);
            weights += columns;
#pragma GCC unroll 8
            for (int r = 0; r < rows; ++r) {
                const F x = splat(source[r][k]);
#pragma GCC unroll 3
                for (int v = 0; v < vectors; ++v) sum[r][v] = fma(x, w[v], sum[r][v]);
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
