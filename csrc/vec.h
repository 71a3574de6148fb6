// Vectors of floats and doubles, one register wide, as GCC vector types: arithmetic and comparisons are operators,
// `mask ? a : b` selects per lane. Only what the operators cannot say (fused multiply-add, rounding, square root,
// partial stores) differs between instruction sets.
//
// Included once per isa_*.cpp, inside that file's namespace and target pragma, with PF_VECTOR_BYTES and one of
// PF_AVX512, PF_AVX2 or neither defined.

constexpr int kLanes = PF_VECTOR_BYTES / 4;
constexpr int kDoubleLanes = PF_VECTOR_BYTES / 8;

typedef float F __attribute__((vector_size(PF_VECTOR_BYTES)));
typedef int32_t I __attribute__((vector_size(PF_VECTOR_BYTES)));
typedef double D __attribute__((vector_size(PF_VECTOR_BYTES)));
typedef int64_t L __attribute__((vector_size(PF_VECTOR_BYTES)));
typedef uint64_t UL __attribute__((vector_size(PF_VECTOR_BYTES)));
typedef uint32_t U __attribute__((vector_size(PF_VECTOR_BYTES)));
typedef uint32_t HalfU __attribute__((vector_size(PF_VECTOR_BYTES / 2)));
typedef float HalfF __attribute__((vector_size(PF_VECTOR_BYTES / 2)));
typedef uint16_t HalfN __attribute__((vector_size(PF_VECTOR_BYTES / 2)));
typedef int16_t S __attribute__((vector_size(PF_VECTOR_BYTES)));

typedef float LooseF __attribute__((vector_size(PF_VECTOR_BYTES), aligned(4), may_alias));

#define PF_INLINE static inline __attribute__((always_inline))

PF_INLINE F load(const float* p) { return *reinterpret_cast<const LooseF*>(p); }
PF_INLINE void store(float* p, F v) { *reinterpret_cast<LooseF*>(p) = v; }

template <class V>
PF_INLINE V bits(const void* p) {
    V v;
    __builtin_memcpy(&v, p, sizeof(V));
    return v;
}

#if defined(PF_AVX512)

PF_INLINE F splat(float x) { return (F)_mm512_set1_ps(x); }
PF_INLINE U splat(uint32_t x) { return (U)_mm512_set1_epi32(static_cast<int>(x)); }
PF_INLINE F fma(F a, F b, F c) { return (F)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
// As the instructions: the second operand where either is NaN.
PF_INLINE F min(F a, F b) { return (F)_mm512_min_ps((__m512)a, (__m512)b); }
PF_INLINE F max(F a, F b) { return (F)_mm512_max_ps((__m512)a, (__m512)b); }
PF_INLINE F square_root(F a) { return (F)_mm512_sqrt_ps((__m512)a); }
template <int direction>
PF_INLINE F rounded(F a) {
    return (F)_mm512_roundscale_ps((__m512)a, direction | _MM_FROUND_NO_EXC);
}
PF_INLINE F round_even(F a) { return rounded<_MM_FROUND_TO_NEAREST_INT>(a); }
PF_INLINE F round_down(F a) { return rounded<_MM_FROUND_TO_NEG_INF>(a); }
PF_INLINE F round_up(F a) { return rounded<_MM_FROUND_TO_POS_INF>(a); }
PF_INLINE F round_to_zero(F a) { return rounded<_MM_FROUND_TO_ZERO>(a); }
// x 2^n for whole n up to 127; 0 or a denormal number where that is too small for a normal one.
PF_INLINE F scaled(F x, F n) { return (F)_mm512_scalef_ps((__m512)x, (__m512)n); }
PF_INLINE void store_first(float* p, F v, int64_t count) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), (__m512)v);
}
PF_INLINE bool any(L mask) { return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask) != 0; }
// The products of the low halves of each 64-bit lane.
PF_INLINE UL multiply_low_halves(UL a, UL b) { return (UL)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
// Sums of the products of two neighbours, products that fit 16 bits.
PF_INLINE I dot_of_pairs(S a, S b) { return (I)_mm512_madd_epi16((__m512i)a, (__m512i)b); }
PF_INLINE void store_lowest_bytes(uint8_t* p, U v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8((__m512i)v));
}

#elif defined(PF_AVX2)

