// Checks a program and makes it ready to run.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "compiled.h"

namespace pixelfast {

namespace {

// The message is put together only where it is needed: most conditions stand in loops over tables.
template <class... Parts>
void require(bool condition, const Parts&... parts) {
    if (condition) return;
    std::ostringstream message;
    message << "malformed program: ";
    (message << ... << parts);
    throw std::invalid_argument(message.str());
}

constexpr int64_t kMostFloats = int64_t{1} << 40;
constexpr int64_t kMostNumbers = int64_t{1} << 32;
constexpr int64_t kMostEntries = int64_t{1} << 30;
constexpr int64_t kParallelPacking = int64_t{1} << 16;  // floats below which threads cost more than they save

bool in_range(int64_t index, size_t size) { return index >= 0 && index < static_cast<int64_t>(size); }

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

class Compiler {
public:
    Compiler(const ProgramSpec& spec, const KernelTable& isa) : spec_(spec) { out_.isa = &isa; }

    CompiledProgram run() {
        require(spec_.channels > 0 && spec_.height > 0 && spec_.width > 0, "the image is empty");
        require(spec_.channels <= kMostNumbers && spec_.height <= kMostNumbers / spec_.channels &&
                    spec_.width <= kMostNumbers / (spec_.channels * spec_.height),
                "the image has more numbers than the noise can count");
        out_.channels = spec_.channels;
        out_.height = spec_.height;
        out_.width = spec_.width;
        require(spec_.lookahead >= 1 && spec_.lookahead <= spec_.channels * spec_.width, "steps of ", spec_.lookahead,
                " numbers cannot be merged within an image row");
        out_.lookahead = spec_.lookahead;
        lay_out_tables();
        lay_out_buffers();
        out_.kernels.resize(spec_.kernels.size());
        for (size_t k = 0; k < spec_.kernels.size(); ++k) {
            kernel_ = "kernel " + std::to_string(k) + ": ";
            compile_kernel(spec_.kernels[k], out_.kernels[k]);
        }
        compile_tasks();
        compile_ends();
        return std::move(out_);
    }

private:
    void lay_out_tables() {
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

    void lay_out_buffers() {
        int64_t image = 0, constant = 0, longest = 0;
        const std::vector<Readers> readers = readers_of_buffers();
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

    struct Readers {
        bool floats = false;
        bool narrow = false;
        bool codes = false;
    };

    static bool Readers::*reader_of(Precision precision) {
        switch (precision) {
            case Precision::bfloat16: return &Readers::narrow;
            case Precision::int8: return &Readers::codes;
            default: return &Readers::floats;
        }
    }

    // Who reads each buffer; what is out of range is found later.
    std::vector<Readers> readers_of_buffers() const {
        std::vector<Readers> readers(spec_.buffers.size());
        const auto mark = [&](int32_t buffer, bool Readers::*kind) {
            if (in_range(buffer, readers.size())) readers[buffer].*kind = true;
        };
        for (const KernelSpec& kernel : spec_.kernels) {
            for (const TermSpec& term : kernel.contraction.terms)
                mark(term.buffer, reader_of(kernel.contraction.precision));
            for (const LoadSpec& load : kernel.loads) mark(load.buffer, &Readers::floats);
            if (!kernel.has_attention) continue;
            for (const AttendedSpec* part : {&kernel.attention.query, &kernel.attention.keys, &kernel.attention.values})
                mark(part->buffer, &Readers::floats);
        }
        for (const int32_t buffer : spec_.input_buffers) mark(buffer, &Readers::floats);
        for (const OutputSpec& output : spec_.outputs) mark(output.buffer, &Readers::floats);
        return readers;
    }

    const Slots& buffer(int32_t index) const {
        require(in_range(index, out_.buffers.size()), kernel_, "no buffer ", index);
        return out_.buffers[index];
    }

    // Slots of `buffer` from channel `start`; codes are read from their scale on.
    static Slots from_channel(Slots slots, int64_t start) {
        if (slots.offset != kNone) slots.offset += start;
        if (slots.narrow_offset != kNone) slots.narrow_offset += start;
        return slots;
    }

    const int32_t* table(int32_t index, int64_t length, const Slots& slots) const {
        require(in_range(index, spec_.tables.size()), kernel_, "no table ", index);
        const int64_t entries = static_cast<int64_t>(spec_.tables[index].size());
        require(entries == length, kernel_, "table ", index, " has ", entries, " entries, not ", length);
        const int32_t* values = out_.tables.data() + first_entry_[index];
        for (int64_t i = 0; i < length; ++i) {
            const int32_t slot = values[i], slot_ahead = values[i + out_.ahead];
            require(slot >= -1 && slot < slots.slots && slot_ahead >= -1 && slot_ahead < slots.slots, kernel_, "table ",
                    index, " leaves its buffer");
        }
        return values;
    }

    void compile_kernel(const KernelSpec& spec, CompiledKernel& kernel) {
        require(spec.sites > 0, kernel_, "no sites");
        for (const int64_t width : spec.widths) require(width > 0, kernel_, "an empty register");
        written_.clear();
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

    void require_register(const KernelSpec& spec, int32_t index, int64_t first, int64_t last) const {
        require(in_range(index, spec.widths.size()), kernel_, "no register ", index);
        require(first >= 0 && last < spec.widths[index], kernel_, "channels outside register ", index);
    }

    void write(int32_t index, int64_t start, int64_t width) {
        std::fill_n(written_[index].begin() + start, width, 1);
    }

    void require_written(int32_t index, int64_t channel) const {
        require(written_[index][channel] != 0, kernel_, "register ", index, " is read before it is written");
    }

    void compile_contraction(const KernelSpec& kernel_spec, CompiledContraction& out) {
        const ContractionSpec& spec = kernel_spec.contraction;
        require(spec.columns > 0 && !spec.terms.empty(), kernel_, "an empty contraction");
        require_register(kernel_spec, spec.result, 0, spec.columns - 1);
        require(kernel_spec.widths[spec.result] == spec.columns, kernel_, "the contraction does not fill its register");
        out.result = spec.result;
        out.precision = spec.precision;
        out.columns = spec.columns;
        const bool codes = spec.precision == Precision::int8;
        const int64_t step = step_of(spec.precision);
        write(spec.result, 0, spec.columns);

        std::vector<int64_t> offsets;
        int64_t steps = 0;
        for (const TermSpec& term : spec.terms) {
            const Slots& slots = buffer(term.buffer);
            require(term.count > 0 && term.start >= 0 && term.start + term.count <= slots.channels, kernel_,
                    "a term reads channels outside its buffer");
            out.terms.push_back({from_channel(slots, term.start), table(term.table, kernel_spec.sites, slots)});
            offsets.push_back(steps);
            steps += (term.count + step - 1) / step + (codes ? 1 : 0);
            if (codes) require_codes(spec, term);
        }
        out_.max_terms = std::max<int64_t>(out_.max_terms, spec.terms.size());

        for (const std::vector<SegmentSpec>& segments : spec.patterns) {
            Pattern pattern;
            for (const SegmentSpec& s : segments) {
                require(in_range(s.term, spec.terms.size()), kernel_, "a pattern has no such term");
                require(s.first >= 0 && s.count > 0 && int64_t{s.first} + s.count <= spec.terms[s.term].count, kernel_,
                        "a segment leaves its term");
                require(s.first % step == 0 && (s.count % step == 0 || s.first + s.count == spec.terms[s.term].count),
                        kernel_, "a segment parts a pair of channels");
                require(!codes || (s.count == spec.terms[s.term].count && s.last), kernel_,
                        "a block of codes is not a term");
                const int64_t offset = offsets[s.term] + s.first / step;
                const int64_t first = codes ? kCodesOfScale + spec.terms[s.term].start : s.first;
                pattern.segments.push_back(
                    {s.term, static_cast<int32_t>(first), s.count, s.last, static_cast<int32_t>(offset)});
                if (pattern.terms.empty() || pattern.terms.back() != s.term) pattern.terms.push_back(s.term);
                pattern.channels += s.count;
            }
            require(pattern.segments.empty() || pattern.segments.back().last, kernel_, "a block is not closed");
            out.patterns.push_back(std::move(pattern));
        }
        require(static_cast<int64_t>(spec.pattern_of_site.size()) == kernel_spec.sites, kernel_,
                "pattern_of_site does not have an entry per site");
        for (const int32_t pattern : spec.pattern_of_site)
            require(in_range(pattern, spec.patterns.size()), kernel_, "no pattern ", pattern);
        pack_weights(spec, offsets, steps, out);
    }

    static int64_t step_of(Precision precision) {
        switch (precision) {
            case Precision::bfloat16: return kStep<Narrow>;
            case Precision::int8: return kStep<Code>;
            default: return kStep<float>;
        }
    }

    void require_codes(const ContractionSpec& spec, const TermSpec& term) const {
        constexpr int64_t kMostChannels = INT32_MAX / (kZeroCode * kLargestCode);
        require(spec.scales != nullptr, kernel_, "codes without scales");
        require(term.count <= kMostChannels, kernel_, "a sum of codes may not fit 32 bits");
        const double* last = term.weight + term.count * spec.columns;
        require(std::all_of(term.weight, last,
                            [](double w) { return std::abs(w) <= kLargestCode && w == std::nearbyint(w); }),
                kernel_, "weights are not codes");
    }

    // Panels of a few vectors of columns, each [step of all terms][columns], one after the other. An even number of
    // panels of nearly equal width, so that two threads share them evenly. A step of narrow channels is a pair of them,
    // one of codes four, as wide as a float.
    void pack_weights(const ContractionSpec& spec, const std::vector<int64_t>& offsets, int64_t steps,
                      CompiledContraction& out) {
        const int64_t lanes = out_.isa->lanes;
        const int64_t vectors = (spec.columns + lanes - 1) / lanes;
        int64_t panels = (vectors + out_.isa->tile_vectors - 1) / out_.isa->tile_vectors;
        if (vectors > 1) panels = round_up(panels, 2);
        out.row_stride = round_up(vectors * lanes, kLineFloats);
        out_.result_floats = std::max(out_.result_floats, out.row_stride);
        out.bias.assign(static_cast<size_t>(vectors * lanes), 0.0f);
        if (spec.bias != nullptr)
            for (int64_t c = 0; c < spec.columns; ++c) out.bias[c] = static_cast<float>(spec.bias[c]);

        out.scales.assign(out.bias.size(), 0.0f);
        if (spec.scales != nullptr)
            for (int64_t c = 0; c < spec.columns; ++c) out.scales[c] = static_cast<float>(spec.scales[c]);

        // Kernels that use the same arrays, as the steps of a loop do, share what was packed of them.
        Arrays arrays{{spec.scales, spec.columns}};
        for (const TermSpec& term : spec.terms) arrays.emplace_back(term.weight, term.count);
        const auto [found, fresh] = packed_.try_emplace({spec.precision, spec.columns, std::move(arrays)}, nullptr);
        if (fresh) found->second = take_weights(steps * vectors * lanes);
        float* packed = found->second;
        for (int64_t p = 0; p < panels; ++p) {
            const int64_t first = p * vectors / panels, last = (p + 1) * vectors / panels;
            out.panels.push_back({first * lanes, static_cast<int>(last - first), packed + steps * first * lanes});
        }
        if (!fresh) return;
#pragma omp parallel for schedule(static) if (steps * vectors * lanes > kParallelPacking)
        for (int64_t p = 0; p < panels; ++p) {
            const int64_t first = out.panels[p].column, columns = out.panels[p].vectors * lanes;
            const int64_t real = std::min(columns, spec.columns - first);
            float* panel = packed + steps * first;
            for (size_t t = 0; t < spec.terms.size(); ++t) {
                const TermSpec& term = spec.terms[t];
                const double* source = term.weight + first;
                float* destination = panel + offsets[t] * columns;
                switch (spec.precision) {
                    case Precision::bfloat16:
                        pack_pairs(term.count, source, spec.columns, real, columns, destination);
                        break;
                    case Precision::int8:
                        pack_codes(term.count, source, spec.columns, real, columns, destination);
                        break;
                    default: pack_floats(term.count, source, spec.columns, real, columns, destination);
                }
            }
        }
    }

    // destination[k][c] <- source[k * stride + c], zero from `real` on.
    static void pack_floats(int64_t count, const double* source, int64_t stride, int64_t real, int64_t columns,
                            float* destination) {
        for (int64_t k = 0; k < count; ++k, source += stride, destination += columns) {
            for (int64_t c = 0; c < real; ++c) destination[c] = static_cast<float>(source[c]);
            std::fill(destination + real, destination + columns, 0.0f);
        }
    }

    // The same, narrow: channels 2k and 2k + 1 side by side; the last one of an odd number is followed by zero.
    void pack_pairs(int64_t count, const double* source, int64_t stride, int64_t real, int64_t columns,
                    float* destination) const {
        // Rows of both channels, with room for what `narrow` reads past their end.
        std::vector<float> row(static_cast<size_t>(real + kLineFloats));
        std::vector<Narrow> even(static_cast<size_t>(columns)), odd(static_cast<size_t>(columns));
        const auto narrow_row = [&](int64_t k, std::vector<Narrow>& out) {
            for (int64_t c = 0; c < real; ++c) row[c] = k < count ? static_cast<float>(source[k * stride + c]) : 0.0f;
            out_.isa->narrow(row.data(), real, out.data());
        };
        for (int64_t k = 0; k < count; k += 2, destination += columns) {
            narrow_row(k, even);
            narrow_row(k + 1, odd);
            for (int64_t c = 0; c < columns; ++c) {
                const uint32_t pair = even[c] | uint32_t{odd[c]} << 16;
                std::memcpy(destination + c, &pair, sizeof(pair));
            }
        }
    }

    // Codes: first what takes kZeroCode out of the column's sum again, then channels in fours.
    static void pack_codes(int64_t count, const double* source, int64_t stride, int64_t real, int64_t columns,
                           float* destination) {
        constexpr int64_t step = kStep<Code>;
        std::vector<int32_t> start(static_cast<size_t>(columns), 0);
        std::vector<int8_t> codes(static_cast<size_t>(columns * step));
        float* const head = destination;
        for (int64_t k = 0; k < count; k += step) {
            std::fill(codes.begin(), codes.end(), int8_t{0});
            for (int64_t i = 0; i < std::min(step, count - k); ++i) {
                for (int64_t c = 0; c < real; ++c) {
                    const int32_t code = static_cast<int32_t>(source[(k + i) * stride + c]);
                    codes[c * step + i] = static_cast<int8_t>(code);
                    start[c] -= kZeroCode * code;
                }
            }
            destination += columns;
            std::memcpy(destination, codes.data(), codes.size());
        }
        std::memcpy(head, start.data(), start.size() * sizeof(int32_t));
    }

    // Contractions share large blocks of memory, so that huge pages hold them.
    float* take_weights(int64_t floats) {
        constexpr int64_t kBlock = int64_t{1} << 23;
        floats = round_up(floats, kLineFloats);
        out_.weight_bytes += floats * static_cast<int64_t>(sizeof(float));
        if (floats > weights_left_) {
            weights_left_ = std::max(kBlock, floats);
            out_.weights.push_back(allocate<float>(weights_left_));
            next_weights_ = out_.weights.back().get();
        }
        float* result = next_weights_;
        next_weights_ += floats;
        weights_left_ -= floats;
        return result;
    }

    void compile_attention(const KernelSpec& kernel_spec, CompiledAttention& out) {
        const AttentionSpec& spec = kernel_spec.attention;
        const std::vector<int32_t>& first = spec.first;
        require(!kernel_spec.has_contraction, kernel_, "both a contraction and an attention");
        require(static_cast<int64_t>(first.size()) == kernel_spec.sites + 1 && first[0] == 0, kernel_,
                "the pairs of an attention are not given for every site");
        for (size_t s = 1; s < first.size(); ++s) {
            require(first[s] >= first[s - 1], kernel_, "the pairs of an attention are out of order");
            out_.max_pairs = std::max<int64_t>(out_.max_pairs, first[s] - first[s - 1]);
        }
        const int64_t pairs = first.back();
        constexpr int64_t kMostChannels = int64_t{1} << 24;
        require(spec.heads > 0 && spec.heads <= kMostChannels, kernel_, "an attention without heads");
        const auto part = [&](const AttendedSpec& from, int64_t entries) {
            const Slots& slots = buffer(from.buffer);
            require(from.width > 0 && from.width <= kMostChannels && from.start >= 0 &&
                        from.start + spec.heads * from.width <= slots.channels,
                    kernel_, "an attention reads channels outside its buffer");
            CompiledAttended out{from_channel(slots, from.start), table(from.table, entries, slots), from.width};
            for (int64_t i = 0; i < entries; ++i)
                out.inside = out.inside && out.table[i] >= 0 && out.table[i + out_.ahead] >= 0;
            return out;
        };
        out.query = part(spec.query, kernel_spec.sites);
        out.keys = part(spec.keys, pairs);
        out.values = part(spec.values, pairs);
        require(spec.query.width == spec.keys.width, kernel_, "queries and keys differ in width");
        const int64_t columns = spec.heads * spec.values.width;
        require_register(kernel_spec, spec.result, 0, columns - 1);
        require(kernel_spec.widths[spec.result] == columns, kernel_, "the attention does not fill its register");
        for (const LoadSpec& load : kernel_spec.loads)
            require(load.result != spec.result, kernel_, "a load overwrites the attention");
        write(spec.result, 0, columns);
        out.result = spec.result;
        out.first = first;
        out.heads = spec.heads;
        out.scale = static_cast<float>(spec.scale);
        out.epsilon = static_cast<float>(spec.epsilon);
        if (spec.bias != nullptr) {
            require(spec.bias_heads == 1 || spec.bias_heads == spec.heads, kernel_, "the bias is for other heads");
            out.bias_stride = spec.bias_heads == 1 ? 0 : pairs;
            out.bias.assign(spec.bias, spec.bias + spec.bias_heads * pairs);
            out.bias.resize(out.bias.size() + kLineFloats, 0.0f);
        }
        out_.attention_floats = std::max(out_.attention_floats, spec.heads * attention_stride(out_.max_pairs));
    }

    void compile_loads(const KernelSpec& spec, CompiledKernel& kernel) {
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

    // A register can be the buffer's own memory unless something else writes the register, or a store may change the
    // memory before another store has read it.
    static bool must_copy(const KernelSpec& spec, const LoadSpec& load) {
        if (spec.has_contraction && spec.contraction.result == load.result) return true;
        for (const LoadSpec& other : spec.loads)
            if (&other != &load && other.result == load.result) return true;
        for (const InstructionSpec& instruction : spec.instructions)
            if (instruction.result == load.result) return true;
        for (const StoreSpec& store : spec.stores)
            if (store.buffer == load.buffer) return true;
        return false;
    }

    void place_registers(const KernelSpec& spec, CompiledKernel& kernel) {
        row_floats_ = 0;
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

    int64_t take_row(int64_t floats) {
        const int64_t offset = row_floats_;
        row_floats_ += round_up(floats, kLineFloats) + kLineFloats;
        return offset;
    }

    void compile_instructions(const KernelSpec& spec, CompiledKernel& kernel) {
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

    Argument compile_argument(const KernelSpec& spec, const InstructionSpec& instruction, const OperandSpec& operand,
                              std::vector<float>& numbers) {
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

    void compile_reduction(const KernelSpec& spec, const InstructionSpec& instruction, CompiledInstruction& out) {
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

    void compile_stores(const KernelSpec& spec, CompiledKernel& kernel) {
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

    // Sorts each task's sites by pattern and finds where each step's tasks begin.
    void compile_tasks() {
        const int64_t numbers = out_.numbers();
        out_.first_task.assign(static_cast<size_t>(numbers + 1), static_cast<int64_t>(spec_.tasks.size()));
        int64_t step = -1;
        std::vector<int32_t> order;
        for (size_t i = 0; i < spec_.tasks.size(); ++i) {
            const TaskSpec& task = spec_.tasks[i];
            const std::string name = "task " + std::to_string(i);
            require(task.step >= step && task.step >= 0 && task.step < numbers, name, " is out of order");
            for (; step < task.step; ++step) out_.first_task[step + 1] = static_cast<int64_t>(i);
            require(in_range(task.kernel, spec_.kernels.size()), name, " has no kernel");
            // What is merged is taken kernel by kernel.
            const bool same_step = i > 0 && spec_.tasks[i - 1].step == task.step;
            require(out_.lookahead == 1 || !same_step || task.kernel > spec_.tasks[i - 1].kernel, name,
                    " does not follow the order of kernels");
            require(task.first >= 0 && task.count > 0 &&
                        int64_t{task.first} + task.count <= static_cast<int64_t>(spec_.sites.size()),
                    name, " leaves the list of sites");
            const KernelSpec& kernel = spec_.kernels[task.kernel];
            order.assign(spec_.sites.begin() + task.first, spec_.sites.begin() + task.first + task.count);
            for (const int32_t site : order)
                require(site >= 0 && site < kernel.sites, name, " leaves its kernel's sites");
            append_task(task.kernel, kernel, order);
        }
    }

    void append_task(int32_t index, const KernelSpec& kernel, const std::vector<int32_t>& order) {
        const auto pattern = [&](int32_t site) {
            return kernel.has_contraction ? kernel.contraction.pattern_of_site[site] : 0;
        };
        std::map<int32_t, std::vector<int32_t>> sites;
        for (const int32_t site : order) sites[pattern(site)].push_back(site);
        Task task{index, static_cast<int32_t>(out_.runs.size()), static_cast<int32_t>(sites.size()),
                  static_cast<int32_t>(order.size()), 0.0, 0.0};
        for (const auto& [own, members] : sites) {
            out_.runs.push_back({own, static_cast<int32_t>(out_.sites.size()), static_cast<int32_t>(members.size())});
            out_.sites.insert(out_.sites.end(), members.begin(), members.end());
            if (kernel.has_attention) {
                const AttentionSpec& attention = kernel.attention;
                const double channels = static_cast<double>(attention.heads * (attention.keys.width + attention.values.width));
                for (const int32_t site : members)
                    task.work += channels * static_cast<double>(attention.first[site + 1] - attention.first[site]);
            }
            if (!kernel.has_contraction) continue;
            const double weights = static_cast<double>(out_.kernels[index].contraction.patterns[own].channels) *
                                   static_cast<double>(kernel.contraction.columns);
            task.work += weights * static_cast<double>(members.size());
            task.weight_bytes += weights * static_cast<double>(sizeof(float)) /
                                 static_cast<double>(step_of(kernel.contraction.precision));
        }
        out_.tasks.push_back(task);
    }

    void compile_ends() {
        kernel_ = "";
        const Head& head = spec_.head;
        const size_t channels = static_cast<size_t>(spec_.channels);
        const int64_t pixels = spec_.height * spec_.width;
        require(head.channels == spec_.channels && (head.continuous() ? head.levels == 0 : head.levels >= 2),
                "the likelihood is for other images");
        require(head.kind != HeadKind::mixture || (head.mixtures > 0 && (channels == 1 || channels == 3)),
                "a mixture is for 1 or 3 channels");
        require(spec_.input_buffers.size() == channels && spec_.outputs.size() == channels,
                "inputs and outputs must be given for every channel");
        require(spec_.input_table.empty() ||
                    spec_.input_table.size() == channels * static_cast<size_t>(head.levels),
                "the table of input values must be (channels, levels)");
        for (const int32_t index : spec_.input_buffers) {
            CompiledInput input;
            input.buffer = index;
            if (index != kNone) {
                input.slots = buffer(index);
                require(!input.slots.constant && input.slots.slots >= pixels, "an input buffer is too small");
                require(input.slots.narrow_offset == kNone && input.slots.code_offset == kNone,
                        "a contraction in low precision reads the input");
            }
            out_.inputs.push_back(input);
        }
        for (const OutputSpec& output : spec_.outputs) {
            const Slots& slots = buffer(output.buffer);
            require(slots.channels == head.parameters(), "an output has ", slots.channels,
                    " channels, not the likelihood's ", head.parameters());
            out_.outputs.push_back({slots, table(output.table, pixels, slots)});
        }
        out_.input_scale = spec_.input_scale;
        out_.input_offset = spec_.input_offset;
        out_.input_table = spec_.input_table;
        out_.head = head;
    }

    const ProgramSpec& spec_;
    CompiledProgram out_;
    std::vector<int64_t> first_entry_;            // of each table
    std::string kernel_;                          // what is being compiled, for messages
    std::vector<std::vector<uint8_t>> written_;   // by register and channel
    int64_t row_floats_ = 0;
    using Arrays = std::vector<std::pair<const double*, int64_t>>;
    std::map<std::tuple<Precision, int64_t, Arrays>, float*> packed_;  // by columns, and the arrays of scales and weights
    float* next_weights_ = nullptr;
    int64_t weights_left_ = 0;
};

}  // namespace

CompiledProgram compile(const ProgramSpec& spec, const KernelTable& isa) { return Compiler(spec, isa).run(); }

}  // namespace pixelfast
