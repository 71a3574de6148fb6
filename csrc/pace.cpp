#include "pace.h"

#include <algorithm>

namespace pixelfast {

namespace {

// Of running one row of a task besides its products, and of one class or mixture component when drawing.
constexpr double kWorkPerRow = 2000;
constexpr double kWorkPerClass = 60;

constexpr double kForgetting = 0.98;  // per turn
constexpr double kTrust = 0.05;       // in the expected ratio, to the weight of what is known of first rows
constexpr double kFollowing = 0.05;
constexpr double kHighest = 2;        // ratio

// A turn that takes this much longer than expected was interrupted, unless there are many of them.
constexpr double kInterrupted = 3;
constexpr int kMostInterruptions = 4;
constexpr int64_t kTurnsToExpect = 8;

}  // namespace

std::vector<StepWork> work_of_steps(const CompiledProgram& program) {
    std::vector<StepWork> steps(static_cast<size_t>(program.numbers()));
    for (int64_t number = 0; number < program.numbers(); ++number) {
        for (int64_t t = program.first_task[number]; t < program.first_task[number + 1]; ++t) {
            const Task& task = program.tasks[t];
            const double rows = static_cast<double>(task.sites);
            steps[number].first += task.work / rows + kWorkPerRow;
            steps[number].rows += task.work + kWorkPerRow * rows;
        }
    }
    return steps;
}

double work_of_draw(const Head& head) {
    return kWorkPerClass * static_cast<double>(head.kind == HeadKind::categorical ? head.levels : head.mixtures + 1);
}

void Pace::note(double first, double further, double seconds) {
    if (seconds <= 0) return;
    if (turns_ >= kTurnsToExpect && outliers_ < kMostInterruptions &&
        seconds > kInterrupted * this->seconds(first, further)) {
        ++outliers_;
        return;
    }
    outliers_ = 0;
    ++turns_;
    // In relative terms, so that long turns count no more than short ones.
    const double x = first / seconds, y = further / seconds;
    for (double* sum : {&xx_, &xy_, &yy_, &x_, &y_}) *sum *= kForgetting;
    xx_ += x * x;
    xy_ += x * y;
    yy_ += y * y;
    x_ += x;
    y_ += y;
    solve();
}

// The expected ratio counts as an observation, and follows what is seen: turns without further rows do not blur it.
void Pace::solve() {
    const double trust = kTrust * xx_;
    const double xx = xx_ + trust * ratio_ * ratio_, xy = xy_ - trust * ratio_, yy = yy_ + trust;
    const double determinant = xx * yy - xy * xy;
    if (!(determinant > 0)) return;
    first_ = (x_ * yy - y_ * xy) / determinant;
    further_ = (y_ * xx - x_ * xy) / determinant;
    if (further_ < 0) {
        first_ = x_ / xx_;
        further_ = 0;
    } else if (first_ < 0) {
        first_ = 0;
        further_ = y_ / yy_;
    }
    if (first_ > 0) ratio_ += kFollowing * (std::min(further_ / first_, kHighest) - ratio_);
}

}  // namespace pixelfast
