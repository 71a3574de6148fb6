// Convolutions and gates for training, on vectors of floats or doubles.
//
// Included inside an instruction set's namespace, after vec.h and vec_math.h.

// ---- Vectors of either kind of number. Doubles are for checking: elementary functions go lane by lane.

typedef double LooseD __attribute__((vector_size(PF_VECTOR_BYTES), aligned(8), may_alias));

template <class Real>
struct VectorOf;
template <>
struct VectorOf<float> {
    using Type = F;
    static constexpr int64_t lanes = kLanes;
};
template <>
struct VectorOf<double> {
    using Type = D;
    static constexpr int64_t lanes = kDoubleLanes;
};

PF_INLINE D load(const double* p) { return *reinterpret_cast<const LooseD*>(p); }
PF_INLINE void store(double* p, D v) { *reinterpret_cast<LooseD*>(p) = v; }
PF_INLINE D splat(double x) { return D{} + x; }
PF_INLINE D fma(D a, D b, D c) { return a * b + c; }
PF_INLINE D absolute(D a) { return (D)((L)a & 0x7FFFFFFFFFFFFFFFll); }

#define PF_LANE_BY_LANE(name, expression)                       \
    PF_INLINE D name(D v) {                                     \
        for (int i = 0; i < kDoubleLanes; ++i) {                \
            const double x = v[i];                              \
            v[i] = expression;                                  \
        }                                                       \
        return v;                                               \
    }
PF_LANE_BY_LANE(exponential, __builtin_exp(x))
PF_LANE_BY_LANE(expm1_not_positive, __builtin_expm1(x))
PF_LANE_BY_LANE(hyperbolic_tangent, __builtin_tanh(x))
PF_LANE_BY_LANE(logistic, 1 / (1 + __builtin_exp(-x)))
#undef PF_LANE_BY_LANE

// Halves are added until one number is left.
PF_INLINE double lane_sum(D v) {
    double part[kDoubleLanes];
    __builtin_memcpy(part, &v, sizeof v);
    for (int half = kDoubleLanes / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) part[i] += part[i + half];
    return part[0];
}
PF_INLINE float lane_sum(F v) {
#if defined(PF_AVX512)
    return _mm512_reduce_add_ps((__m512)v);
#else
    float part[kLanes];
    __builtin_memcpy(part, &v, sizeof v);
    for (int half = kLanes / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) part[i] += part[i + half];
    return part[0];
#endif
}

// All bits set where the feature is kept.
PF_INLINE I kept(const uint32_t* words, uint32_t threshold, F) { return (I)(bits<U>(words) >= threshold); }
PF_INLINE L kept(const uint32_t* words, uint32_t threshold, D) {
    return (L)(__builtin_convertvector(bits<HalfU>(words), UL) >= static_cast<uint64_t>(threshold));
}

// ---- Numbers as memory holds them.

struct Stored16 {
    uint16_t bits;
};
struct StoredBFloat16 : Stored16 {};
struct StoredFloat16 : Stored16 {};

PF_INLINE float bits_to_float(uint32_t pattern) { return bits<float>(&pattern); }
PF_INLINE uint32_t float_to_bits(float x) { return bits<uint32_t>(&x); }

PF_INLINE float widened(float x) { return x; }
PF_INLINE double widened(double x) { return x; }
PF_INLINE float widened(StoredBFloat16 x) { return bits_to_float(uint32_t{x.bits} << 16); }
PF_INLINE float widened(StoredFloat16 x) {
    const uint32_t magnitude = uint32_t{x.bits} << 13 & 0x0FFFE000u;
    // The product moves the exponent to a float's, and makes denormal numbers normal.
    const uint32_t finite = float_to_bits(bits_to_float(magnitude) * 0x1p112f);
    const uint32_t value = magnitude >= 0x0F800000u ? magnitude | 0x7F800000u : finite;
    return bits_to_float(value | (uint32_t{x.bits} << 16 & 0x80000000u));
}

