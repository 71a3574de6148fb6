// Convolutions and gates for training, on vectors of floats or doubles.
//
// Included inside an instruction set's namespace, after vec_math.h and ops_planes.h.

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

PF_INLINE F load_vector(const float* p) { return load(p); }
PF_INLINE D load_vector(const double* p) { return *reinterpret_cast<const LooseD*>(p); }
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

// Calls use(example of the stored type).
template <class Real, class Use>
PF_INLINE void as_stored(FloatType type, const Use& use) {
    if constexpr (sizeof(Real) == sizeof(float)) {
        if (type == FloatType::bfloat16) return use(Bfloat16{});
        if (type == FloatType::float16) return use(Half{});
    }
    use(Real{});
}

template <class Real>
PF_INLINE void copy_rows(const Real* from, int64_t from_pitch, int64_t height, int64_t width, Real* to,
                         int64_t to_pitch);

// One plane of a tensor <-> rows `pitch` apart.
template <class Real>
static void read_plane(const ConvTensor& tensor, FloatType type, int64_t image, int64_t channel, int64_t height,
                       int64_t width, Real* to, int64_t pitch) {
    as_stored<Real>(type, [&](auto example) {
        using Stored = decltype(example);
        const int64_t step = tensor.strides[3];
        const Stored* plane = static_cast<const Stored*>(tensor.data) + image * tensor.strides[0] + channel * tensor.strides[1];
        if constexpr (std::is_same_v<Stored, Real>)
            if (step == 1) return copy_rows(plane, tensor.strides[2], height, width, to, pitch);
        for (int64_t y = 0; y < height; ++y) {
            const Stored* from = plane + y * tensor.strides[2];
            if (step == 1) {
                for (int64_t x = 0; x < width; ++x) to[y * pitch + x] = widen(from[x]);
            } else {
                for (int64_t x = 0; x < width; ++x) to[y * pitch + x] = widen(from[x * step]);
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
        if constexpr (std::is_same_v<Stored, Real>)
            if (step == 1) return copy_rows(from, pitch, height, width, plane, tensor.strides[2]);
        for (int64_t y = 0; y < height; ++y) {
            Stored* to = plane + y * tensor.strides[2];
            if (step == 1) {
                for (int64_t x = 0; x < width; ++x) assign(to[x], from[y * pitch + x]);
            } else {
                for (int64_t x = 0; x < width; ++x) assign(to[x * step], from[y * pitch + x]);
            }
        }
    });
}

// ---- Activations, on whole vectors. Linear planes have room for them.

// Words of the features of channels 2 * pair and 2 * pair + 1, for positions 0, 1, ...: words[k][position].
static void dropout_words(const Dropout& dropout, int64_t image, int64_t pair, int64_t positions, uint32_t* words,
                          int64_t stride) {
    for (int64_t first = 0; first < positions; first += kDoubleLanes) {
        const Counters c = philox_rounds({{UL{} + static_cast<uint32_t>(image), lanes_from(first),
                                           UL{} + static_cast<uint32_t>(pair), UL{}}},
                                         dropout.seed);
        for (int k = 0; k < 4; ++k) {
            const HalfU out = __builtin_convertvector(c.word[k], HalfU);
            __builtin_memcpy(words + k * stride + first, &out, sizeof(out));
        }
    }
}

// The factors of a gate: tanh(first) or first, sigmoid(second) and 1 - sigmoid(second).
template <class V>
struct GateShares {
    V value, share, rest;
};
template <class V>
PF_INLINE GateShares<V> gate_shares(Activation kind, V first, V second) {
    const V zero = V{}, one = zero + 1;
    const V e = exponential(-absolute(second));
    const V large = one / (one + e), small = e * large;
    return {kind == Activation::tanh_gate ? hyperbolic_tangent(first) : first, second < zero ? small : large,
            second < zero ? large : small};
}

// elu(x) and elu(-x); words null where nothing is dropped.
template <class Real>
static void concat_elu(const Real* x, int64_t count, const Dropout& dropout, const uint32_t* words, int64_t stride,
                       Real* positive, Real* negative) {
    using V = typename VectorOf<Real>::Type;
    const V zero = V{};
    const Real scale = static_cast<Real>(dropout.scale);
    for (int64_t i = 0; i < count; i += VectorOf<Real>::lanes) {
        const V v = load_vector(x + i);
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
        const V v = load_vector(x + i);
        const V e = exponential(-absolute(v));
        V p = load_vector(positive + i), n = load_vector(negative + i);
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
        const GateShares<V> gate = gate_shares(kind, load_vector(first + i), load_vector(second + i));
        store(out + i, gate.value * gate.share);
    }
}

// The gradients may take the place of the gate's halves.
template <class Real>
static void gated_gradient(Activation kind, const Real* first, const Real* second, const Real* gradient, int64_t count,
                           Real* first_gradient, Real* second_gradient) {
    using V = typename VectorOf<Real>::Type;
    for (int64_t i = 0; i < count; i += VectorOf<Real>::lanes) {
        const V g = load_vector(gradient + i);
        const GateShares<V> gate = gate_shares(kind, load_vector(first + i), load_vector(second + i));
        const V slope = kind == Activation::tanh_gate ? Real{1} - gate.value * gate.value : V{} + Real{1};
        store(first_gradient + i, g * gate.share * slope);
        store(second_gradient + i, g * gate.value * gate.share * gate.rest);
    }
}

template <class Real>
static void add(const Real* first, const Real* second, int64_t count, Real* sums) {
    for (int64_t i = 0; i < count; i += VectorOf<Real>::lanes) store(sums + i, load_vector(first + i) + load_vector(second + i));
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
constexpr int64_t kSumBlock = 48;    // vectors of products in one running sum: few enough for the first-level cache

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
                    for (int v = 0; v < kConvVectors; ++v) a[v] = load_vector(s + v * lanes);
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
                    store(to, begun ? load_vector(to) + sums[r][v] : sums[r][v]);
                }
            }
            begun = true;
        }
    }
}

