// All measurements, one after another: `benchmarks/gpu_costs.py` compiles and runs this.
#include "common.cuh"
#include "measurements.h"

int main() {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        std::fprintf(stderr, "no CUDA device can be used\n");
        return 1;
    }
    CHECK(cudaSetDevice(0));
    measure_node_gap();
    measure_grid_barrier();
    measure_flag_handover();
    measure_cluster();
    measure_reading();
    measure_products();
    return 0;
}
