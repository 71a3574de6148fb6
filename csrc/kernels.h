// What an instruction set provides to the engine, as a table of functions. Plain memory in, plain memory out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "philox.h"

namespace pixelfast {

// One piece of a contraction's sum: `count` consecutive channels of one term. Block sums end where `last` is set.
struct Segment {
    int32_t term;
    int32_t first;   // channel of the term
    int32_t count;
    int32_t last;    // 1 at the end of a block
    int32_t offset;  // of the segment's first channel among all channels of all terms
};

// rows x (vectors * lanes) tile of a contraction.
struct Tile {
    const Segment* segments;
    int64_t segment_count;
    const float* const* sources;  // [term * source_stride + row]: first channel of the term in that row
    int64_t source_stride;
    const float* panel;  // [channel of all terms][columns of the tile]
    const float* bias;   // columns of the tile
    float* destination;
    int64_t destination_stride;
};

using TileFunction = void (*)(const Tile&);
using ElementwiseFunction = void (*)(float* destination, const float* const* sources, const int64_t* steps,
                                     int64_t width, bool exact);

constexpr int kMaxTileRows = 8;
constexpr int kMaxTileVectors = 3;
constexpr int kMaxArguments = 4;

struct KernelTable {
    const char* name;
    int lanes;         // floats in a vector
    int tile_rows;     // rows of the largest tile
    int tile_vectors;  // vectors of the widest panel
    TileFunction tiles[kMaxTileRows][kMaxTileVectors];  // [rows - 1][vectors - 1]
    const ElementwiseFunction* elementwise;             // by operation number
    // words[0 : 4 * blocks] <- draws 0, 1, ... of the number.
    void (*noise)(const NoiseKey& key, int64_t blocks, uint32_t* words);
    // The lowest i that maximises logits[i] - temperature * log(-log(u_i)), u_i = (words[i] + 0.5) 2^-32; -1 where a
    // logit is NaN or all are minus infinity. In double precision. Up to a vector past `count` is read of both arrays.
    int64_t (*gumbel_argmax)(const float* logits, const uint32_t* words, double temperature, int64_t count);
};

struct ElementwiseName {
    const char* name;
    int arguments;
};

// Operation numbers are positions in this list, the same for every instruction set.
const std::vector<ElementwiseName>& elementwise_names();

// Instruction sets this build knows and this CPU runs, best first.
std::vector<std::string> available_isas();

// The named instruction set; an empty name means $PIXELFAST_ISA, or else the best available.
// Throws std::invalid_argument for a name that is unknown or that the CPU lacks.
const KernelTable& select_isa(const std::string& name);

}  // namespace pixelfast