// The sums of the lanes of several vectors.
template <int count, class V, class Real>
PF_INLINE void lane_sums(const V* vectors, Real* sums) {
    for (int i = 0; i < count; ++i) sums[i] = lane_sum(vectors[i]);
}
#if defined(PF_AVX512)
// Adds what differs in one bit of the lane's number; the lanes of a and b then take turns by that bit.
template <int blocks>
PF_INLINE __m512 fold_blocks(__m512 a, __m512 b) {
    constexpr int even = blocks == 2 ? 0x44 : 0x88, odd = blocks == 2 ? 0xEE : 0xDD;
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, even), _mm512_shuffle_f32x4(a, b, odd));
}
// Sixteen at a time, each in four additions of halves.
template <int count>
PF_INLINE void lane_sums(const F* vectors, float* sums) {
    for (int first = 0; first < count; first += 16) {
        __m512 v[16];
        for (int i = 0; i < 16; ++i)
            v[i] = first + i < count ? (__m512)vectors[first + i] : _mm512_setzero_ps();
        __m512 quarter[4];
        for (int i = 0; i < 4; ++i) {
            // Within blocks of four lanes: lane j of each block holds a sum of v[4 * i + j]'s.
            const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(v[4 * i], v[4 * i + 1]), _mm512_unpackhi_ps(v[4 * i], v[4 * i + 1]));
            const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(v[4 * i + 2], v[4 * i + 3]), _mm512_unpackhi_ps(v[4 * i + 2], v[4 * i + 3]));
            quarter[i] = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
        }
        // Across blocks: block k of the result is the sum of the blocks of quarter[k].
        const __m512 first_pair = fold_blocks<2>(quarter[0], quarter[1]);
        const __m512 second_pair = fold_blocks<2>(quarter[2], quarter[3]);
        const F all = (F)fold_blocks<1>(first_pair, second_pair);
        store_first(sums + first, all, count - first < 16 ? count - first : 16);
    }
}
#endif

