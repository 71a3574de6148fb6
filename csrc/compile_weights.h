// Weights of contractions, packed as the micro-kernels read them.
#pragma once

#include <cstdint>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "compiled.h"

namespace pixelfast {

// Channels that a contraction multiplies at once.
inline int64_t step_of(Precision precision) {
    switch (precision) {
        case Precision::bfloat16: return kStep<Narrow>;
        case Precision::int8: return kStep<Code>;
        default: return kStep<float>;
    }
}

class WeightPacker {
public:
    // Weights go into memory of `program`, which must outlive the packer.
    explicit WeightPacker(CompiledProgram& program) : out_(program) {}

    // Panels of a few vectors of columns, each [step of all terms][columns], one after the other. An even number of
    // panels of nearly equal width, so that two threads share them evenly. A step of narrow channels is a pair of them,
    // one of codes four, as wide as a float.
    // `offsets`: the first step of each term; `steps`: of all terms.
    void pack_weights(const ContractionSpec& spec, const std::vector<int64_t>& offsets, int64_t steps,
                      CompiledContraction& out);

private:
    void pack_pairs(int64_t count, const double* source, int64_t stride, int64_t real, int64_t columns,
                    float* destination) const;
    float* take_weights(int64_t floats);

    CompiledProgram& out_;
    using Arrays = std::vector<std::pair<const double*, int64_t>>;
    std::map<std::tuple<Precision, int64_t, Arrays>, float*> packed_;  // by columns, and the arrays of scales and weights
    float* next_weights_ = nullptr;
    int64_t weights_left_ = 0;
};

}  // namespace pixelfast
