// Runs a compiled program: the whole loop over numbers in one call, in one parallel region.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "compiled.h"
#include "pace.h"
#include "profile.h"
#include "sharing.h"

namespace pixelfast {

struct Condition {
    int32_t buffer = 0;
    const double* data = nullptr;  // (samples, slots, channels)
};

// The numbers of images: levels, or real ones.
struct Numbers {
    int64_t* levels = nullptr;
    float* real = nullptr;

    double at(int64_t i) const { return real ? static_cast<double>(real[i]) : static_cast<double>(levels[i]); }

    void set(int64_t i, double value) const {
        if (real) {
            real[i] = static_cast<float>(value);
        } else {
            levels[i] = static_cast<int64_t>(std::nearbyint(value));
        }
    }
};

struct Request {
    int64_t samples = 0;
    uint64_t seed = 0;
    uint32_t stream = 0;                  // rng version << 16 | stream
    const uint32_t* sample_ids = nullptr;  // (samples,)
    std::vector<Condition> conditions;
    Sampling sampling{1.0, false};
    const double* known = nullptr;  // (samples, C, H, W), read where mask is true; both or neither
    const bool* mask = nullptr;
    Numbers images;                 // (samples, C, H, W), written
    std::vector<float*> parameters;  // by channel (samples, H * W, parameters), written; or empty
    int64_t last_number = 0;         // numbers to sample
    int threads = 0;                 // 0: as many as OpenMP gives
    Sharing sharing = Sharing::automatic;
    // Numbers of an image row that the network computes together, on guesses where it must: 1 none, 0 as many as pays.
    int64_t lookahead = 0;
    // Called by the calling thread after each image row, when all images have it if `wait_for_row`; may throw.
    std::function<void(int64_t row)> on_row;
    bool wait_for_row = false;
    bool profile = false;  // measure where the first thread's time goes
};

class ParametersNotFinite : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Of predictive sampling, over all images.
struct Forecasts {
    int64_t guesses = 0;
    int64_t accepted = 0;
    int64_t evaluations = 0;  // of the network on one image; plain sampling takes one for every step with tasks
};

struct Outcome {
    int threads = 1;
    Sharing sharing = Sharing::images;
    double seconds = 0;
    std::vector<Profile::Entry> profile;  // by kernel, then of drawing; empty if not asked for
    Forecasts forecasts;
    int64_t plain_evaluations = 0;
};

// Whether to sample ahead: not where it has been of no use, except now and then. One step at a time needs fewer slots,
// which the caches like.
class Patience {
public:
    // For a call with these settings.
    bool try_ahead(const Sampling& sampling);

    // What came of it.
    void note(bool useful);

private:
    std::mutex lock_;
    double temperature_ = -1;  // of the calls remembered
    bool reference_ = false;
    int pause_ = 0;  // calls without, after the last that was of no use
    int left_ = 0;   // of them
};

class Engine {
public:
    explicit Engine(CompiledProgram program) : program_(std::move(program)), steps_(work_of_steps(program_)) {}

    const CompiledProgram& program() const { return program_; }

    // Throws std::invalid_argument for a request that does not fit the program, ParametersNotFinite where a
    // likelihood's parameters are not numbers, and whatever on_row throws.
    Outcome run(const Request& request) const;

private:
    CompiledProgram program_;
    std::vector<StepWork> steps_;
    mutable Patience patience_;
};

}  // namespace pixelfast
