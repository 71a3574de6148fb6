// Kernels for CPUs with AVX2 and FMA.
#if defined(__x86_64__)

#include <immintrin.h>

#include <cstdint>

#include "kernels.h"
#include "scalar_math.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma")

#define PF_AVX2
#define PF_ISA_NAME "avx2"
#define PF_VECTOR_BYTES 32
#define PF_TILE_ROWS 6
#define PF_TILE_VECTORS 2
#define PF_WIDEST_TILE(rows) nullptr
#define PF_TILES_FROM_5 PF_TILES(5), PF_TILES(6), {}, {}

namespace pixelfast::avx2 {
#include "isa_impl.h"
}  // namespace pixelfast::avx2

#pragma GCC pop_options

#endif
