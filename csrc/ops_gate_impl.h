// Gates alone: some of the planes of an image's features at a time.
//
// Included inside an instruction set's namespace, after ops_conv_planes.h.

// The halves of gate f as linear planes; uses linear planes 0, 1 and 3.
template <class Real>
static const Real* gate_half(const GateTask& task, int64_t image, int64_t f, int64_t half, int64_t pixels,
                             Real* const* linear) {
    return conditioned(task, task.x, task.condition, image, half * task.features + f, pixels, linear[half], linear[3]);
}

template <class Real>
static void gate_planes(const GateTask& task, int64_t first, int64_t end, void* memory) {
    const int64_t pixels = pixelfast::round_up(task.height * task.width, VectorOf<Real>::lanes);
    Real* linear[4];
    for (int i = 0; i < 4; ++i) linear[i] = static_cast<Real*>(memory) + i * pixels;
    for (int64_t plane = first; plane < end; ++plane) {
        const int64_t image = plane / task.features, f = plane % task.features;
        const Real* a = gate_half(task, image, f, 0, pixels, linear);
        const Real* b = gate_half(task, image, f, 1, pixels, linear);
        const Real* residual =
            task.residual.data == nullptr ? nullptr : linear_plane(task, task.residual, image, f, linear[3]);
        write_linear(task, task.out, image, f, linear[2], [&](Real* out) {
            gated(task.activation, a, b, pixels, out);
            if (residual != nullptr) add(out, residual, pixels, out);
        });
    }
}

template <class Real>
static void gate_planes_gradient(const GateTask& task, int64_t first, int64_t end, void* memory) {
    const int64_t pixels = pixelfast::round_up(task.height * task.width, VectorOf<Real>::lanes);
    Real* linear[4];
    for (int i = 0; i < 4; ++i) linear[i] = static_cast<Real*>(memory) + i * pixels;
    for (int64_t plane = first; plane < end; ++plane) {
        const int64_t image = plane / task.features, f = plane % task.features;
        const Real* gradient = linear_plane(task, task.out_gradient, image, f, linear[2]);
        const Real* a = gate_half(task, image, f, 0, pixels, linear);
        const Real* b = gate_half(task, image, f, 1, pixels, linear);
        write_linear(task, task.x_gradient, image, f, linear[0], [&](Real* first_gradient) {
            write_linear(task, task.x_gradient, image, task.features + f, linear[1], [&](Real* second_gradient) {
                gated_gradient(task.activation, a, b, gradient, pixels, first_gradient, second_gradient);
            });
        });
    }
}
