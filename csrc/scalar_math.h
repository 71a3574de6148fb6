// Scalar functions. In double precision: what the likelihoods need, written out here so that their bits do not depend
// on the C library's choice of an instruction set. In float: rare operations of programs, by the C library's functions
// in double precision, rounded.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace pixelfast {

inline double double_from_bits(uint64_t bits) {
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline uint64_t bits_of_double(double value) {
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

constexpr double kLn2High = 0x1.62e42feep-1;  // 32 bits: products with exponents are exact
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;

// Natural logarithm, within 1 ulp. With s = f / (2 + f), log(1 + f) = 2 s + 2 s^3 / 3 + ...
inline double log_double(double x) {
    if (!(x > 0)) return x == 0 ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
    if (x > std::numeric_limits<double>::max()) return x;
    int64_t exponent = 0;
    if (x < std::numeric_limits<double>::min()) {
        x *= 0x1p54;
        exponent = -54;
    }
    const uint64_t bits = bits_of_double(x);
    // The exponent that leaves a mantissa in [sqrt(1/2), sqrt(2)).
    const int64_t shift = static_cast<int64_t>(bits - 0x3FE6A09E667F3BCDull) >> 52;
    exponent += shift;
    const double f = double_from_bits(bits - (static_cast<uint64_t>(shift) << 52)) - 1.0;
    const double s = f / (2.0 + f);
    const double z = s * s;
    double series = 2.0 / 21;
    series = series * z + 2.0 / 19;
    series = series * z + 2.0 / 17;
    series = series * z + 2.0 / 15;
    series = series * z + 2.0 / 13;
    series = series * z + 2.0 / 11;
    series = series * z + 2.0 / 9;
    series = series * z + 2.0 / 7;
    series = series * z + 2.0 / 5;
    series = series * z + 2.0 / 3;
    series *= z;
    // log(1 + f) = f - (h - s (h + series)), h = f^2 / 2: f is exact, what is subtracted is small.
    const double h = 0.5 * f * f;
    const double e = static_cast<double>(exponent);
    return e * kLn2High - ((h - (s * (h + series) + e * kLn2Low)) - f);
}

// Within 1 ulp where the result is normal.
inline double exp_double(double x) {
    if (x != x) return x;
    if (x > 709.78271289338400) return std::numeric_limits<double>::infinity();
    if (x < -745.2) return 0.0;
    const double n = std::nearbyint(x * 1.4426950408889634);
    const double high = x - n * kLn2High;
    const double low = n * kLn2Low;
    const double r = high - low;
    double p = 1.0 / 6227020800;
    p = p * r + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    const double value = 1.0 + (r + (r * r * p + ((high - r) - low)));
    return std::ldexp(value, static_cast<int>(n));
}

// log(1 + x): the rounding error of 1 + x is put back to first order.
inline double log1p_double(double x) {
    const double u = 1.0 + x;
    if (u == 1.0) return x;
    if (!(u > 0) || u > std::numeric_limits<double>::max()) return log_double(u);
    return log_double(u) + (x - (u - 1.0)) / u;
}

// exp(x) - 1, by Kahan's identity: (u - 1) x / log(u) with u = exp(x) is right where u - 1 alone is not.
inline double expm1_double(double x) {
    const double u = exp_double(x);
    if (u == 1.0) return x;
    if (u - 1.0 == -1.0 || u > 0x1p60) return u - 1.0;
    return (u - 1.0) * x / log_double(u);
}

inline double tanh_double(double x) {
    const double e = expm1_double(-2.0 * std::fabs(x));
    return std::copysign(-e / (2.0 + e), x);
}

inline double softplus_double(double x) { return (x > 0 ? x : 0.0) + log1p_double(exp_double(-std::fabs(x))); }

// Series of sine and cosine for |x| <= pi / 4, within 1 ulp.
inline double sine_series(double x) {
    const double z = x * x;
    double p = 1.0 / 355687428096000;
    p = p * z - 1.0 / 1307674368000;
    p = p * z + 1.0 / 6227020800;
    p = p * z - 1.0 / 39916800;
    p = p * z + 1.0 / 362880;
    p = p * z - 1.0 / 5040;
    p = p * z + 1.0 / 120;
    p = p * z - 1.0 / 6;
    return x + x * z * p;
}

inline double cosine_series(double x) {
    const double z = x * x;
    double p = 1.0 / 20922789888000;
    p = p * z - 1.0 / 87178291200;
    p = p * z + 1.0 / 479001600;
    p = p * z - 1.0 / 3628800;
    p = p * z + 1.0 / 40320;
    p = p * z - 1.0 / 720;
    p = p * z + 1.0 / 24;
    return 1.0 - (0.5 * z - z * z * p);
}

// cos(2 pi u), 0 <= u <= 1: `rest` is what remains of u, exactly, beyond the nearest quarter of a turn.
inline double cos_of_turns(double u) {
    const double quarters = std::nearbyint(4 * u);
    const double rest = (u - 0.25 * quarters) * 6.283185307179586;
    switch (static_cast<int>(quarters)) {
        case 1: return -sine_series(rest);
        case 2: return -cosine_series(rest);
        case 3: return sine_series(rest);
        default: return cosine_series(rest);
    }
}

#define PF_IN_DOUBLE(name) \
    inline float scalar_##name(float a) { return static_cast<float>(std::name(static_cast<double>(a))); }
PF_IN_DOUBLE(sin)
PF_IN_DOUBLE(cos)
PF_IN_DOUBLE(tan)
PF_IN_DOUBLE(asin)
PF_IN_DOUBLE(acos)
PF_IN_DOUBLE(atan)
PF_IN_DOUBLE(sinh)
PF_IN_DOUBLE(cosh)
PF_IN_DOUBLE(erfc)
PF_IN_DOUBLE(exp2)
#undef PF_IN_DOUBLE

inline float scalar_fmod(float a, float b) { return std::fmod(a, b); }

// Python's remainder: the sign of the divisor.
inline float scalar_remainder(float a, float b) {
    const float r = std::fmod(a, b);
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

// floor(a / b), from the exact remainder: the rounded quotient may lie on the wrong side of an integer.
inline float scalar_floor_divide(float a, float b) {
    if (b == 0) return a / b;
    const float r = std::fmod(a, b);
    float quotient = (a - r) / b;
    if (r != 0 && (r < 0) != (b < 0)) quotient -= 1.0f;
    if (quotient == 0) return std::copysign(0.0f, a / b);
    const float whole = std::floor(quotient);
    return quotient - whole > 0.5f ? whole + 1.0f : whole;
}

inline float scalar_pow(float a, float b) {
    return static_cast<float>(std::pow(static_cast<double>(a), static_cast<double>(b)));
}

inline float scalar_atan2(float a, float b) {
    return static_cast<float>(std::atan2(static_cast<double>(a), static_cast<double>(b)));
}

}  // namespace pixelfast
