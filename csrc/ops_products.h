// Sums of products of planes: what convolutions and the gradients of their weights are made of.
//
// Included inside an instruction set's namespace, after ops_numbers.h.

#if defined(PF_AVX512)
constexpr int kConvRows = 8, kConvVectors = 3, kSumRows = 5, kSumColumns = 5;
#elif defined(PF_AVX2)
constexpr int kConvRows = 6, kConvVectors = 2, kSumRows = 3, kSumColumns = 3;
#else
constexpr int kConvRows = 4, kConvVectors = 2, kSumRows = 3, kSumColumns = 3;
#endif

constexpr int64_t kConvBlock = 128;  // products in one running sum
constexpr int64_t kSumBlock = 48;    // vectors of products in one running sum: few enough for the first-level cache

// destination[r][q] = start[r] + sum over taps t and channels c of weights[t][c][r] * source[c][q + offsets[t]], plus what
// is there if `adds`. Destinations are written up to a whole number of tiles of positions.
template <class Real>
static void multiply(const Real* source, int64_t plane, const std::vector<int64_t>& offsets, int64_t channels,
                     const Real* weights, const Real* start, bool adds, Real* destination, int64_t positions) {
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
                    if (!begun) sums[r][v] += splat(start[r]);
                    store(to, begun || adds ? load_vector(to) + sums[r][v] : sums[r][v]);
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

// ---- Weights of a convolution: (outputs, inputs, taps), dense.

struct ConvWeights {
    const void* data;
    FloatType type;
    int64_t outputs, inputs, taps;
};

static int64_t packed_weights(int64_t outputs, int64_t inputs, int64_t taps) {
    return pixelfast::round_up(outputs, kConvRows) * inputs * taps;
}

// [block of kConvRows outputs][tap][input][output of the block]; transposed: inputs and outputs change places.
// Returns the end.
template <class Real>
static Real* pack_weights(const ConvWeights& weights, bool transposed, Real* to) {
    const int64_t taps = weights.taps;
    const int64_t outputs = transposed ? weights.inputs : weights.outputs;
    const int64_t inputs = transposed ? weights.outputs : weights.inputs;
    const int64_t output_step = transposed ? taps : weights.inputs * taps;
    const int64_t input_step = transposed ? weights.inputs * taps : taps;
    as_stored<Real>(weights.type, [&](auto example) {
        const auto* weight = static_cast<const decltype(example)*>(weights.data);
        for (int64_t first = 0; first < outputs; first += kConvRows)
            for (int64_t tap = 0; tap < taps; ++tap)
                for (int64_t i = 0; i < inputs; ++i)
                    for (int64_t r = 0; r < kConvRows; ++r)
                        *to++ = first + r < outputs
                                    ? widen(weight[(first + r) * output_step + i * input_step + tap])
                                    : Real{0};
    });
    return to;
}

// Where the products of a block of outputs start: at the bias, or at zero.
template <class Real>
struct Start {
    Real of[kConvRows] = {};

    Start(const void* bias, FloatType type, int64_t first, int64_t outputs) {
        if (bias == nullptr) return;
        as_stored<Real>(type, [&](auto example) {
            for (int64_t r = 0; r < kConvRows && first + r < outputs; ++r)
                of[r] = widen(static_cast<const decltype(example)*>(bias)[first + r]);
        });
    }
};

// All outputs of a convolution, [outputs rounded up to kConvRows][plane], from packed weights.
template <class Real>
static void convolve(const Real* source, int64_t plane, const std::vector<int64_t>& offsets, int64_t inputs,
                     const Real* packed, int64_t outputs, const void* bias, FloatType type, bool adds,
                     Real* destination, int64_t positions) {
    const int64_t block = kConvRows * inputs * static_cast<int64_t>(offsets.size());
    for (int64_t o = 0; o < outputs; o += kConvRows, packed += block)
        multiply(source, plane, offsets, inputs, packed, Start<Real>(bias, type, o, outputs).of, adds,
                 destination + o * plane, positions);
}

// ---- Gradients of weights. Sums lie in blocks of kSumRows x kSumColumns, [outputs][inputs][tap][block].

static int64_t weight_sums(int64_t outputs, int64_t inputs, int64_t taps) {
    return pixelfast::round_up(outputs, kSumRows) * pixelfast::round_up(inputs, kSumColumns) * taps;
}

// Adds the sums over all positions of an output's gradient times an input under each tap.
template <class Real>
static void add_weight_gradient(const Real* gradients, int64_t outputs, const Real* inputs, int64_t count,
                                int64_t plane, const std::vector<int64_t>& offsets, int64_t positions, Real* sums) {
    constexpr int64_t lanes = VectorOf<Real>::lanes;
    const int64_t vectors = (positions + lanes - 1) / lanes;
    const int64_t parts = (vectors + kSumBlock - 1) / kSumBlock;
    for (int64_t part = 0; part < parts; ++part) {
        const int64_t begin = vectors * part / parts * lanes;
        const int64_t length = vectors * (part + 1) / parts * lanes - begin;
        Real* block = sums;
        for (int64_t o = 0; o < outputs; o += kSumRows) {
            const Real* rows[kSumRows];
            for (int r = 0; r < kSumRows; ++r) rows[r] = gradients + std::min(o + r, outputs - 1) * plane + begin;
            for (int64_t i = 0; i < count; i += kSumColumns) {
                for (const int64_t offset : offsets) {
                    const Real* columns[kSumColumns];
                    for (int c = 0; c < kSumColumns; ++c)
                        columns[c] = inputs + std::min(i + c, count - 1) * plane + begin + offset;
                    correlate(rows, columns, length, block);
                    block += kSumRows * kSumColumns;
                }
            }
        }
    }
}

// Adds each plane's sum over all positions.
template <class Real>
static void add_bias_gradient(const Real* gradients, int64_t outputs, int64_t plane, int64_t positions, Real* sums) {
    for (int64_t o = 0; o < outputs; ++o) {
        typename VectorOf<Real>::Type sum = {};
        for (int64_t q = 0; q < positions; q += VectorOf<Real>::lanes) sum += load_vector(gradients + o * plane + q);
        sums[o] += lane_sum(sum);
    }
}

// Sums as add_weight_gradient leaves them, into a dense gradient (outputs, inputs, taps).
template <class Real>
static void write_weight_gradient(const Real* block, const ConvWeights& sizes, void* gradient) {
    const int64_t taps = sizes.taps;
    as_stored<Real>(sizes.type, [&](auto example) {
        auto* weight = static_cast<decltype(example)*>(gradient);
        for (int64_t o = 0; weight != nullptr && o < sizes.outputs; o += kSumRows)
            for (int64_t i = 0; i < sizes.inputs; i += kSumColumns)
                for (int64_t tap = 0; tap < taps; ++tap, block += kSumRows * kSumColumns)
                    for (int64_t r = 0; r < kSumRows && o + r < sizes.outputs; ++r)
                        for (int64_t c = 0; c < kSumColumns && i + c < sizes.inputs; ++c)
                            assign(weight[((o + r) * sizes.inputs + i + c) * taps + tap], block[r * kSumColumns + c]);
    });
}

template <class Real>
static void write_bias_gradient(const Real* sums, int64_t outputs, FloatType type, void* gradient) {
    as_stored<Real>(type, [&](auto example) {
        auto* bias = static_cast<decltype(example)*>(gradient);
        for (int64_t o = 0; bias != nullptr && o < outputs; ++o) assign(bias[o], sums[o]);
    });
}

// The sums of all chunks, one after the other, added up in order into the first's.
template <class Real>
static void add_up_chunks(int64_t chunks, int64_t count, Real* sums) {
    for (int64_t i = 0; chunks == 0 && i < count; ++i) sums[i] = 0;
    for (int64_t chunk = 1; chunk < chunks; ++chunk)
        for (int64_t i = 0; i < count; ++i) sums[i] += sums[chunk * count + i];
}
