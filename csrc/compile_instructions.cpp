// Elementwise operations and reductions of a kernel: operands checked, and read directly wherever that is possible.
#include <algorithm>

#include "compile_checks.h"
#include "compile_kernel.h"

namespace pixelfast {

void KernelCompiler::compile_instructions(const KernelSpec& spec, CompiledKernel& kernel) {
    std::vector<float> numbers;
    const std::vector<ElementwiseName>& names = elementwise_names();
    for (const InstructionSpec& instruction : spec.instructions) {
        require(instruction.width > 0, kernel_, "an empty instruction");
        require_register(spec, instruction.result, instruction.start, instruction.start + instruction.width - 1);
        CompiledInstruction out;
        out.result = instruction.result;
        out.start = instruction.start;
        out.width = instruction.width;
        // Rows of a contraction's result lie side by side; other registers have room behind them.
        out.exact = instruction.start + instruction.width < spec.widths[instruction.result] ||
                    instruction.result == kernel.contraction.result;
        out.reduction = instruction.reduction;
        out.arguments = static_cast<int>(instruction.arguments.size());
        if (instruction.reduction != Reduction::none) {
            compile_reduction(spec, instruction, out);
        } else {
            require(in_range(instruction.operation, names.size()), kernel_, "no such operation");
            const ElementwiseName& name = names[instruction.operation];
            require(out.arguments == name.arguments, kernel_, name.name, " takes ", name.arguments, " arguments");
            out.function = out_.isa->elementwise[instruction.operation];
            for (int a = 0; a < out.arguments; ++a)
                out.argument[a] = compile_argument(spec, instruction, instruction.arguments[a], numbers);
        }
        write(instruction.result, instruction.start, instruction.width);
        kernel.instructions.push_back(out);
    }
    kernel.numbers = allocate<float>(static_cast<int64_t>(numbers.size()) * kLineFloats);
    for (size_t i = 0; i < numbers.size(); ++i)
        std::fill_n(kernel.numbers.get() + i * kLineFloats, kLineFloats, numbers[i]);
}

Argument KernelCompiler::compile_argument(const KernelSpec& spec, const InstructionSpec& instruction,
                                          const OperandSpec& operand, std::vector<float>& numbers) {
    Argument out;
    if (operand.source == kNone) {
        out.mode = ArgumentMode::number;
        out.offset = static_cast<int64_t>(numbers.size()) * kLineFloats;
        numbers.push_back(operand.number);
        return out;
    }
    const int64_t end = operand.start + (instruction.width - 1) * operand.stride;
    require_register(spec, operand.source, std::min(operand.start, end), std::max(operand.start, end));
    for (int64_t i = 0; i < instruction.width; ++i)
        require_written(operand.source, operand.start + i * operand.stride);
    out.source = operand.source;
    out.start = operand.start;
    out.stride = operand.stride;
    if (operand.stride == 0) {
        out.mode = ArgumentMode::spread;
        out.offset = take_row(kLineFloats);
    } else if ((operand.stride != 1 && instruction.width > 1) ||
               (operand.source == instruction.result && operand.start < instruction.start)) {
        // The last case would read what the instruction has just written.
        out.mode = ArgumentMode::gather;
        out.offset = take_row(instruction.width);
    }
    return out;
}

void KernelCompiler::compile_reduction(const KernelSpec& spec, const InstructionSpec& instruction,
                                       CompiledInstruction& out) {
    require(out.arguments == 1 && instruction.arguments[0].source != kNone && instruction.count > 0, kernel_,
            "a reduction takes one operand and at least one element");
    const OperandSpec& operand = instruction.arguments[0];
    require(operand.source != instruction.result, kernel_, "a reduction overwrites its operand");
    for (int64_t i = 0; i < instruction.width; ++i) {
        for (int64_t j = 0; j < instruction.count; ++j) {
            const int64_t channel = operand.start + i * instruction.outer + j * instruction.inner;
            require_register(spec, operand.source, channel, channel);
            require_written(operand.source, channel);
        }
    }
    out.argument[0].source = operand.source;
    out.argument[0].start = operand.start;
    out.outer = instruction.outer;
    out.inner = instruction.inner;
    out.count = instruction.count;
}

}  // namespace pixelfast
