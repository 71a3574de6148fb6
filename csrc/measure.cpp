#include "measure.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <vector>

#include "memory.h"

namespace pixelfast {

namespace {

constexpr int kPasses = 5;
constexpr double kSecondsOfPass = 0.02;

template <class Number>
TileTime time_tiles(const KernelTable& isa, TileFunction<Number> function, int rows, int vectors, int64_t channels,
                    int64_t bytes) {
    const int64_t columns = vectors * isa.lanes;
    const int64_t of_panel = round_up(channels, kStep<Number>) * columns;
    const int64_t panels = std::max<int64_t>(1, bytes / (of_panel * static_cast<int64_t>(sizeof(Number))));
    const Storage<Number> weights = allocate<Number>(panels * of_panel);
    std::fill_n(weights.get(), panels * of_panel, Number{});
    const std::vector<Number> source(static_cast<size_t>(channels), Number{});
    const std::vector<const Number*> sources(static_cast<size_t>(rows), source.data());
    const std::vector<float> bias(static_cast<size_t>(columns), 0.0f);
    const Storage<float> destination = allocate<float>(rows * columns);
    const Segment segment{0, 0, static_cast<int32_t>(channels), 1, 0};
    Tile<Number> tile{};
    tile.segments = &segment;
    tile.segment_count = 1;
    tile.sources = sources.data();
    tile.source_stride = rows;
    tile.bias = bias.data();
    tile.destination = destination.get();
    tile.destination_stride = columns;

    const auto pass = [&] {
        for (int64_t p = 0; p < panels; ++p) {
            tile.panel = weights.get() + p * of_panel;
            function(tile);
        }
    };
    const auto seconds_of = [&](int64_t times) {
        const auto start = std::chrono::steady_clock::now();
        for (int64_t i = 0; i < times; ++i) pass();
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() /
               static_cast<double>(times);
    };
    pass();
    const int64_t times = std::max<int64_t>(1, static_cast<int64_t>(kSecondsOfPass / std::max(seconds_of(1), 1e-9)));
    TileTime best{seconds_of(times), panels * channels * columns};
    for (int i = 1; i < kPasses; ++i) best.seconds = std::min(best.seconds, seconds_of(times));
    return best;
}

}  // namespace

TileTime time_tiles(const KernelTable& isa, Precision precision, int rows, int vectors, int64_t channels,
                    int64_t bytes) {
    if (rows < 1 || rows > isa.tile_rows || vectors < 1 || vectors > isa.tile_vectors || channels < 1 || bytes < 1)
        throw std::invalid_argument("there is no such tile");
    if (precision == Precision::int8) throw std::invalid_argument("tiles of codes are not measured alone");
    if (precision == Precision::bfloat16)
        return time_tiles(isa, isa.narrow_tiles[rows - 1][vectors - 1], rows, vectors, channels, bytes);
    return time_tiles(isa, isa.tiles[rows - 1][vectors - 1], rows, vectors, channels, bytes);
}

}  // namespace pixelfast