// Rounded to nearest, ties to even.
PF_INLINE void narrow_to(float& to, float x) { to = x; }
PF_INLINE void narrow_to(double& to, double x) { to = x; }
PF_INLINE void narrow_to(StoredBFloat16& to, float x) {
    const uint32_t pattern = float_to_bits(x);
    to.bits = x != x ? 0x7FC0 : static_cast<uint16_t>((pattern + 0x7FFFu + (pattern >> 16 & 1u)) >> 16);
}
PF_INLINE void narrow_to(StoredFloat16& to, float x) {
    const uint32_t pattern = float_to_bits(x), magnitude = pattern & 0x7FFFFFFFu;
    // The sum with 1/2 has the spacing of denormal numbers, 2^-24.
    const uint32_t denormal = float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3F000000u;
    const uint32_t normal = (magnitude - 0x38000000u + 0xFFFu + (magnitude >> 13 & 1u)) >> 13;
    const uint32_t special = magnitude > 0x7F800000u ? 0x7E00u : 0x7C00u;
    const uint32_t value = magnitude >= 0x47800000u ? special : magnitude < 0x38800000u ? denormal : normal;
    to.bits = static_cast<uint16_t>(value | (pattern >> 16 & 0x8000u));
}

// Calls use(example of the stored type).
template <class Real, class Use>
PF_INLINE void as_stored(FloatType type, const Use& use) {
    if constexpr (sizeof(Real) == sizeof(float)) {
        if (type == FloatType::bfloat16) return use(StoredBFloat16{});
        if (type == FloatType::float16) return use(StoredFloat16{});
    }
    use(Real{});
}

// One plane of a tensor <-> rows `pitch` apart.
template <class Real>
static void read_plane(const ConvTensor& tensor, FloatType type, int64_t image, int64_t channel, int64_t height,
                       int64_t width, Real* to, int64_t pitch) {
    as_stored<Real>(type, [&](auto example) {
        using Stored = decltype(example);
        const int64_t step = tensor.strides[3];
        const Stored* plane = static_cast<const Stored*>(tensor.data) + image * tensor.strides[0] + channel * tensor.strides[1];
        for (int64_t y = 0; y < height; ++y) {
            const Stored* from = plane + y * tensor.strides[2];
            if (step == 1) {
                for (int64_t x = 0; x < width; ++x) to[y * pitch + x] = widened(from[x]);
            } else {
                for (int64_t x = 0; x < width; ++x) to[y * pitch + x] = widened(from[x * step]);
            }
        }
    });
}

template <class Real>
static void write_plane(const ConvTensor& tensor, FloatType type, int64_t image, int64_t channel, int64_t height,
                        int64_t width, const Real* from, int64_t pitch) {
    as_stored<Real>(type, [&](auto example) {
        using Stored = decltype(example);
        const int64_t step = tensor.strides[3];
        Stored* plane = static_cast<Stored*>(tensor.data) + image * tensor.strides[0] + channel * tensor.strides[1];
        for (int64_t y = 0; y < height; ++y) {
            Stored* to = plane + y * tensor.strides[2];
            if (step == 1) {
                for (int64_t x = 0; x < width; ++x) narrow_to(to[x], from[y * pitch + x]);
            } else {
                for (int64_t x = 0; x < width; ++x) narrow_to(to[x * step], from[y * pitch + x]);
            }
        }
    });
}

// ---- Activations, on whole vectors. Linear planes have room for them.

// Words of the features of channels 2 * pair and 2 * pair + 1, for positions 0, 1, ...: words[k][position].
static void dropout_words(const Dropout& dropout, int64_t image, int64_t pair, int64_t positions, uint32_t* words,
                          int64_t stride) {
    UL lane;
    for (int i = 0; i < kDoubleLanes; ++i) lane[i] = static_cast<uint64_t>(i);
    const UL low = UL{} + 0xFFFFFFFFu;
    const UL multiplier0 = UL{} + kPhiloxMultiplier0, multiplier1 = UL{} + kPhiloxMultiplier1;
    for (int64_t first = 0; first < positions; first += kDoubleLanes) {
        UL c0 = UL{} + static_cast<uint32_t>(image), c1 = lane + static_cast<uint64_t>(first);
        UL c2 = UL{} + static_cast<uint32_t>(pair), c3 = UL{};
        uint32_t k0 = static_cast<uint32_t>(dropout.seed), k1 = static_cast<uint32_t>(dropout.seed >> 32);
        for (int round = 0; round < kPhiloxRounds; ++round) {
            const UL p0 = multiply_low_halves(multiplier0, c0);
            const UL p1 = multiply_low_halves(multiplier1, c2);
            c0 = (p1 >> 32) ^ c1 ^ (UL{} + k0);
            c1 = p1 & low;
            c2 = (p0 >> 32) ^ c3 ^ (UL{} + k1);
            c3 = p0 & low;
            k0 += kPhiloxWeyl0;
            k1 += kPhiloxWeyl1;
        }
        const HalfU out[4] = {__builtin_convertvector(c0, HalfU), __builtin_convertvector(c1, HalfU),
                              __builtin_convertvector(c2, HalfU), __builtin_convertvector(c3, HalfU)};
        for (int k = 0; k < 4; ++k) __builtin_memcpy(words + k * stride + first, &out[k], sizeof(HalfU));
    }
}

