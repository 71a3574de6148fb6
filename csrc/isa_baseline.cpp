// Kernels for any CPU the compiler targets: SSE2 on x86-64.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels.h"
#include "memory.h"
#include "scalar_math.h"

#define PF_ISA_NAME "baseline"
#define PF_VECTOR_BYTES 16
#define PF_TILE_ROWS 4
#define PF_TILE_VECTORS 2
#define PF_TILES_OF(tile, rows) {&tile<rows, 1>, &tile<rows, 2>, nullptr}
#define PF_EACH_HEIGHT(tiles) tiles(1), tiles(2), tiles(3), tiles(4), {}, {}, {}, {}

namespace pixelfast::baseline {
#include "isa_impl.h"
}  // namespace pixelfast::baseline

namespace pixelfast {
const std::vector<ElementwiseName>& elementwise_names() {
    static const std::vector<ElementwiseName> names = {
#define PF_ENTRY(name, arguments) {#name, arguments},
        PF_ELEMENTWISE(PF_ENTRY)
#undef PF_ENTRY
    };
    return names;
}
}  // namespace pixelfast
