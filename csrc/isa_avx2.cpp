// Kernels for CPUs with AVX2 and FMA.
#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels.h"
#include "memory.h"
#include "scalar_math.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma")

#define PF_AVX2
#define PF_ISA_NAME "avx2"
#define PF_VECTOR_BYTES 32
#define PF_TILE_ROWS 6
#define PF_TILE_VECTORS 2
#define PF_TILES_OF(tile, rows) {&tile<rows, 1>, &tile<rows, 2>, nullptr}
#define PF_EACH_HEIGHT(tiles) tiles(1), tiles(2), tiles(3), tiles(4), tiles(5), tiles(6), {}, {}

namespace pixelfast::avx2 {
#include "isa_impl.h"
}  // namespace pixelfast::avx2

#pragma GCC pop_options

#endif
