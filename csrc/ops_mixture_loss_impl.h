// Loss of discretized logistic mixtures and its gradient, a tile of pixels at a time: each parameter is read once and
// nothing larger than a tile is kept. The mathematics is that of pixelfast/ops/mixture_loss_reference.py.
//
// Included inside an instruction set's namespace, after vec_math.h and ops_planes.h. V is a vector of floats, or one
// double.

// For x <= 88, each within 2 ulp: exp(x), and 1 - exp(x).
PF_INLINE F power(F x) {
    const Reduced e = reduce_exponent(max(splat(-1000.0f), x));
    return scaled(1.0f + e.p, e.n);
}
struct Decay {
    F value;
    F rest;
};
PF_INLINE Decay decay(F x) {
    const Reduced e = reduce_exponent(max(splat(-1000.0f), -x));
    const F scale = scaled(splat(1.0f), e.n);
    return {fma(scale, e.p, scale), fma(-scale, e.p, 1.0f - scale)};
}
PF_INLINE F tangent(F x) {
    const F rest = decay(2.0f * absolute(x)).rest;
    return copy_sign(rest / (2.0f - rest), x);
}

PF_INLINE double fma(double a, double b, double c) { return a * b + c; }
PF_INLINE double power(double x) { return exp_double(x); }
struct DoubleDecay {
    double value;
    double rest;
};
PF_INLINE DoubleDecay decay(double x) { return {exp_double(-x), -std::expm1(-x)}; }
PF_INLINE double tangent(double x) { return std::tanh(x); }
PF_INLINE double logarithm(double x) { return log_double(x); }

template <class V>
PF_INLINE V constant(double x) {
    return V{} + static_cast<typename Lanes<V>::Number>(x);
}

constexpr float kLogScaleFloor = -7.0f;

template <class Number>
struct LevelConstants {
    Number last;          // the highest level
    Number log_width;     // log of a bin's width in [-1, 1]
    Number tiny, most;    // of a log-width, and of an exponent: limits of this precision

    explicit LevelConstants(int64_t levels)
        : last(static_cast<Number>(levels - 1)),
          log_width(static_cast<Number>(log_double(2.0 / static_cast<double>(levels - 1)))),
          tiny(sizeof(Number) == 4 ? -25 : -40),
          most(sizeof(Number) == 4 ? 80 : 700) {}
};

// One channel of the pixels of a tile.
template <class V>
struct Level {
    V centre;  // 2 level - last: in half bins
    V value;   // in [-1, 1]
    decltype(V{} < V{}) lowest, highest;
};

// The probability of a bin under a logistic is mass * exp(exponent), where the mass is neither 0 nor large; and the
// derivatives of its logarithm.
template <class V>
struct Bin {
    V mass;
    V exponent;
    V log_mass;  // roughly
    V by_mean;
    V by_log_scale;
};

