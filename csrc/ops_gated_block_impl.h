// A block of a Gated PixelCNN for training: a chunk of images at a time.
//
// Included inside an instruction set's namespace, after ops_products.h and ops_conv_planes.h.

// The block's convolutions, and where each has its weights in packed memory and its sums.
struct BlockParts {
    ConvWeights weights[kBlockWeights];
    const Taps* taps[kBlockWeights];
    int64_t packed[kBlockWeights], sums[kBlockWeights], bias_sums[kBlockWeights];
    int64_t all_sums;

    BlockParts(const BlockTask& task, const BlockLayout& layout, bool transposed) {
        const int64_t f = task.features;
        const int64_t outputs[] = {2 * f, 2 * f, 2 * f, f}, inputs[] = {f, f, 2 * f, f};
        const Taps* all[] = {&layout.vertical, &layout.horizontal, &layout.point, &layout.point};
        int64_t place = 0, sum = 0;
        for (int i = 0; i < kBlockWeights; ++i) {
            taps[i] = all[i];
            weights[i] = {task.weights[i], task.type, outputs[i], inputs[i], all[i]->count()};
            packed[i] = place;
            sums[i] = sum;
            place += transposed ? packed_weights(inputs[i], outputs[i], all[i]->count())
                                : packed_weights(outputs[i], inputs[i], all[i]->count());
            sum += weight_sums(outputs[i], inputs[i], all[i]->count());
        }
        // Both convolutions that make up `left` have the same gradient of their bias.
        bias_sums[kVertical] = sum;
        bias_sums[kHorizontal] = bias_sums[kLink] = sum + 2 * f;
        bias_sums[kMix] = sum + 4 * f;
        all_sums = sum + 5 * f;
    }
};

template <class Real>
static void block_pack(const BlockTask& task, const BlockLayout& layout, bool transposed, void* packed) {
    const BlockParts parts(task, layout, transposed);
    for (int i = 0; i < kBlockWeights; ++i)
        pack_weights(parts.weights[i], transposed, static_cast<Real*>(packed) + parts.packed[i]);
}

// Planes of a group of images. Results of convolutions have room for whole tiles of channels.
template <class Real>
struct BlockScratch {
    Real* features;          // F: what a convolution with taps reads, zeros around every image
    Real* left;              // 2 F: backwards the slopes of its gate, then its gradient
    Real* above;             // 2 F: backwards its gradient later
    Real* result;            // F
    Real* out_gradient;      // F
    Real* linear[kBlockPlanes];

    BlockScratch(const BlockTask& task, const PlaneLayout& layout, void* memory, bool gradient) {
        Real* next = static_cast<Real*>(memory);
        const auto take = [&](int64_t count) {
            Real* taken = next;
            next += count;
            return taken;
        };
        const int64_t f = task.features;
        features = take(f * layout.plane);
        left = take(pixelfast::round_up(2 * f, kConvRows) * layout.plane);
        above = take(pixelfast::round_up(2 * f, kConvRows) * layout.plane);
        result = take(pixelfast::round_up(f, kConvRows) * layout.plane);
        out_gradient = take(gradient ? f * layout.plane : 0);
        for (Real*& plane : linear) plane = take(layout.pixels);
    }
};

// The gate of x + condition into the places of `values`, and its slopes, unless null, into those of `slopes`.
template <class Real>
static void read_gate(const BlockTask& task, const PlaneLayout& layout, const ConvTensor& x,
                      const ConvTensor& condition, int64_t first, int64_t images, Real* values, Real* slopes,
                      Real* const* linear) {
    const int64_t features = task.features, pixels = layout.pixels;
    for (int64_t g = 0; g < images; ++g) {
        const auto half = [&](int64_t c, Real* spare) {
            return conditioned(task, x, condition, first + g, c, pixels, spare, linear[2]);
        };
        const auto put = [&](const Real* from, Real* planes, int64_t c) {
            spread(from, task.height, task.width, planes + c * layout.plane + layout.place(g), layout.pitch);
        };
        for (int64_t f = 0; f < features; ++f) {
            const Real* a = half(f, linear[0]);
            const Real* b = half(features + f, linear[1]);
            if (slopes == nullptr) {
                gated(Activation::tanh_gate, a, b, pixels, linear[3]);
            } else {
                gated_and_slopes(Activation::tanh_gate, a, b, pixels, linear[3], linear[4], linear[5]);
                put(linear[4], slopes, f);
                put(linear[5], slopes, features + f);
            }
            put(linear[3], values, f);
        }
    }
}