PF_INLINE F splat(float x) { return (F)_mm256_set1_ps(x); }
PF_INLINE U splat(uint32_t x) { return (U)_mm256_set1_epi32(static_cast<int>(x)); }
PF_INLINE F fma(F a, F b, F c) { return (F)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
PF_INLINE F min(F a, F b) { return (F)_mm256_min_ps((__m256)a, (__m256)b); }
PF_INLINE F max(F a, F b) { return (F)_mm256_max_ps((__m256)a, (__m256)b); }
PF_INLINE F square_root(F a) { return (F)_mm256_sqrt_ps((__m256)a); }
PF_INLINE F round_even(F a) { return (F)_mm256_round_ps((__m256)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
PF_INLINE F round_down(F a) { return (F)_mm256_floor_ps((__m256)a); }
PF_INLINE F round_up(F a) { return (F)_mm256_ceil_ps((__m256)a); }
PF_INLINE F round_to_zero(F a) { return (F)_mm256_round_ps((__m256)a, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC); }
PF_INLINE void store_first(float* p, F v, int64_t count) {
    for (int64_t i = 0; i < count; ++i) p[i] = v[i];
}
PF_INLINE bool any(L mask) { return _mm256_testz_si256((__m256i)mask, (__m256i)mask) == 0; }
PF_INLINE UL multiply_low_halves(UL a, UL b) { return (UL)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
PF_INLINE I dot_of_pairs(S a, S b) { return (I)_mm256_madd_epi16((__m256i)a, (__m256i)b); }
PF_INLINE void store_lowest_bytes(uint8_t* p, U v) {
    const __m256i bytes = (__m256i)(v & 0xFFu);
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
}

#else  // Any machine; on x86-64 this is SSE2.

PF_INLINE F splat(float x) { return F{x, x, x, x}; }
PF_INLINE U splat(uint32_t x) { return U{x, x, x, x}; }
PF_INLINE F fma(F a, F b, F c) { return a * b + c; }
PF_INLINE F min(F a, F b) { return a < b ? a : b; }
PF_INLINE F max(F a, F b) { return a > b ? a : b; }
PF_INLINE F square_root(F a) {
    for (int i = 0; i < kLanes; ++i) a[i] = __builtin_sqrtf(a[i]);
    return a;
}
// Floats of at least 2^23 are integers already (and NaN compares false).
PF_INLINE F keep_sign(F value, F sign_of) { return (F)((I)value | ((I)sign_of & (I)splat(-0.0f))); }
PF_INLINE I is_fractional(F a) { return (a < 8388608.0f) & (a > -8388608.0f); }
PF_INLINE F round_to_zero(F a) {
    const F safe = is_fractional(a) ? a : splat(0.0f);
    const F whole = __builtin_convertvector(__builtin_convertvector(safe, I), F);
    return is_fractional(a) ? keep_sign(whole, a) : a;
}
PF_INLINE F round_even(F a) {
    const F magic = keep_sign(splat(8388608.0f), a);
    return is_fractional(a) ? keep_sign((a + magic) - magic, a) : a;
}
PF_INLINE F round_down(F a) {
    const F whole = round_to_zero(a);
    return whole > a ? whole - 1.0f : whole;
}
PF_INLINE F round_up(F a) {
    const F whole = round_to_zero(a);
    return whole < a ? keep_sign(whole + 1.0f, a) : whole;
}
PF_INLINE void store_first(float* p, F v, int64_t count) {
    for (int64_t i = 0; i < count; ++i) p[i] = v[i];
}
PF_INLINE bool any(L mask) { return (mask[0] | mask[1]) != 0; }
PF_INLINE UL multiply_low_halves(UL a, UL b) { return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu); }
PF_INLINE I dot_of_pairs(S a, S b) {
    const S product = a * b;
    return ((I)((U)product << 16) >> 16) + ((I)product >> 16);
}
PF_INLINE void store_lowest_bytes(uint8_t* p, U v) {
    for (int i = 0; i < kLanes; ++i) p[i] = static_cast<uint8_t>(v[i]);
}

#endif

#if !defined(PF_AVX512)
PF_INLINE F scaled(F x, F n) {
    const F power = (F)((__builtin_convertvector(n, I) + 127) << 23);
    return n < -126.0f ? splat(0.0f) : x * power;
}
#endif

PF_INLINE I lane_numbers() {
    I numbers;
    for (int i = 0; i < kLanes; ++i) numbers[i] = i;
    return numbers;
}

PF_INLINE F absolute(F a) { return (F)((I)a & 0x7FFFFFFF); }
PF_INLINE F copy_sign(F magnitude, F sign) { return (F)((I)magnitude | ((I)sign & (I)splat(-0.0f))); }
PF_INLINE F truth(I mask) { return mask ? splat(1.0f) : splat(0.0f); }
