// Reads programs: Python tuples and arrays become the plain structures of program.h.
#include "bindings.h"
#include "names.h"

namespace pixelfast {

namespace {

// Sizes and places are read as 32-bit numbers and kept as 64-bit ones, so that sums and products of two cannot
// overflow before they are checked.

BufferSpec read_buffer(const py::handle& object, Owners& owners) {
    const py::tuple fields = tuple_of(object, 4, "a buffer");
    BufferSpec out;
    out.constant = fields[0].cast<bool>();
    out.channels = fields[1].cast<int32_t>();
    out.slots = fields[2].cast<int32_t>();
    if (out.constant) out.data = checked<float>(fields[3], {out.slots, out.channels}, "a constant buffer", owners);
    return out;
}

ContractionSpec read_contraction(const py::handle& object, Owners& owners) {
    const py::tuple fields = tuple_of(object, 8, "a contraction");
    ContractionSpec out;
    out.result = fields[0].cast<int32_t>();
    out.columns = fields[1].cast<int32_t>();
    for (const py::handle item : fields[2]) {
        const py::tuple term = tuple_of(item, 5, "a term");
        TermSpec spec;
        spec.buffer = term[0].cast<int32_t>();
        spec.table = term[1].cast<int32_t>();
        spec.start = term[2].cast<int32_t>();
        spec.count = term[3].cast<int32_t>();
        spec.weight = checked<double>(term[4], {spec.count, out.columns}, "a weight", owners);
        out.terms.push_back(spec);
    }
    if (!fields[3].is_none()) out.bias = checked<double>(fields[3], {out.columns}, "a bias", owners);
    for (const py::handle item : fields[4]) {
        const std::vector<int32_t> flat = to_vector<int32_t>(item);
        if (flat.size() % 4 != 0) throw std::invalid_argument("segments must have 4 fields each");
        std::vector<SegmentSpec> segments;
        for (size_t i = 0; i < flat.size(); i += 4)
            segments.push_back({flat[i], flat[i + 1], flat[i + 2], flat[i + 3]});
        out.patterns.push_back(std::move(segments));
    }
    out.pattern_of_site = to_vector<int32_t>(fields[5]);
    out.precision = precision_of(fields[6].cast<std::string>());
    if (!fields[7].is_none()) out.scales = checked<double>(fields[7], {out.columns}, "scales", owners);
    return out;
}

AttendedSpec read_attended(const py::handle& object) {
    const py::tuple fields = tuple_of(object, 4, "what an attention reads");
    return {fields[0].cast<int32_t>(), fields[1].cast<int32_t>(), fields[2].cast<int32_t>(), fields[3].cast<int32_t>()};
}

AttentionSpec read_attention(const py::handle& object, Owners& owners) {
    const py::tuple fields = tuple_of(object, 9, "an attention");
    AttentionSpec out;
    out.result = fields[0].cast<int32_t>();
    out.query = read_attended(fields[1]);
    out.keys = read_attended(fields[2]);
    out.values = read_attended(fields[3]);
    out.first = to_vector<int32_t>(fields[4]);
    out.heads = fields[5].cast<int32_t>();
    out.scale = fields[6].cast<double>();
    out.epsilon = fields[7].cast<double>();
    if (fields[8].is_none()) return out;
    if (out.first.empty()) throw std::invalid_argument("an attention without pairs has a bias");
    out.bias_heads = py::len(fields[8]);
    out.bias = checked<double>(fields[8], {out.bias_heads, out.first.back()}, "the bias of an attention", owners);
    return out;
}

LoadSpec read_load(const py::handle& object) {
    const py::tuple fields = tuple_of(object, 6, "a load");
    LoadSpec out;
    out.result = fields[0].cast<int32_t>();
    out.buffer = fields[1].cast<int32_t>();
    out.table = fields[2].cast<int32_t>();
    out.start = fields[3].cast<int32_t>();
    out.count = fields[4].cast<int32_t>();
    if (!fields[5].is_none()) out.channels = to_vector<int32_t>(fields[5]);
    return out;
}

OperandSpec read_operand(const py::handle& object) {
    OperandSpec out;
    if (!py::isinstance<py::tuple>(object)) {
        out.number = object.cast<float>();
        return out;
    }
    const py::tuple fields = tuple_of(object, 3, "an operand");
    out.source = fields[0].cast<int32_t>();
    if (out.source < 0) throw std::invalid_argument("an operand has no register");
    out.start = fields[1].cast<int32_t>();
    out.stride = fields[2].cast<int32_t>();
    return out;
}

InstructionSpec read_instruction(const py::handle& object) {
    const py::tuple fields = tuple_of(object, 6, "an instruction");
    InstructionSpec out;
    const std::string name = fields[0].cast<std::string>();
    out.result = fields[1].cast<int32_t>();
    out.start = fields[2].cast<int32_t>();
    out.width = fields[3].cast<int32_t>();
    for (const py::handle item : fields[4]) out.arguments.push_back(read_operand(item));
    if (!fields[5].is_none()) {
        out.reduction = reduction_of(name);
        const py::tuple window = tuple_of(fields[5], 3, "a reduction");
        out.outer = window[0].cast<int32_t>();
        out.inner = window[1].cast<int32_t>();
        out.count = window[2].cast<int32_t>();
        return out;
    }
    out.operation = operation_of(name);
    return out;
}

KernelSpec read_kernel(const py::handle& object, Owners& owners) {
    const py::tuple fields = tuple_of(object, 7, "a kernel");
    KernelSpec out;
    out.sites = fields[0].cast<int32_t>();
    for (const py::handle item : fields[1]) out.widths.push_back(item.cast<int32_t>());
    out.has_contraction = !fields[2].is_none();
    if (out.has_contraction) out.contraction = read_contraction(fields[2], owners);
    for (const py::handle item : fields[3]) out.loads.push_back(read_load(item));
    for (const py::handle item : fields[4]) out.instructions.push_back(read_instruction(item));
    for (const py::handle item : fields[5]) {
        const py::tuple store = tuple_of(item, 6, "a store");
        out.stores.push_back({store[0].cast<int32_t>(), store[1].cast<int32_t>(), store[2].cast<int32_t>(),
                              store[3].cast<int32_t>(), store[4].cast<int32_t>(), store[5].cast<int32_t>()});
    }
    out.has_attention = !fields[6].is_none();
    if (out.has_attention) out.attention = read_attention(fields[6], owners);
    return out;
}

Head read_head(const py::tuple& fields, int64_t channels) {
    const std::string kind = fields[0].cast<std::string>();
    Head out{};
    out.channels = channels;
    out.levels = fields[1].cast<int32_t>();
    out.mixtures = fields[2].cast<int32_t>();
    out.kind = head_kind_of(kind);
    return out;
}

}  // namespace

std::unique_ptr<Engine> make_engine(const std::string& isa, const std::string& precision,
                                    const std::vector<int64_t>& shape, const py::list& buffers,
                                    const py::list& tables, const py::list& kernels, const py::handle& tasks,
                                    const py::handle& sites, const py::tuple& input,
                                    const std::vector<std::pair<int32_t, int32_t>>& outputs,
                                    const py::tuple& head, int32_t lookahead, const py::list& ahead_tables) try {
    if (shape.size() != 3) throw std::invalid_argument("shape must be (channels, height, width)");
    Owners owners;
    ProgramSpec spec;
    spec.channels = shape[0];
    spec.height = shape[1];
    spec.width = shape[2];
    for (const py::handle item : buffers) spec.buffers.push_back(read_buffer(item, owners));
    for (const py::handle item : tables) spec.tables.push_back(to_vector<int32_t>(item));
    for (const py::handle item : kernels) spec.kernels.push_back(read_kernel(item, owners));
    const std::vector<int32_t> flat = to_vector<int32_t>(tasks);
    if (flat.size() % 4 != 0) throw std::invalid_argument("tasks must have 4 fields each");
    for (size_t i = 0; i < flat.size(); i += 4) spec.tasks.push_back({flat[i], flat[i + 1], flat[i + 2], flat[i + 3]});
    spec.sites = to_vector<int32_t>(sites);
    if (input.size() != 4) throw std::invalid_argument("input has the wrong number of fields");
    spec.input_buffers = input[0].cast<std::vector<int32_t>>();
    spec.input_scale = input[1].cast<double>();
    spec.input_offset = input[2].cast<double>();
    if (!input[3].is_none()) spec.input_table = to_vector<double>(input[3]);
    for (const auto& [buffer, slots] : outputs) spec.outputs.push_back({buffer, slots});
    if (head.size() != 3) throw std::invalid_argument("head has the wrong number of fields");
    spec.head = read_head(head, spec.channels);
    spec.lookahead = lookahead;
    for (const py::handle item : ahead_tables) spec.ahead_tables.push_back(to_vector<int32_t>(item));
    return std::make_unique<Engine>(compile(spec, select_isa(isa, precision_of(precision))));
} catch (const py::cast_error&) {
    throw std::invalid_argument("malformed program: a field has the wrong type or is out of range");
}

}  // namespace pixelfast