template <class Real>
static void block_forward(const BlockTask& task, const BlockLayout& layout, const void* packed, int64_t chunk,
                          void* memory) {
    const PlaneLayout& planes = layout.planes;
    const BlockParts parts(task, layout, false);
    const BlockScratch<Real> scratch(task, planes, memory, false);
    const int64_t f = task.features;
    const int64_t end = std::min(task.images, (chunk + 1) * planes.chunk_images);
    for (int64_t first = chunk * planes.chunk_images; first < end; first += planes.group) {
        const int64_t images = std::min(planes.group, end - first), positions = planes.positions(images);
        const auto apply = [&](BlockWeight i, const Real* source, bool adds, Real* destination) {
            convolve(source, planes.plane, parts.taps[i]->offsets, parts.weights[i].inputs,
                     static_cast<const Real*>(packed) + parts.packed[i], parts.weights[i].outputs, task.biases[i],
                     task.type, adds, destination, positions);
        };
        const auto write = [&](const Real* from, int64_t channels, const ConvTensor& added, const ConvTensor& to) {
            write_channels(task, planes, from, added, to, first, images, 0, channels, scratch.linear);
        };
        Real* const features = scratch.features;
        Real* const no_slopes = nullptr;
        clear_surroundings(planes, images, f, features);
        if (task.gates_v)
            read_gate(task, planes, task.v, task.v_condition, first, images, features, no_slopes, scratch.linear);
        else
            read_channels(task, planes, task.v, first, images, f, features);
        apply(kVertical, features + planes.margin, false, scratch.above);
        write(scratch.above, 2 * f, {}, task.above);

        apply(kLink, scratch.above, false, scratch.left);
        read_channels(task, planes, task.h, first, images, f, features);
        apply(kHorizontal, features + planes.margin, true, scratch.left);
        write(scratch.left, 2 * f, {}, task.left);

        read_gate(task, planes, task.left, task.h_condition, first, images, features, no_slopes, scratch.linear);
        apply(kMix, features + planes.margin, false, scratch.result);
        write(scratch.result, f, task.h, task.out);
    }
}

