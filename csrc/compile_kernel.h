// Makes one kernel of a program ready to run: each index checked, each reference resolved to an offset.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compile_layout.h"
#include "compile_weights.h"
#include "compiled.h"

namespace pixelfast {

// Of one kernel. Its parts lie in files of their own: compile_contraction.cpp, compile_attention.cpp and
// compile_instructions.cpp.
class KernelCompiler {
public:
    // `name`: of the kernel; messages begin with it.
    KernelCompiler(CompiledProgram& out, const Layout& layout, WeightPacker& weights, const std::string& name)
        : out_(out), layout_(layout), weights_(weights), kernel_(name) {}

    void compile_kernel(const KernelSpec& spec, CompiledKernel& kernel);

private:
    const Slots& buffer(int32_t index) const { return layout_.buffer(kernel_, index); }
    const int32_t* table(int32_t index, int64_t length, const Slots& slots) const {
        return layout_.table(kernel_, index, length, slots);
    }

    void require_register(const KernelSpec& spec, int32_t index, int64_t first, int64_t last) const;
    void write(int32_t index, int64_t start, int64_t width);
    void require_written(int32_t index, int64_t channel) const;

    void compile_contraction(const KernelSpec& kernel_spec, CompiledContraction& out);
    void require_codes(const ContractionSpec& spec, const TermSpec& term) const;
    void compile_attention(const KernelSpec& kernel_spec, CompiledAttention& out);
    void compile_loads(const KernelSpec& spec, CompiledKernel& kernel);
    void place_registers(const KernelSpec& spec, CompiledKernel& kernel);
    int64_t take_row(int64_t floats);
    void compile_instructions(const KernelSpec& spec, CompiledKernel& kernel);
    Argument compile_argument(const KernelSpec& spec, const InstructionSpec& instruction, const OperandSpec& operand,
                              std::vector<float>& numbers);
    void compile_reduction(const KernelSpec& spec, const InstructionSpec& instruction, CompiledInstruction& out);
    void compile_stores(const KernelSpec& spec, CompiledKernel& kernel);

    CompiledProgram& out_;
    const Layout& layout_;
    WeightPacker& weights_;
    const std::string kernel_;                   // what is being compiled, for messages
    std::vector<std::vector<uint8_t>> written_;  // by register and channel
    int64_t row_floats_ = 0;
};

}  // namespace pixelfast
