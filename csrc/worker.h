// One thread's part of a team that runs tasks together on a range of images.
//
// Sharing tasks pays only while every thread has a core: on a busy machine a thread that is not running holds up all
// the others at every task. So the first member, when it sees this, takes all the work for a while. Every member must
// know of that at the same moment; the first one announces it at a barrier.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "compiled.h"
#include "profile.h"
#include "sharing.h"
#include "spin_barrier.h"

namespace pixelfast {

constexpr int64_t kChunkRows = 128;  // rows of a task that are in flight: their sums stay in the second-level cache

// Consecutive numbers of an image row, whose steps are run together.
struct Stretch {
    int64_t first = 0;
    int64_t count = 0;
};

// How far a team is that samples ahead, which is for one image. Written by its first member, while the others wait.
struct Progress {
    Stretch next;      // what is to be run
    int64_t rows = 0;  // of the image that are done
    bool finished = false;
};

// What the threads of a team share.
struct Team {
    Team(const CompiledProgram& program, float* arenas, int64_t images, int size);

    float* arena(int64_t image) const { return arenas + image * arena_floats; }

    float* arenas;
    int64_t arena_floats;
    int64_t images;
    int size;
    SpinBarrier barrier;
    std::atomic<int> long_waits{0};
    Progress progress;
    int32_t ahead = 0;  // see CompiledProgram::ahead
    // Announcements: numbers before this one are the first member's alone. By turns, since a slow reader may still be
    // at the one before.
    int64_t alone_until[2] = {0, 0};
    std::atomic<int64_t> passed{0};  // numbers that are done, while the first member works alone
    Storage<float> results;  // (kChunkRows, row stride of the kernel)
};

class Worker {
public:
    Worker(const CompiledProgram& program, Team& team, int member);

    // Runs the tasks of a number.
    void run(int64_t number);

    // Runs the tasks of a stretch, its steps as one, for a team of one image. Where a team samples ahead, turns take the
    // place of numbers in everything else here.
    void run(const Stretch& stretch, int64_t turn);

    // The samples whose numbers this member draws. What other members did until then is seen.
    struct Cut {
        int64_t first;
        int64_t last;
    };
    Cut images_to_draw();

    // The same where the first member draws all: whether this is the one.
    bool first_to_draw();
    bool first() const { return member_ == 0; }

    // To be called when they are drawn.
    void finish_number();

    // Whether the first member works alone until further notice.
    bool alone() const { return team_.size == 1 || number_ < alone_until_; }

    // The number before which this member has nothing to do.
    int64_t idle_until() const { return member_ == 0 ? 0 : alone_until_; }

    // Waits, without using a core, until the first member has come to `number` alone. False where it has left.
    bool idle(int64_t number);

    // To be called when all is done that comes before `number`.
    void pass(int64_t number);

    // To be called at the end, early or not: nobody waits any longer for the first member.
    void leave();

    // Measures from now on, if this is the first member of a team.
    void measure(Profile* profile) { profile_ = profile; }

private:
    struct Span {
        int32_t pattern;
        int64_t first;  // row of the chunk
        int64_t count;
    };

    // Contiguous part of `total` things that is this member's.
    Cut share(int64_t total) const;

    // Waits until what any member has done is seen by all.
    void join();
    void announce();
    void run_step(int64_t number);

    // A kernel's rows are added between `begin` and `end`, those of one pattern next to each other. False where another
    // member does it all. `work`: multiply-adds of the contraction.
    bool begin(const CompiledKernel& kernel, double work, int64_t rows);
    void add(const Run& run, int64_t image);
    void end();
    void run_chunk(const CompiledKernel& kernel, bool together);
    void contract(const CompiledContraction& contraction, Cut rows, size_t first_panel, size_t last_panel);
    template <class Number>
    void contract(const CompiledContraction& contraction, Cut rows, size_t first_panel, size_t last_panel,
                  std::vector<const Number*>& sources);
    void place_registers(const CompiledKernel& kernel);
    void attend(const CompiledAttention& attention, int64_t row);
    void finish_row(const CompiledKernel& kernel, int64_t row);
    void execute(const CompiledInstruction& instruction, const CompiledKernel& kernel);
    void reduce(const CompiledInstruction& instruction, float* destination) const;
    template <class Number>
    const Number* slot(const Slots& slots, const int32_t* table, int64_t row) const;
    template <class Number>
    const Number* slot(const Slots& slots, int32_t index, const float* arena) const;

    const CompiledProgram& program_;
    Team& team_;
    const int member_;
    Profile* profile_ = nullptr;
    int64_t number_ = 0;
    int64_t alone_until_ = 0;
    int64_t alone_for_;       // numbers, the next time
    int64_t window_end_ = 0;  // until this number long waits are counted together
    int64_t joins_ = 0;
    bool unseen_ = false;  // the first member has worked alone since the last join

    // Where a stretch is run: the tasks that remain of each step, and the runs of the kernel at hand.
    struct Cursor {
        const Task* task;
        const Task* end;
    };
    std::vector<Cursor> cursors_;
    std::vector<const Run*> runs_;

    // The kernel at hand, and the chunk of its rows in flight; a row is a site of an image.
    const CompiledKernel* kernel_ = nullptr;
    int64_t task_rows_ = 0;
    bool together_ = false;
    int64_t rows_ = 0;
    std::vector<int32_t> site_;
    std::vector<float*> arena_;
    std::vector<Span> spans_;

    std::vector<const float*> sources_;  // (terms, kChunkRows)
    std::vector<const Narrow*> narrow_sources_;
    std::vector<const Code*> code_sources_;
    std::vector<const float*> keys_;  // of the site that attends
    std::vector<const float*> values_;
    Storage<float> scores_;
    Storage<float> row_;                 // registers and temporaries of one row
    std::vector<float*> registers_;
};

}  // namespace pixelfast
