// A cluster's barrier, alone and after every block has pushed its share of 320 bfloat16 into all the others' shared
// memory. One cluster, as one image would have.
#include <cooperative_groups.h>

#include "common.cuh"
#include "measurements.h"

namespace {

constexpr int kWords = 160;
constexpr int kFew = 200, kMany = 4200;

__global__ void cluster_stages(uint32_t* result, bool push, int count) {
    const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
    __shared__ uint32_t received[2][kWords];  // one is read while the next is written
    const int blocks = static_cast<int>(cluster.num_blocks()), rank = static_cast<int>(cluster.block_rank());
    const int share = kWords / blocks;
    const int peer = threadIdx.x / share, word = rank * share + threadIdx.x % share;
    received[0][threadIdx.x] = received[1][threadIdx.x] = threadIdx.x;
    cluster.sync();
    uint32_t value = threadIdx.x;
    for (int stage = 0; stage < count; ++stage) {
        uint32_t* const slot = received[stage & 1];
        if (push) cluster.map_shared_rank(slot, peer)[word] = value;
        cluster.sync();
        if (push) value = slot[threadIdx.x] + 1;
    }
    result[blockIdx.x * kWords + threadIdx.x] = value;
    // No block may end while others write into its memory.
    cluster.sync();
}

}  // namespace

void measure_cluster() {
    for (const int blocks : {8, 16}) {
        if (blocks > 8) {
            CHECK(cudaFuncSetAttribute(cluster_stages, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
        }
        DeviceMemory memory(sizeof(uint32_t) * blocks * kWords, 0);
        cudaLaunchAttribute attribute{};
        attribute.id = cudaLaunchAttributeClusterDimension;
        attribute.val.clusterDim.x = blocks;
        attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
        cudaLaunchConfig_t config{};
        config.gridDim = dim3(blocks);
        config.blockDim = dim3(kWords);
        config.attrs = &attribute;
        config.numAttrs = 1;
        int fitting = 0;
        CHECK(cudaOccupancyMaxActiveClusters(&fitting, cluster_stages, &config));
        std::printf("{\"measurement\": \"clusters that run at once\", \"blocks\": %d, \"count\": %d}\n", blocks, fitting);
        if (fitting == 0) continue;
        for (const bool push : {false, true}) {
            const double stage = per_iteration(
                kFew, kMany, [] {},
                [&](int count) { CHECK(cudaLaunchKernelEx(&config, cluster_stages, memory.as<uint32_t>(), push, count)); });
            std::printf("{\"measurement\": \"%s\", \"blocks\": %d, \"ns\": %.1f}\n",
                        push ? "cluster push and barrier" : "cluster barrier", blocks, stage);
        }
    }
}
