// Contractions of a kernel, checked; compile_weights.h packs their weights.
#include <algorithm>
#include <cmath>
#include <utility>

#include "compile_checks.h"
#include "compile_kernel.h"

namespace pixelfast {

void KernelCompiler::compile_contraction(const KernelSpec& kernel_spec, CompiledContraction& out) {
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
    weights_.pack_weights(spec, offsets, steps, out);
}

void KernelCompiler::require_codes(const ContractionSpec& spec, const TermSpec& term) const {
    constexpr int64_t kMostChannels = INT32_MAX / (kZeroCode * kLargestCode);
    require(spec.scales != nullptr, kernel_, "codes without scales");
    require(term.count <= kMostChannels, kernel_, "a sum of codes may not fit 32 bits");
    const double* last = term.weight + term.count * spec.columns;
    require(std::all_of(term.weight, last,
                        [](double w) { return std::abs(w) <= kLargestCode && w == std::nearbyint(w); }),
            kernel_, "weights are not codes");
}

}  // namespace pixelfast