// Let near and far be the distances from the mean to the edges of the bin, in units of the scale and negative for the
// near edge where the mean lies outside, and width = near + far. With E = exp(near), the probability is
//     sigmoid(near) - sigmoid(-far) = (1 - exp(-width)) E / (1 + E) / (1 + E exp(-width)).
// The outermost bins have one edge, the near one, and so to say an infinite width.
template <bool derivatives, class V>
PF_INLINE Bin<V> bin(V mean, V log_scale, const Level<V>& level,
                     const LevelConstants<typename Lanes<V>::Number>& constants) {
    const V zero = V{}, one = constant<V>(1.0);
    const auto floored = log_scale < kLogScaleFloor;
    const V floor = floored ? constant<V>(kLogScaleFloor) : log_scale;
    const V inverse_scale = power(-floor);
    // Divided: times 1 / last would be off by as much as the rest of the sum together, the same way at every pixel.
    const V half_bin = inverse_scale / constants.last;
    const V width = half_bin + half_bin;
    const V log_width = constants.log_width - floor;
    const auto edge = level.lowest | level.highest;
    // Then 1 - exp(-width) is width to the last bit. The product of three that are not tiny is a normal number.
    const auto tiny = log_width < constants.tiny;

    const V centred = level.centre - mean * constants.last;
    const auto upper = level.lowest | ((centred < 0.0f) & (level.highest == 0));  // whether the near edge is the upper one
    const V side = upper ? one : -one;
    const V near = (side * centred + one) * half_bin;
    const V far = width - near;
    const auto inside = near > 0.0f;
    const V power_near = power(near > constants.most ? constant<V>(constants.most) : near);
    const auto of_width = decay(width);
    const V power_width = edge ? zero : of_width.value;
    const V rest = edge | tiny ? one : of_width.rest;

    const V near_term = one + power_near;
    const V far_power = power_near * power_width;  // exp(-far)
    const V far_term = one + far_power;
    const V terms = near_term * far_term;
    const V log_rest = edge ? zero : log_width;
    Bin<V> out;
    out.exponent = (inside ? zero : near) + (tiny ? log_rest : zero);
    out.log_mass = tiny | (log_rest > 0.0f) ? zero : log_rest;
    const V numerator = inside ? rest * power_near : rest;
    if constexpr (derivatives) {
        const V shared = one / (terms * rest);
        const V reciprocal = shared * rest;
        out.mass = numerator * reciprocal;
        const V by_near = reciprocal * far_term;                // sigmoid(-near)
        const V by_far = reciprocal * near_term * far_power;    // sigmoid(-far)
        const V by_width = tiny ? (edge ? zero : one) : width * power_width * (shared * terms);
        out.by_mean = side * inverse_scale * (by_far - by_near);
        out.by_log_scale = floored ? zero : -(near * by_near + far * by_far + by_width);
    } else {
        out.mass = numerator / terms;
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
};

template <bool derivatives, int channels, class V>
PF_INLINE void component_bins(const Vectors<const typename Lanes<V>::Number>& params,
                              const Component<channels>& component, const Pixels<channels, V>& pixels,
                              const LevelConstants<typename Lanes<V>::Number>& constants, Bins<channels, V>& bins) {
    for (int c = 0; c < channels; ++c) {
        for (int kind = 0; kind < component.kinds; ++kind) params.prefetch_next(component.plane(c, kind));
        V mean = load(params.data + component.plane(c, kMean) * params.stride);
        if constexpr (channels == 3) {
            bins.coefficients[c] = tangent(load(params.data + component.plane(c, kCoefficient) * params.stride));
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
    for (int64_t k = 0; k < mixtures; ++k) out.total += power(load(params.data + k * params.stride) - out.top);
    return out;
}

// The joint probabilities of component and pixel, relative to the largest: first as mass * exp(exponent), in `masses` and
// `exponents`; `settle` leaves them in `masses`.
template <class V>
struct Joint {
    using Number = typename Lanes<V>::Number;
    Number* masses;
    Number* exponents;
    Largest<V> largest;

    Joint(Number* scratch, int64_t mixtures) : masses(scratch), exponents(scratch + mixtures * Lanes<V>::count) {}

    template <int channels>
    void include(int64_t component, V logit, const Bins<channels, V>& bins) {
        V mass = bins.of[0].mass, exponent = logit + bins.of[0].exponent, log_mass = bins.of[0].log_mass;
        for (int c = 1; c < channels; ++c) {
            mass = mass * bins.of[c].mass;
            exponent = exponent + bins.of[c].exponent;
            log_mass = log_mass + bins.of[c].log_mass;
        }
        store(masses + component * Lanes<V>::count, mass);
        store(exponents + component * Lanes<V>::count, exponent);
        largest.include(exponent + log_mass);
    }

    // Their sum.
    V settle(int64_t mixtures) {
        const V best = largest.finite();
        V total = V{};
        for (int64_t k = 0; k < mixtures; ++k) {
            Number* const mass = masses + k * Lanes<V>::count;
            const V probability = load(mass) * power(load(exponents + k * Lanes<V>::count) - best);
            store(mass, probability);
            total += probability;
        }
        return total;
    }
};

template <int channels, class V>
static void mixture_loss_tile(const MixtureLoss& task, const TilePixels<Lanes<V>::count>& tile,
                              typename Lanes<V>::Number* scratch) {
    using Number = typename Lanes<V>::Number;
    constexpr int lanes = Lanes<V>::count;
    const LevelConstants<Number> constants(task.levels);
    Number levels[channels * lanes], nats_scratch[lanes];
    const Pixels<channels, V> pixels(read_planes(task.x, tile.in(task.x), channels, levels), constants);
    const int64_t planes = Component<channels>{task.mixtures, 0}.plane(channels, 0);
    const auto params =
        read_planes(task.params, tile.in(task.params), planes, scratch + 2 * task.mixtures * lanes);

    const Prior<V> prior = prior_of<V>(params, task.mixtures);
    Joint<V> joint(scratch, task.mixtures);
    Bins<channels, V> bins;
    for (int64_t k = 0; k < task.mixtures; ++k) {
        component_bins<false>(params, {task.mixtures, k}, pixels, constants, bins);
        joint.include(k, load(params.data + k * params.stride) - prior.top, bins);
    }
    const V total = joint.settle(task.mixtures);

    const auto offsets = tile.in(task.nats);
    const Vectors<Number> nats = destination(task.nats, offsets, nats_scratch);
    store(nats.data, logarithm(prior.total) - (joint.largest.finite() + logarithm(total)) + pixels.valid);
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
    Number* const own = scratch + 2 * task.mixtures * lanes;  // derivatives of each component's log-probability
    Number* const gradient_scratch = own + planes * lanes;
    const auto params = read_planes(task.params, tile.in(task.params), planes, gradient_scratch + planes * lanes);
    const auto upstream = read_planes(task.nats_gradient, tile.in(task.nats_gradient), 1, upstream_scratch);
    const auto offsets = tile.in(task.gradient);
    const Vectors<Number> gradient = destination(task.gradient, offsets, gradient_scratch);

    const Prior<V> prior = prior_of<V>(params, task.mixtures);
    Joint<V> joint(scratch, task.mixtures);
    Bins<channels, V> bins;
    for (int64_t k = 0; k < task.mixtures; ++k) {
        const Component<channels> component{task.mixtures, k};
        component_bins<true>(params, component, pixels, constants, bins);
        joint.include(k, load(params.data + k * params.stride) - prior.top, bins);
        for (int c = 0; c < channels; ++c) {
            for (int kind = 0; kind < component.kinds; ++kind) gradient.prefetch_next(component.plane(c, kind));
            store(own + component.plane(c, kMean) * lanes, bins.of[c].by_mean);
            store(own + component.plane(c, kLogScale) * lanes, bins.of[c].by_log_scale);
            if constexpr (channels == 3) {
                const V slope = 1.0f - bins.coefficients[c] * bins.coefficients[c];
                const V by_mean = bins.of[c == 0 ? 1 : 2].by_mean;  // of the channel that the coefficient moves
                const V value = pixels.levels[c == 2 ? 1 : 0].value;
                store(own + component.plane(c, kCoefficient) * lanes, by_mean * value * slope);
            }
        }
    }
    const V total = joint.settle(task.mixtures);
    const V outer = load(upstream.data) + pixels.valid;
    const V outer_prior = outer / prior.total, outer_posterior = outer / total;
    for (int64_t k = 0; k < task.mixtures; ++k) {
        const Component<channels> component{task.mixtures, k};
        const V weight = load(joint.masses + k * lanes) * outer_posterior;
        const V chosen = power(load(params.data + k * params.stride) - prior.top) * outer_prior;
        store(gradient.data + k * gradient.stride, chosen - weight);
        for (int c = 0; c < channels; ++c) {
            for (int kind = 0; kind < component.kinds; ++kind) {
                const int64_t plane = component.plane(c, kind);
                store(gradient.data + plane * gradient.stride, -weight * load(own + plane * lanes));
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
    return (2 * task.mixtures + 3 * planes) * static_cast<int64_t>(sizeof(V));
}

template <class V>
static constexpr MixtureLossKernels kMixtureLoss = {
    Lanes<V>::count,
    &mixture_loss_scratch_bytes<V>,
    &mixture_loss_tiles<false, V>,
    &mixture_loss_tiles<true, V>,
};