// elu(x) and elu(-x); words null where nothing is dropped.
template <class Real>
static void concat_elu(const Real* x, int64_t count, const Dropout& dropout, const uint32_t* words, int64_t stride,
                       Real* positive, Real* negative) {
    using V = typename VectorOf<Real>::Type;
    const V zero = V{};
    const Real scale = static_cast<Real>(dropout.scale);
    for (int64_t i = 0; i < count; i += VectorOf<Real>::lanes) {
        const V v = load(x + i);
        const V small = expm1_not_positive(-absolute(v));
        V p = v > zero ? v : small;
        V n = v > zero ? small : -v;
        if (words != nullptr) {
            p = kept(words + i, dropout.threshold, v) ? p * scale : zero;
            n = kept(words + stride + i, dropout.threshold, v) ? n * scale : zero;
        }
        store(positive + i, p);
        store(negative + i, n);
    }
}

template <class Real>
static void concat_elu_gradient(const Real* x, int64_t count, const Dropout& dropout, const uint32_t* words,
                                int64_t stride, const Real* positive, const Real* negative, Real* gradient) {
    using V = typename VectorOf<Real>::Type;
    const V zero = V{}, one = zero + Real{1};
    const Real scale = static_cast<Real>(dropout.scale);
    for (int64_t i = 0; i < count; i += VectorOf<Real>::lanes) {
        const V v = load(x + i);
        const V e = exponential(-absolute(v));
        V p = load(positive + i), n = load(negative + i);
        if (words != nullptr) {
            p = kept(words + i, dropout.threshold, v) ? p * scale : zero;
            n = kept(words + stride + i, dropout.threshold, v) ? n * scale : zero;
        }
        store(gradient + i, p * (v > zero ? one : e) - n * (v < zero ? one : e));
    }
}

template <class Real>
static void gated(Activation kind, const Real* first, const Real* second, int64_t count, Real* out) {
    using V = typename VectorOf<Real>::Type;
    for (int64_t i = 0; i < count; i += VectorOf<Real>::lanes) {
        const V a = load(first + i);
        store(out + i, (kind == Activation::tanh_gate ? hyperbolic_tangent(a) : a) * logistic(load(second + i)));
    }
}

// The gradients may take the place of the gate's halves.
template <class Real>
static void gated_gradient(Activation kind, const Real* first, const Real* second, const Real* gradient, int64_t count,
                           Real* first_gradient, Real* second_gradient) {
    using V = typename VectorOf<Real>::Type;
    for (int64_t i = 0; i < count; i += VectorOf<Real>::lanes) {
        const V a = load(first + i), g = load(gradient + i), s = logistic(load(second + i));
        const V t = kind == Activation::tanh_gate ? hyperbolic_tangent(a) : a;
        const V slope = kind == Activation::tanh_gate ? Real{1} - t * t : V{} + Real{1};
        store(first_gradient + i, g * s * slope);
        store(second_gradient + i, g * t * s * (Real{1} - s));
    }
}

template <class Real>
static void add(Real* to, const Real* other, int64_t count) {
    using V = typename VectorOf<Real>::Type;
    for (int64_t i = 0; i < count; i += VectorOf<Real>::lanes) {
        const V sum = load(to + i) + load(other + i);
        store(to + i, sum);
    }
}

