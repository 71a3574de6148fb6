// A block of a Gated PixelCNN for training, as one operation: what lies between its inputs and results stays in a
// thread's memory.
//
//   above = vertical convolution of gate(v + v_condition), or of v
//   left  = horizontal convolution of h + link(above)
//   out   = h + mix(gate(left + h_condition))
//
// with F features, k x k kernels of which the live half is stored, and their dilation. Vertical: (2 F, F, k / 2 + 1, k);
// horizontal: (2 F, F, 1, k / 2 + 1); link: (2 F, 2 F); mix: (F, F). Each has a bias.
#pragma once

#include <cstdint>

#include "ops_conv.h"

namespace pixelfast {

enum BlockWeight { kVertical, kHorizontal, kLink, kMix, kBlockWeights };

struct BlockTask {
    FloatType type;
    bool gates_v;  // v has 2 F channels, and its gate is read
    int64_t images, features, height, width;
    int64_t reach;     // k / 2
    int64_t dilation;
    int64_t threads;
    ConvTensor v, v_condition, h, h_condition;
    const void* weights[kBlockWeights];
    const void* biases[kBlockWeights];
    ConvTensor above, left, out;
    // Of the gradient: those of above (null where nothing comes from it) and out, and where the others go. Those of
    // weights and biases may be null, and so may that of left: what the gate's condition adds up.
    ConvTensor above_gradient, out_gradient, v_gradient, h_gradient, left_gradient;
    void* weight_gradients[kBlockWeights];
    void* bias_gradients[kBlockWeights];
};

struct KernelTable;

// Throws std::invalid_argument for sizes that make no sense.
void gated_block(const KernelTable& isa, const BlockTask& task);
void gated_block_gradient(const KernelTable& isa, const BlockTask& task);

// Bytes of memory a thread works in.
int64_t gated_block_scratch_bytes(const KernelTable& isa, const BlockTask& task);

}  // namespace pixelfast
