// How a convolution for training is cut into work and laid out in a thread's memory.
//
// The features of a few images lie in planes of `plane` numbers each, with `margin` zeros before and after. In a plane,
// rows are `pitch` apart: the zeros after a row are also those before the next one. So a tap is one offset for every
// position, and what falls outside the image reads zeros. Positions between the rows are computed and thrown away.
#pragma once

#include <cstdint>
#include <vector>

#include "ops_conv.h"

namespace pixelfast {

struct ConvLayout {
    int64_t features;                   // of the activation
    std::vector<int64_t> offsets;       // of each tap
    std::vector<int64_t> back_offsets;  // the same, negated: for the gradient of the features
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

ConvLayout conv_layout(const ConvTask& task, const ConvTiles& tiles);

// Numbers of scratch memory: of the forward and of the backward pass.
int64_t conv_scratch(const ConvTask& task, const ConvLayout& layout, const ConvTiles& tiles, bool gradient);

struct ConvKernels {
    ConvTiles tiles;
    int64_t number_bytes;
    // Weights in the order the products read them, and where they end.
    int64_t (*packed_size)(int64_t outputs, int64_t inputs, int64_t taps);
    // Numbers of the sums that a chunk adds up for the gradients of weight and bias.
    int64_t (*sums)(int64_t outputs, int64_t features, int64_t taps);
    void (*pack)(const ConvTask& task, const ConvLayout& layout, bool transposed, void* packed);
    void (*forward)(const ConvTask& task, const ConvLayout& layout, const void* packed, int64_t chunk, void* scratch);
    // Sets the chunk's sums.
    void (*backward)(const ConvTask& task, const ConvLayout& layout, const void* packed, int64_t chunk, void* scratch,
                     void* sums);
    // Adds up the sums of all chunks, in order, and writes the gradients.
    void (*finish)(const ConvTask& task, const ConvLayout& layout, void* sums);
    // Planes [first, end) of images * features.
    void (*gate)(const GateTask& task, int64_t first, int64_t end, void* scratch);
    void (*gate_gradient)(const GateTask& task, int64_t first, int64_t end, void* scratch);
};

constexpr int64_t kGatePlanes = 8;  // linear planes that the gates work in

}  // namespace pixelfast
