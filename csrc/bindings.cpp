// pixelfast._C: turns Python tuples and arrays into plain structures, and nothing else. See pixelfast/_C.pyi.
#include <omp.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "engine.h"
#include "measure.h"
#include "ops_conv.h"
#include "ops_gated_block.h"
#include "ops_mixture_loss.h"
#include "plan.h"

namespace py = pybind11;

namespace pixelfast {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

// Keeps the arrays alive whose memory a ProgramSpec points to.
using Owners = std::vector<py::object>;

template <class T>
std::vector<T> to_vector(const py::handle& object) {
    const Array<T> array = Array<T>::ensure(object);
    if (!array) throw py::error_already_set();
    return std::vector<T>(array.data(), array.data() + array.size());
}

// The memory of an array of the given shape; -1 accepts any length.
template <class T>
const T* checked(const py::handle& object, std::vector<py::ssize_t> shape, const std::string& name, Owners& owners) {
    Array<T> array = Array<T>::ensure(object);
    if (!array) throw py::error_already_set();
    bool fits = array.ndim() == static_cast<py::ssize_t>(shape.size());
    for (size_t i = 0; fits && i < shape.size(); ++i) fits = array.shape(i) == shape[i];
    if (!fits) throw std::invalid_argument(name + " has the wrong shape");
    owners.push_back(array);
    return array.data();
}

// The memory of a new array of zeros.
template <class T>
T* zeros(const std::vector<py::ssize_t>& shape, py::array& out) {
    py::array_t<T> array(shape);
    std::fill_n(array.mutable_data(), array.size(), T{0});
    out = array;
    return array.mutable_data();
}

py::tuple tuple_of(const py::handle& object, size_t size, const char* name) {
    py::tuple result = py::reinterpret_borrow<py::object>(object);
    if (result.size() != size) throw std::invalid_argument(std::string(name) + " has the wrong number of fields");
    return result;
}

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

Precision precision_of(const std::string& name) {
    if (name == "float32") return Precision::float32;
    if (name == "bfloat16") return Precision::bfloat16;
    if (name == "int8") return Precision::int8;
    throw std::invalid_argument("precision must be float32, bfloat16 or int8");
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

Reduction reduction_of(const std::string& name) {
    if (name == "sum") return Reduction::sum;
    if (name == "amax") return Reduction::amax;
    if (name == "amin") return Reduction::amin;
    if (name == "prod") return Reduction::prod;
    throw std::invalid_argument("unknown reduction " + name);
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
    const std::vector<ElementwiseName>& names = elementwise_names();
    for (size_t i = 0; i < names.size(); ++i) {
        if (name != names[i].name) continue;
        out.operation = static_cast<int32_t>(i);
        return out;
    }
    throw std::invalid_argument("unknown operation " + name);
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
    if (kind == "categorical") {
        out.kind = HeadKind::categorical;
    } else if (kind == "mixture") {
        out.kind = HeadKind::mixture;
    } else if (kind == "bernoulli") {
        out.kind = HeadKind::bernoulli;
    } else if (kind == "gaussian") {
        out.kind = HeadKind::gaussian;
    } else {
        throw std::invalid_argument("unknown likelihood " + kind);
    }
    return out;
}

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

const char* name_of(Sharing sharing) { return sharing == Sharing::tasks ? "tasks" : "images"; }

py::tuple run(const Engine& engine, int64_t samples, uint64_t seed, uint32_t stream, const py::handle& sample_ids,
              const py::list& conditions, double temperature, bool reference, const py::object& known,
              const py::object& mask, const py::object& on_row, bool collect_parameters, int threads,
              int64_t last_number, const std::string& sharing, int64_t lookahead,
              bool profile) {
    const CompiledProgram& program = engine.program();
    const std::vector<py::ssize_t> shape = {samples, program.channels, program.height, program.width};
    Owners owners;
    Request request;
    request.samples = samples;
    request.seed = seed;
    request.stream = stream;
    request.sample_ids = checked<uint32_t>(sample_ids, {samples}, "sample_ids", owners);
    for (const py::handle item : conditions) {
        const py::tuple fields = tuple_of(item, 2, "a condition");
        const int32_t index = fields[0].cast<int32_t>();
        if (index < 0 || index >= static_cast<int32_t>(program.buffers.size()))
            throw std::invalid_argument("a condition has no buffer");
        const Slots& slots = program.buffers[index];
        request.conditions.push_back(
            {index, checked<double>(fields[1], {samples, slots.slots, slots.channels}, "a condition", owners)});
    }
    request.sampling = {temperature, reference};
    if (!known.is_none()) request.known = checked<double>(known, shape, "known", owners);
    if (!mask.is_none()) request.mask = checked<bool>(mask, shape, "mask", owners);
    py::array images;
    if (program.head.continuous()) {
        request.images.real = zeros<float>(shape, images);
    } else {
        request.images.levels = zeros<int64_t>(shape, images);
    }
    py::list parameters;
    for (int64_t c = 0; collect_parameters && c < program.channels; ++c) {
        py::array_t<float> values({samples, program.height * program.width, program.outputs[c].slots.channels});
        std::fill_n(values.mutable_data(), values.size(), 0.0f);
        request.parameters.push_back(values.mutable_data());
        parameters.append(values);
    }
    request.last_number = last_number;
    request.threads = threads;
    request.lookahead = lookahead;
    request.profile = profile;
    if (sharing == "images") {
        request.sharing = Sharing::images;
    } else if (sharing == "tasks") {
        request.sharing = Sharing::tasks;
    } else if (sharing != "auto") {
        throw std::invalid_argument("sharing must be auto, images or tasks");
    }
    request.wait_for_row = !on_row.is_none();
    request.on_row = [&](int64_t row) {
        const py::gil_scoped_acquire gil;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        if (request.wait_for_row) on_row(row, images);
    };
    Outcome outcome;
    {
        const py::gil_scoped_release release;
        outcome = engine.run(request);
    }
    py::dict stats;
    stats["seconds"] = outcome.seconds;
    stats["threads"] = outcome.threads;
    stats["sharing"] = name_of(outcome.sharing);
    stats["forecasts"] = outcome.forecasts.guesses;
    stats["forecasts_accepted"] = outcome.forecasts.accepted;
    stats["evaluations"] = outcome.forecasts.evaluations;
    stats["plain_evaluations"] = outcome.plain_evaluations;
    py::list profiled;
    for (size_t k = 0; k < outcome.profile.size(); ++k) {
        const Profile::Entry& entry = outcome.profile[k];
        const bool kernel = k + 1 < outcome.profile.size();
        profiled.append(py::dict(py::arg("kernel") = kernel ? static_cast<int64_t>(k) : -1, py::arg("tasks") = entry.tasks,
                                 py::arg("rows") = entry.rows, py::arg("seconds") = entry.seconds,
                                 py::arg("waiting") = entry.waiting));
    }
    if (request.profile) stats["profile"] = profiled;
    return py::make_tuple(images, parameters, stats);
}

py::dict estimates(const Engine& engine, int64_t samples) {
    if (samples < 1) throw std::invalid_argument("samples must be at least 1");
    const CompiledProgram& program = engine.program();
    const Plan chosen = plan(program, samples, 0, Sharing::automatic);
    const int threads = plan(program, samples, 0, Sharing::tasks).threads;
    py::dict seconds;
    for (const Sharing sharing : {Sharing::images, Sharing::tasks})
        seconds[name_of(sharing)] = estimated_seconds(program, samples, threads, sharing);
    return py::dict(py::arg("threads") = chosen.threads, py::arg("sharing") = name_of(chosen.sharing),
                    py::arg("seconds") = seconds);
}

Array<uint32_t> philox_words(const Array<uint32_t>& counter, const Array<uint32_t>& key) {
    if (counter.ndim() != 2 || counter.shape(1) != 4 || key.size() != 2)
        throw std::invalid_argument("philox4x32 takes counters (n, 4) and a key (2,)");
    Array<uint32_t> out({counter.shape(0), py::ssize_t{4}});
    for (py::ssize_t i = 0; i < counter.shape(0); ++i)
        philox4x32(counter.data() + 4 * i, key.data(), out.mutable_data() + 4 * i);
    return out;
}

Array<uint32_t> noise_words(uint64_t seed, uint32_t sample, uint32_t number, int64_t draws, uint32_t stream,
                            const std::string& isa) {
    if (draws < 1) throw std::invalid_argument("draws must be at least 1");
    const int64_t blocks = (draws + 3) / 4;
    std::vector<uint32_t> words(static_cast<size_t>(4 * blocks));
    select_isa(isa, Precision::float32).noise({seed, sample, number, stream}, blocks, words.data());
    Array<uint32_t> out(draws);
    std::copy_n(words.data(), draws, out.mutable_data());
    return out;
}

// (address, dtype, strides in elements of the four axes); the memory is the caller's.
Planes read_planes(const py::tuple& object) {
    const py::tuple fields = tuple_of(object, 3, "a tensor");
    const std::pair<const char*, NumberType> types[] = {
        {"float32", NumberType::float32}, {"float64", NumberType::float64}, {"float16", NumberType::float16},
        {"bfloat16", NumberType::bfloat16}, {"uint8", NumberType::uint8}, {"int32", NumberType::int32},
        {"int64", NumberType::int64}};
    Planes out{};
    out.data = reinterpret_cast<void*>(fields[0].cast<uintptr_t>());
    const std::string name = fields[1].cast<std::string>();
    const auto type = std::find_if(std::begin(types), std::end(types), [&](const auto& t) { return t.first == name; });
    if (type == std::end(types)) throw std::invalid_argument("a tensor cannot be of dtype " + name);
    out.type = type->second;
    const py::tuple strides = tuple_of(fields[2], 4, "strides");
    for (size_t i = 0; i < 4; ++i) out.strides[i] = strides[i].cast<int64_t>();
    return out;
}

MixtureLoss read_mixture_loss(const std::array<int64_t, 4>& shape, int64_t mixtures, int64_t levels,
                              const py::tuple& params, const py::tuple& x, int64_t threads) {
    MixtureLoss task{};
    task.images = shape[0];
    task.channels = shape[1];
    task.height = shape[2];
    task.width = shape[3];
    if (task.channels != 1 && task.channels != 3) throw std::invalid_argument("images must have 1 or 3 channels");
    if (mixtures < 1 || levels < 2) throw std::invalid_argument("a mixture has at least 1 component and 2 levels");
    task.mixtures = mixtures;
    task.levels = levels;
    task.threads = threads;
    task.params = read_planes(params);
    task.x = read_planes(x);
    return task;
}

void mixture_loss_of(const std::array<int64_t, 4>& shape, int64_t mixtures, int64_t levels, const py::tuple& params,
                     const py::tuple& x, const py::tuple& nats, int64_t threads) {
    MixtureLoss task = read_mixture_loss(shape, mixtures, levels, params, x, threads);
    task.nats = read_planes(nats);
    const KernelTable& isa = select_isa("", Precision::float32);
    const py::gil_scoped_release release;
    mixture_loss(isa, task);
}

void mixture_loss_gradient_of(const std::array<int64_t, 4>& shape, int64_t mixtures, int64_t levels,
                              const py::tuple& params, const py::tuple& x, const py::tuple& nats_gradient,
                              const py::tuple& gradient, int64_t threads) {
    MixtureLoss task = read_mixture_loss(shape, mixtures, levels, params, x, threads);
    task.nats_gradient = read_planes(nats_gradient);
    task.gradient = read_planes(gradient);
    const KernelTable& isa = select_isa("", Precision::float32);
    const py::gil_scoped_release release;
    mixture_loss_gradient(isa, task);
}

// ---- Convolutions and gates. Tensors come as (address, strides in elements), addresses of the caller's memory.

ConvTensor read_tensor(const py::handle& object) {
    ConvTensor out;
    if (object.is_none()) return out;
    const py::tuple fields = tuple_of(object, 2, "a tensor");
    out.data = reinterpret_cast<void*>(fields[0].cast<uintptr_t>());
    const py::tuple strides = tuple_of(fields[1], 4, "strides");
    for (size_t i = 0; i < 4; ++i) out.strides[i] = strides[i].cast<int64_t>();
    return out;
}

void* read_address(const std::optional<uintptr_t>& address) { return reinterpret_cast<void*>(address.value_or(0)); }

template <class Choice>
Choice chosen(const std::string& name, std::initializer_list<std::pair<const char*, Choice>> choices) {
    for (const auto& [choice, value] : choices)
        if (name == choice) return value;
    throw std::invalid_argument("unknown name " + name);
}

FloatType float_type_of(const std::string& name) {
    return chosen<FloatType>(name, {{"float32", FloatType::float32},
                                    {"float64", FloatType::float64},
                                    {"bfloat16", FloatType::bfloat16},
                                    {"float16", FloatType::float16}});
}

Activation activation_of(const std::string& name) {
    return chosen<Activation>(name, {{"none", Activation::none},
                                     {"concat_elu", Activation::concat_elu},
                                     {"tanh", Activation::tanh_gate},
                                     {"linear", Activation::linear_gate}});
}

ConvTask read_conv(const std::string& dtype, const std::string& activation, const std::array<int64_t, 5>& sizes,
                   const std::array<int64_t, 6>& kernel, const std::optional<std::tuple<uint32_t, double, uint64_t>>& dropout,
                   const py::object& x, const py::object& condition, uintptr_t weight, int64_t threads) {
    ConvTask task{};
    task.type = float_type_of(dtype);
    task.activation = activation_of(activation);
    std::tie(task.images, task.channels, task.outputs, task.height, task.width) = std::tuple_cat(sizes);
    std::tie(task.kernel_rows, task.kernel_columns, task.top, task.left, task.row_dilation, task.column_dilation) =
        std::tuple_cat(kernel);
    if (dropout) std::tie(task.dropout.threshold, task.dropout.scale, task.dropout.seed) = *dropout;
    task.x = read_tensor(x);
    task.condition = read_tensor(condition);
    task.weight = reinterpret_cast<const void*>(weight);
    task.threads = threads;
    return task;
}

GateTask read_gate(const std::string& dtype, const std::string& activation, const std::array<int64_t, 4>& sizes,
                   const py::object& x, const py::object& condition, int64_t threads) {
    GateTask task{};
    task.type = float_type_of(dtype);
    task.activation = activation_of(activation);
    std::tie(task.images, task.features, task.height, task.width) = std::tuple_cat(sizes);
    task.x = read_tensor(x);
    task.condition = read_tensor(condition);
    task.threads = threads;
    return task;
}

using Addresses = std::array<std::optional<uintptr_t>, kBlockWeights>;

BlockTask read_block(const std::string& dtype, bool gates_v, const std::array<int64_t, 4>& sizes, int64_t reach,
                     int64_t dilation) {
    BlockTask task{};
    task.type = float_type_of(dtype);
    task.gates_v = gates_v;
    std::tie(task.images, task.features, task.height, task.width) = std::tuple_cat(sizes);
    task.reach = reach;
    task.dilation = dilation;
    task.threads = 1;
    return task;
}

void read_block_inputs(BlockTask& task, const py::object& v, const py::object& v_condition, const py::object& h,
                       const py::object& h_condition, const Addresses& weights, int64_t threads) {
    task.v = read_tensor(v);
    task.v_condition = read_tensor(v_condition);
    task.h = read_tensor(h);
    task.h_condition = read_tensor(h_condition);
    for (size_t i = 0; i < weights.size(); ++i) task.weights[i] = read_address(weights[i]);
    task.threads = threads;
}

void define_gated_blocks(py::module& module) {
    module.def(
        "gated_block",
        [](const std::string& dtype, bool gates_v, const std::array<int64_t, 4>& sizes, int64_t reach, int64_t dilation,
           const py::object& v, const py::object& v_condition, const py::object& h, const py::object& h_condition,
           const Addresses& weights, int64_t threads, const Addresses& biases, const py::object& above,
           const py::object& left, const py::object& out) {
            BlockTask task = read_block(dtype, gates_v, sizes, reach, dilation);
            read_block_inputs(task, v, v_condition, h, h_condition, weights, threads);
            for (size_t i = 0; i < biases.size(); ++i) task.biases[i] = read_address(biases[i]);
            task.above = read_tensor(above);
            task.left = read_tensor(left);
            task.out = read_tensor(out);
            const KernelTable& isa = select_isa("", Precision::float32);
            const py::gil_scoped_release release;
            gated_block(isa, task);
        },
        py::kw_only(), py::arg("dtype"), py::arg("gates_v"), py::arg("sizes"), py::arg("reach"), py::arg("dilation"),
        py::arg("v"), py::arg("v_condition"), py::arg("h"), py::arg("h_condition"), py::arg("weights"),
        py::arg("threads"), py::arg("biases"), py::arg("above"), py::arg("left"), py::arg("out"));
    module.def(
        "gated_block_gradient",
        [](const std::string& dtype, bool gates_v, const std::array<int64_t, 4>& sizes, int64_t reach, int64_t dilation,
           const py::object& v, const py::object& v_condition, const py::object& h, const py::object& h_condition,
           const Addresses& weights, int64_t threads, const py::object& above, const py::object& left,
           const py::object& above_gradient, const py::object& out_gradient, const py::object& v_gradient,
           const py::object& h_gradient, const py::object& left_gradient, const Addresses& weight_gradients,
           const Addresses& bias_gradients) {
            BlockTask task = read_block(dtype, gates_v, sizes, reach, dilation);
            read_block_inputs(task, v, v_condition, h, h_condition, weights, threads);
            task.above = read_tensor(above);
            task.left = read_tensor(left);
            task.above_gradient = read_tensor(above_gradient);
            task.out_gradient = read_tensor(out_gradient);
            task.v_gradient = read_tensor(v_gradient);
            task.h_gradient = read_tensor(h_gradient);
            task.left_gradient = read_tensor(left_gradient);
            for (size_t i = 0; i < kBlockWeights; ++i) {
                task.weight_gradients[i] = read_address(weight_gradients[i]);
                task.bias_gradients[i] = read_address(bias_gradients[i]);
            }
            const KernelTable& isa = select_isa("", Precision::float32);
            const py::gil_scoped_release release;
            gated_block_gradient(isa, task);
        },
        py::kw_only(), py::arg("dtype"), py::arg("gates_v"), py::arg("sizes"), py::arg("reach"), py::arg("dilation"),
        py::arg("v"), py::arg("v_condition"), py::arg("h"), py::arg("h_condition"), py::arg("weights"),
        py::arg("threads"), py::arg("above"), py::arg("left"), py::arg("above_gradient"), py::arg("out_gradient"),
        py::arg("v_gradient"), py::arg("h_gradient"), py::arg("left_gradient"), py::arg("weight_gradients"),
        py::arg("bias_gradients"));
    module.def(
        "gated_block_scratch_bytes",
        [](const std::string& dtype, bool gates_v, const std::array<int64_t, 4>& sizes, int64_t reach,
           int64_t dilation) {
            return gated_block_scratch_bytes(select_isa("", Precision::float32),
                                             read_block(dtype, gates_v, sizes, reach, dilation));
        },
        py::kw_only(), py::arg("dtype"), py::arg("gates_v"), py::arg("sizes"), py::arg("reach"), py::arg("dilation"));
}

// What binds a task's own arguments, in the order of read_conv and read_gate.
void define_convolutions(py::module& module) {
    module.def(
        "conv",
        [](const std::string& dtype, const std::string& activation, const std::array<int64_t, 5>& sizes,
           const std::array<int64_t, 6>& kernel, const std::optional<std::tuple<uint32_t, double, uint64_t>>& dropout,
           const py::object& x, const py::object& condition, uintptr_t weight, int64_t threads,
           std::optional<uintptr_t> bias, const py::object& added, const py::object& out) {
            ConvTask task = read_conv(dtype, activation, sizes, kernel, dropout, x, condition, weight, threads);
            task.bias = read_address(bias);
            task.added = read_tensor(added);
            task.out = read_tensor(out);
            const KernelTable& isa = select_isa("", Precision::float32);
            const py::gil_scoped_release release;
            conv(isa, task);
        },
        py::kw_only(), py::arg("dtype"), py::arg("activation"), py::arg("sizes"), py::arg("kernel"), py::arg("dropout"),
        py::arg("x"), py::arg("condition"), py::arg("weight"), py::arg("threads"), py::arg("bias"), py::arg("added"),
        py::arg("out"));
    module.def(
        "conv_gradient",
        [](const std::string& dtype, const std::string& activation, const std::array<int64_t, 5>& sizes,
           const std::array<int64_t, 6>& kernel, const std::optional<std::tuple<uint32_t, double, uint64_t>>& dropout,
           const py::object& x, const py::object& condition, uintptr_t weight, int64_t threads,
           const py::object& out_gradient, const py::object& x_gradient, std::optional<uintptr_t> weight_gradient,
           std::optional<uintptr_t> bias_gradient) {
            ConvTask task = read_conv(dtype, activation, sizes, kernel, dropout, x, condition, weight, threads);
            task.out_gradient = read_tensor(out_gradient);
            task.x_gradient = read_tensor(x_gradient);
            task.weight_gradient = read_address(weight_gradient);
            task.bias_gradient = read_address(bias_gradient);
            const KernelTable& isa = select_isa("", Precision::float32);
            const py::gil_scoped_release release;
            conv_gradient(isa, task);
        },
        py::kw_only(), py::arg("dtype"), py::arg("activation"), py::arg("sizes"), py::arg("kernel"), py::arg("dropout"),
        py::arg("x"), py::arg("condition"), py::arg("weight"), py::arg("threads"), py::arg("out_gradient"),
        py::arg("x_gradient"), py::arg("weight_gradient"), py::arg("bias_gradient"));
    module.def(
        "gate",
        [](const std::string& dtype, const std::string& activation, const std::array<int64_t, 4>& sizes,
           const py::object& x, const py::object& condition, int64_t threads, const py::object& residual,
           const py::object& out) {
            GateTask task = read_gate(dtype, activation, sizes, x, condition, threads);
            task.residual = read_tensor(residual);
            task.out = read_tensor(out);
            const KernelTable& isa = select_isa("", Precision::float32);
            const py::gil_scoped_release release;
            gate(isa, task);
        },
        py::kw_only(), py::arg("dtype"), py::arg("activation"), py::arg("sizes"), py::arg("x"), py::arg("condition"),
        py::arg("threads"), py::arg("residual"), py::arg("out"));
    module.def(
        "gate_gradient",
        [](const std::string& dtype, const std::string& activation, const std::array<int64_t, 4>& sizes,
           const py::object& x, const py::object& condition, int64_t threads, const py::object& out_gradient,
           const py::object& x_gradient) {
            GateTask task = read_gate(dtype, activation, sizes, x, condition, threads);
            task.out_gradient = read_tensor(out_gradient);
            task.x_gradient = read_tensor(x_gradient);
            const KernelTable& isa = select_isa("", Precision::float32);
            const py::gil_scoped_release release;
            gate_gradient(isa, task);
        },
        py::kw_only(), py::arg("dtype"), py::arg("activation"), py::arg("sizes"), py::arg("x"), py::arg("condition"),
        py::arg("threads"), py::arg("out_gradient"), py::arg("x_gradient"));
    module.def(
        "conv_scratch_bytes",
        [](const std::string& dtype, const std::string& activation, const std::array<int64_t, 5>& sizes,
           const std::array<int64_t, 6>& kernel) {
            const ConvTask task = read_conv(dtype, activation, sizes, kernel, std::nullopt, py::none(), py::none(), 0, 1);
            return conv_scratch_bytes(select_isa("", Precision::float32), task);
        },
        py::kw_only(), py::arg("dtype"), py::arg("activation"), py::arg("sizes"), py::arg("kernel"));
}

}  // namespace
}  // namespace pixelfast