// ---- Products.

#if defined(PF_AVX512)
constexpr int kConvRows = 8, kConvVectors = 3, kSumRows = 5, kSumColumns = 5;
#elif defined(PF_AVX2)
constexpr int kConvRows = 6, kConvVectors = 2, kSumRows = 3, kSumColumns = 3;
#else
constexpr int kConvRows = 4, kConvVectors = 2, kSumRows = 3, kSumColumns = 3;
#endif

constexpr int64_t kConvBlock = 128;  // products in one running sum
constexpr int64_t kSumBlock = 64;    // vectors of products in one running sum

// destination[r][q] = sum over taps t and channels c of weights[t][c][r] * source[c][q + offsets[t]].
template <class Real>
static void multiply(const Real* source, int64_t plane, const std::vector<int64_t>& offsets, int64_t channels,
                     const Real* weights, Real* destination, int64_t positions) {
    using V = typename VectorOf<Real>::Type;
    constexpr int64_t lanes = VectorOf<Real>::lanes;
    const int64_t taps = static_cast<int64_t>(offsets.size());
    for (int64_t q = 0; q < positions; q += kConvVectors * lanes) {
        const Real* w = weights;
        bool begun = false;
        int64_t tap = 0, channel = 0;
        while (tap < taps) {
            V sums[kConvRows][kConvVectors] = {};
            for (int64_t room = kConvBlock; room > 0 && tap < taps;) {
                const int64_t count = channels - channel < room ? channels - channel : room;
                const Real* s = source + channel * plane + q + offsets[static_cast<size_t>(tap)];
                for (int64_t i = 0; i < count; ++i, s += plane, w += kConvRows) {
                    V a[kConvVectors];
                    for (int v = 0; v < kConvVectors; ++v) a[v] = load(s + v * lanes);
                    for (int r = 0; r < kConvRows; ++r) {
                        const V b = splat(w[r]);
                        for (int v = 0; v < kConvVectors; ++v) sums[r][v] = fma(a[v], b, sums[r][v]);
                    }
                }
                room -= count;
                channel += count;
                if (channel == channels) {
                    channel = 0;
                    ++tap;
                }
            }
            for (int r = 0; r < kConvRows; ++r) {
                for (int v = 0; v < kConvVectors; ++v) {
                    Real* to = destination + r * plane + q + v * lanes;
                    store(to, begun ? load(to) + sums[r][v] : sums[r][v]);
                }
            }
            begun = true;
        }
    }
}

// results[r][c] += sum over positions q of rows[r][q] * columns[c][q].
template <class Real>
static void correlate(const Real* const* rows, const Real* const* columns, int64_t positions,
                      Real (*results)[kSumColumns]) {
    using V = typename VectorOf<Real>::Type;
    constexpr int64_t lanes = VectorOf<Real>::lanes;
    for (int64_t begin = 0; begin < positions; begin += kSumBlock * lanes) {
        const int64_t end = positions - begin < kSumBlock * lanes ? positions : begin + kSumBlock * lanes;
        V sums[kSumRows][kSumColumns] = {};
        for (int64_t q = begin; q < end; q += lanes) {
            V a[kSumRows];
            for (int r = 0; r < kSumRows; ++r) a[r] = load(rows[r] + q);
            for (int c = 0; c < kSumColumns; ++c) {
                const V b = load(columns[c] + q);
                for (int r = 0; r < kSumRows; ++r) sums[r][c] = fma(a[r], b, sums[r][c]);
            }
        }
        for (int r = 0; r < kSumRows; ++r)
            for (int c = 0; c < kSumColumns; ++c) results[r][c] += lane_sum(sums[r][c]);
    }
}

// ---- A chunk of images.

static int64_t conv_packed_size(int64_t outputs, int64_t inputs, int64_t taps) {
    return (outputs + kConvRows - 1) / kConvRows * kConvRows * inputs * taps;
}

