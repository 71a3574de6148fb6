// A barrier between all blocks of a kernel: our own, a counter that only grows, and that of cooperative groups.
#include <cooperative_groups.h>

#include "common.cuh"
#include "measurements.h"

namespace {

constexpr int kThreads = 128;
constexpr int kFew = 200, kMany = 2200;

__global__ void own_barriers(uint32_t* arrived, Failure* failure, int count) {
    for (uint32_t turn = 1; turn <= static_cast<uint32_t>(count); ++turn) {
        __syncthreads();
        bool alive = true;
        if (threadIdx.x == 0) {
            add_release(arrived, 1);
            alive = wait_until([&] { return load_acquire(arrived) >= turn * gridDim.x; }, failure);
        }
        if (__syncthreads_or(!alive)) return;
    }
}

__global__ void group_barriers(int count) {
    const cooperative_groups::grid_group grid = cooperative_groups::this_grid();
    for (int i = 0; i < count; ++i) grid.sync();
}

// A cooperative launch fails rather than leave blocks out that others wait for.
void launch_together(const void* kernel, int blocks, void** arguments) {
    CHECK(cudaLaunchCooperativeKernel(kernel, dim3(blocks), dim3(kThreads), arguments, 0, nullptr));
}

}  // namespace

void measure_grid_barrier() {
    DeviceMemory arrived(sizeof(uint32_t), 0), failure(sizeof(Failure), 0);
    uint32_t* counter = arrived.as<uint32_t>();
    Failure* failed = failure.as<Failure>();
    for (const int wanted : {132, 64, 32, 16}) {
        const int blocks = std::min(wanted, multiprocessors());
        const double own = per_iteration(
            kFew, kMany, [&] { arrived.fill(0); },
            [&](int count) {
                void* arguments[] = {&counter, &failed, &count};
                launch_together(reinterpret_cast<const void*>(&own_barriers), blocks, arguments);
            });
        check_waits(failure, "grid barrier");
        std::printf("{\"measurement\": \"own grid barrier\", \"blocks\": %d, \"ns\": %.1f}\n", blocks, own);
        const double group = per_iteration(
            kFew, kMany, [] {},
            [&](int count) {
                void* arguments[] = {&count};
                launch_together(reinterpret_cast<const void*>(&group_barriers), blocks, arguments);
            });
        std::printf("{\"measurement\": \"cooperative groups' grid barrier\", \"blocks\": %d, \"ns\": %.1f}\n", blocks,
                    group);
    }
}
