// Handing 320 bfloat16 from stage to stage with no flag but the data: a slot holds a pattern that no result has (minus
// zero, or a NaN) until its number is there. Every block writes its share and waits for all of them.
#include "common.cuh"
#include "measurements.h"

namespace {

constexpr int kWords = 160;  // two bfloat16 each
constexpr int kFew = 200, kMany = 2200;
constexpr uint32_t kMinusZeros = 0x80008000u, kNaNs = 0xFFFFFFFFu;

__global__ void stages(uint32_t* slots, uint32_t pattern, Failure* failure, int count) {
    const int share = kWords / gridDim.x, first = blockIdx.x * share;
    const int word = threadIdx.x;
    uint32_t value = 1;
    for (int stage = 0; stage < count; ++stage) {
        uint32_t* const slot = slots + static_cast<size_t>(stage) * kWords;
        if (word >= first && word < first + share) store_relaxed(slot + word, value);
        uint32_t seen = pattern;
        const bool alive = wait_until([&] { return (seen = load_relaxed(slot + word)) != pattern; }, failure);
        // What a block writes next depends on all that it has read.
        if (__syncthreads_or(!alive)) return;
        value = (seen + 1) & 0x3FFF3FFFu;
    }
}

__global__ void set_words(uint32_t* words, uint32_t value, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) words[i] = value;
}

}  // namespace

void measure_flag_handover() {
    constexpr int count = kMany * kWords;
    DeviceMemory memory(sizeof(uint32_t) * count, 0), failure(sizeof(Failure), 0);
    uint32_t* slots = memory.as<uint32_t>();
    Failure* failed = failure.as<Failure>();
    for (uint32_t pattern : {kMinusZeros, kNaNs}) {
        for (const int blocks : {2, 5, 16, 32, 80}) {
            const double stage = per_iteration(
                kFew, kMany,
                [&] {
                    set_words<<<(count + 255) / 256, 256>>>(slots, pattern, count);
                    CHECK(cudaGetLastError());
                },
                [&](int stages_wanted) {
                    void* arguments[] = {&slots, &pattern, &failed, &stages_wanted};
                    CHECK(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(&stages), dim3(blocks),
                                                      dim3(kWords), arguments, 0, nullptr));
                });
            check_waits(failure, "flag handover");
            std::printf("{\"measurement\": \"handover by %s\", \"blocks\": %d, \"ns\": %.1f}\n",
                        pattern == kNaNs ? "NaN" : "minus zero", blocks, stage);
        }
    }
}