// [block of kConvRows outputs][tap][input][output of the block]; transposed: inputs and outputs change places.
template <class Real>
static void conv_pack(const ConvTask& task, const ConvLayout& layout, bool transposed, void* packed) {
    const int64_t taps = static_cast<int64_t>(layout.offsets.size());
    const int64_t outputs = transposed ? layout.features : task.outputs;
    const int64_t inputs = transposed ? task.outputs : layout.features;
    const int64_t output_step = transposed ? taps : layout.features * taps;
    const int64_t input_step = transposed ? layout.features * taps : taps;
    Real* to = static_cast<Real*>(packed);
    as_stored<Real>(task.type, [&](auto example) {
        const auto* weight = static_cast<const decltype(example)*>(task.weight);
        for (int64_t first = 0; first < outputs; first += kConvRows)
            for (int64_t tap = 0; tap < taps; ++tap)
                for (int64_t i = 0; i < inputs; ++i)
                    for (int64_t r = 0; r < kConvRows; ++r)
                        *to++ = first + r < outputs
                                    ? widened(weight[(first + r) * output_step + i * input_step + tap])
                                    : Real{0};
    });
}

template <class Real>
struct ConvScratch {
    Real* features;           // [feature][plane]
    Real* block;              // [kConvRows][plane]
    Real* out_gradient;       // [output][plane]
    Real* features_gradient;  // [feature, rounded up][plane]
    Real* linear[4];          // [pixels]
    uint32_t* words;          // [4][pixels]

    ConvScratch(const ConvTask& task, const ConvLayout& layout, void* memory, bool gradient) {
        Real* next = static_cast<Real*>(memory);
        const auto take = [&](int64_t count) {
            Real* taken = next;
            next += count;
            return taken;
        };
        features = take(layout.features * layout.plane);
        block = take(kConvRows * layout.plane);
        out_gradient = take(gradient ? task.outputs * layout.plane : 0);
        // Everything so far has margins, which stay zero.
        for (Real* p = static_cast<Real*>(memory); p < next; ++p) *p = 0;
        features_gradient =
            take(gradient ? (layout.features + kConvRows - 1) / kConvRows * kConvRows * layout.plane : 0);
        for (Real*& plane : linear) plane = take(layout.pixels);
        words = reinterpret_cast<uint32_t*>(take(4 * layout.pixels));
    }
};

// Copies the pixels of an image between a linear plane and its place among the features'.
template <class Real>
PF_INLINE void spread(const Real* linear, int64_t height, int64_t width, Real* to, int64_t pitch) {
    for (int64_t y = 0; y < height; ++y)
        __builtin_memcpy(to + y * pitch, linear + y * width, static_cast<size_t>(width) * sizeof(Real));
}
template <class Real>
PF_INLINE void gather(const Real* from, int64_t pitch, int64_t height, int64_t width, Real* linear) {
    for (int64_t y = 0; y < height; ++y)
        __builtin_memcpy(linear + y * width, from + y * pitch, static_cast<size_t>(width) * sizeof(Real));
}

// x(image, channel) + condition(image, channel) as a linear plane; `spare` is another one.
template <class Real, class Task>
static void read_conditioned(const Task& task, int64_t image, int64_t channel, int64_t pixels, Real* to, Real* spare) {
    read_plane(task.x, task.type, image, channel, task.height, task.width, to, task.width);
    if (task.condition.data == nullptr) return;
    read_plane(task.condition, task.type, image, channel, task.height, task.width, spare, task.width);
    add(to, spare, pixels);
}

