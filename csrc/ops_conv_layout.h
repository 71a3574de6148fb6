// How convolutions for training are cut into work and laid out in a thread's memory.
//
// The channels of a few images lie in planes of `plane` numbers each, with `margin` zeros before and after. In a plane,
// rows are `pitch` apart: the zeros after a row are also those before the next one. So a tap is one offset for every
// position, and what falls outside the image reads zeros. Positions between the rows are computed and thrown away.
#pragma once

#include <cstdint>
#include <vector>

#include "ops_conv.h"
#include "ops_gated_block.h"

namespace pixelfast {

struct PlaneLayout {
    int64_t height, width;
    int64_t pitch;        // from row to row
    int64_t image_pitch;  // from image to image, with rows of zeros between them
    int64_t image_positions;
    int64_t group;  // images side by side in a plane
    int64_t margin, plane;
    int64_t pixels;  // of one image, rounded up to a whole number of vectors
    // Images are shared out in chunks, each with sums of its own for the gradients of weight and bias. A function of the
    // sizes alone, so that results do not depend on the number of threads.
    int64_t chunk_images, chunks;

    int64_t positions(int64_t images) const { return (images - 1) * image_pitch + image_positions; }
    int64_t place(int64_t image) const { return margin + image * image_pitch; }
};

// Sizes of the tiles that an instruction set's kernels compute.
struct ConvTiles {
    int64_t lanes;      // numbers in a vector
    int64_t rows;       // outputs of a product
    int64_t positions;  // positions of a product
};

// Room for taps that reach as many rows and columns; `weights` of them have gradients.
PlaneLayout plane_layout(int64_t images, int64_t height, int64_t width, int64_t rows, int64_t columns, int64_t weights,
                         const ConvTiles& tiles);

struct Taps {
    std::vector<int64_t> offsets;
    std::vector<int64_t> back_offsets;  // the same, negated: for the gradient of the features

    int64_t count() const { return static_cast<int64_t>(offsets.size()); }
};

// Rows, columns, top, left and dilations as in ConvTask.
Taps taps_of(int64_t rows, int64_t columns, int64_t top, int64_t left, int64_t row_dilation, int64_t column_dilation,
             int64_t pitch);

struct ConvLayout {
    PlaneLayout planes;
    Taps taps;
    int64_t features;  // of the activation
};

ConvLayout conv_layout(const ConvTask& task, const ConvTiles& tiles);

// Numbers of scratch memory: of the forward and of the backward pass.
int64_t conv_scratch(const ConvTask& task, const ConvLayout& layout, const ConvTiles& tiles, bool gradient);

constexpr int64_t kBlockPlanes = 6;  // linear planes that a gated block works in

struct BlockLayout {
    PlaneLayout planes;
    Taps vertical, horizontal, point;
};

BlockLayout block_layout(const BlockTask& task, const ConvTiles& tiles);

int64_t block_scratch(const BlockTask& task, const BlockLayout& layout, const ConvTiles& tiles, bool gradient);

struct ConvKernels {
    ConvTiles tiles;
    int64_t number_bytes;
    // Weights in the order the products read them, and where they end.
    int64_t (*packed_weights)(int64_t outputs, int64_t inputs, int64_t taps);
    // Numbers of the sums that a chunk adds up for the gradient of a weight.
    int64_t (*weight_sums)(int64_t outputs, int64_t inputs, int64_t taps);
    void (*pack)(const ConvTask& task, const ConvLayout& layout, bool transposed, void* packed);
    void (*forward)(const ConvTask& task, const ConvLayout& layout, const void* packed, int64_t chunk, void* scratch);
    // Sets the chunk's sums: those of the weight, then those of the bias.
    void (*backward)(const ConvTask& task, const ConvLayout& layout, const void* packed, int64_t chunk, void* scratch,
                     void* sums);
    // Adds up the sums of all chunks, in order, and writes the gradients.
    void (*finish)(const ConvTask& task, const ConvLayout& layout, void* sums);
    // Planes [first, end) of images * features.
    void (*gate)(const GateTask& task, int64_t first, int64_t end, void* scratch);
    void (*gate_gradient)(const GateTask& task, int64_t first, int64_t end, void* scratch);
    // The same as of a convolution; the sums are those of each weight, then those of the biases.
    void (*block_pack)(const BlockTask& task, const BlockLayout& layout, bool transposed, void* packed);
    void (*block_forward)(const BlockTask& task, const BlockLayout& layout, const void* packed, int64_t chunk,
                          void* scratch);
    void (*block_backward)(const BlockTask& task, const BlockLayout& layout, const void* packed, int64_t chunk,
                           void* scratch, void* sums);
    void (*block_finish)(const BlockTask& task, const BlockLayout& layout, void* sums);
};

constexpr int64_t kGatePlanes = 8;  // linear planes that the gates work in

}  // namespace pixelfast