// sums[r][c] += sum over positions q of rows[r][q] * columns[c][q]; positions: a whole number of vectors, not too many.
template <class Real>
static void correlate(const Real* const* rows, const Real* const* columns, int64_t positions, Real* sums) {
    using V = typename VectorOf<Real>::Type;
    V products[kSumRows * kSumColumns] = {};
    for (int64_t q = 0; q < positions; q += VectorOf<Real>::lanes) {
        V a[kSumRows];
        for (int r = 0; r < kSumRows; ++r) a[r] = load_vector(rows[r] + q);
        for (int c = 0; c < kSumColumns; ++c) {
            const V b = load_vector(columns[c] + q);
            for (int r = 0; r < kSumRows; ++r)
                products[r * kSumColumns + c] = fma(a[r], b, products[r * kSumColumns + c]);
        }
    }
    Real found[kSumRows * kSumColumns];
    lane_sums<kSumRows * kSumColumns>(products, found);
    for (int i = 0; i < kSumRows * kSumColumns; ++i) sums[i] += found[i];
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
                                    ? widen(weight[(first + r) * output_step + i * input_step + tap])
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
        features_gradient =
            take(gradient ? (layout.features + kConvRows - 1) / kConvRows * kConvRows * layout.plane : 0);
        for (Real*& plane : linear) plane = take(layout.pixels);
        words = reinterpret_cast<uint32_t*>(take(4 * layout.pixels));
    }
};

// Zeros around the pixels of `images` images in each plane.
template <class Real>
static void clear_surroundings(const ConvTask& task, const ConvLayout& layout, int64_t images, int64_t planes,
                               Real* first) {
    for (int64_t i = 0; i < planes; ++i) {
        Real* plane = first + i * layout.plane;
        int64_t done = 0;
        const auto clear_until = [&](int64_t end) {
            for (; done < end; ++done) plane[done] = 0;
        };
        for (int64_t g = 0; g < images; ++g) {
            for (int64_t y = 0; y < task.height; ++y) {
                clear_until(layout.place(g) + y * layout.pitch);
                done += task.width;
            }
        }
        clear_until(layout.plane);
    }
}

// Rows of `width` numbers, copied from and to rows that lie apart.
template <class Real>
PF_INLINE void copy_rows(const Real* from, int64_t from_pitch, int64_t height, int64_t width, Real* to,
                         int64_t to_pitch) {
    constexpr int64_t lanes = VectorOf<Real>::lanes;
    const bool whole = from_pitch == width && to_pitch == width;
    const int64_t rows = whole ? 1 : height, count = whole ? height * width : width;
    for (int64_t y = 0; y < rows; ++y) {
        const Real* source = from + y * from_pitch;
        Real* row = to + y * to_pitch;
        int64_t x = 0;
        for (; x + lanes <= count; x += lanes) store(row + x, load_vector(source + x));
        for (; x < count; ++x) row[x] = source[x];
    }
}
template <class Real>
PF_INLINE void spread(const Real* linear, int64_t height, int64_t width, Real* to, int64_t pitch) {
    copy_rows(linear, width, height, width, to, pitch);
}
template <class Real>
PF_INLINE void gather(const Real* from, int64_t pitch, int64_t height, int64_t width, Real* linear) {
    copy_rows(from, pitch, height, width, linear, width);
}

// A plane of a tensor where it lies, if that is one after the other and a whole number of vectors; else null.
template <class Real, class Task>
PF_INLINE Real* plane_in_place(const Task& task, const ConvTensor& tensor, int64_t image, int64_t channel) {
    const bool same = sizeof(Real) == sizeof(double) ? task.type == FloatType::float64 : task.type == FloatType::float32;
    const bool dense = tensor.strides[3] == 1 && tensor.strides[2] == task.width;
    if (!same || !dense || task.height * task.width % VectorOf<Real>::lanes != 0) return nullptr;
    return static_cast<Real*>(tensor.data) + image * tensor.strides[0] + channel * tensor.strides[1];
}

