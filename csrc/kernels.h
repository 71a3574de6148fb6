// What an instruction set provides to the engine, as a table of functions. Plain memory in, plain memory out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops_conv_layout.h"
#include "ops_mixture_loss.h"
#include "philox.h"

namespace pixelfast {

// A bfloat16: the upper half of a float. Copied in and out, never used in place: floats lie in the same memory.
using Narrow = uint16_t;

// An 8-bit code of a number. Among activations code c stands for (c - 128) times the scale of its slot: a slot is kept
// as its scale, a float, and the codes behind it. Weights are signed, times the scale of their column.
using Code = uint8_t;
constexpr int64_t kCodesOfScale = sizeof(float) / sizeof(Code);
constexpr int32_t kZeroCode = 128;
constexpr int32_t kLargestCode = 127;  // beyond kZeroCode, and of weights

// Channels that a contraction multiplies at once: narrow ones in pairs, codes in fours.
template <class Number>
constexpr int64_t kStep = sizeof(float) / sizeof(Number);

// One piece of a contraction's sum: `count` consecutive channels of one term. Block sums end where `last` is set.
struct Segment {
    int32_t term;
    int32_t first;   // channel of the term
    int32_t count;
    int32_t last;    // 1 at the end of a block
    int32_t offset;  // of the segment's first step among those of all terms
};

// rows x (vectors * lanes) tile of a contraction of floats, or of narrow numbers with sums of floats. Of codes: sources
// are whole slots, and so are segments' first channels counted from the slot's scale; a segment is a block.
template <class Number>
struct Tile {
    const Segment* segments;
    int64_t segment_count;
    const Number* const* sources;  // [term * source_stride + row]: first channel of the term in that row
    int64_t source_stride;
    const Number* panel;  // [step of all terms][columns of the tile][channel of the step]
    const float* scales;  // columns of the tile; of codes only
    const float* bias;    // columns of the tile
    float* destination;
    int64_t destination_stride;
};

template <class Number>
using TileFunction = void (*)(const Tile<Number>&);
using ElementwiseFunction = void (*)(float* destination, const float* const* sources, const int64_t* steps,
                                     int64_t width, bool exact);

// Pairs of an attention whose weights, and weighted values, are summed from zero.
constexpr int64_t kAttentionBlock = 128;

// Attention of one site to `pairs` others; `keys` and `values` point at the first channel of each. Keys are there for a
// whole last vector of pairs, and up to a vector past a key, a value or the biases of the last head is read.
struct AttentionRow {
    int64_t pairs;
    const float* query;  // head after head, as everything here
    const float* const* keys;
    const float* const* values;
    const float* bias;  // added to the scores: of a head, bias_stride behind the one before; or null
    int64_t bias_stride;
    int64_t heads;
    int64_t key_width;
    int64_t value_width;
    float scale;
    float epsilon;
    float* scratch;  // heads * attention_stride(pairs)
    float* out;      // written up to a vector past its end
};

// Floats of a head's scores, with room for a vector past their last vector.
constexpr int64_t attention_stride(int64_t pairs) { return (pairs + 31) / 16 * 16; }

// Pixels [first, end) of a task, a tile of `pixels` at a time; `first` is a multiple of that.
using MixtureLossFunction = void (*)(const MixtureLoss& task, int64_t first, int64_t end, void* scratch);
struct MixtureLossKernels {
    int64_t pixels;
    int64_t (*scratch_bytes)(const MixtureLoss& task);
    MixtureLossFunction loss, gradient;
};

constexpr int kMaxTileRows = 8;
constexpr int kMaxTileVectors = 3;
constexpr int kMaxArguments = 4;

struct KernelTable {
    const char* name;
    int lanes;         // floats in a vector
    int tile_rows;     // rows of the largest tile
    int tile_vectors;  // vectors of the widest panel
    TileFunction<float> tiles[kMaxTileRows][kMaxTileVectors];  // [rows - 1][vectors - 1]
    TileFunction<Narrow> narrow_tiles[kMaxTileRows][kMaxTileVectors];
    TileFunction<Code> code_tiles[kMaxTileRows][kMaxTileVectors];
    double narrow_speed;  // of a full tile's multiply-adds, in multiples of the floats'
    double code_speed;    // the same of codes
    // destination[0 : count] <- source, rounded to nearest, ties to even. Up to a vector past `count` is read.
    void (*narrow)(const float* source, int64_t count, Narrow* destination);
    // slot <- scale and codes of source[0 : count]. Up to a vector past `count` is read, and as many codes written.
    void (*quantise)(const float* source, int64_t count, Code* slot);
    const ElementwiseFunction* elementwise;             // by operation number
    void (*attend)(const AttentionRow& row);
    // words[0 : 4 * blocks] <- draws 0, 1, ... of the number.
    void (*noise)(const NoiseKey& key, int64_t blocks, uint32_t* words);
    // The lowest i that maximises logits[i] - temperature * log(-log(u_i)), u_i = (words[i] + 0.5) 2^-32; -1 where a
    // logit is NaN or all are minus infinity. In double precision. Up to a vector past `count` is read of both arrays.
    int64_t (*gumbel_argmax)(const float* logits, const uint32_t* words, double temperature, int64_t count);
    const ConvKernels* conv_float32;  // for training, by the arithmetic
    const ConvKernels* conv_float64;
    MixtureLossKernels mixture_loss_float32, mixture_loss_float64;  // by the arithmetic
};

struct ElementwiseName {
    const char* name;
    int arguments;
};

// Operation numbers are positions in this list, the same for every instruction set.
const std::vector<ElementwiseName>& elementwise_names();

// What contractions multiply.
enum class Precision { float32, bfloat16, int8 };

// Instruction sets this build knows and this CPU runs, best first. Some differ in one precision only.
std::vector<std::string> available_isas(Precision precision);

// The named instruction set; an empty name means $PIXELFAST_ISA, or else the best available.
// Throws std::invalid_argument for a name that is unknown or that the CPU lacks.
const KernelTable& select_isa(const std::string& name, Precision precision);

}  // namespace pixelfast
