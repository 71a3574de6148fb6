// What a kernel costs as a node of a graph, each waiting for the one before, and launched one by one.
#include "common.cuh"
#include "measurements.h"

namespace {

constexpr int kThreads = 128;
constexpr int kFew = 200, kMany = 2200;

__global__ void small_kernel(float* values) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    values[i] = values[i] * 0.5f + 1.0f;
}

cudaGraphExec_t chain(cudaStream_t stream, int nodes, int blocks, float* values) {
    cudaGraph_t graph;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    for (int i = 0; i < nodes; ++i) small_kernel<<<blocks, kThreads, 0, stream>>>(values);
    CHECK(cudaGetLastError());
    CHECK(cudaStreamEndCapture(stream, &graph));
    cudaGraphExec_t ready;
    CHECK(cudaGraphInstantiate(&ready, graph, 0));
    CHECK(cudaGraphDestroy(graph));
    return ready;
}

}  // namespace

void measure_node_gap() {
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    for (const int blocks : {1, 5, 20, 132}) {
        DeviceMemory values(sizeof(float) * blocks * kThreads, 0);
        float* const data = values.as<float>();
        const cudaGraphExec_t few = chain(stream, kFew, blocks, data), many = chain(stream, kMany, blocks, data);
        const double node = per_iteration(
            kFew, kMany, [] {}, [&](int nodes) { CHECK(cudaGraphLaunch(nodes == kFew ? few : many, 0)); });
        std::printf("{\"measurement\": \"graph node\", \"blocks\": %d, \"ns\": %.1f}\n", blocks, node);
        const double launch = per_iteration(
            kFew, kMany, [] {},
            [&](int kernels) {
                for (int i = 0; i < kernels; ++i) small_kernel<<<blocks, kThreads>>>(data);
                CHECK(cudaGetLastError());
            });
        std::printf("{\"measurement\": \"stream launch\", \"blocks\": %d, \"ns\": %.1f}\n", blocks, launch);
        CHECK(cudaDeviceSynchronize());
        CHECK(cudaGraphExecDestroy(few));
        CHECK(cudaGraphExecDestroy(many));
    }
    CHECK(cudaStreamDestroy(stream));
}
