// Everything that is compiled once per instruction set; ends in the definition of `table()`.
// Included inside the namespace and the target pragma of an isa_*.cpp.

#include "vec.h"
#include "vec_math.h"
#include "elementwise.h"
#include "contraction.h"
#include "narrow.h"
#include "gumbel.h"
#include "ops_conv_impl.h"

static const ElementwiseFunction kElementwise[] = {
#define PF_ENTRY(name, arguments) &elementwise<&op_##name, arguments>,
    PF_ELEMENTWISE(PF_ENTRY)
#undef PF_ENTRY
};

#define PF_TILES(rows) PF_TILES_OF(Floats, rows)
#define PF_NARROW_TILES(rows) PF_TILES_OF(Pairs, rows)

static const KernelTable kTable = {
    PF_ISA_NAME,
    kLanes,
    PF_TILE_ROWS,
    PF_TILE_VECTORS,
    {PF_EACH_HEIGHT(PF_TILES)},
    {PF_EACH_HEIGHT(PF_NARROW_TILES)},
    1.0,
    &narrow,
    kElementwise,
    &noise,
    &gumbel_argmax,
    &kConvKernels<float>,
    &kConvKernels<double>,
};

const KernelTable& table() { return kTable; }
