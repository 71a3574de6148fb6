// Kernels for CPUs with AVX-512 F, BW, DQ and VL.
#if defined(__x86_64__)

// GCC 12 warns of its own header's deliberately undefined vectors.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels.h"
#include "memory.h"
#include "scalar_math.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")

#define PF_AVX512
#define PF_ISA_NAME "avx512"
#define PF_VECTOR_BYTES 64
#define PF_TILE_ROWS 8
#define PF_TILE_VECTORS 3
#define PF_TILES_OF(tile, rows) {&tile<rows, 1>, &tile<rows, 2>, &tile<rows, 3>}
#define PF_EACH_HEIGHT(tiles) tiles(1), tiles(2), tiles(3), tiles(4), tiles(5), tiles(6), tiles(7), tiles(8)

namespace pixelfast::avx512 {
#include "isa_impl.h"
}  // namespace pixelfast::avx512

#pragma GCC pop_options

#endif
