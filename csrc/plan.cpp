#include "plan.h"

#include <omp.h>

#include <algorithm>

namespace pixelfast {

namespace {

// A thread that is given less, in multiply-adds, costs more to start and to wait for than it saves; nor is a task ever
// less than so much.
constexpr double kWorkPerThread = 5e6;
constexpr double kWorkPerTask = 2000;

// Measured on one core of a server of 2023 with AVX-512, where the ratios between them matter, not the figures.
constexpr double kRatePerLane = 3.2e9;     // multiply-adds a second and float lane, of a full tile
constexpr double kBandwidth = 50e9;        // bytes of weights a second, mostly from the last-level cache
constexpr double kSecondsPerTask = 0.25e-6;
constexpr double kSecondsPerRow = 0.10e-6;  // elementwise work, loads and stores
constexpr double kSecondsPerJoin = 0.25e-6;

// Threads that share every task wait for the slowest at each of them: on a busy machine that costs more than the model
// knows. They do so where it promises at least this much.
constexpr double kGain = 1.15;

double relative_speed(const KernelTable& isa, Precision precision) {
    switch (precision) {
        case Precision::float32: return 1;
        case Precision::bfloat16: return isa.narrow_speed;
        case Precision::int8: return isa.code_speed;
    }
    return 1;
}

}  // namespace

double estimated_seconds(const CompiledProgram& program, int64_t samples, int threads, Sharing sharing) {
    const bool tasks = sharing == Sharing::tasks;
    const double images = static_cast<double>(tasks ? samples : (samples + threads - 1) / threads);
    const double rate = kRatePerLane * program.isa->lanes;
    double seconds = 0;
    for (const Task& task : program.tasks) {
        // Threads that share a task split its columns, so also its weights, and then its rows.
        const double rows = static_cast<double>(task.sites) * images;
        const double parts = tasks && worth_sharing(task.work * images, static_cast<int64_t>(rows)) ? threads : 1;
        const double speed = rate * relative_speed(*program.isa, program.kernels[task.kernel].contraction.precision);
        seconds += kSecondsPerTask + rows * kSecondsPerRow / parts +
                   std::max(task.work * images / speed, task.weight_bytes / kBandwidth) / parts;
        if (parts > 1) seconds += (task.work > 0 ? 2 : 1) * kSecondsPerJoin;
    }
    return seconds;
}

Plan plan(const CompiledProgram& program, int64_t samples, int threads, Sharing sharing) {
    if (threads <= 0) {
        double work = 0;
        for (const Task& task : program.tasks) work += task.work + kWorkPerTask;
        const double worthwhile = work * static_cast<double>(samples) / kWorkPerThread;
        threads = static_cast<int>(std::clamp(worthwhile, 1.0, static_cast<double>(omp_get_max_threads())));
    }
    if (sharing != Sharing::automatic) return {threads, sharing};
    const int owners = static_cast<int>(std::clamp<int64_t>(samples, 1, threads));
    const bool shared = kGain * estimated_seconds(program, samples, threads, Sharing::tasks) <
                        estimated_seconds(program, samples, owners, Sharing::images);
    return shared ? Plan{threads, Sharing::tasks} : Plan{owners, Sharing::images};
}

}  // namespace pixelfast
