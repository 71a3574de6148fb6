// What all measurements share: checked calls, times, and waiting that ends.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

// A failed call ends the program with one line that says which, and status 1.
inline void check(cudaError_t status, const char* call, const char* file, int line) {
    if (status == cudaSuccess) return;
    std::fprintf(stderr, "%s:%d: %s: %s\n", file, line, call, cudaGetErrorString(status));
    std::exit(1);
}
#define CHECK(call) check((call), #call, __FILE__, __LINE__)

// Memory of the device, all bytes set to one value.
class DeviceMemory {
public:
    DeviceMemory(size_t bytes, int value) : bytes_(bytes) {
        CHECK(cudaMalloc(&data_, bytes));
        fill(value);
    }
    ~DeviceMemory() { cudaFree(data_); }
    DeviceMemory(const DeviceMemory&) = delete;
    DeviceMemory& operator=(const DeviceMemory&) = delete;

    void fill(int value) { CHECK(cudaMemset(data_, value, bytes_)); }
    template <class T>
    T* as() const {
        return static_cast<T*>(data_);
    }

private:
    void* data_ = nullptr;
    size_t bytes_;
};

inline int multiprocessors() {
    int count = 0;
    CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0));
    return count;
}

// ---------------------------------------------------------------- waiting

// Set by a wait that has taken too long; every wait then ends.
struct Failure {
    int happened;
};

constexpr long long kMostCycles = 2'000'000'000;  // about a second

#ifdef __CUDACC__
__device__ inline uint32_t load_relaxed(const uint32_t* address) {
    uint32_t value;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
    return value;
}
__device__ inline uint32_t load_acquire(const uint32_t* address) {
    uint32_t value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
    return value;
}
__device__ inline void store_relaxed(uint32_t* address, uint32_t value) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}
__device__ inline void add_release(uint32_t* address, uint32_t value) {
    asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}

// Calls `ready` until it is true. False if that took longer than a second, or another thread has given up.
template <class Ready>
__device__ bool wait_until(Ready ready, Failure* failure) {
    const long long start = clock64();
    for (uint32_t turn = 1; !ready(); ++turn) {
        if (turn % 256 != 0) continue;
        if (*static_cast<volatile int*>(&failure->happened) != 0) return false;
        if (clock64() - start > kMostCycles) {
            *static_cast<volatile int*>(&failure->happened) = 1;
            return false;
        }
    }
    return true;
}
#endif

// Ends the program if a wait has given up.
inline void check_waits(const DeviceMemory& failure, const char* measurement) {
    Failure seen{};
    CHECK(cudaMemcpy(&seen, failure.as<Failure>(), sizeof seen, cudaMemcpyDeviceToHost));
    if (seen.happened == 0) return;
    std::fprintf(stderr, "%s: a wait took longer than a second; its blocks may not have run at the same time\n",
                 measurement);
    std::exit(1);
}

// ---------------------------------------------------------------- times

constexpr int kRepeats = 7;

// Nanoseconds between the ends of what was in the stream before and of what `launch` puts there.
template <class Launch>
double nanoseconds(Launch launch) {
    cudaEvent_t start, stop;
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&stop));
    CHECK(cudaEventRecord(start));
    launch();
    CHECK(cudaEventRecord(stop));
    CHECK(cudaEventSynchronize(stop));
    float milliseconds = 0;
    CHECK(cudaEventElapsedTime(&milliseconds, start, stop));
    CHECK(cudaEventDestroy(start));
    CHECK(cudaEventDestroy(stop));
    return 1e6 * milliseconds;
}

inline double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

// Nanoseconds of one of the iterations inside launch(count), without what a launch costs by itself: the difference of
// many and few iterations. `prepare` comes before each launch and is not timed.
template <class Prepare, class Launch>
double per_iteration(int few, int many, Prepare prepare, Launch launch) {
    std::vector<double> found;
    for (int repeat = 0; repeat <= kRepeats; ++repeat) {
        prepare();
        const double of_few = nanoseconds([&] { launch(few); });
        prepare();
        const double of_many = nanoseconds([&] { launch(many); });
        if (repeat > 0) found.push_back((of_many - of_few) / (many - few));  // the first repeat warms up
    }
    return median(found);
}
