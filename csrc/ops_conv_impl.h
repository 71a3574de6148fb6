// Convolutions for training: a chunk of images at a time.
//
// Included inside an instruction set's namespace, after ops_products.h and ops_conv_planes.h.

static ConvWeights weights_of(const ConvTask& task, const ConvLayout& layout) {
    return {task.weight, task.type, task.outputs, layout.features, layout.taps.count()};
}

template <class Real>
static void conv_pack(const ConvTask& task, const ConvLayout& layout, bool transposed, void* packed) {
    pack_weights(weights_of(task, layout), transposed, static_cast<Real*>(packed));
}

PF_INLINE bool is_gate(Activation kind) { return kind == Activation::tanh_gate || kind == Activation::linear_gate; }

template <class Real>
struct ConvScratch {
    Real* features;           // [feature][plane]
    Real* block;              // [kConvRows][plane]
    Real* out_gradient;       // [output][plane]
    Real* features_gradient;  // [feature, rounded up][plane]
    Real* linear[4];          // [pixels]
    uint32_t* words;          // [4][pixels]
    Real* slopes;             // of gates: [image of the group][channel][pixels]

    ConvScratch(const ConvTask& task, const ConvLayout& layout, void* memory, bool gradient) {
        Real* next = static_cast<Real*>(memory);
        const auto take = [&](int64_t count) {
            Real* taken = next;
            next += count;
            return taken;
        };
        const PlaneLayout& planes = layout.planes;
        features = take(layout.features * planes.plane);
        block = take(kConvRows * planes.plane);
        out_gradient = take(gradient ? task.outputs * planes.plane : 0);
        features_gradient = take(gradient ? pixelfast::round_up(layout.features, kConvRows) * planes.plane : 0);
        for (Real*& plane : linear) plane = take(planes.pixels);
        words = reinterpret_cast<uint32_t*>(take(4 * planes.pixels));
        slopes = next;
    }
};

// The features of images first, first + 1, ... into their places; of gates the slopes, too, where asked for.
template <class Real>
static void activate(const ConvTask& task, const ConvLayout& layout, int64_t first, int64_t images, bool slopes,
                     ConvScratch<Real>& scratch) {
    const PlaneLayout& planes = layout.planes;
    const int64_t height = task.height, width = task.width, channels = task.channels, pixels = planes.pixels;
    Real* const* linear = scratch.linear;
    if (task.activation == Activation::none)
        return read_channels(task, planes, task.x, first, images, channels, scratch.features);
    for (int64_t g = 0; g < images; ++g) {
        const int64_t image = first + g, place = planes.place(g);
        const auto feature = [&](int64_t f) { return scratch.features + f * planes.plane + place; };
        if (task.activation == Activation::concat_elu) {
            const bool drops = task.dropout.threshold > 0;
            for (int64_t c = 0; c < channels; ++c) {
                if (drops && c % 2 == 0) dropout_words(task.dropout, image, c / 2, height * width, scratch.words, pixels);
                const Real* x = linear_plane(task, task.x, image, c, linear[0]);
                concat_elu(x, pixels, task.dropout, drops ? scratch.words + c % 2 * 2 * pixels : nullptr, pixels,
                           linear[1], linear[2]);
                spread(linear[1], height, width, feature(c), planes.pitch);
                spread(linear[2], height, width, feature(channels + c), planes.pitch);
            }
        } else {
            for (int64_t f = 0; f < layout.features; ++f) {
                const auto half = [&](int64_t c, Real* spare) {
                    return conditioned(task, task.x, task.condition, image, c, pixels, spare, linear[3]);
                };
                const Real* a = half(f, linear[0]);
                const Real* b = half(layout.features + f, linear[1]);
                if (slopes) {
                    Real* slope = scratch.slopes + (g * channels + f) * pixels;
                    gated_and_slopes(task.activation, a, b, pixels, linear[2], slope, slope + layout.features * pixels);
                } else {
                    gated(task.activation, a, b, pixels, linear[2]);
                }
                spread(linear[2], height, width, feature(f), planes.pitch);
            }
        }
    }
}