PYBIND11_MODULE(_C, module) {
    using namespace pixelfast;
    // Python's KeyboardInterrupt and the errors of callbacks come out as they went in; std::invalid_argument becomes
    // ValueError.
    py::register_exception_translator([](std::exception_ptr error) {
        try {
            if (error) std::rethrow_exception(error);
        } catch (const ParametersNotFinite& e) {
            PyErr_SetString(PyExc_FloatingPointError, e.what());
        }
    });
    py::class_<Engine>(module, "Engine")
        .def(py::init(&make_engine), py::kw_only(), py::arg("isa"), py::arg("precision"), py::arg("shape"), py::arg("buffers"),
             py::arg("tables"), py::arg("kernels"), py::arg("tasks"), py::arg("sites"), py::arg("input"),
             py::arg("outputs"), py::arg("head"), py::arg("lookahead"),
             py::arg("ahead_tables"))
        .def("run", &run, py::kw_only(), py::arg("samples"), py::arg("seed"), py::arg("stream"), py::arg("sample_ids"),
             py::arg("conditions"), py::arg("temperature"), py::arg("reference"), py::arg("known"), py::arg("mask"),
             py::arg("on_row"), py::arg("collect_parameters"), py::arg("threads"), py::arg("last_number"),
             py::arg("sharing"), py::arg("lookahead"), py::arg("profile"))
        .def("plan", &estimates, py::arg("samples"))
        .def_property_readonly("isa", [](const Engine& engine) { return engine.program().isa->name; })
        .def_property_readonly("weight_bytes", [](const Engine& engine) { return engine.program().weight_bytes; })
        .def_property_readonly("arena_bytes", [](const Engine& engine) {
            return engine.program().arena_floats * static_cast<int64_t>(sizeof(float));
        });
    module.def(
        "available_isas", [](const std::string& precision) { return available_isas(precision_of(precision)); },
        py::arg("precision") = "float32");
    module.def(
        "largest_tile",
        [](const std::string& isa, const std::string& precision) {
            const KernelTable& table = select_isa(isa, precision_of(precision));
            return std::make_pair(table.tile_rows, table.tile_vectors);
        },
        py::arg("isa"), py::arg("precision"));
    module.def(
        "time_tiles",
        [](const std::string& isa, const std::string& name, int rows, int vectors, int64_t channels, int64_t bytes) {
            const Precision precision = precision_of(name);
            const TileTime time = time_tiles(select_isa(isa, precision), precision, rows, vectors, channels, bytes);
            return std::make_pair(time.seconds, time.weights);
        },
        py::arg("isa"), py::arg("precision"), py::arg("rows"), py::arg("vectors"), py::arg("channels"),
        py::arg("bytes"));
    module.def("elementwise_names", [] {
        py::dict names;
        for (const ElementwiseName& name : elementwise_names()) names[name.name] = name.arguments;
        return names;
    });
    module.def("philox4x32", &philox_words, py::arg("counter"), py::arg("key"));
    module.def("noise_words", &noise_words, py::arg("seed"), py::arg("sample"), py::arg("number"), py::arg("draws"),
               py::arg("stream"), py::arg("isa"));
    module.def("max_threads", &omp_get_max_threads);
    module.def("mixture_loss", &mixture_loss_of, py::kw_only(), py::arg("shape"), py::arg("mixtures"),
               py::arg("levels"), py::arg("params"), py::arg("x"), py::arg("nats"), py::arg("threads"));
    module.def("mixture_loss_gradient", &mixture_loss_gradient_of, py::kw_only(), py::arg("shape"),
               py::arg("mixtures"), py::arg("levels"), py::arg("params"), py::arg("x"), py::arg("nats_gradient"),
               py::arg("gradient"), py::arg("threads"));
    define_convolutions(module);
    define_gated_blocks(module);
}
