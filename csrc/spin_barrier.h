// A barrier for threads that meet every few microseconds: spins, and gives the core away when the wait is long.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace pixelfast {

class SpinBarrier {
public:
    explicit SpinBarrier(int threads) : threads_(threads) {}

    void wait() {
        if (threads_ == 1) return;
        // The generation only grows: a thread that is late to leave cannot mistake the next meeting for this one.
        const int64_t generation = generation_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
            arrived_.store(0, std::memory_order_relaxed);
            generation_.store(generation + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; generation_.load(std::memory_order_acquire) == generation; ++spins) {
            if (spins < kSpinsBeforeYield) {
                relax();
            } else {
                std::this_thread::yield();
            }
        }
    }

private:
    static constexpr int kSpinsBeforeYield = 4000;

    static void relax() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }

    const int threads_;
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<int64_t> generation_{0};
};

}  // namespace pixelfast
