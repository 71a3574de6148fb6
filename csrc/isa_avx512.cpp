// Kernels for CPUs with AVX-512 F, BW, DQ and VL.
#if defined(__x86_64__)

// GCC 12 warns of its own header's deliberately undefined vectors.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <cstdint>

#include "kernels.h"
#include "scalar_math.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")

#define PF_AVX512
#define PF_ISA_NAME "avx512"
#define PF_VECTOR_BYTES 64
#define PF_TILE_ROWS 8
#define PF_TILE_VECTORS 3
#define PF_WIDEST_TILE(rows) &contraction_tile<rows, 3>
#define PF_TILES_FROM_5 PF_TILES(5), PF_TILES(6), PF_TILES(7), PF_TILES(8)

namespace pixelfast::avx512 {
#include "isa_impl.h"
}  // namespace pixelfast::avx512

#pragma GCC pop_options

#endif
