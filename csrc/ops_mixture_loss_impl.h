// Loss of discretized logistic mixtures and its gradient, a tile of pixels at a time: each parameter is read once and
// nothing larger than a tile is kept. The mathematics is that of pixelfast/ops/mixture_loss_reference.py.
//
// Included inside an instruction set's namespace, after vec_math.h and ops_planes.h. V is a vector of floats, or one
// double.

// exp(x) and 1 - exp(x), both to the last bits, for x <= 88; exp(x) is 0 where it would be denormal.
template <class V>
struct Power {
    V value;
    V rest;
};

PF_INLINE Power<F> power(F x) {
    const Reduced e = reduce_exponent(max(splat(-87.0f), min(splat(88.0f), x)));
    const F scale = power_of_two(e.n);
    const F value = fma(scale, e.p, scale);
    return {x < -87.0f ? splat(0.0f) : value, fma(-scale, e.p, 1.0f - scale)};
}
PF_INLINE Power<double> power(double x) { return {exp_double(x), -std::expm1(x)}; }

PF_INLINE double fma(double a, double b, double c) { return a * b + c; }
PF_INLINE double logarithm(double x) { return log_double(x); }
PF_INLINE double hyperbolic_tangent(double x) { return std::tanh(x); }

template <class V>
PF_INLINE V constant(double x) {
    return V{} + static_cast<typename Lanes<V>::Number>(x);
}

constexpr double kLogScaleFloor = -7.0;

template <class Number>
struct LevelConstants {
    Number last;          // the highest level
    Number inverse_last;
    Number log_width;     // log of a bin's width in [-1, 1]

    explicit LevelConstants(int64_t levels)
        : last(static_cast<Number>(levels - 1)),
          inverse_last(static_cast<Number>(1.0 / static_cast<double>(levels - 1))),
          log_width(static_cast<Number>(log_double(2.0 / static_cast<double>(levels - 1)))) {}
};

// One channel of the pixels of a tile.
template <class V>
struct Level {
    V centre;  // 2 level - last: in half bins
    V value;   // in [-1, 1]
    decltype(V{} < V{}) lowest, highest;
};

// Log-probability of a bin under a logistic, and its derivatives.
template <class V>
struct Bin {
    V log_probability;
    V by_mean;
    V by_log_scale;
};

