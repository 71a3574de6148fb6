// What a turn of predictive sampling costs: known in proportion from the program, in seconds from the run itself.
// Time only ever chooses how many numbers are computed together, never a bit.
#pragma once

#include <cstdint>
#include <vector>

#include "compiled.h"

namespace pixelfast {

// Work of one step for one image, in multiply-adds: a kernel's first row reads its weights, further rows share them.
struct StepWork {
    double first = 0;  // of the first row of every kernel
    double rows = 0;   // of all rows

    bool empty() const { return rows == 0; }

    // Steps that compute rows of the image for later: not to be repeated for a wrong guess.
    bool row_start() const { return rows > 6 * first; }
};

std::vector<StepWork> work_of_steps(const CompiledProgram& program);

// Work of drawing one number.
double work_of_draw(const Head& head);

// Learns seconds = a * work of first rows + b * work of further rows, by least squares over recent turns.
class Pace {
public:
    void note(double first, double further, double seconds);
    double seconds(double first, double further) const { return first_ * first + further_ * further; }

private:
    void solve();

    double first_ = 0, further_ = 0;
    double ratio_ = 0.4;  // expected, of further_ to first_
    int64_t turns_ = 0;
    int outliers_ = 0;  // in a row
    double xx_ = 0, xy_ = 0, yy_ = 0, x_ = 0, y_ = 0;
};

}  // namespace pixelfast
