// Activations of training, on whole vectors of one channel's pixels; arrays have room for them.
//
// Included inside an instruction set's namespace, after ops_numbers.h and philox_vectors.h.

// All bits set where the feature is kept.
PF_INLINE I kept(const uint32_t* words, uint32_t threshold, F) { return (I)(bits<U>(words) >= threshold); }
PF_INLINE L kept(const uint32_t* words, uint32_t threshold, D) {
    return (L)(__builtin_convertvector(bits<HalfU>(words), UL) >= static_cast<uint64_t>(threshold));
}

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

// Both the gate and what its gradient is multiplied by to get those of its halves: elementary functions once for both.
template <class Real>
static void gated_and_slopes(Activation kind, const Real* first, const Real* second, int64_t count, Real* out,
                             Real* first_slope, Real* second_slope) {
    using V = typename VectorOf<Real>::Type;
    for (int64_t i = 0; i < count; i += VectorOf<Real>::lanes) {
        const GateShares<V> gate = gate_shares(kind, load_vector(first + i), load_vector(second + i));
        const V slope = kind == Activation::tanh_gate ? Real{1} - gate.value * gate.value : V{} + Real{1};
        const V product = gate.value * gate.share;
        store(out + i, product);
        store(first_slope + i, gate.share * slope);
        store(second_slope + i, product * gate.rest);
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

template <class Real>
static void multiply_by(const Real* first, const Real* second, int64_t count, Real* products) {
    for (int64_t i = 0; i < count; i += VectorOf<Real>::lanes)
        store(products + i, load_vector(first + i) * load_vector(second + i));
}