// From the gradient of the features to that of x. Gates: from the slopes that `activate` left.
template <class Real>
static void deactivate(const ConvTask& task, const ConvLayout& layout, int64_t first, int64_t images,
                       ConvScratch<Real>& scratch) {
    const PlaneLayout& planes = layout.planes;
    const int64_t height = task.height, width = task.width, channels = task.channels, pixels = planes.pixels;
    Real* const* linear = scratch.linear;
    if (task.activation == Activation::none)
        return write_channels(task, planes, scratch.features_gradient, {}, task.x_gradient, first, images, 0, channels,
                              linear);
    for (int64_t g = 0; g < images; ++g) {
        const int64_t image = first + g;
        const auto feature = [&](int64_t f) {
            return scratch.features_gradient + f * planes.plane + g * planes.image_pitch;
        };
        if (task.activation == Activation::concat_elu) {
            const bool drops = task.dropout.threshold > 0;
            for (int64_t c = 0; c < channels; ++c) {
                if (drops && c % 2 == 0) dropout_words(task.dropout, image, c / 2, height * width, scratch.words, pixels);
                const Real* x = linear_plane(task, task.x, image, c, linear[0]);
                gather(feature(c), planes.pitch, height, width, linear[1]);
                gather(feature(channels + c), planes.pitch, height, width, linear[2]);
                const uint32_t* words = drops ? scratch.words + c % 2 * 2 * pixels : nullptr;
                write_linear(task, task.x_gradient, image, c, linear[3], [&](Real* gradient) {
                    concat_elu_gradient(x, pixels, task.dropout, words, pixels, linear[1], linear[2], gradient);
                });
            }
        } else {
            for (int64_t c = 0; c < channels; ++c) {
                gather(feature(c % layout.features), planes.pitch, height, width, linear[2]);
                write_linear(task, task.x_gradient, image, c, linear[0], [&](Real* gradient) {
                    multiply_by(linear[2], scratch.slopes + (g * channels + c) * pixels, pixels, gradient);
                });
            }
        }
    }
}

template <class Real>
static void conv_forward(const ConvTask& task, const ConvLayout& layout, const void* packed, int64_t chunk,
                         void* memory) {
    ConvScratch<Real> scratch(task, layout, memory, false);
    const PlaneLayout& planes = layout.planes;
    const int64_t end = std::min(task.images, (chunk + 1) * planes.chunk_images);
    const int64_t block_size = kConvRows * layout.features * layout.taps.count();
    for (int64_t first = chunk * planes.chunk_images; first < end; first += planes.group) {
        const int64_t images = std::min(planes.group, end - first);
        clear_surroundings(planes, images, layout.features, scratch.features);
        activate(task, layout, first, images, false, scratch);
        const Real* weights = static_cast<const Real*>(packed);
        for (int64_t o = 0; o < task.outputs; o += kConvRows, weights += block_size) {
            multiply(scratch.features + planes.margin, planes.plane, layout.taps.offsets, layout.features, weights,
                     Start<Real>(task.bias, task.type, o, task.outputs).of, false, scratch.block,
                     planes.positions(images));
            write_channels(task, planes, scratch.block, task.added, task.out, first, images, o,
                           std::min<int64_t>(o + kConvRows, task.outputs), scratch.linear);
        }
    }
}

template <class Real>
static void conv_backward(const ConvTask& task, const ConvLayout& layout, const void* packed, int64_t chunk,
                          void* memory, void* sums) {
    ConvScratch<Real> scratch(task, layout, memory, true);
    const PlaneLayout& planes = layout.planes;
    const int64_t count = weight_sums(task.outputs, layout.features, layout.taps.count()), plane = planes.plane;
    const bool slopes = is_gate(task.activation) && task.x_gradient.data != nullptr;
    Real* of_weight = static_cast<Real*>(sums);
    Real* of_bias = of_weight + count;
    for (int64_t i = 0; i < count + task.outputs; ++i) of_weight[i] = 0;
    const Real* out_gradient = scratch.out_gradient + planes.margin;
    const int64_t end = std::min(task.images, (chunk + 1) * planes.chunk_images);
    for (int64_t first = chunk * planes.chunk_images; first < end; first += planes.group) {
        const int64_t images = std::min(planes.group, end - first);
        const int64_t positions = planes.positions(images);
        clear_surroundings(planes, images, task.outputs, scratch.out_gradient);
        read_channels(task, planes, task.out_gradient, first, images, task.outputs, scratch.out_gradient);
        add_bias_gradient(out_gradient, task.outputs, plane, positions, of_bias);
        if (task.weight_gradient != nullptr) clear_surroundings(planes, images, layout.features, scratch.features);
        if (task.weight_gradient != nullptr || slopes) activate(task, layout, first, images, slopes, scratch);
        if (task.weight_gradient != nullptr)
            add_weight_gradient(out_gradient, task.outputs, scratch.features + planes.margin, layout.features, plane,
                                layout.taps.offsets, positions, of_weight);
        if (task.x_gradient.data != nullptr) {
            convolve(out_gradient, plane, layout.taps.back_offsets, task.outputs, static_cast<const Real*>(packed),
                     layout.features, nullptr, task.type, false, scratch.features_gradient, positions);
            deactivate(task, layout, first, images, scratch);
        }
    }
}

template <class Real>
static void conv_finish(const ConvTask& task, const ConvLayout& layout, void* sums) {
    const int64_t count = weight_sums(task.outputs, layout.features, layout.taps.count());
    Real* total = static_cast<Real*>(sums);
    add_up_chunks(layout.planes.chunks, count + task.outputs, total);
    write_weight_gradient(total, weights_of(task, layout), task.weight_gradient);
    write_bias_gradient(total + count, task.outputs, task.type, task.bias_gradient);
}
