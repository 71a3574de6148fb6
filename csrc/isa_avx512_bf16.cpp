// Kernels for CPUs with AVX-512 BF16: those of AVX-512, but for contractions of narrow numbers.
#if defined(__x86_64__)

// GCC 12 warns of its own header's deliberately undefined vectors.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <cstdint>

#include "kernels.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,prefer-vector-width=512")

#define PF_AVX512
#define PF_DOT_OF_PAIRS
#define PF_VECTOR_BYTES 64

namespace pixelfast::avx512 {
const KernelTable& table();
}

namespace pixelfast::avx512_bf16 {
#include "vec.h"
#include "contraction.h"

#define PF_TILES(rows) {&tile_of_pairs<rows, 1>, &tile_of_pairs<rows, 2>, &tile_of_pairs<rows, 3>}
static const TileFunction<Narrow> kTiles[kMaxTileRows][kMaxTileVectors] = {
    PF_TILES(1), PF_TILES(2), PF_TILES(3), PF_TILES(4), PF_TILES(5), PF_TILES(6), PF_TILES(7), PF_TILES(8)};

const KernelTable& table() {
    static const KernelTable result = [] {
        KernelTable changed = avx512::table();
        changed.name = "avx512_bf16";
        changed.narrow_speed = 2.0;
        for (int rows = 0; rows < kMaxTileRows; ++rows)
            for (int vectors = 0; vectors < kMaxTileVectors; ++vectors)
                changed.narrow_tiles[rows][vectors] = kTiles[rows][vectors];
        return changed;
    }();
    return result;
}
}  // namespace pixelfast::avx512_bf16

#pragma GCC pop_options

#endif
