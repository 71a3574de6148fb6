// Everything that is compiled once per instruction set; ends in the definition of `table()`.
// Included inside the namespace and the target pragma of an isa_*.cpp.

#include "vec.h"
#include "vec_math.h"
#include "elementwise.h"
#include "contraction.h"
#include "gumbel.h"

static const ElementwiseFunction kElementwise[] = {
#define PF_ENTRY(name, arguments) &elementwise<&op_##name, arguments>,
    PF_ELEMENTWISE(PF_ENTRY)
#undef PF_ENTRY
};

#define PF_TILES(rows) {&contraction_tile<rows, 1>, &contraction_tile<rows, 2>, PF_WIDEST_TILE(rows)}

static const KernelTable kTable = {
    PF_ISA_NAME,
    kLanes,
    PF_TILE_ROWS,
    PF_TILE_VECTORS,
    {PF_TILES(1), PF_TILES(2), PF_TILES(3), PF_TILES(4), PF_TILES_FROM_5},
    kElementwise,
    &noise,
    &gumbel_argmax,
};

const KernelTable& table() { return kTable; }
