// Elementary functions on vectors of floats. Polynomials are least-maximum-error fits of this project; errors are the
// largest seen against float64, in units in the last place, over 4 10^5 points on every instruction set.
// tests/test_cpu_kernels.py measures them again.
//
// Included inside an instruction set's namespace, after vec.h.

// 2^n for integral n in [-126, 127].
PF_INLINE F power_of_two(F n) { return (F)((__builtin_convertvector(n, I) + 127) << 23); }

struct Reduced {
    F n;  // nearest integer to x / ln 2
    F p;  // exp(x - n ln 2) - 1
};

// x must be finite and |x| < 200.
PF_INLINE Reduced reduce_exponent(F x) {
    Reduced out;
    out.n = round_even(x * 1.44269504f);
    // ln 2 in two parts; the first has 9 digits, so its product with n is exact.
    F r = fma(out.n, splat(-0.693359375f), x);
    r = fma(out.n, splat(2.12194440e-4f), r);
    F q = fma(r, splat(1.984588453e-04f), splat(1.394072082e-03f));
    q = fma(q, r, splat(8.333389647e-03f));
    q = fma(q, r, splat(4.166635871e-02f));
    q = fma(q, r, splat(1.666666567e-01f));
    q = fma(q, r, splat(0.5f));
    out.p = fma(r * r, q, r);
    return out;
}

// Within 1 ulp on all floats, denormal results included.
PF_INLINE F exponential(F x) {
    const F safe = max(splat(-104.0f), min(splat(89.0f), x));
    const Reduced e = reduce_exponent(safe);
    // Two factors, so that neither overflows where the result does not.
    const F half = round_down(e.n * 0.5f);
    const F value = (1.0f + e.p) * power_of_two(half) * power_of_two(e.n - half);
    return x != x ? x : value;
}

// exp(x) - 1 for x <= 0: within 2 ulp.
PF_INLINE F expm1_not_positive(F x) {
    const Reduced e = reduce_exponent(max(splat(-20.0f), x));
    const F scale = power_of_two(e.n);
    const F value = fma(scale, e.p, scale - 1.0f);
    return x != x ? x : value;
}

// Within 2 ulp.
PF_INLINE F expm1(F x) {
    const F safe = max(splat(-20.0f), min(splat(20.0f), x));
    const Reduced e = reduce_exponent(safe);
    const F scale = power_of_two(e.n);
    const F near = fma(scale, e.p, scale - 1.0f);
    const F value = x > 20.0f ? exponential(x) : near;
    const F kept = x == 0.0f ? x : value;
    return x != x ? x : kept;
}

// Within 2.5 ulp.
PF_INLINE F hyperbolic_tangent(F x) {
    const F e = expm1_not_positive(-2.0f * absolute(x));
    const F value = copy_sign(-e / (2.0f + e), x);
    return x != x ? x : value;
}

// 1 / (1 + exp(-x)): within 2.5 ulp where the result is normal.
PF_INLINE F logistic(F x) {
    const F e = exponential(-absolute(x));
    const F top = x < 0.0f ? e : splat(1.0f);
    return x != x ? x : top / (1.0f + e);
}

// Natural logarithm: within 1 ulp, denormal arguments included.
PF_INLINE F logarithm(F x) {
    const I tiny = x < 1.17549435e-38f;
    const F scaled = tiny ? x * 8388608.0f : x;
    // The exponent that leaves a mantissa in [sqrt(1/2), sqrt(2)).
    const I shifted = (I)scaled - 0x3F3504F3;
    const I exponent = shifted >> 23;
    const F mantissa = (F)((I)scaled - (exponent << 23));
    const F e = __builtin_convertvector(exponent, F) - (tiny ? splat(23.0f) : splat(0.0f));
    const F f = mantissa - 1.0f;
    F p = fma(f, splat(6.746601313e-02f), splat(-1.167564094e-01f));
    p = fma(p, f, splat(1.188817471e-01f));
    p = fma(p, f, splat(-1.240559146e-01f));
    p = fma(p, f, splat(1.421955079e-01f));
    p = fma(p, f, splat(-1.666799635e-01f));
    p = fma(p, f, splat(2.000211924e-01f));
    p = fma(p, f, splat(-2.500000894e-01f));
    p = fma(p, f, splat(3.333331347e-01f));
    const F square = f * f;
    F tail = square * f * p;
    tail = fma(e, splat(-2.12194440e-4f), tail);
    tail = fma(square, splat(-0.5f), tail);
    F value = fma(e, splat(0.693359375f), f + tail);
    value = x == 0.0f ? splat(-__builtin_inff()) : value;
    value = x == __builtin_inff() ? x : value;
    value = x < 0.0f ? splat(__builtin_nanf("")) : value;
    return x != x ? x : value;
}

// log(1 + x): within 2 ulp.
PF_INLINE F log1p(F x) {
    const F u = 1.0f + x;
    const F value = logarithm(u) + (x - (u - 1.0f)) / u;
    const I special = (u <= 0.0f) | (u == __builtin_inff());
    const F kept = special ? logarithm(u) : value;
    return x == 0.0f ? x : kept;
}

// Within 2 ulp.
PF_INLINE F error_function(F x) {
    const F a = absolute(x);
    const F z = x * x;
    F p = fma(z, splat(8.382387750e-05f), splat(-8.145596948e-04f));
    p = fma(p, z, splat(5.201286171e-03f));
    p = fma(p, z, splat(-2.685949951e-02f));
    p = fma(p, z, splat(1.128369719e-01f));
    p = fma(p, z, splat(-3.761263490e-01f));
    p = fma(p, z, splat(1.283791661e-01f));
    const F small = fma(x, p, x);
    // -log(1 - erf(a)) on [0.92, 4]; from 4 on the result rounds to 1.
    const F b = min(splat(4.0f), a);
    F q = fma(b, splat(2.109505476e-05f), splat(-4.344626504e-04f));
    q = fma(q, b, splat(4.171063192e-03f));
    q = fma(q, b, splat(-2.511942759e-02f));
    q = fma(q, b, splat(1.082800925e-01f));
    q = fma(q, b, splat(6.333469152e-01f));
    q = fma(q, b, splat(1.129514933e+00f));
    q = fma(q, b, splat(-1.746844937e-04f));
    const F large = copy_sign(-expm1_not_positive(-q), x);
    const F value = a < 0.92f ? small : large;
    return x != x ? x : value;
}
