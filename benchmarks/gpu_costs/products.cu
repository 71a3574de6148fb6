// One stage of the network without its handover: activations (batch, K) bfloat16 from the second cache, times weights
// (320, K) that stay in shared memory, by m16n8k16 products with float32 sums; rounded to bfloat16 and stored.
//
// A block has 16 output channels and every so many tiles of the batch; its four warps share K and add up in shared
// memory.
#include <cuda_bf16.h>

#include "common.cuh"
#include "measurements.h"

namespace {

constexpr int kOutputs = 320, kRows = 16;     // output channels: of all blocks, of one
constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kPad = 8;                       // bfloat16 after each row of activations: no two rows in one bank
constexpr int kSumStride = 20;                // floats from image to image, for 16 channels: the same of sums
constexpr int kFew = 100, kMany = 1100;

__device__ void multiply(float (&sums)[4], const uint4& a, uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

size_t shared_bytes(int depth, int tile) {
    const size_t activations = sizeof(__nv_bfloat16) * tile * (depth + kPad);
    const size_t sums = sizeof(float) * kWarps * kSumStride * tile;
    return sizeof(__nv_bfloat16) * kRows * depth + std::max(activations, sums);
}

template <int tile>
__global__ void __launch_bounds__(kThreads) stages(const __nv_bfloat16* weights, const __nv_bfloat16* activations,
                                                   __nv_bfloat16* outputs, int batch, int depth, int count) {
    extern __shared__ uint4 shared[];
    uint4* const fragments = shared;  // [step of 16 channels][lane]: one lane's four registers of weights
    const int steps = depth / 16;
    uint32_t* const rows = reinterpret_cast<uint32_t*>(shared + 32 * steps);  // [image][channel pair]
    float* const sums = reinterpret_cast<float*>(rows);                       // afterwards [warp][image][channel]
    const int row_words = (depth + kPad) / 2;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, pair = 2 * (lane % 4);
    const int first_output = blockIdx.x * kRows;

    const auto weight_pair = [&](int row, int channel) {
        return *reinterpret_cast<const uint32_t*>(weights + (first_output + row) * depth + channel);
    };
    for (int step = warp; step < steps; step += kWarps) {
        const int channel = 16 * step + pair;
        fragments[32 * step + lane] = make_uint4(weight_pair(group, channel), weight_pair(group + 8, channel),
                                                 weight_pair(group, channel + 8), weight_pair(group + 8, channel + 8));
    }
    for (int stage = 0; stage < count; ++stage) {
        for (int first = blockIdx.y * tile; first < batch; first += gridDim.y * tile) {
            __syncthreads();  // the sums before have been read
            const int row_vectors = depth / 8;
            for (int i = threadIdx.x; i < tile * row_vectors; i += kThreads) {
                const int image = i / row_vectors, vector = i % row_vectors;
                const uint4* const source = reinterpret_cast<const uint4*>(activations + (first + image) * depth);
                const uint4 value = first + image < batch ? __ldcg(source + vector) : make_uint4(0, 0, 0, 0);
                reinterpret_cast<uint4*>(rows + image * row_words)[vector] = value;
            }
            __syncthreads();
            float mine[tile / 8][4] = {};
            for (int step = warp; step < steps; step += kWarps) {
                const uint4 a = fragments[32 * step + lane];
#pragma unroll
                for (int n = 0; n < tile / 8; ++n) {
                    const uint32_t* const row = rows + (8 * n + group) * row_words + (16 * step + pair) / 2;
                    multiply(mine[n], a, row[0], row[4]);
                }
            }
            __syncthreads();  // the activations have been read
#pragma unroll
            for (int n = 0; n < tile / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int channel = group + (i < 2 ? 0 : 8), image = 8 * n + pair + i % 2;
                    sums[(warp * tile + image) * kSumStride + channel] = mine[n][i];
                }
            }
            __syncthreads();
            for (int i = threadIdx.x; i < kRows * tile; i += kThreads) {
                const int channel = i % kRows, image = i / kRows;
                float sum = 0;
                for (int w = 0; w < kWarps; ++w) sum += sums[(w * tile + image) * kSumStride + channel];
                if (first + image < batch)
                    outputs[(first + image) * kOutputs + first_output + channel] = __float2bfloat16_rn(sum);
            }
        }
    }
}

using Kernel = void (*)(const __nv_bfloat16*, const __nv_bfloat16*, __nv_bfloat16*, int, int, int);

struct Choice {
    int tile;
    Kernel kernel;
};

// The narrowest tile of the batch for which a block has one of them only; the widest if there is none.
Choice choose(int batch, int most_groups) {
    if (batch <= 8 * most_groups) return {8, stages<8>};
    if (batch <= 16 * most_groups) return {16, stages<16>};
    if (batch <= 32 * most_groups) return {32, stages<32>};
    return {64, stages<64>};
}

// Whole numbers from -4 to 3, whose products add up exactly in any order.
std::vector<__nv_bfloat16> whole_numbers(size_t count, uint32_t seed) {
    std::vector<__nv_bfloat16> values(count);
    for (__nv_bfloat16& value : values) {
        seed = seed * 1664525u + 1013904223u;
        value = __float2bfloat16_rn(static_cast<float>(static_cast<int>(seed >> 29) - 4));
    }
    return values;
}

// Of some 64 images of the batch.
void check_outputs(const std::vector<__nv_bfloat16>& weights, const std::vector<__nv_bfloat16>& activations,
                   const std::vector<__nv_bfloat16>& outputs, int batch, int depth) {
    for (int image = 0; image < batch; image += std::max(1, batch / 64)) {
        for (int output = 0; output < kOutputs; ++output) {
            float sum = 0;
            for (int k = 0; k < depth; ++k)
                sum += __bfloat162float(weights[output * depth + k]) * __bfloat162float(activations[image * depth + k]);
            if (__bfloat162float(outputs[image * kOutputs + output]) == __bfloat162float(__float2bfloat16_rn(sum)))
                continue;
            std::fprintf(stderr, "products: output %d of image %d of %d is wrong, K = %d\n", output, image, batch, depth);
            std::exit(1);
        }
    }
}

void measure(int batch, int depth) {
    const std::vector<__nv_bfloat16> weights = whole_numbers(static_cast<size_t>(kOutputs) * depth, 1);
    const std::vector<__nv_bfloat16> activations = whole_numbers(static_cast<size_t>(batch) * depth, 2);
    std::vector<__nv_bfloat16> outputs(static_cast<size_t>(batch) * kOutputs);
    const size_t number = sizeof(__nv_bfloat16);
    DeviceMemory w(number * weights.size(), 0), x(number * activations.size(), 0), y(number * outputs.size(), 0xFF);
    CHECK(cudaMemcpy(w.as<void>(), weights.data(), number * weights.size(), cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(x.as<void>(), activations.data(), number * activations.size(), cudaMemcpyHostToDevice));

    const int columns = kOutputs / kRows, most_groups = std::max(1, multiprocessors() / columns);
    const auto [tile, kernel] = choose(batch, most_groups);
    const int tiles = (batch + tile - 1) / tile, groups = std::min(tiles, most_groups);
    const size_t shared = shared_bytes(depth, tile);
    CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
    const double stage = per_iteration(
        kFew, kMany, [] {},
        [&, kernel = kernel](int count) {
            kernel<<<dim3(columns, groups), kThreads, shared>>>(w.as<__nv_bfloat16>(), x.as<__nv_bfloat16>(),
                                                                y.as<__nv_bfloat16>(), batch, depth, count);
            CHECK(cudaGetLastError());
        });
    CHECK(cudaMemcpy(outputs.data(), y.as<void>(), number * outputs.size(), cudaMemcpyDeviceToHost));
    check_outputs(weights, activations, outputs, batch, depth);
    std::printf("{\"measurement\": \"product\", \"batch\": %d, \"k\": %d, \"n\": %d, \"blocks\": %d, \"ns\": %.1f}\n", batch,
                depth, kOutputs, columns * groups, stage);
}

}  // namespace

void measure_products() {
    for (const int batch : {1, 16, 64, 256, 1024})
        for (const int depth : {320, 640, 960, 1280}) measure(batch, depth);
}
