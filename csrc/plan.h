// How threads share a batch: a model of what each way costs.
#pragma once

#include <cstdint>

#include "compiled.h"
#include "sharing.h"

namespace pixelfast {

// Seconds that sampling takes, roughly: what the model compares, not a promise.
double estimated_seconds(const CompiledProgram& program, int64_t samples, int threads, Sharing sharing);

struct Plan {
    int threads;
    Sharing sharing;
};

// The cheaper way; `threads` 0 means as many as OpenMP gives, and fewer where there is too little to do.
Plan plan(const CompiledProgram& program, int64_t samples, int threads, Sharing sharing);

}  // namespace pixelfast
