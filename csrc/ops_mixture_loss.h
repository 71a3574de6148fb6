// Loss of discretized logistic mixtures and its gradient: what pixelfast/ops/mixture_loss.py computes, on the CPU.
#pragma once

#include <cstdint>

namespace pixelfast {

enum class NumberType { float32, float64, float16, bfloat16, uint8, int32, int64 };

// A tensor of any strides, in elements; axes are image, plane, row and column.
struct Planes {
    void* data;
    NumberType type;
    int64_t strides[4];
};

// Pixels are numbered in the order image, row, column.
struct MixtureLoss {
    int64_t images, channels, height, width;  // channels: 1 or 3
    int64_t mixtures, levels;
    int64_t threads;
    Planes params;          // 10 or 3 planes per mixture component
    Planes x;               // one plane per channel, integers
    Planes nats;            // one plane, float32 or float64; written by the loss
    Planes nats_gradient;   // one plane, as nats; read by the gradient
    Planes gradient;        // as params; written by the gradient
};

struct KernelTable;

// -log p of each pixel. In the arithmetic of `params`, but at least float32. NaN where x is no level.
void mixture_loss(const KernelTable& isa, const MixtureLoss& task);
// Gradient with respect to `params`; everything that it needs is computed again from `params` and `x`.
void mixture_loss_gradient(const KernelTable& isa, const MixtureLoss& task);

}  // namespace pixelfast