// A plane of a tensor as a linear plane: in place, or read into `spare`.
template <class Real, class Task>
PF_INLINE const Real* linear_plane(const Task& task, const ConvTensor& tensor, int64_t image, int64_t channel,
                                   Real* spare) {
    if (const Real* plane = plane_in_place<Real>(task, tensor, image, channel)) return plane;
    read_plane(tensor, task.type, image, channel, task.height, task.width, spare, task.width);
    return spare;
}

// Calls compute(linear plane), and puts what it computes into the tensor.
template <class Real, class Task, class Compute>
PF_INLINE void write_linear(const Task& task, const ConvTensor& tensor, int64_t image, int64_t channel, Real* spare,
                            const Compute& compute) {
    Real* plane = plane_in_place<Real>(task, tensor, image, channel);
    compute(plane != nullptr ? plane : spare);
    if (plane == nullptr) write_plane(tensor, task.type, image, channel, task.height, task.width, spare, task.width);
}

// x(image, channel) + condition(image, channel) as a linear plane.
template <class Real, class Task>
static const Real* conditioned(const Task& task, int64_t image, int64_t channel, int64_t pixels, Real* spare,
                               Real* other) {
    const Real* x = linear_plane(task, task.x, image, channel, spare);
    if (task.condition.data == nullptr) return x;
    add(x, linear_plane(task, task.condition, image, channel, other), pixels, spare);
    return spare;
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
                const Real* x = linear_plane(task, task.x, image, c, linear[0]);
                concat_elu(x, pixels, task.dropout, drops ? scratch.words + c % 2 * 2 * pixels : nullptr, pixels,
                           linear[1], linear[2]);
                spread(linear[1], height, width, feature(c), layout.pitch);
                spread(linear[2], height, width, feature(channels + c), layout.pitch);
            }
        } else {
            for (int64_t f = 0; f < layout.features; ++f) {
                const Real* a = conditioned(task, image, f, pixels, linear[0], linear[3]);
                const Real* b = conditioned(task, image, layout.features + f, pixels, linear[1], linear[3]);
                gated(task.activation, a, b, pixels, linear[2]);
                spread(linear[2], height, width, feature(f), layout.pitch);
            }
        }
    }
}

// The gradients of both halves of gate f, from that of its result. Uses linear planes 0, 1 and 3.
template <class Real, class Task>
static void write_gate_gradient(const Task& task, int64_t image, int64_t f, int64_t features, int64_t pixels,
                                const Real* gradient, Real* const* linear) {
    const Real* a = conditioned(task, image, f, pixels, linear[0], linear[3]);
    const Real* b = conditioned(task, image, features + f, pixels, linear[1], linear[3]);
    write_linear(task, task.x_gradient, image, f, linear[0], [&](Real* first) {
        write_linear(task, task.x_gradient, image, features + f, linear[1], [&](Real* second) {
            gated_gradient(task.activation, a, b, gradient, pixels, first, second);
        });
    });
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
                const Real* x = linear_plane(task, task.x, image, c, linear[0]);
                gather(feature(c), layout.pitch, height, width, linear[1]);
                gather(feature(channels + c), layout.pitch, height, width, linear[2]);
                const uint32_t* words = drops ? scratch.words + c % 2 * 2 * pixels : nullptr;
                write_linear(task, task.x_gradient, image, c, linear[3], [&](Real* gradient) {
                    concat_elu_gradient(x, pixels, task.dropout, words, pixels, linear[1], linear[2], gradient);
                });
            }
        } else {
            for (int64_t f = 0; f < layout.features; ++f) {
                gather(feature(f), layout.pitch, height, width, linear[2]);
                write_gate_gradient(task, image, f, layout.features, pixels, linear[2], linear);
            }
        }
    }
}

