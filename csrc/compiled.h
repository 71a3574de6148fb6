// A program made ready to run on one instruction set: checked, weights packed, every reference resolved to an offset.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "program.h"
#include "slots.h"

namespace pixelfast {

struct Panel {
    int64_t column = 0;
    int vectors = 0;
    const float* weights = nullptr;  // [step of all terms][columns of the panel]; a step is a float, two narrow numbers or four codes
};

struct CompiledTerm {
    Slots slots;  // offset moved to the term's first channel, but that of codes
    const int32_t* table = nullptr;
};

struct Pattern {
    std::vector<int32_t> terms;  // active ones
    std::vector<Segment> segments;
    int64_t channels = 0;  // of the active terms
};

struct CompiledContraction {
    int32_t result = kNone;  // kNone: the kernel has none
    Precision precision = Precision::float32;
    std::vector<CompiledTerm> terms;
    std::vector<Pattern> patterns;
    std::vector<Panel> panels;
    std::vector<float> bias;    // padded to whole vectors
    std::vector<float> scales;  // of the columns of codes
    int64_t row_stride = 0;   // of the result, in floats
    int64_t columns = 0;
};

struct CompiledAttended {
    Slots slots;  // offset moved to the first channel
    const int32_t* table = nullptr;
    int64_t width = 0;
    bool inside = true;  // no entry of the table is outside the image
};

struct CompiledAttention {
    int32_t result = kNone;  // kNone: the kernel has none
    CompiledAttended query, keys, values;
    std::vector<int32_t> first;
    std::vector<float> bias;
    int64_t bias_stride = 0;
    int64_t heads = 0;
    float scale = 1, epsilon = 0;
};

struct CompiledLoad {
    int32_t result = 0;
    Slots slots;  // offset moved to the first channel
    const int32_t* table = nullptr;  // null: slot 0
    bool copy = false;               // else the register is the buffer's own memory
    int64_t count = 0;
    std::vector<int32_t> channels;  // not empty: gather these
};

enum class ArgumentMode { direct, number, spread, gather };

struct Argument {
    ArgumentMode mode = ArgumentMode::direct;
    int32_t source = 0;  // register
    int64_t start = 0;
    int64_t stride = 1;
    int64_t offset = 0;  // number: in the constants of the kernel; spread, gather: in the row's temporary space
};

struct CompiledInstruction {
    ElementwiseFunction function = nullptr;
    Reduction reduction = Reduction::none;
    int32_t result = 0;
    int64_t start = 0;
    int64_t width = 0;
    bool exact = false;  // what follows in the register must not be overwritten
    int arguments = 0;
    Argument argument[kMaxArguments];
    int64_t outer = 0, inner = 0, count = 0;
};

struct CompiledStore {
    int32_t source = 0;
    int64_t start = 0;
    int64_t count = 0;
    Slots slots;  // offset moved to the first channel
    const int32_t* table = nullptr;
};

struct CompiledKernel {
    CompiledContraction contraction;
    CompiledAttention attention;
    std::vector<CompiledLoad> loads;
    std::vector<CompiledInstruction> instructions;
    std::vector<CompiledStore> stores;
    std::vector<int64_t> registers;  // offsets in the row's space; -1 for the contraction's result and for aliases
    Storage<float> numbers;          // constants, one vector each
};

// Sites of one task that share a pattern.
struct Run {
    int32_t pattern;
    int32_t first;  // in CompiledProgram::sites
    int32_t count;
};

struct Task {
    int32_t kernel;
    int32_t first_run;
    int32_t runs;
    int32_t sites;
    double work;          // multiply-adds per image, of the contraction or the attention
    double weight_bytes;  // that it reads
};

struct CompiledInput {
    int32_t buffer = kNone;
    Slots slots;
};

struct CompiledOutput {
    Slots slots;
    const int32_t* table = nullptr;
};

struct CompiledProgram {
    const KernelTable* isa = nullptr;
    int64_t channels = 0, height = 0, width = 0;
    int64_t lookahead = 1;  // consecutive steps of an image row that may be merged
    // A table's entries where steps are merged lie so far behind its entries.
    int32_t ahead = 0;
    std::vector<Slots> buffers;
    std::vector<int32_t> tables;  // one after the other
    std::vector<CompiledKernel> kernels;
    std::vector<Task> tasks;
    std::vector<Run> runs;
    std::vector<int32_t> sites;
    std::vector<int64_t> first_task;  // by number; one more at the end
    std::vector<CompiledInput> inputs;
    std::vector<CompiledOutput> outputs;
    double input_scale = 1, input_offset = 0;
    std::vector<double> input_table;
    Head head{};
    Storage<float> constants;
    Storage<float> zeros;  // as long as the longest slot
    std::vector<Storage<float>> weights;
    int64_t arena_floats = 0;   // of one image
    int64_t row_floats = 0;     // registers and temporaries of one row, the most of any kernel
    int64_t result_floats = 0;  // longest row of a contraction's result
    int64_t max_terms = 0;
    int64_t max_pairs = 0;       // that a site attends to
    int64_t attention_floats = 0;  // scores of a site, the most of any kernel
    int64_t max_registers = 0;
    int64_t weight_bytes = 0;

    int64_t numbers() const { return channels * height * width; }
};

// Throws std::invalid_argument where the program is malformed.
CompiledProgram compile(const ProgramSpec& spec, const KernelTable& isa);

}  // namespace pixelfast
