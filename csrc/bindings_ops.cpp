// Binds the operations for training. Tensors come as addresses of the caller's memory.
#include <array>
#include <optional>
#include <tuple>

#include "bindings.h"
#include "names.h"
#include "ops_conv.h"
#include "ops_gated_block.h"
#include "ops_mixture_loss.h"

namespace pixelfast {

namespace {

// (address, dtype, strides in elements of the four axes); the memory is the caller's.
Planes read_planes(const py::tuple& object) {
    const py::tuple fields = tuple_of(object, 3, "a tensor");
    Planes out{};
    out.data = reinterpret_cast<void*>(fields[0].cast<uintptr_t>());
    out.type = number_type_of(fields[1].cast<std::string>());
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

void define_training_operations(py::module& module) {
    module.def("mixture_loss", &mixture_loss_of, py::kw_only(), py::arg("shape"), py::arg("mixtures"),
               py::arg("levels"), py::arg("params"), py::arg("x"), py::arg("nats"), py::arg("threads"));
    module.def("mixture_loss_gradient", &mixture_loss_gradient_of, py::kw_only(), py::arg("shape"),
               py::arg("mixtures"), py::arg("levels"), py::arg("params"), py::arg("x"), py::arg("nats_gradient"),
               py::arg("gradient"), py::arg("threads"));
    define_convolutions(module);
    define_gated_blocks(module);
}

}  // namespace pixelfast