// gather, with a number and, where not null, another linear plane added.
template <class Real>
PF_INLINE void gather_sum(const Real* from, int64_t pitch, int64_t height, int64_t width, Real number,
                          const Real* added, Real* linear) {
    constexpr int64_t lanes = VectorOf<Real>::lanes;
    const int64_t rows = pitch == width ? 1 : height, count = pitch == width ? height * width : width;
    for (int64_t y = 0; y < rows; ++y) {
        const Real* source = from + y * pitch;
        const int64_t start = y * width;
        int64_t x = 0;
        for (; x + lanes <= count; x += lanes) {
            auto sum = load_vector(source + x) + number;
            if (added != nullptr) sum += load_vector(added + start + x);
            store(linear + start + x, sum);
        }
        for (; x < count; ++x) {
            linear[start + x] = source[x] + number;
            if (added != nullptr) linear[start + x] += added[start + x];
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
        clear_surroundings(task, layout, images, layout.features, scratch.features);
        activate(task, layout, first, images, scratch);
        const Real* weights = static_cast<const Real*>(packed);
        for (int64_t o = 0; o < task.outputs; o += kConvRows, weights += block_size) {
            multiply(scratch.features + layout.margin, layout.plane, layout.offsets, layout.features, weights,
                     scratch.block, layout.positions(images));
            for (int64_t r = 0; r < kConvRows && o + r < task.outputs; ++r) {
                Real bias = 0;
                if (task.bias != nullptr)
                    as_stored<Real>(task.type, [&](auto example) {
                        bias = widen(static_cast<const decltype(example)*>(task.bias)[o + r]);
                    });
                for (int64_t g = 0; g < images; ++g) {
                    const Real* sums = scratch.block + r * layout.plane + g * layout.image_pitch;
                    const Real* added = task.added.data == nullptr
                                            ? nullptr
                                            : linear_plane(task, task.added, first + g, o + r, scratch.linear[1]);
                    write_linear(task, task.out, first + g, o + r, scratch.linear[0], [&](Real* out) {
                        gather_sum(sums, layout.pitch, task.height, task.width, bias, added, out);
                    });
                }
            }
        }
    }
}

// Sums for the weight gradient lie in blocks of kSumRows x kSumColumns, [outputs][features][tap][block]; then come those
// for the bias.
static int64_t sum_blocks(int64_t count, int64_t size) { return (count + size - 1) / size; }
static int64_t conv_sums(int64_t outputs, int64_t features, int64_t taps) {
    return sum_blocks(outputs, kSumRows) * sum_blocks(features, kSumColumns) * taps * kSumRows * kSumColumns + outputs;
}

// Adds the sums over all positions of out_gradient times the features under each tap.
template <class Real>
static void add_weight_gradient(const ConvTask& task, const ConvLayout& layout, int64_t positions,
                                const ConvScratch<Real>& scratch, Real* sums) {
    constexpr int64_t lanes = VectorOf<Real>::lanes;
    const int64_t taps = static_cast<int64_t>(layout.offsets.size());
    const int64_t vectors = (positions + lanes - 1) / lanes;
    const int64_t parts = (vectors + kSumBlock - 1) / kSumBlock;
    for (int64_t part = 0; part < parts; ++part) {
        const int64_t begin = vectors * part / parts * lanes;
        const int64_t count = vectors * (part + 1) / parts * lanes - begin;
        const int64_t start = layout.margin + begin;
        Real* block = sums;
        for (int64_t o = 0; o < task.outputs; o += kSumRows) {
            const Real* rows[kSumRows];
            for (int r = 0; r < kSumRows; ++r)
                rows[r] = scratch.out_gradient + std::min(o + r, task.outputs - 1) * layout.plane + start;
            for (int64_t f = 0; f < layout.features; f += kSumColumns) {
                for (int64_t tap = 0; tap < taps; ++tap) {
                    const Real* columns[kSumColumns];
                    for (int c = 0; c < kSumColumns; ++c)
                        columns[c] = scratch.features + std::min(f + c, layout.features - 1) * layout.plane + start +
                                     layout.offsets[static_cast<size_t>(tap)];
                    correlate(rows, columns, count, block);
                    block += kSumRows * kSumColumns;
                }
            }
        }
    }
}

template <class Real>
static void conv_backward(const ConvTask& task, const ConvLayout& layout, const void* packed, int64_t chunk,
                          void* memory, void* sums) {
    ConvScratch<Real> scratch(task, layout, memory, true);
    const int64_t taps = static_cast<int64_t>(layout.offsets.size());
    const int64_t count = conv_sums(task.outputs, layout.features, taps);
    Real* weight_sums = static_cast<Real*>(sums);
    Real* bias_sums = weight_sums + count - task.outputs;
    for (int64_t i = 0; i < count; ++i) weight_sums[i] = 0;
    const int64_t end = std::min(task.images, (chunk + 1) * layout.chunk_images);
    const int64_t block_size = kConvRows * task.outputs * taps;
    for (int64_t first = chunk * layout.chunk_images; first < end; first += layout.group) {
        const int64_t images = std::min(layout.group, end - first);
        const int64_t positions = layout.positions(images);
        clear_surroundings(task, layout, images, task.outputs, scratch.out_gradient);
        for (int64_t o = 0; o < task.outputs; ++o) {
            Real* plane = scratch.out_gradient + o * layout.plane;
            for (int64_t g = 0; g < images; ++g)
                read_plane(task.out_gradient, task.type, first + g, o, task.height, task.width, plane + layout.place(g),
                           layout.pitch);
            using V = typename VectorOf<Real>::Type;
            V sum = {};
            for (int64_t q = 0; q < positions; q += VectorOf<Real>::lanes) sum += load_vector(plane + layout.margin + q);
            bias_sums[o] += lane_sum(sum);
        }
        if (task.weight_gradient != nullptr) {
            clear_surroundings(task, layout, images, layout.features, scratch.features);
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
    const int64_t taps = static_cast<int64_t>(layout.offsets.size()), features = layout.features;
    const int64_t count = conv_sums(task.outputs, features, taps);
    Real* total = static_cast<Real*>(sums);
    for (int64_t i = 0; layout.chunks == 0 && i < count; ++i) total[i] = 0;
    for (int64_t chunk = 1; chunk < layout.chunks; ++chunk)
        for (int64_t i = 0; i < count; ++i) total[i] += total[chunk * count + i];
    as_stored<Real>(task.type, [&](auto example) {
        using Stored = decltype(example);
        Stored* weight = static_cast<Stored*>(task.weight_gradient);
        const Real* block = total;
        for (int64_t o = 0; weight != nullptr && o < task.outputs; o += kSumRows)
            for (int64_t f = 0; f < features; f += kSumColumns)
                for (int64_t tap = 0; tap < taps; ++tap, block += kSumRows * kSumColumns)
                    for (int64_t r = 0; r < kSumRows && o + r < task.outputs; ++r)
                        for (int64_t c = 0; c < kSumColumns && f + c < features; ++c)
                            assign(weight[((o + r) * features + f + c) * taps + tap], block[r * kSumColumns + c]);
        Stored* bias = static_cast<Stored*>(task.bias_gradient);
        for (int64_t o = 0; bias != nullptr && o < task.outputs; ++o)
            assign(bias[o], total[count - task.outputs + o]);
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
        const Real* a = conditioned(task, image, f, pixels, linear[0], linear[3]);
        const Real* b = conditioned(task, image, task.features + f, pixels, linear[1], linear[3]);
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
        write_gate_gradient(task, image, f, task.features, pixels, gradient, linear);
    }
}

template <class Real>
static const ConvKernels kConvKernels = {
    {VectorOf<Real>::lanes, kConvRows, kConvVectors * VectorOf<Real>::lanes},
    sizeof(Real),
    &conv_packed_size,
    &conv_sums,
    &conv_pack<Real>,
    &conv_forward<Real>,
    &conv_backward<Real>,
    &conv_finish<Real>,
    &gate_planes<Real>,
    &gate_planes_gradient<Real>,
};