// With upper and lower the bin's edges in units of the scale and w = upper - lower, the probability is
//     (1 - exp(-w)) sigmoid(upper) sigmoid(-lower);
// exp(-upper), exp(lower) and exp(-w) are one another's products and quotients, so two exponentials give all three.
template <bool derivatives, class V>
PF_INLINE Bin<V> bin(V mean, V log_scale, const Level<V>& level,
                     const LevelConstants<typename Lanes<V>::Number>& constants) {
    const V zero = V{}, one = constant<V>(1.0);
    const auto floored = log_scale < static_cast<typename Lanes<V>::Number>(kLogScaleFloor);
    const V floor = floored ? constant<V>(kLogScaleFloor) : log_scale;
    const V inverse_scale = power(-floor).value;
    const V half_bin = inverse_scale * constants.inverse_last;
    const V width = half_bin + half_bin;
    const V log_width = constants.log_width - floor;
    const auto tiny = log_width < -40.0f;  // then 1 - exp(-width) is width, which may underflow

    const V centred = level.centre - mean * constants.last;
    const V above = (centred + one) * half_bin;  // upper
    const V below = (one - centred) * half_bin;  // -lower
    const auto left = centred < 0.0f;
    const V near = left ? above : below, far = left ? below : above;  // near <= far, far > 0
    const auto inside = near > 0.0f;
    const Power<V> first = power(inside ? -near : near);
    const Power<V> second = power(inside ? -far : -width);
    const V product = first.value * second.value;
    // exp(-|near|) is first.value; of the other two one is second.value and one the product of both.
    const V exp_far = inside ? second.value : product;
    const V exp_width = inside ? product : second.value;
    const V rest_of_width = inside ? fma(first.value, second.rest, first.rest) : second.rest;

    const auto edge = level.lowest | level.highest;
    const V exp_above = level.highest ? zero : left ? first.value : exp_far;
    const V exp_below = level.lowest ? zero : left ? exp_far : first.value;
    const V sum = exp_above + exp_below + exp_above * exp_below;
    const V reciprocal = 1.0f / (one + sum);  // 1 / ((1 + exp_above) (1 + exp_below))
    // log(probability) but for the exponents: from the complement where that is the smaller one.
    const V inner = edge | tiny ? one : rest_of_width;
    const V complement = edge | tiny ? sum * reciprocal : (sum + exp_width) * reciprocal;
    const auto probable = complement < 0.5f;
    const V argument = probable ? one - complement : inner * reciprocal;
    const V correction = probable ? ((one - argument) - complement) * (one + complement) : zero;
    const V linear = (level.highest | (above > 0.0f) ? zero : above) + (level.lowest | (below > 0.0f) ? zero : below);

    Bin<V> out;
    out.log_probability = linear + logarithm(argument) + correction;
    out.log_probability += edge ? zero : tiny ? log_width : zero;
    if constexpr (derivatives) {
        // sigmoid(-above), sigmoid(-below).
        const V by_above = level.highest ? zero : (above > 0.0f ? exp_above : one) * (reciprocal + exp_below * reciprocal);
        const V by_below = level.lowest ? zero : (below > 0.0f ? exp_below : one) * (reciprocal + exp_above * reciprocal);
        const V by_width = edge ? zero : tiny ? one : width * exp_width / rest_of_width;
        out.by_mean = inverse_scale * (by_below - by_above);
        out.by_log_scale = floored ? zero : -(above * by_above + below * by_below + by_width);
    }
    return out;
}

// A tile's images: levels of each channel, and NaN where one of them is none.
template <int channels, class V>
struct Pixels {
    Level<V> levels[channels];
    V valid;

    Pixels(const Vectors<const typename Lanes<V>::Number>& x,
           const LevelConstants<typename Lanes<V>::Number>& constants)
        : valid{} {
        for (int c = 0; c < channels; ++c) {
            const V level = load(x.data + c * x.stride);
            Level<V>& out = levels[c];
            out.centre = level + level - constants.last;
            out.value = out.centre / constants.last;
            out.lowest = level == 0.0f;
            out.highest = level == constants.last;
            valid = (level >= 0.0f) & (level <= constants.last) ? valid : constant<V>(__builtin_nan(""));
        }
    }
};

// Planes of one component's parameters, as [logits M | for each channel: means M, log-scales M, coefficients M]; there
// are no coefficients where there is one channel.
template <int channels>
struct Component {
    static constexpr int64_t kinds = channels == 3 ? 3 : 2;
    int64_t mixtures, index;

    int64_t plane(int channel, int kind) const { return mixtures * (1 + channel * kinds + kind) + index; }
};
enum Kind { kMean, kLogScale, kCoefficient };

template <int channels, class V>
struct Bins {
    Bin<V> of[channels];
    V coefficients[3];  // after tanh: of red on green, of red and of green on blue

    V sum() const {
        V total = of[0].log_probability;
        for (int c = 1; c < channels; ++c) total += of[c].log_probability;
        return total;
    }
};

template <bool derivatives, int channels, class V>
PF_INLINE void component_bins(const Vectors<const typename Lanes<V>::Number>& params,
                              const Component<channels>& component, const Pixels<channels, V>& pixels,
                              const LevelConstants<typename Lanes<V>::Number>& constants, Bins<channels, V>& bins) {
    for (int c = 0; c < channels; ++c) {
        for (int kind = 0; kind < component.kinds; ++kind) params.prefetch_next(component.plane(c, kind));
        V mean = load(params.data + component.plane(c, kMean) * params.stride);
        if constexpr (channels == 3) {
            bins.coefficients[c] = 
                hyperbolic_tangent(load(params.data + component.plane(c, kCoefficient) * params.stride));
            if (c == 1) mean += bins.coefficients[0] * pixels.levels[0].value;
            if (c == 2) {
                mean += bins.coefficients[1] * pixels.levels[0].value;
                mean += bins.coefficients[2] * pixels.levels[1].value;
            }
        }
        const V log_scale = load(params.data + component.plane(c, kLogScale) * params.stride);
        bins.of[c] = bin<derivatives>(mean, log_scale, pixels.levels[c], constants);
    }
}

