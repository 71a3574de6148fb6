#include "compile_layout.h"

#include <algorithm>

#include "compile_checks.h"

namespace pixelfast {

namespace {

constexpr int64_t kMostFloats = int64_t{1} << 40;
constexpr int64_t kMostEntries = int64_t{1} << 30;

// Slots of a few channels are packed; wider ones start on a cache line.
int64_t slot_stride(int64_t channels) {
    int64_t stride = 1;
    while (stride < channels && stride < kLineFloats) stride *= 2;
    return stride < channels ? round_up(channels, kLineFloats) : stride;
}

int64_t narrow_stride(int64_t channels) {
    constexpr int64_t kLine = kLineFloats * kStep<Narrow>;
    int64_t stride = 1;
    while (stride < channels && stride < kLine) stride *= 2;
    return stride < channels ? round_up(channels, kLine) : stride;
}

// The scale of a slot's codes lies before them; codes are written by whole vectors.
int64_t code_stride(int64_t channels) {
    return round_up(kCodesOfScale + round_up(channels, kLineFloats), kLineFloats * kStep<Code>);
}

// Images lie this far apart in memory, so that the same slot of different images falls into different cache sets.
int64_t arena_size(int64_t floats) {
    constexpr int64_t kPage = 1024;
    return round_up(floats + kLineFloats, kPage) + 5 * kLineFloats;
}

struct Readers {
    bool floats = false;
    bool narrow = false;
    bool codes = false;
};

bool Readers::*reader_of(Precision precision) {
    switch (precision) {
        case Precision::bfloat16: return &Readers::narrow;
        case Precision::int8: return &Readers::codes;
        default: return &Readers::floats;
    }
}

// Who reads each buffer; what is out of range is found later.
std::vector<Readers> readers_of_buffers(const ProgramSpec& spec) {
    std::vector<Readers> readers(spec.buffers.size());
    const auto mark = [&](int32_t buffer, bool Readers::*kind) {
        if (in_range(buffer, readers.size())) readers[buffer].*kind = true;
    };
    for (const KernelSpec& kernel : spec.kernels) {
        for (const TermSpec& term : kernel.contraction.terms)
            mark(term.buffer, reader_of(kernel.contraction.precision));
        for (const LoadSpec& load : kernel.loads) mark(load.buffer, &Readers::floats);
        if (!kernel.has_attention) continue;
        for (const AttendedSpec* part : {&kernel.attention.query, &kernel.attention.keys, &kernel.attention.values})
            mark(part->buffer, &Readers::floats);
    }
    for (const int32_t buffer : spec.input_buffers) mark(buffer, &Readers::floats);
    for (const OutputSpec& output : spec.outputs) mark(output.buffer, &Readers::floats);
    return readers;
}

}  // namespace

Layout::Layout(const ProgramSpec& spec, CompiledProgram& out) : spec_(spec), out_(out) {
    lay_out_tables();
    lay_out_buffers();
}

void Layout::lay_out_tables() {
    int64_t entries = 0;
    for (const std::vector<int32_t>& table : spec_.tables) {
        first_entry_.push_back(entries);
        entries += static_cast<int64_t>(table.size());
    }
    require(entries < kMostEntries, "the tables are too large");
    for (const std::vector<int32_t>& table : spec_.tables)
        out_.tables.insert(out_.tables.end(), table.begin(), table.end());
    if (spec_.lookahead == 1) return;
    out_.ahead = static_cast<int32_t>(entries);
    require(spec_.ahead_tables.size() == spec_.tables.size(), "there must be as many tables for merged steps");
    for (size_t t = 0; t < spec_.tables.size(); ++t) {
        require(spec_.ahead_tables[t].size() == spec_.tables[t].size(), "table ", t,
                " for merged steps must be as long as the other");
        out_.tables.insert(out_.tables.end(), spec_.ahead_tables[t].begin(), spec_.ahead_tables[t].end());
    }
}

void Layout::lay_out_buffers() {
    int64_t image = 0, constant = 0, longest = 0;
    const std::vector<Readers> readers = readers_of_buffers(spec_);
    for (size_t b = 0; b < spec_.buffers.size(); ++b) {
        const BufferSpec& buffer = spec_.buffers[b];
        require(buffer.channels > 0 && buffer.slots > 0, "a buffer is empty");
        require(buffer.channels <= kMostFloats / buffer.slots, "a buffer is larger than any memory");
        Slots slots;
        slots.constant = buffer.constant;
        slots.slots = buffer.slots;
        slots.channels = buffer.channels;
        int64_t& total = buffer.constant ? constant : image;
        if (readers[b].floats || (!readers[b].narrow && !readers[b].codes)) {
            slots.stride = slot_stride(buffer.channels);
            slots.offset = total;
            total += round_up(slots.stride * slots.slots, kLineFloats);
        }
        if (readers[b].narrow) {
            slots.narrow_stride = narrow_stride(buffer.channels);
            slots.narrow_offset = total * kStep<Narrow>;
            total += round_up(slots.narrow_stride * slots.slots, kLineFloats * kStep<Narrow>) / kStep<Narrow>;
        }
        if (readers[b].codes) {
            slots.code_stride = code_stride(buffer.channels);
            slots.code_offset = total * kStep<Code>;
            total += slots.code_stride * slots.slots / kStep<Code>;
        }
        longest = std::max({longest, slots.stride, slots.narrow_stride, slots.code_stride});
        out_.buffers.push_back(slots);
    }
    out_.arena_floats = arena_size(image);
    const int64_t constant_floats = constant + 2 * kLineFloats;
    out_.constants = allocate<float>(constant_floats);
    std::fill_n(out_.constants.get(), constant_floats, 0.0f);
    const int64_t zero_floats = longest + 2 * kLineFloats;
    out_.zeros = allocate<float>(zero_floats);
    std::fill_n(out_.zeros.get(), zero_floats, 0.0f);
    for (size_t b = 0; b < spec_.buffers.size(); ++b) {
        if (!spec_.buffers[b].constant) continue;
        require(spec_.buffers[b].data != nullptr, "a constant buffer has no data");
        const Slots& slots = out_.buffers[b];
        std::vector<float> row(static_cast<size_t>(slots.channels + kLineFloats));
        for (int64_t s = 0; s < slots.slots; ++s) {
            std::copy_n(spec_.buffers[b].data + s * slots.channels, slots.channels, row.data());
            write_slot(*out_.isa, slots, s, row.data(), slots.channels, out_.constants.get());
        }
    }
}

const Slots& Layout::buffer(const std::string& user, int32_t index) const {
    require(in_range(index, out_.buffers.size()), user, "no buffer ", index);
    return out_.buffers[index];
}

const int32_t* Layout::table(const std::string& user, int32_t index, int64_t length, const Slots& slots) const {
    require(in_range(index, spec_.tables.size()), user, "no table ", index);
    const int64_t entries = static_cast<int64_t>(spec_.tables[index].size());
    require(entries == length, user, "table ", index, " has ", entries, " entries, not ", length);
    const int32_t* values = out_.tables.data() + first_entry_[index];
    for (int64_t i = 0; i < length; ++i) {
        const int32_t slot = values[i], slot_ahead = values[i + out_.ahead];
        require(slot >= -1 && slot < slots.slots && slot_ahead >= -1 && slot_ahead < slots.slots, user, "table ",
                index, " leaves its buffer");
    }
    return values;
}

}  // namespace pixelfast