// Backwards from out to h and v. Gradients are zero between the rows of an image, so that sums over all positions are
// those over its pixels.
template <class Real>
static void block_backward(const BlockTask& task, const BlockLayout& layout, const void* packed, int64_t chunk,
                           void* memory, void* all_sums) {
    const PlaneLayout& planes = layout.planes;
    const BlockParts parts(task, layout, true);
    const BlockScratch<Real> scratch(task, planes, memory, true);
    Real* const sums = static_cast<Real*>(all_sums);
    for (int64_t i = 0; i < parts.all_sums; ++i) sums[i] = 0;
    const int64_t f = task.features, plane = planes.plane;
    Real* const features = scratch.features + planes.margin;
    Real* const left = scratch.left + planes.margin;
    Real* const above = scratch.above + planes.margin;
    Real* const out_gradient = scratch.out_gradient + planes.margin;
    const int64_t end = std::min(task.images, (chunk + 1) * planes.chunk_images);
    for (int64_t first = chunk * planes.chunk_images; first < end; first += planes.group) {
        const int64_t images = std::min(planes.group, end - first), positions = planes.positions(images);
        // The gradient of what convolution i reads.
        const auto apply_back = [&](BlockWeight i, const Real* source, bool adds, Real* destination) {
            convolve(source, plane, parts.taps[i]->back_offsets, parts.weights[i].outputs,
                     static_cast<const Real*>(packed) + parts.packed[i], parts.weights[i].inputs, nullptr, task.type,
                     adds, destination, positions);
        };
        const auto add_gradient = [&](BlockWeight i, const Real* gradient, const Real* read) {
            if (task.weight_gradients[i] != nullptr)
                add_weight_gradient(gradient, parts.weights[i].outputs, read, parts.weights[i].inputs, plane,
                                    parts.taps[i]->offsets, positions, sums + parts.sums[i]);
        };
        const auto add_bias = [&](BlockWeight i, const Real* gradient) {
            add_bias_gradient(gradient, parts.weights[i].outputs, plane, positions, sums + parts.bias_sums[i]);
        };
        const auto read = [&](const ConvTensor& tensor, int64_t channels, Real* to) {
            read_channels(task, planes, tensor, first, images, channels, to);
        };
        clear_surroundings(planes, images, f, scratch.features);
        clear_surroundings(planes, images, 2 * f, scratch.left);
        clear_surroundings(planes, images, 2 * f, scratch.above);
        clear_surroundings(planes, images, f, scratch.out_gradient);

        read(task.out_gradient, f, scratch.out_gradient);
        read_gate(task, planes, task.left, task.h_condition, first, images, scratch.features, scratch.left,
                  scratch.linear);
        add_bias(kMix, out_gradient);
        add_gradient(kMix, out_gradient, features);
        apply_back(kMix, out_gradient, false, scratch.result);

        const int64_t whole = pixelfast::round_up(positions, VectorOf<Real>::lanes);
        for (int64_t c = 0; c < 2 * f; ++c) {
            Real* gradient = left + c * plane;
            multiply_by(gradient, scratch.result + c % f * plane, whole, gradient);
        }
        if (task.left_gradient.data != nullptr)
            write_channels(task, planes, left, {}, task.left_gradient, first, images, 0, 2 * f, scratch.linear);
        add_bias(kLink, left);
        read(task.h, f, scratch.features);
        add_gradient(kHorizontal, left, features);
        read(task.above, 2 * f, scratch.above);
        add_gradient(kLink, left, above);
        if (task.h_gradient.data != nullptr) {
            apply_back(kHorizontal, left, false, scratch.result);
            write_channels(task, planes, scratch.result, task.out_gradient, task.h_gradient, first, images, 0, f,
                           scratch.linear);
        }

        if (task.above_gradient.data != nullptr) read(task.above_gradient, 2 * f, scratch.above);
        apply_back(kLink, left, task.above_gradient.data != nullptr, above);
        add_bias(kVertical, above);
        if (task.gates_v)
            read_gate(task, planes, task.v, task.v_condition, first, images, scratch.features, scratch.left,
                      scratch.linear);
        else
            read(task.v, f, scratch.features);
        add_gradient(kVertical, above, features);
        if (task.v_gradient.data == nullptr) continue;
        apply_back(kVertical, above, false, scratch.result);
        if (!task.gates_v) {
            write_channels(task, planes, scratch.result, {}, task.v_gradient, first, images, 0, f, scratch.linear);
            continue;
        }
        for (int64_t c = 0; c < 2 * f; ++c) multiply_by(left + c * plane, scratch.result + c % f * plane, whole, left + c * plane);
        write_channels(task, planes, left, {}, task.v_gradient, first, images, 0, 2 * f, scratch.linear);
    }
}

template <class Real>
static void block_finish(const BlockTask& task, const BlockLayout& layout, void* sums) {
    const BlockParts parts(task, layout, false);
    Real* total = static_cast<Real*>(sums);
    add_up_chunks(layout.planes.chunks, parts.all_sums, total);
    for (int i = 0; i < kBlockWeights; ++i) {
        write_weight_gradient(total + parts.sums[i], parts.weights[i], task.weight_gradients[i]);
        write_bias_gradient(total + parts.bias_sums[i], parts.weights[i].outputs, task.type, task.bias_gradients[i]);
    }
}