// What a log of a sum of exponentials is taken relative to: the largest summand, but a number.
template <class V>
struct Largest {
    V value;

    Largest() : value(constant<V>(-__builtin_inf())) {}
    void include(V x) { value = x > value ? x : value; }
    V finite() const { return value == -__builtin_inff() ? V{} : value; }
};

template <class V>
struct Prior {
    V top;    // largest logit
    V total;  // of exp(logit - top)
};

template <class V>
static Prior<V> prior_of(const Vectors<const typename Lanes<V>::Number>& params, int64_t mixtures) {
    Largest<V> largest;
    for (int64_t k = 0; k < mixtures; ++k) {
        largest.include(load(params.data + k * params.stride));
        params.prefetch_next(k);
    }
    Prior<V> out{largest.value, V{}};
    for (int64_t k = 0; k < mixtures; ++k) out.total += power(load(params.data + k * params.stride) - out.top).value;
    return out;
}

template <int channels, class V>
static void mixture_loss_tile(const MixtureLoss& task, const TilePixels<Lanes<V>::count>& tile,
                              typename Lanes<V>::Number* scratch) {
    using Number = typename Lanes<V>::Number;
    constexpr int lanes = Lanes<V>::count;
    const LevelConstants<Number> constants(task.levels);
    Number levels[channels * lanes], nats_scratch[lanes];
    const Pixels<channels, V> pixels(read_planes(task.x, tile.in(task.x), channels, levels), constants);
    Number* const scores = scratch;
    const auto params = read_planes(task.params, tile.in(task.params), Component<channels>{task.mixtures, 0}.plane(channels, 0),
                                    scratch + task.mixtures * lanes);

    const Prior<V> prior = prior_of<V>(params, task.mixtures);
    Largest<V> largest;
    Bins<channels, V> bins;
    for (int64_t k = 0; k < task.mixtures; ++k) {
        component_bins<false>(params, {task.mixtures, k}, pixels, constants, bins);
        const V score = load(params.data + k * params.stride) - prior.top + bins.sum();
        store(scores + k * lanes, score);
        largest.include(score);
    }
    const V best = largest.finite();
    V total = V{};
    for (int64_t k = 0; k < task.mixtures; ++k) total += power(load(scores + k * lanes) - best).value;

    const auto offsets = tile.in(task.nats);
    const Vectors<Number> nats = destination(task.nats, offsets, nats_scratch);
    store(nats.data, logarithm(prior.total) - (best + logarithm(total)) + pixels.valid);
    write_planes(task.nats, offsets, 1, tile.count, nats, nats_scratch);
}

