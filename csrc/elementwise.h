// The elementwise operations of a program: X(name, arguments) for every operation, and the loop that runs one.
// Values are floats; truth values are 0 and 1. Names are ATen's where ATen has the operation with these arguments.

#define PF_ELEMENTWISE(X)                                                                                            \
    X(copy, 1) X(neg, 1) X(abs, 1) X(sign, 1) X(exp, 1) X(expm1, 1) X(log, 1) X(log1p, 1) X(log2, 1) X(log10, 1)     \
    X(sqrt, 1) X(rsqrt, 1) X(reciprocal, 1) X(square, 1) X(tanh, 1) X(sigmoid, 1) X(erf, 1) X(relu, 1) X(silu, 1)    \
    X(mish, 1) X(gelu, 1) X(gelu_tanh, 1) X(hardsigmoid, 1) X(hardswish, 1)                X(floor, 1)            \
    X(ceil, 1) X(round, 1) X(trunc, 1) X(frac, 1) X(logical_not, 1) X(isnan, 1)                                      \
    X(sin, 1) X(cos, 1) X(tan, 1) X(asin, 1) X(acos, 1) X(atan, 1) X(sinh, 1) X(cosh, 1) X(erfc, 1) X(exp2, 1)       \
    X(add, 2) X(sub, 2) X(mul, 2) X(div, 2) X(div_floor, 2) X(div_trunc, 2) X(remainder, 2) X(fmod, 2) X(pow, 2)     \
    X(atan2, 2) X(minimum, 2) X(maximum, 2) X(eq, 2) X(ne, 2) X(lt, 2) X(le, 2) X(gt, 2) X(ge, 2)                    \
    X(logical_and, 2) X(logical_or, 2) X(logical_xor, 2) X(leaky_relu, 2)                                            \
    X(add_scaled, 3) X(sub_scaled, 3) X(clamp, 3) X(threshold, 3) X(softplus, 3) X(where, 3) X(lerp, 3)              \
    X(addcmul, 4) X(addcdiv, 4) X(elu, 4)

#define PF_OP(name) PF_INLINE F op_##name

PF_OP(copy)(F a) { return a; }
PF_OP(neg)(F a) { return -a; }
PF_OP(abs)(F a) { return absolute(a); }
PF_OP(sign)(F a) { return truth(a > 0.0f) - truth(a < 0.0f); }
PF_OP(exp)(F a) { return exponential(a); }
PF_OP(expm1)(F a) { return expm1(a); }
PF_OP(log)(F a) { return logarithm(a); }
PF_OP(log1p)(F a) { return log1p(a); }
PF_OP(log2)(F a) { return logarithm(a) * 1.44269504f; }
PF_OP(log10)(F a) { return logarithm(a) * 0.434294482f; }
PF_OP(sqrt)(F a) { return square_root(a); }
PF_OP(rsqrt)(F a) { return 1.0f / square_root(a); }
PF_OP(reciprocal)(F a) { return 1.0f / a; }
PF_OP(square)(F a) { return a * a; }
PF_OP(tanh)(F a) { return hyperbolic_tangent(a); }
PF_OP(sigmoid)(F a) { return logistic(a); }
PF_OP(erf)(F a) { return error_function(a); }
PF_OP(relu)(F a) { return max(splat(0.0f), a); }
PF_OP(silu)(F a) { return a * logistic(a); }
// log(1 + exp(a)) without overflow.
PF_INLINE F soft_plus(F a) { return max(splat(0.0f), a) + log1p(exponential(-absolute(a))); }
PF_OP(mish)(F a) { return a * hyperbolic_tangent(soft_plus(a)); }
PF_OP(gelu)(F a) { return 0.5f * a * (1.0f + error_function(a * 0.707106781f)); }
PF_OP(gelu_tanh)(F a) {
    const F inner = 0.797884561f * fma(a * a * a, splat(0.044715f), a);
    return 0.5f * a * (1.0f + hyperbolic_tangent(inner));
}
PF_OP(clamp)(F a, F low, F high) { return min(high, max(low, a)); }
PF_OP(hardsigmoid)(F a) { return op_clamp(a + 3.0f, splat(0.0f), splat(6.0f)) / 6.0f; }
PF_OP(hardswish)(F a) { return a * op_clamp(a + 3.0f, splat(0.0f), splat(6.0f)) / 6.0f; }
PF_OP(floor)(F a) { return round_down(a); }
PF_OP(ceil)(F a) { return round_up(a); }
PF_OP(round)(F a) { return round_even(a); }
PF_OP(trunc)(F a) { return round_to_zero(a); }
PF_OP(frac)(F a) { return a - round_to_zero(a); }
PF_OP(logical_not)(F a) { return truth(a == 0.0f); }
PF_OP(isnan)(F a) { return truth(a != a); }

