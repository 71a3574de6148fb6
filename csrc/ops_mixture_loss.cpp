#include "ops_mixture_loss.h"

#include <algorithm>

#include "kernels.h"
#include "memory.h"
#include "parallel.h"

namespace pixelfast {

namespace {

const MixtureLossKernels& kernels_for(const KernelTable& isa, const MixtureLoss& task) {
    return task.params.type == NumberType::float64 ? isa.mixture_loss_float64 : isa.mixture_loss_float32;
}

// Which thread computes a tile does not change what it computes: results do not depend on the number of threads.
void run(const MixtureLossKernels& kernels, MixtureLossFunction function, const MixtureLoss& task) {
    const int64_t pixels = task.images * task.height * task.width;
    const int64_t tiles = (pixels + kernels.pixels - 1) / kernels.pixels;
    const int64_t most = std::clamp<int64_t>(task.threads, 1, std::max<int64_t>(1, tiles));
    const int64_t scratch_bytes = round_up(kernels.scratch_bytes(task), 64);
    const Storage<char> scratch = allocate<char>(most * scratch_bytes);
    int64_t threads = 1;
    parallel(
        static_cast<int>(most), [&](int given) { threads = given; },
        [&](int thread) {
            const int64_t first = tiles * thread / threads, end = tiles * (thread + 1) / threads;
            function(task, first * kernels.pixels, std::min(end * kernels.pixels, pixels),
                     scratch.get() + thread * scratch_bytes);
        });
}

}  // namespace

void mixture_loss(const KernelTable& isa, const MixtureLoss& task) {
    const MixtureLossKernels& kernels = kernels_for(isa, task);
    run(kernels, kernels.loss, task);
}

void mixture_loss_gradient(const KernelTable& isa, const MixtureLoss& task) {
    const MixtureLossKernels& kernels = kernels_for(isa, task);
    run(kernels, kernels.gradient, task);
}

}  // namespace pixelfast