template <int channels, class V>
static void mixture_loss_gradient_tile(const MixtureLoss& task, const TilePixels<Lanes<V>::count>& tile,
                                       typename Lanes<V>::Number* scratch) {
    using Number = typename Lanes<V>::Number;
    constexpr int lanes = Lanes<V>::count;
    const LevelConstants<Number> constants(task.levels);
    const int64_t planes = Component<channels>{task.mixtures, 0}.plane(channels, 0);
    Number levels[channels * lanes], upstream_scratch[lanes];
    const Pixels<channels, V> pixels(read_planes(task.x, tile.in(task.x), channels, levels), constants);
    Number* const scores = scratch;
    Number* const gradient_scratch = scratch + task.mixtures * lanes;
    const auto params = read_planes(task.params, tile.in(task.params), planes, gradient_scratch + planes * lanes);
    const auto upstream = read_planes(task.nats_gradient, tile.in(task.nats_gradient), 1, upstream_scratch);
    const auto offsets = tile.in(task.gradient);
    const Vectors<Number> gradient = destination(task.gradient, offsets, gradient_scratch);

    // First the derivatives of each component's own log-probability, then their weights.
    const Prior<V> prior = prior_of<V>(params, task.mixtures);
    Largest<V> largest;
    Bins<channels, V> bins;
    for (int64_t k = 0; k < task.mixtures; ++k) {
        const Component<channels> component{task.mixtures, k};
        component_bins<true>(params, component, pixels, constants, bins);
        const V score = load(params.data + k * params.stride) - prior.top + bins.sum();
        store(scores + k * lanes, score);
        largest.include(score);
        for (int c = 0; c < channels; ++c) {
            for (int kind = 0; kind < component.kinds; ++kind) gradient.prefetch_next(component.plane(c, kind));
            store(gradient.data + component.plane(c, kMean) * gradient.stride, bins.of[c].by_mean);
            store(gradient.data + component.plane(c, kLogScale) * gradient.stride, bins.of[c].by_log_scale);
            if constexpr (channels == 3) {
                const V slope = 1.0f - bins.coefficients[c] * bins.coefficients[c];
                const V by_mean = bins.of[c == 0 ? 1 : 2].by_mean;  // of the channel that the coefficient moves
                const V value = pixels.levels[c == 2 ? 1 : 0].value;
                store(gradient.data + component.plane(c, kCoefficient) * gradient.stride, by_mean * value * slope);
            }
        }
    }
    const V best = largest.finite();
    V total = V{};
    for (int64_t k = 0; k < task.mixtures; ++k) {
        const V weight = power(load(scores + k * lanes) - best).value;
        store(scores + k * lanes, weight);
        total += weight;
    }
    const V outer = load(upstream.data) + pixels.valid;
    for (int64_t k = 0; k < task.mixtures; ++k) {
        const Component<channels> component{task.mixtures, k};
        const V posterior = load(scores + k * lanes) / total;
        const V chosen = power(load(params.data + k * params.stride) - prior.top).value / prior.total;
        store(gradient.data + k * gradient.stride, outer * (chosen - posterior));
        const V weight = -outer * posterior;
        for (int c = 0; c < channels; ++c) {
            for (int kind = 0; kind < Component<channels>::kinds; ++kind) {
                Number* const at = gradient.data + component.plane(c, kind) * gradient.stride;
                store(at, load(at) * weight);
            }
        }
    }
    write_planes(task.gradient, offsets, planes, tile.count, gradient, gradient_scratch);
}

template <bool gradient, class V>
static void mixture_loss_tiles(const MixtureLoss& task, int64_t first, int64_t end, void* scratch) {
    constexpr int lanes = Lanes<V>::count;
    typename Lanes<V>::Number* const numbers = static_cast<typename Lanes<V>::Number*>(scratch);
    for (; first < end; first += lanes) {
        const TilePixels<lanes> tile(first, end, task.height, task.width);
        if constexpr (gradient) {
            if (task.channels == 3) {
                mixture_loss_gradient_tile<3, V>(task, tile, numbers);
            } else {
                mixture_loss_gradient_tile<1, V>(task, tile, numbers);
            }
        } else if (task.channels == 3) {
            mixture_loss_tile<3, V>(task, tile, numbers);
        } else {
            mixture_loss_tile<1, V>(task, tile, numbers);
        }
    }
}

template <class V>
static int64_t mixture_loss_scratch_bytes(const MixtureLoss& task) {
    const int64_t planes = (task.channels == 3 ? 10 : 3) * task.mixtures;
    return (task.mixtures + 2 * planes) * static_cast<int64_t>(sizeof(V));
}

template <class V>
static constexpr MixtureLossKernels kMixtureLoss = {
    Lanes<V>::count,
    &mixture_loss_scratch_bytes<V>,
    &mixture_loss_tiles<false, V>,
    &mixture_loss_tiles<true, V>,
};
