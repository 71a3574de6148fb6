// Causal convolutions for training, and the gates and activations around them: what pixelfast/ops computes on the CPU.
//
// out(n, o, y, x) = bias(o) + added(n, o, y, x)
//                 + sum over f, i, j of weight(o, f, i, j) a(n, f, y + i * row_dilation - top, x + j * column_dilation - left)
//
// where a = activation(x), zero outside the image. Nothing of a is kept: it is computed again where it is needed.
#pragma once

#include <cstdint>

namespace pixelfast {

enum class FloatType { float32, float64, bfloat16, float16 };

// Channels of x to features of a: F to F, F to 2F, 2F to F, 2F to F. The gates take the sum of x and a condition.
enum class Activation { none, concat_elu, tanh_gate, linear_gate };

// (images, channels, rows, columns), strides in elements, 0 where broadcast; no tensor if data is null.
struct ConvTensor {
    void* data = nullptr;
    int64_t strides[4] = {0, 0, 0, 0};
};

// Each feature is dropped with probability threshold / 2^32; the others are multiplied by `scale`.
// Its word: Philox4x32-10 under the seed of the counter (image, position, channel / 2, 0), word 2 * (channel % 2) + half,
// where feature = half * channels + channel.
struct Dropout {
    uint32_t threshold = 0;
    double scale = 1;
    uint64_t seed = 0;
};

struct ConvTask {
    FloatType type;
    Activation activation;
    int64_t images, channels, outputs, height, width;  // channels: of x
    int64_t kernel_rows, kernel_columns, top, left, row_dilation, column_dilation;
    Dropout dropout;
    int64_t threads;
    ConvTensor x, condition;
    const void* weight;  // (outputs, features, kernel_rows, kernel_columns), dense
    const void* bias;    // (outputs,) or null
    ConvTensor added, out;
    // Of the gradient: that of out, and where those of x, weight and bias go (each may be null).
    ConvTensor out_gradient, x_gradient;
    void* weight_gradient;
    void* bias_gradient;
};

// out(n, f) = residual(n, f) + gate(x(n, f) + condition(n, f), x(n, F + f) + condition(n, F + f)).
struct GateTask {
    FloatType type;
    Activation activation;  // one of the gates
    int64_t images, features, height, width;
    int64_t threads;
    ConvTensor x, condition, residual, out;
    ConvTensor out_gradient, x_gradient;
};

struct KernelTable;

// Throws std::invalid_argument for sizes that make no sense.
void conv(const KernelTable& isa, const ConvTask& task);
void conv_gradient(const KernelTable& isa, const ConvTask& task);
void gate(const KernelTable& isa, const GateTask& task);
void gate_gradient(const KernelTable& isa, const GateTask& task);

// Bytes of memory a thread works in.
int64_t conv_scratch_bytes(const KernelTable& isa, const ConvTask& task);

}  // namespace pixelfast
