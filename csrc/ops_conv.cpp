// Convolutions and gates for training: sizes, memory and threads.
#include "ops_conv.h"

#include <algorithm>
#include <stdexcept>

#include "kernels.h"
#include "ops_conv_layout.h"
#include "ops_work.h"

namespace pixelfast {

namespace {

constexpr int64_t kMostChunks = 16;
constexpr int64_t kMostSums = int64_t{1} << 22;   // numbers that the chunks' sums may take together
constexpr int64_t kGroupPositions = 768;         // small images go side by side up to about this many positions
constexpr int64_t kFewestPositions = 256;        // that a chunk should have
constexpr int64_t kPageBytes = 4096;

int64_t ceiling(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t features_of(Activation activation, int64_t channels) {
    switch (activation) {
        case Activation::none: return channels;
        case Activation::concat_elu: return 2 * channels;
        default: return channels / 2;
    }
}

const ConvKernels& kernels_for(const KernelTable& isa, FloatType type) {
    return type == FloatType::float64 ? *isa.conv_float64 : *isa.conv_float32;
}

void check(const ConvTask& task) {
    const bool sizes = task.images >= 0 && task.channels > 0 && task.outputs > 0 && task.height > 0 && task.width > 0;
    const bool kernel = task.kernel_rows > 0 && task.kernel_columns > 0 && task.row_dilation > 0 && task.column_dilation > 0;
    const bool halves = task.activation == Activation::none || task.activation == Activation::concat_elu ||
                        task.channels % 2 == 0;
    if (!sizes || !kernel || !halves || task.threads < 1)
        throw std::invalid_argument("a convolution has sizes that make no sense");
}

}  // namespace

PlaneLayout plane_layout(int64_t images, int64_t height, int64_t width, int64_t rows, int64_t columns, int64_t weights,
                         const ConvTiles& tiles) {
    PlaneLayout out;
    out.height = height;
    out.width = width;
    out.pitch = width + columns;
    out.image_pitch = (height + rows) * out.pitch;
    out.image_positions = height * out.pitch;
    out.margin = round_up(rows * out.pitch + columns, tiles.lanes);
    out.pixels = round_up(height * width, tiles.lanes);
    const int64_t chunks = std::max<int64_t>(1, std::min({images, kMostChunks, kMostSums / weights}));
    out.chunk_images = std::max({int64_t{1}, ceiling(images, chunks), kFewestPositions / out.image_positions});
    out.chunks = ceiling(images, out.chunk_images);
    out.group = std::max<int64_t>(1, std::min(out.chunk_images, kGroupPositions / out.image_pitch));
    out.plane = 2 * out.margin + round_up(out.positions(out.group), tiles.positions);
    // Planes a page apart would fall into the same few lines of the cache.
    if (out.plane * static_cast<int64_t>(sizeof(float)) % kPageBytes == 0) out.plane += 2 * tiles.lanes;
    return out;
}

Taps taps_of(int64_t rows, int64_t columns, int64_t top, int64_t left, int64_t row_dilation, int64_t column_dilation,
             int64_t pitch) {
    Taps out;
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j)
            out.offsets.push_back((i * row_dilation - top) * pitch + j * column_dilation - left);
    for (const int64_t offset : out.offsets) out.back_offsets.push_back(-offset);
    return out;
}

ConvLayout conv_layout(const ConvTask& task, const ConvTiles& tiles) {
    const int64_t features = features_of(task.activation, task.channels);
    const int64_t right = (task.kernel_columns - 1) * task.column_dilation - task.left;
    const int64_t below = (task.kernel_rows - 1) * task.row_dilation - task.top;
    const int64_t rows = std::max<int64_t>({0, task.top, below}), columns = std::max<int64_t>({0, task.left, right});
    const int64_t weights = task.outputs * features * task.kernel_rows * task.kernel_columns;
    const PlaneLayout planes = plane_layout(task.images, task.height, task.width, rows, columns, weights, tiles);
    return {planes,
            taps_of(task.kernel_rows, task.kernel_columns, task.top, task.left, task.row_dilation,
                    task.column_dilation, planes.pitch),
            features};
}

int64_t conv_scratch(const ConvTask& task, const ConvLayout& layout, const ConvTiles& tiles, bool gradient) {
    int64_t planes = layout.features + tiles.rows, linear = 8;
    if (gradient) planes += task.outputs + round_up(layout.features, tiles.rows);
    if (gradient && 2 * layout.features == task.channels) linear += layout.planes.group * task.channels;  // of gates
    return planes * layout.planes.plane + linear * layout.planes.pixels;
}

void conv(const KernelTable& isa, const ConvTask& task) {
    check(task);
    const ConvKernels& kernels = kernels_for(isa, task.type);
    const ConvLayout layout = conv_layout(task, kernels.tiles);
    const int64_t taps = layout.taps.count();
    char* packed =
        kept_memory<Use::weights>(kernels.number_bytes * kernels.packed_weights(task.outputs, layout.features, taps));
    kernels.pack(task, layout, false, packed);
    const int64_t workers = std::min(task.threads, layout.planes.chunks);
    const int64_t bytes = round_up(kernels.number_bytes * conv_scratch(task, layout, kernels.tiles, false), 64);
    for_each(layout.planes.chunks, workers, [&](int64_t chunk) {
        kernels.forward(task, layout, packed, chunk, kept_memory<Use::work>(bytes));
    });
}

void conv_gradient(const KernelTable& isa, const ConvTask& task) {
    check(task);
    const ConvKernels& kernels = kernels_for(isa, task.type);
    const ConvLayout layout = conv_layout(task, kernels.tiles);
    const int64_t taps = layout.taps.count();
    char* packed = nullptr;
    if (task.x_gradient.data != nullptr) {
        packed = kept_memory<Use::weights>(kernels.number_bytes *
                                           kernels.packed_weights(layout.features, task.outputs, taps));
        kernels.pack(task, layout, true, packed);
    }
    const int64_t workers = std::min(task.threads, layout.planes.chunks);
    const int64_t bytes = round_up(kernels.number_bytes * conv_scratch(task, layout, kernels.tiles, true), 64);
    const int64_t sum_bytes = kernels.number_bytes * (kernels.weight_sums(task.outputs, layout.features, taps) + task.outputs);
    char* sums = kept_memory<Use::sums>(std::max<int64_t>(1, layout.planes.chunks) * sum_bytes);
    for_each(layout.planes.chunks, workers, [&](int64_t chunk) {
        kernels.backward(task, layout, packed, chunk, kept_memory<Use::work>(bytes), sums + chunk * sum_bytes);
    });
    kernels.finish(task, layout, sums);
}

int64_t conv_scratch_bytes(const KernelTable& isa, const ConvTask& task) {
    check(task);
    const ConvKernels& kernels = kernels_for(isa, task.type);
    return kernels.number_bytes * conv_scratch(task, conv_layout(task, kernels.tiles), kernels.tiles, true);
}

namespace {

using GateFunction = void (*)(const GateTask& task, int64_t first, int64_t end, void* scratch);

void share_gates(const ConvKernels& kernels, const GateTask& task, GateFunction work) {
    if (task.images < 0 || task.features < 1 || task.height < 1 || task.width < 1 || task.threads < 1)
        throw std::invalid_argument("a gate has sizes that make no sense");
    const int64_t planes = task.images * task.features;
    const int64_t pixels = round_up(task.height * task.width, kernels.tiles.lanes);
    const int64_t bytes = round_up(kernels.number_bytes * kGatePlanes * pixels, 64);
    const int64_t workers = std::max<int64_t>(1, std::min(task.threads, planes));
    for_each(workers, workers, [&](int64_t part) {
        work(task, planes * part / workers, planes * (part + 1) / workers, kept_memory<Use::work>(bytes));
    });
}

}  // namespace

void gate(const KernelTable& isa, const GateTask& task) {
    const ConvKernels& kernels = kernels_for(isa, task.type);
    share_gates(kernels, task, kernels.gate);
}

void gate_gradient(const KernelTable& isa, const GateTask& task) {
    const ConvKernels& kernels = kernels_for(isa, task.type);
    share_gates(kernels, task, kernels.gate_gradient);
}

}  // namespace pixelfast
