// Where one thread's time goes, kernel by kernel.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

namespace pixelfast {

class Profile {
public:
    struct Entry {
        int64_t tasks = 0;
        int64_t rows = 0;
        double seconds = 0;  // waiting included
        double waiting = 0;  // for other threads
    };

    // One entry for each kernel, and one for drawing numbers.
    explicit Profile(int64_t kernels) : entries_(static_cast<size_t>(kernels + 1)) {}

    int64_t drawing() const { return static_cast<int64_t>(entries_.size()) - 1; }
    const std::vector<Entry>& entries() const { return entries_; }

    void begin(int64_t entry) {
        current_ = entry;
        started_ = now();
    }
    void end(int64_t rows) {
        Entry& entry = entries_[current_];
        ++entry.tasks;
        entry.rows += rows;
        entry.seconds += now() - started_;
    }
    void begin_wait() { waiting_since_ = now(); }
    void end_wait() { entries_[current_].waiting += now() - waiting_since_; }

private:
    static double now() {
        return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    }

    std::vector<Entry> entries_;
    int64_t current_ = 0;
    double started_ = 0;
    double waiting_since_ = 0;
};

}  // namespace pixelfast
