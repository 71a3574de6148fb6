#include "compile_kernel.h"

#include <algorithm>
#include <utility>

#include "compile_checks.h"

namespace pixelfast {

namespace {

// A register can be the buffer's own memory unless something else writes the register, or a store may change the
// memory before another store has read it.
bool must_copy(const KernelSpec& spec, const LoadSpec& load) {
    if (spec.has_contraction && spec.contraction.result == load.result) return true;
    for (const LoadSpec& other : spec.loads)
        if (&other != &load && other.result == load.result) return true;
    for (const InstructionSpec& instruction : spec.instructions)
        if (instruction.result == load.result) return true;
    for (const StoreSpec& store : spec.stores)
        if (store.buffer == load.buffer) return true;
    return false;
}

}  // namespace

void KernelCompiler::compile_kernel(const KernelSpec& spec, CompiledKernel& kernel) {
    require(spec.sites > 0, kernel_, "no sites");
    for (const int64_t width : spec.widths) require(width > 0, kernel_, "an empty register");
    for (const int64_t width : spec.widths) written_.emplace_back(static_cast<size_t>(width), 0);
    out_.max_registers = std::max<int64_t>(out_.max_registers, spec.widths.size());
    if (spec.has_contraction) compile_contraction(spec, kernel.contraction);
    if (spec.has_attention) compile_attention(spec, kernel.attention);
    compile_loads(spec, kernel);
    place_registers(spec, kernel);
    compile_instructions(spec, kernel);
    compile_stores(spec, kernel);
    out_.row_floats = std::max(out_.row_floats, row_floats_ + 2 * kLineFloats);
}

void KernelCompiler::require_register(const KernelSpec& spec, int32_t index, int64_t first, int64_t last) const {
    require(in_range(index, spec.widths.size()), kernel_, "no register ", index);
    require(first >= 0 && last < spec.widths[index], kernel_, "channels outside register ", index);
}

void KernelCompiler::write(int32_t index, int64_t start, int64_t width) {
    std::fill_n(written_[index].begin() + start, width, 1);
}

void KernelCompiler::require_written(int32_t index, int64_t channel) const {
    require(written_[index][channel] != 0, kernel_, "register ", index, " is read before it is written");
}

void KernelCompiler::compile_loads(const KernelSpec& spec, CompiledKernel& kernel) {
    for (const LoadSpec& load : spec.loads) {
        const Slots& slots = buffer(load.buffer);
        const int64_t count = load.channels.empty() ? load.count : static_cast<int64_t>(load.channels.size());
        require(count > 0, kernel_, "an empty load");
        require_register(spec, load.result, 0, count - 1);
        CompiledLoad out;
        out.result = load.result;
        out.count = count;
        out.channels = load.channels;
        if (load.channels.empty()) {
            require(load.start >= 0 && load.start + count <= slots.channels, kernel_, "a load leaves its buffer");
            out.slots = from_channel(slots, load.start);
        } else {
            for (const int32_t channel : load.channels)
                require(channel >= 0 && channel < slots.channels, kernel_, "a load leaves its buffer");
            out.slots = slots;
        }
        if (load.table != kNone) out.table = table(load.table, spec.sites, slots);
        out.copy = !load.channels.empty() || must_copy(spec, load);
        kernel.loads.push_back(std::move(out));
        write(load.result, 0, count);
    }
}

void KernelCompiler::place_registers(const KernelSpec& spec, CompiledKernel& kernel) {
    kernel.registers.assign(spec.widths.size(), -1);
    for (size_t r = 0; r < spec.widths.size(); ++r) {
        const int32_t index = static_cast<int32_t>(r);
        if (kernel.contraction.result == index) continue;
        const bool alias = std::any_of(kernel.loads.begin(), kernel.loads.end(), [&](const CompiledLoad& load) {
            return load.result == index && !load.copy;
        });
        if (!alias) kernel.registers[r] = take_row(spec.widths[r]);
    }
}

int64_t KernelCompiler::take_row(int64_t floats) {
    const int64_t offset = row_floats_;
    row_floats_ += round_up(floats, kLineFloats) + kLineFloats;
    return offset;
}

void KernelCompiler::compile_stores(const KernelSpec& spec, CompiledKernel& kernel) {
    for (const StoreSpec& store : spec.stores) {
        const Slots& slots = buffer(store.buffer);
        require(!slots.constant, kernel_, "a store into a constant");
        require(store.count > 0 && store.channel >= 0 && store.channel + store.count <= slots.channels, kernel_,
                "a store leaves its buffer");
        require(slots.code_offset == kNone || store.count == slots.channels, kernel_,
                "a store of some channels of codes");
        require_register(spec, store.source, store.start, store.start + store.count - 1);
        for (int64_t i = 0; i < store.count; ++i) require_written(store.source, store.start + i);
        kernel.stores.push_back({store.source, store.start, store.count, from_channel(slots, store.channel),
                                 table(store.table, spec.sites, slots)});
    }
}

}  // namespace pixelfast
