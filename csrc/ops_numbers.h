// Vectors of floats or of doubles, and numbers as tensors hold them, for the convolutions and gates of training.
//
// Included inside an instruction set's namespace, after vec_math.h and ops_planes.h.

// Doubles are for checking: elementary functions go lane by lane.
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

// Calls use(example of the stored type).
template <class Real, class Use>
PF_INLINE void as_stored(FloatType type, const Use& use) {
    if constexpr (sizeof(Real) == sizeof(float)) {
        if (type == FloatType::bfloat16) return use(Bfloat16{});
        if (type == FloatType::float16) return use(Half{});
    }
    use(Real{});
}
