// Attention of a kernel, checked.
#include <algorithm>

#include "compile_checks.h"
#include "compile_kernel.h"

namespace pixelfast {

void KernelCompiler::compile_attention(const KernelSpec& kernel_spec, CompiledAttention& out) {
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

}  // namespace pixelfast