// The features of images first, first + 1, ... into their places.
template <class Real>
static void activate(const ConvTask& task, const ConvLayout& layout, int64_t first, int64_t images,
                     ConvScratch<Real>& scratch) {
    const int64_t height = task.height, width = task.width, channels = task.channels, pixels = layout.pixels;
    Real* const* linear = scratch.linear;
    for (int64_t g = 0; g < images; ++g) {
        const int64_t image = first + g, place = layout.place(g);
        const auto feature = [&](int64_t f) { return scratch.features + f * layout.plane + place; };
        if (task.activation == Activation::none) {
            for (int64_t c = 0; c < channels; ++c)
                read_plane(task.x, task.type, image, c, height, width, feature(c), layout.pitch);
        } else if (task.activation == Activation::concat_elu) {
            const bool drops = task.dropout.threshold > 0;
            for (int64_t c = 0; c < channels; ++c) {
                if (drops && c % 2 == 0) dropout_words(task.dropout, image, c / 2, height * width, scratch.words, pixels);
                read_plane(task.x, task.type, image, c, height, width, linear[0], width);
                concat_elu(linear[0], pixels, task.dropout, drops ? scratch.words + c % 2 * 2 * pixels : nullptr, pixels,
                           linear[1], linear[2]);
                spread(linear[1], height, width, feature(c), layout.pitch);
                spread(linear[2], height, width, feature(channels + c), layout.pitch);
            }
        } else {
            for (int64_t f = 0; f < layout.features; ++f) {
                read_conditioned(task, image, f, pixels, linear[0], linear[3]);
                read_conditioned(task, image, layout.features + f, pixels, linear[1], linear[3]);
                gated(task.activation, linear[0], linear[1], pixels, linear[2]);
                spread(linear[2], height, width, feature(f), layout.pitch);
            }
        }
    }
}

// From the gradient of the features to that of x.
template <class Real>
static void deactivate(const ConvTask& task, const ConvLayout& layout, int64_t first, int64_t images,
                       ConvScratch<Real>& scratch) {
    const int64_t height = task.height, width = task.width, channels = task.channels, pixels = layout.pixels;
    Real* const* linear = scratch.linear;
    for (int64_t g = 0; g < images; ++g) {
        const int64_t image = first + g, place = layout.place(g);
        const auto feature = [&](int64_t f) { return scratch.features_gradient + f * layout.plane + place - layout.margin; };
        if (task.activation == Activation::none) {
            for (int64_t c = 0; c < channels; ++c)
                write_plane(task.x_gradient, task.type, image, c, height, width, feature(c), layout.pitch);
        } else if (task.activation == Activation::concat_elu) {
            const bool drops = task.dropout.threshold > 0;
            for (int64_t c = 0; c < channels; ++c) {
                if (drops && c % 2 == 0) dropout_words(task.dropout, image, c / 2, height * width, scratch.words, pixels);
                read_plane(task.x, task.type, image, c, height, width, linear[0], width);
                gather(feature(c), layout.pitch, height, width, linear[1]);
                gather(feature(channels + c), layout.pitch, height, width, linear[2]);
                concat_elu_gradient(linear[0], pixels, task.dropout,
                                    drops ? scratch.words + c % 2 * 2 * pixels : nullptr, pixels, linear[1], linear[2],
                                    linear[3]);
                write_plane(task.x_gradient, task.type, image, c, height, width, linear[3], width);
            }
        } else {
            for (int64_t f = 0; f < layout.features; ++f) {
                read_conditioned(task, image, f, pixels, linear[0], linear[3]);
                read_conditioned(task, image, layout.features + f, pixels, linear[1], linear[3]);
                gather(feature(f), layout.pitch, height, width, linear[2]);
                gated_gradient(task.activation, linear[0], linear[1], linear[2], pixels, linear[0], linear[1]);
                write_plane(task.x_gradient, task.type, image, f, height, width, linear[0], width);
                write_plane(task.x_gradient, task.type, image, layout.features + f, height, width, linear[1], width);
            }
        }
    }
}

template <class Real>
static void conv_forward(const ConvTask& task, const ConvLayout& layout, const void* packed, int64_t chunk,
                         void* memory) {
    ConvScratch<Real> scratch(task, layout, memory, false);
    const int64_t end = std::min(task.images, (chunk + 1) * layout.chunk_images);
    const int64_t block_size = kConvRows * layout.features * static_cast<int64_t>(layout.offsets.size());
    for (int64_t first = chunk * layout.chunk_images; first < end; first += layout.group) {
        const int64_t images = std::min(layout.group, end - first);
        activate(task, layout, first, images, scratch);
        const Real* weights = static_cast<const Real*>(packed);
        for (int64_t o = 0; o < task.outputs; o += kConvRows, weights += block_size) {
            multiply(scratch.features + layout.margin, layout.plane, layout.offsets, layout.features, weights,
                     scratch.block, layout.positions(images));
            for (int64_t r = 0; r < kConvRows && o + r < task.outputs; ++r) {
                Real bias = 0;
                if (task.bias != nullptr)
                    as_stored<Real>(task.type, [&](auto example) {
                        bias = widened(static_cast<const decltype(example)*>(task.bias)[o + r]);
                    });
                for (int64_t g = 0; g < images; ++g) {
                    Real* result = scratch.linear[0];
                    gather(scratch.block + r * layout.plane + g * layout.image_pitch, layout.pitch, task.height,
                           task.width, result);
                    for (int64_t i = 0; i < layout.pixels; ++i) result[i] += bias;
                    if (task.added.data != nullptr) {
                        read_plane(task.added, task.type, first + g, o + r, task.height, task.width, scratch.linear[1],
                                   task.width);
                        add(result, scratch.linear[1], layout.pixels);
                    }
                    write_plane(task.out, task.type, first + g, o + r, task.height, task.width, result, task.width);
                }
            }
        }
    }
}

