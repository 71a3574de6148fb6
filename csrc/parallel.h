// One function on several threads.
#pragma once

#if defined(__SANITIZE_THREAD__)
#include <thread>
#include <vector>
#else
#include <omp.h>
#endif

namespace pixelfast {

// Calls prepare(number of threads) once, then work(thread) on each of them; there may be fewer than were asked for.
// On OpenMP's threads, which torch has running already. ThreadSanitizer cannot see into OpenMP's barriers: for it the
// threads are the standard library's.
template <class Prepare, class Work>
void parallel(int threads, const Prepare& prepare, const Work& work) {
#if defined(__SANITIZE_THREAD__)
    prepare(threads);
    std::vector<std::thread> others;
    for (int thread = 1; thread < threads; ++thread) others.emplace_back([&work, thread] { work(thread); });
    work(0);
    for (std::thread& other : others) other.join();
#else
#pragma omp parallel num_threads(threads)
    {
#pragma omp single
        prepare(omp_get_num_threads());
        work(omp_get_thread_num());
    }
#endif
}

}  // namespace pixelfast
