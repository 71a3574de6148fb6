// A barrier for threads that meet every few microseconds: spins, and gives the core away when the wait is long.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

namespace pixelfast {

class SpinBarrier {
public:
    explicit SpinBarrier(int threads) : threads_(threads) {}

    // True where the wait was so long that another thread cannot have had a core: work is shared more evenly than that.
    bool wait() {
        if (threads_ == 1) return false;
        // The generation only grows: a thread that is late to leave cannot mistake the next meeting for this one.
        const int64_t generation = generation_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
            arrived_.store(0, std::memory_order_relaxed);
            generation_.store(generation + 1, std::memory_order_release);
            return false;
        }
        int64_t turns = 0;
        for (; generation_.load(std::memory_order_acquire) == generation; ++turns) {
            if (turns < kSpins) {
                relax();
            } else if (turns < kSpins + kYields) {
                std::this_thread::yield();
            } else {
                std::this_thread::sleep_for(std::chrono::microseconds(50));
            }
        }
        return turns > kSpins;
    }

private:
    static constexpr int64_t kSpins = 16000;  // a few hundred microseconds
    static constexpr int64_t kYields = 100;

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