// Adds the sums over all positions of out_gradient times the features under each tap.
template <class Real>
static void add_weight_gradient(const ConvTask& task, const ConvLayout& layout, int64_t positions,
                                const ConvScratch<Real>& scratch, Real* sums) {
    const int64_t taps = static_cast<int64_t>(layout.offsets.size());
    for (int64_t o = 0; o < task.outputs; o += kSumRows) {
        const Real* rows[kSumRows];
        for (int r = 0; r < kSumRows; ++r)
            rows[r] = scratch.out_gradient + std::min(o + r, task.outputs - 1) * layout.plane + layout.margin;
        for (int64_t f = 0; f < layout.features; f += kSumColumns) {
            for (int64_t tap = 0; tap < taps; ++tap) {
                const Real* columns[kSumColumns];
                for (int c = 0; c < kSumColumns; ++c)
                    columns[c] = scratch.features + std::min(f + c, layout.features - 1) * layout.plane +
                                 layout.margin + layout.offsets[static_cast<size_t>(tap)];
                Real results[kSumRows][kSumColumns] = {};
                correlate(rows, columns, positions, results);
                for (int64_t r = 0; r < kSumRows && o + r < task.outputs; ++r)
                    for (int64_t c = 0; c < kSumColumns && f + c < layout.features; ++c)
                        sums[((o + r) * layout.features + f + c) * taps + tap] += results[r][c];
            }
        }
    }
}

template <class Real>
static void conv_backward(const ConvTask& task, const ConvLayout& layout, const void* packed, int64_t chunk,
                          void* memory, void* sums) {
    ConvScratch<Real> scratch(task, layout, memory, true);
    const int64_t taps = static_cast<int64_t>(layout.offsets.size());
    const int64_t weights = task.outputs * layout.features * taps;
    Real* weight_sums = static_cast<Real*>(sums);
    Real* bias_sums = weight_sums + weights;
    for (int64_t i = 0; i < weights + task.outputs; ++i) weight_sums[i] = 0;
    const int64_t end = std::min(task.images, (chunk + 1) * layout.chunk_images);
    const int64_t block_size = kConvRows * task.outputs * taps;
    for (int64_t first = chunk * layout.chunk_images; first < end; first += layout.group) {
        const int64_t images = std::min(layout.group, end - first);
        const int64_t positions = layout.positions(images);
        for (int64_t o = 0; o < task.outputs; ++o) {
            Real* plane = scratch.out_gradient + o * layout.plane;
            for (int64_t g = 0; g < images; ++g)
                read_plane(task.out_gradient, task.type, first + g, o, task.height, task.width, plane + layout.place(g),
                           layout.pitch);
            // A group may be smaller than the one before it.
            for (int64_t i = layout.place(images); i < layout.plane; ++i) plane[i] = 0;
            using V = typename VectorOf<Real>::Type;
            V sum = {};
            for (int64_t q = 0; q < positions; q += VectorOf<Real>::lanes) sum += load(plane + layout.margin + q);
            bias_sums[o] += lane_sum(sum);
        }
        if (task.weight_gradient != nullptr) {
            activate(task, layout, first, images, scratch);
            add_weight_gradient(task, layout, positions, scratch, weight_sums);
        }
        if (task.x_gradient.data != nullptr) {
            const Real* next = static_cast<const Real*>(packed);
            for (int64_t f = 0; f < layout.features; f += kConvRows, next += block_size)
                multiply(scratch.out_gradient + layout.margin, layout.plane, layout.back_offsets, task.outputs, next,
                         scratch.features_gradient + f * layout.plane, positions);
            deactivate(task, layout, first, images, scratch);
        }
    }
}

