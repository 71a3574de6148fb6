// Gated blocks for training: sizes, memory and threads.
#include "ops_gated_block.h"

#include <algorithm>
#include <stdexcept>

#include "kernels.h"
#include "ops_conv_layout.h"
#include "ops_work.h"

namespace pixelfast {

namespace {

const ConvKernels& kernels_for(const KernelTable& isa, FloatType type) {
    return type == FloatType::float64 ? *isa.conv_float64 : *isa.conv_float32;
}

void check(const BlockTask& task) {
    if (task.images < 0 || task.features < 1 || task.height < 1 || task.width < 1 || task.reach < 0 ||
        task.dilation < 1 || task.threads < 1)
        throw std::invalid_argument("a gated block has sizes that make no sense");
}

// Numbers over all of the block's weights.
template <class Count>
int64_t of_weights(const BlockTask& task, const BlockLayout& layout, const Count& count) {
    const int64_t f = task.features;
    return count(2 * f, f, layout.vertical.count()) + count(2 * f, f, layout.horizontal.count()) +
           count(2 * f, 2 * f, int64_t{1}) + count(f, f, int64_t{1});
}

int64_t packed_bytes(const ConvKernels& kernels, const BlockTask& task, const BlockLayout& layout, bool transposed) {
    return kernels.number_bytes * of_weights(task, layout, [&](int64_t outputs, int64_t inputs, int64_t taps) {
               return transposed ? kernels.packed_weights(inputs, outputs, taps)
                                 : kernels.packed_weights(outputs, inputs, taps);
           });
}

}  // namespace

BlockLayout block_layout(const BlockTask& task, const ConvTiles& tiles) {
    const int64_t distance = task.reach * task.dilation, rows = task.reach + 1, columns = 2 * task.reach + 1;
    const int64_t weights = task.features * task.features * (2 * rows * columns + 2 * rows + 5);
    BlockLayout out;
    out.planes = plane_layout(task.images, task.height, task.width, distance, distance, weights, tiles);
    const auto taps = [&](int64_t down, int64_t across, int64_t top, int64_t left) {
        return taps_of(down, across, top, left, task.dilation, task.dilation, out.planes.pitch);
    };
    out.vertical = taps(rows, columns, distance, distance);
    out.horizontal = taps(1, rows, 0, distance);
    out.point = taps(1, 1, 0, 0);
    return out;
}

int64_t block_scratch(const BlockTask& task, const BlockLayout& layout, const ConvTiles& tiles, bool gradient) {
    const int64_t f = task.features;
    const int64_t planes = (gradient ? 2 : 1) * f + 2 * round_up(2 * f, tiles.rows) + round_up(f, tiles.rows);
    return planes * layout.planes.plane + kBlockPlanes * layout.planes.pixels;
}

void gated_block(const KernelTable& isa, const BlockTask& task) {
    check(task);
    const ConvKernels& kernels = kernels_for(isa, task.type);
    const BlockLayout layout = block_layout(task, kernels.tiles);
    char* packed = kept_memory<Use::weights>(packed_bytes(kernels, task, layout, false));
    kernels.block_pack(task, layout, false, packed);
    const int64_t bytes = round_up(kernels.number_bytes * block_scratch(task, layout, kernels.tiles, false), 64);
    for_each(layout.planes.chunks, std::min(task.threads, layout.planes.chunks), [&](int64_t chunk) {
        kernels.block_forward(task, layout, packed, chunk, kept_memory<Use::work>(bytes));
    });
}

void gated_block_gradient(const KernelTable& isa, const BlockTask& task) {
    check(task);
    const ConvKernels& kernels = kernels_for(isa, task.type);
    const BlockLayout layout = block_layout(task, kernels.tiles);
    char* packed = kept_memory<Use::weights>(packed_bytes(kernels, task, layout, true));
    kernels.block_pack(task, layout, true, packed);
    const int64_t bytes = round_up(kernels.number_bytes * block_scratch(task, layout, kernels.tiles, true), 64);
    const int64_t sum_bytes =
        kernels.number_bytes * (of_weights(task, layout, kernels.weight_sums) + 5 * task.features);
    char* sums = kept_memory<Use::sums>(std::max<int64_t>(1, layout.planes.chunks) * sum_bytes);
    for_each(layout.planes.chunks, std::min(task.threads, layout.planes.chunks), [&](int64_t chunk) {
        kernels.block_backward(task, layout, packed, chunk, kept_memory<Use::work>(bytes), sums + chunk * sum_bytes);
    });
    kernels.block_finish(task, layout, sums);
}

int64_t gated_block_scratch_bytes(const KernelTable& isa, const BlockTask& task) {
    check(task);
    const ConvKernels& kernels = kernels_for(isa, task.type);
    return kernels.number_bytes * block_scratch(task, block_layout(task, kernels.tiles), kernels.tiles, true);
}

}  // namespace pixelfast
