// A program as Python hands it over: pixelfast/program.py in plain structures. Nothing here is trusted; `compile`
// (compiled.h) checks all of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "heads.h"
#include "kernels.h"

namespace pixelfast {

constexpr int32_t kNone = -1;

struct BufferSpec {
    bool constant = false;
    int64_t channels = 0;
    int64_t slots = 0;
    const float* data = nullptr;  // (slots, channels), constants only
};

struct TermSpec {
    int32_t buffer = 0;
    int32_t table = 0;
    int64_t start = 0;
    int64_t count = 0;
    const double* weight = nullptr;  // (count, columns)
};

struct SegmentSpec {
    int32_t term, first, count, last;  // as Segment in kernels.h
};

struct ContractionSpec {
    int32_t result = 0;  // register
    int64_t columns = 0;
    std::vector<TermSpec> terms;
    const double* bias = nullptr;  // (columns,) or null
    std::vector<std::vector<SegmentSpec>> patterns;
    std::vector<int32_t> pattern_of_site;
    Precision precision = Precision::float32;  // of sources and weights; sums are floats
    const double* scales = nullptr;             // (columns,), int8 only: weights are integers, to be multiplied by these
};

// What an attention reads: `width` channels per head from `start`, head after head.
struct AttendedSpec {
    int32_t buffer = 0;
    int32_t table = 0;  // by site for queries, by pair for keys and values
    int64_t start = 0;
    int64_t width = 0;
};

struct AttentionSpec {
    int32_t result = 0;  // register
    AttendedSpec query, keys, values;
    std::vector<int32_t> first;  // pairs of site s: first[s] to first[s + 1]
    int64_t heads = 0;
    const double* bias = nullptr;  // (bias_heads, pairs) or null
    int64_t bias_heads = 0;
    double scale = 1, epsilon = 0;
};

struct LoadSpec {
    int32_t result = 0;  // register
    int32_t buffer = 0;
    int32_t table = kNone;  // kNone: slot 0 at every site
    int64_t start = 0;      // with `count`, where `channels` is empty
    int64_t count = 0;
    std::vector<int32_t> channels;
};

// Channels start, start + stride, ... of a register; or, where `source` is kNone, a number.
struct OperandSpec {
    int32_t source = kNone;
    int64_t start = 0;
    int64_t stride = 0;
    float number = 0;
};

enum class Reduction { none, sum, amax, amin, prod };

struct InstructionSpec {
    int32_t operation = 0;  // in elementwise_names(); ignored by reductions
    Reduction reduction = Reduction::none;
    int32_t result = 0;  // register
    int64_t start = 0;
    int64_t width = 0;
    std::vector<OperandSpec> arguments;
    // Reductions: channel of element j of group i of the argument is start + i * outer + j * inner, j < count.
    int64_t outer = 0, inner = 0, count = 0;
};

struct StoreSpec {
    int32_t source = 0;  // register
    int64_t start = 0;
    int64_t count = 0;
    int32_t buffer = 0;
    int32_t table = 0;
    int64_t channel = 0;
};

struct KernelSpec {
    int64_t sites = 0;
    std::vector<int64_t> widths;  // of the registers
    bool has_contraction = false;
    ContractionSpec contraction;
    bool has_attention = false;
    AttentionSpec attention;
    std::vector<LoadSpec> loads;
    std::vector<InstructionSpec> instructions;
    std::vector<StoreSpec> stores;
};

struct TaskSpec {
    int32_t step, kernel, first, count;
};

struct OutputSpec {
    int32_t buffer = 0;
    int32_t table = 0;
};

struct ProgramSpec {
    int64_t channels = 0, height = 0, width = 0;
    std::vector<BufferSpec> buffers;
    std::vector<std::vector<int32_t>> tables;
    std::vector<KernelSpec> kernels;
    std::vector<TaskSpec> tasks;
    std::vector<int32_t> sites;
    std::vector<int32_t> input_buffers;  // by channel, kNone where the network never reads it
    double input_scale = 1, input_offset = 0;
    std::vector<double> input_table;  // (channels, levels) or empty
    std::vector<OutputSpec> outputs;  // by channel
    int64_t lookahead = 1;            // consecutive steps of an image row that may be merged
    std::vector<std::vector<int32_t>> ahead_tables;  // the tables to use then
    Head head{};
};

}  // namespace pixelfast
