// One call of the engine: what its threads share, and the numbers of its images.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <vector>

#include "engine.h"
#include "heads.h"

namespace pixelfast {

struct Call {
    Call(const CompiledProgram& program, const Request& request);

    float* arena(int64_t sample) const { return arenas.get() + sample * program.arena_floats; }

    // The likelihood's parameters of a number, as the network last computed them.
    const float* parameters(int64_t sample, int64_t number) const;

    // Where a number lies in (samples, C, H, W).
    int64_t place(int64_t sample, int64_t number) const;

    bool given(int64_t sample, int64_t number) const {
        return request.mask != nullptr && request.mask[place(sample, number)];
    }

    NoiseKey noise(int64_t sample, int64_t number) const {
        return {request.seed, request.sample_ids[sample], static_cast<uint32_t>(number), request.stream};
    }

    // What the network reads for a value, in levels.
    float fed(int64_t number, double value) const;

    // Writes a value where the network reads it.
    void feed(int64_t sample, int64_t number, double value) const;

    // Draws a number of one image from its parameters, or takes the given one, and feeds it: its value.
    double settle(Sampler& sampler, int64_t sample, int64_t number);

    // The first error of any thread ends the call, at the end of the image row.
    void fail(std::exception_ptr cause);

    const CompiledProgram& program;
    const Request& request;
    std::vector<int32_t> ahead;  // by sample, added to indices of tables: program.ahead where steps are merged, or 0
    Storage<float> arenas;
    std::vector<PixelState> pixels;  // by sample
    std::atomic<bool> stop{false};
    std::exception_ptr error;
    bool over = false;  // `stop`, as all threads that meet at the end of a row see it

private:
    std::mutex error_lock_;
};

}  // namespace pixelfast