PF_OP(add)(F a, F b) { return a + b; }
PF_OP(sub)(F a, F b) { return a - b; }
PF_OP(mul)(F a, F b) { return a * b; }
PF_OP(div)(F a, F b) { return a / b; }
PF_OP(div_trunc)(F a, F b) { return round_to_zero(a / b); }
PF_OP(minimum)(F a, F b) { return a != a ? a : min(a, b); }
PF_OP(maximum)(F a, F b) { return a != a ? a : max(a, b); }
PF_OP(eq)(F a, F b) { return truth(a == b); }
PF_OP(ne)(F a, F b) { return truth(a != b); }
PF_OP(lt)(F a, F b) { return truth(a < b); }
PF_OP(le)(F a, F b) { return truth(a <= b); }
PF_OP(gt)(F a, F b) { return truth(a > b); }
PF_OP(ge)(F a, F b) { return truth(a >= b); }
PF_OP(logical_and)(F a, F b) { return truth((a != 0.0f) & (b != 0.0f)); }
PF_OP(logical_or)(F a, F b) { return truth((a != 0.0f) | (b != 0.0f)); }
PF_OP(logical_xor)(F a, F b) { return truth((a != 0.0f) ^ (b != 0.0f)); }
PF_OP(leaky_relu)(F a, F slope) { return a > 0.0f ? a : a * slope; }

PF_OP(add_scaled)(F a, F b, F alpha) { return a + alpha * b; }
PF_OP(sub_scaled)(F a, F b, F alpha) { return a - alpha * b; }
PF_OP(softplus)(F a, F beta, F threshold) {
    const F scaled = a * beta;
    return scaled > threshold ? a : log1p(exponential(scaled)) / beta;
}
PF_OP(threshold)(F a, F limit, F value) { return a <= limit ? value : a; }
PF_OP(where)(F condition, F a, F b) { return condition != 0.0f ? a : b; }
PF_OP(lerp)(F a, F b, F weight) {
    return absolute(weight) < 0.5f ? a + weight * (b - a) : b - (b - a) * (1.0f - weight);
}
PF_OP(addcmul)(F a, F b, F c, F value) { return a + value * b * c; }
PF_OP(addcdiv)(F a, F b, F c, F value) { return a + value * b / c; }
PF_OP(elu)(F a, F alpha, F scale, F input_scale) {
    const F negative = alpha * expm1_not_positive(min(splat(0.0f), a * input_scale));
    const F value = (a > 0.0f ? a : negative) * scale;
    return a != a ? a : value;
}

// Rare operations: one lane at a time through scalar_math.h.
template <float (*function)(float)>
PF_INLINE F each_lane(F a) {
    for (int i = 0; i < kLanes; ++i) a[i] = function(a[i]);
    return a;
}
template <float (*function)(float, float)>
PF_INLINE F each_lane(F a, F b) {
    for (int i = 0; i < kLanes; ++i) a[i] = function(a[i], b[i]);
    return a;
}
PF_OP(sin)(F a) { return each_lane<scalar_sin>(a); }
PF_OP(cos)(F a) { return each_lane<scalar_cos>(a); }
PF_OP(tan)(F a) { return each_lane<scalar_tan>(a); }
PF_OP(asin)(F a) { return each_lane<scalar_asin>(a); }
PF_OP(acos)(F a) { return each_lane<scalar_acos>(a); }
PF_OP(atan)(F a) { return each_lane<scalar_atan>(a); }
PF_OP(sinh)(F a) { return each_lane<scalar_sinh>(a); }
PF_OP(cosh)(F a) { return each_lane<scalar_cosh>(a); }
PF_OP(erfc)(F a) { return each_lane<scalar_erfc>(a); }
PF_OP(exp2)(F a) { return each_lane<scalar_exp2>(a); }
PF_OP(fmod)(F a, F b) { return each_lane<scalar_fmod>(a, b); }
PF_OP(remainder)(F a, F b) { return each_lane<scalar_remainder>(a, b); }
PF_OP(div_floor)(F a, F b) { return each_lane<scalar_floor_divide>(a, b); }
PF_OP(atan2)(F a, F b) { return each_lane<scalar_atan2>(a, b); }
PF_OP(pow)(F a, F b) { return each_lane<scalar_pow>(a, b); }

// destination[0:width] <- function(sources...). A source with step 0 is one vector that holds the same number in every
// lane; the others have step 1. Sources may be read up to a vector past their end; only `exact` writes stop at width.
template <auto function, int arguments>
static void elementwise(float* destination, const float* const* sources, const int64_t* steps, int64_t width,
                        bool exact) {
    for (int64_t i = 0; i < width; i += kLanes) {
        F value;
        if constexpr (arguments == 1) {
            value = function(load(sources[0] + i * steps[0]));
        } else if constexpr (arguments == 2) {
            value = function(load(sources[0] + i * steps[0]), load(sources[1] + i * steps[1]));
        } else if constexpr (arguments == 3) {
            value = function(load(sources[0] + i * steps[0]), load(sources[1] + i * steps[1]),
                             load(sources[2] + i * steps[2]));
        } else {
            value = function(load(sources[0] + i * steps[0]), load(sources[1] + i * steps[1]),
                             load(sources[2] + i * steps[2]), load(sources[3] + i * steps[3]));
        }
        if (exact && i + kLanes > width) {
            store_first(destination + i, value, width - i);
        } else {
            store(destination + i, value);
        }
    }
}
