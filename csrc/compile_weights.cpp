#include "compile_weights.h"

#include <algorithm>
#include <cstring>

namespace pixelfast {

namespace {

constexpr int64_t kParallelPacking = int64_t{1} << 16;  // floats below which threads cost more than they save

// destination[k][c] <- source[k * stride + c], zero from `real` on.
void pack_floats(int64_t count, const double* source, int64_t stride, int64_t real, int64_t columns,
                        float* destination) {
    for (int64_t k = 0; k < count; ++k, source += stride, destination += columns) {
        for (int64_t c = 0; c < real; ++c) destination[c] = static_cast<float>(source[c]);
        std::fill(destination + real, destination + columns, 0.0f);
    }
}

// Codes: first what takes kZeroCode out of the column's sum again, then channels in fours.
void pack_codes(int64_t count, const double* source, int64_t stride, int64_t real, int64_t columns,
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

}  // namespace

void WeightPacker::pack_weights(const ContractionSpec& spec, const std::vector<int64_t>& offsets, int64_t steps,
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

// As pack_floats, narrow: channels 2k and 2k + 1 side by side; the last one of an odd number is followed by zero.
void WeightPacker::pack_pairs(int64_t count, const double* source, int64_t stride, int64_t real, int64_t columns,
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

// Contractions share large blocks of memory, so that huge pages hold them.
float* WeightPacker::take_weights(int64_t floats) {
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

}  // namespace pixelfast