template <class Real>
static void conv_finish(const ConvTask& task, const ConvLayout& layout, void* sums) {
    const int64_t weights = task.outputs * layout.features * static_cast<int64_t>(layout.offsets.size());
    const int64_t stride =
        pixelfast::round_up(static_cast<int64_t>(sizeof(Real)) * (weights + task.outputs), 64) / static_cast<int64_t>(sizeof(Real));
    Real* total = static_cast<Real*>(sums);
    if (layout.chunks == 0)
        for (int64_t i = 0; i < weights + task.outputs; ++i) total[i] = 0;
    for (int64_t chunk = 1; chunk < layout.chunks; ++chunk)
        for (int64_t i = 0; i < weights + task.outputs; ++i) total[i] += total[chunk * stride + i];
    as_stored<Real>(task.type, [&](auto example) {
        using Stored = decltype(example);
        if (task.weight_gradient != nullptr)
            for (int64_t i = 0; i < weights; ++i) narrow_to(static_cast<Stored*>(task.weight_gradient)[i], total[i]);
        if (task.bias_gradient != nullptr)
            for (int64_t o = 0; o < task.outputs; ++o)
                narrow_to(static_cast<Stored*>(task.bias_gradient)[o], total[weights + o]);
    });
}

// ---- Gates.

template <class Real>
static void gate_planes(const GateTask& task, int64_t first, int64_t end, void* memory) {
    const int64_t pixels = pixelfast::round_up(task.height * task.width, VectorOf<Real>::lanes);
    Real* linear[4];
    for (int i = 0; i < 4; ++i) linear[i] = static_cast<Real*>(memory) + i * pixels;
    for (int64_t plane = first; plane < end; ++plane) {
        const int64_t image = plane / task.features, f = plane % task.features;
        read_conditioned(task, image, f, pixels, linear[0], linear[3]);
        read_conditioned(task, image, task.features + f, pixels, linear[1], linear[3]);
        gated(task.activation, linear[0], linear[1], pixels, linear[2]);
        if (task.residual.data != nullptr) {
            read_plane(task.residual, task.type, image, f, task.height, task.width, linear[3], task.width);
            add(linear[2], linear[3], pixels);
        }
        write_plane(task.out, task.type, image, f, task.height, task.width, linear[2], task.width);
    }
}

template <class Real>
static void gate_planes_gradient(const GateTask& task, int64_t first, int64_t end, void* memory) {
    const int64_t pixels = pixelfast::round_up(task.height * task.width, VectorOf<Real>::lanes);
    Real* linear[4];
    for (int i = 0; i < 4; ++i) linear[i] = static_cast<Real*>(memory) + i * pixels;
    for (int64_t plane = first; plane < end; ++plane) {
        const int64_t image = plane / task.features, f = plane % task.features;
        read_conditioned(task, image, f, pixels, linear[0], linear[3]);
        read_conditioned(task, image, task.features + f, pixels, linear[1], linear[3]);
        read_plane(task.out_gradient, task.type, image, f, task.height, task.width, linear[2], task.width);
        gated_gradient(task.activation, linear[0], linear[1], linear[2], pixels, linear[0], linear[1]);
        write_plane(task.x_gradient, task.type, image, f, task.height, task.width, linear[0], task.width);
        write_plane(task.x_gradient, task.type, image, task.features + f, task.height, task.width, linear[1], task.width);
    }
}

template <class Real>
static const ConvKernels kConvKernels = {
    {VectorOf<Real>::lanes, kConvRows, kConvVectors * VectorOf<Real>::lanes},
    sizeof(Real),
    &conv_packed_size,
    &conv_pack<Real>,
    &conv_forward<Real>,
    &conv_backward<Real>,
    &conv_finish<Real>,
    &gate_planes<Real>,
    &gate_planes_gradient<Real>,
};
