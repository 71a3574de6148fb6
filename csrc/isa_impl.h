// Everything that is compiled once per instruction set; ends in the definition of `table()`.
// Included inside the namespace and the target pragma of an isa_*.cpp.

#include "vec.h"
#include "vec_math.h"
#include "elementwise.h"
#include "attention.h"
#include "contraction.h"
#include "contraction_of_codes.h"
#include "narrow.h"
#include "quantise.h"
#include "philox_vectors.h"
#include "gumbel.h"
#include "ops_planes.h"
#include "ops_numbers.h"
#include "ops_activations.h"
#include "ops_products.h"
#include "ops_conv_planes.h"
#include "ops_conv_impl.h"
#include "ops_gate_impl.h"
#include "ops_gated_block_impl.h"
#include "ops_conv_table.h"
#include "ops_mixture_loss_impl.h"

static const ElementwiseFunction kElementwise[] = {
#define PF_ENTRY(name, arguments) &elementwise<&op_##name, arguments>,
    PF_ELEMENTWISE(PF_ENTRY)
#undef PF_ENTRY
};

#define PF_TILES(rows) PF_TILES_OF(tile_of_floats, rows)
#define PF_NARROW_TILES(rows) PF_TILES_OF(tile_of_pairs, rows)
#define PF_CODE_TILES(rows) PF_TILES_OF(tile_of_codes, rows)

static const KernelTable kTable = {
    PF_ISA_NAME,
    kLanes,
    PF_TILE_ROWS,
    PF_TILE_VECTORS,
    {PF_EACH_HEIGHT(PF_TILES)},
    {PF_EACH_HEIGHT(PF_NARROW_TILES)},
    {PF_EACH_HEIGHT(PF_CODE_TILES)},
    1.0,
    1.0,
    &narrow,
    &quantise,
    kElementwise,
    &attend,
    &noise,
    &gumbel_argmax,
    &kConvKernels<float>,
    &kConvKernels<double>,
    kMixtureLoss<F>,
    kMixtureLoss<double>,
};

const KernelTable& table() { return kTable; }
