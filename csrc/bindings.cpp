// pixelfast._C: the module, its engine and what is asked of instruction sets. See pixelfast/_C.pyi.
#include "bindings.h"

#include <omp.h>

#include <algorithm>

#include "measure.h"
#include "names.h"
#include "plan.h"

namespace pixelfast {
namespace {

// The memory of a new array of zeros.
template <class T>
T* zeros(const std::vector<py::ssize_t>& shape, py::array& out) {
    py::array_t<T> array(shape);
    std::fill_n(array.mutable_data(), array.size(), T{0});
    out = array;
    return array.mutable_data();
}

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
    request.sharing = sharing_of(sharing);
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
    define_training_operations(module);
}
