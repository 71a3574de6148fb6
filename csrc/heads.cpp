#include "heads.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "scalar_math.h"

namespace pixelfast {

namespace {

constexpr double kLogScaleFloor = -7.0;      // as in the published code of PixelCNN++
constexpr double kReferenceMargin = 1e-5;    // mode "reference" keeps uniforms this far from 0 and 1
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kSlack = 16;               // words that vectors may read past the last draw

double uniform(uint32_t word) { return (word + 0.5) * 0x1p-32; }

double clamped(double u) { return std::min(std::max(u, kReferenceMargin), 1 - kReferenceMargin); }

double gumbel(double u) { return -log_double(-log_double(u)); }

double logistic(double u) { return log_double(u) - log1p_double(-u); }

// Box and Muller's transform.
double normal(double radius, double angle) { return std::sqrt(-2 * log_double(radius)) * cos_of_turns(angle); }

uint32_t word_of(const NoiseKey& noise, int64_t draw) {
    const uint32_t counter[4] = {noise.sample, noise.number, static_cast<uint32_t>(draw / 4), noise.stream};
    const uint32_t key[2] = {static_cast<uint32_t>(noise.seed), static_cast<uint32_t>(noise.seed >> 32)};
    uint32_t words[4];
    philox4x32(counter, key, words);
    return words[draw % 4];
}

int64_t argmax(const std::vector<double>& scores) {
    int64_t best = -1;
    double highest = -std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < scores.size(); ++i) {
        if (scores[i] != scores[i]) return -1;
        if (scores[i] > highest) {
            highest = scores[i];
            best = static_cast<int64_t>(i);
        }
    }
    return best;
}

}  // namespace

int64_t Head::parameters() const {
    switch (kind) {
        case HeadKind::categorical: return levels;
        case HeadKind::mixture: return (channels == 3 ? 10 : 3) * mixtures;
        case HeadKind::bernoulli: return 1;
        case HeadKind::gaussian: return 2;
    }
    return 0;
}

Sampler::Sampler(const Head& head, const KernelTable& kernels, const Sampling& sampling)
    : head_(head), kernels_(kernels), sampling_(sampling) {
    const int64_t classes = head.kind == HeadKind::categorical ? head.levels : head.mixtures;
    scores_.assign(static_cast<size_t>(head.mixtures), 0.0);
    words_.assign(static_cast<size_t>((classes + 3) / 4 * 4 + kSlack), 0);
}

double Sampler::draw(int64_t channel, const float* parameters, PixelState& pixel, const NoiseKey& key) {
    switch (head_.kind) {
        case HeadKind::categorical: {
            const int64_t choice = choose_component(parameters, key);
            return choice < 0 ? kNaN : static_cast<double>(choice);
        }
        case HeadKind::bernoulli: {
            const double score = parameters[0] + sampling_.temperature * logistic(uniform(word_of(key, 0)));
            return score != score ? kNaN : static_cast<double>(score > 0);
        }
        case HeadKind::mixture: return draw_mixture(channel, parameters, pixel, key);
        case HeadKind::gaussian: {
            const double noise = normal(uniform(word_of(key, 0)), uniform(word_of(key, 1)));
            const float value =
                static_cast<float>(parameters[0] + sampling_.temperature * exp_double(parameters[1]) * noise);
            return std::isfinite(value) ? value : kNaN;
        }
    }
    return kNaN;
}

void Sampler::skip(int64_t channel, const float* parameters, PixelState& pixel, const NoiseKey& key) {
    if (head_.kind == HeadKind::mixture && channel == 0 && sampling_.reference)
        pixel.component = std::max<int64_t>(0, choose_component(parameters, key));
}

int64_t Sampler::choose_component(const float* logits, const NoiseKey& key) {
    const int64_t classes = head_.kind == HeadKind::categorical ? head_.levels : head_.mixtures;
    kernels_.noise(key, (classes + 3) / 4, words_.data());
    if (head_.kind == HeadKind::mixture && sampling_.reference) {
        for (int64_t i = 0; i < classes; ++i)
            scores_[i] = logits[i] + sampling_.temperature * gumbel(clamped(uniform(words_[i])));
        return argmax(scores_);
    }
    return kernels_.gumbel_argmax(logits, words_.data(), sampling_.temperature, classes);
}

double Sampler::draw_mixture(int64_t channel, const float* parameters, PixelState& pixel, const NoiseKey& key) {
    if (channel == 0) {
        pixel.component = choose_component(parameters, key);
    } else if (!sampling_.reference && pixel.known[channel - 1]) {
        pixel.component = choose_from_posterior(channel, parameters, pixel, key);
    }
    if (pixel.component < 0) return kNaN;
    double u = uniform(word_of(key, head_.mixtures));
    if (sampling_.reference) u = clamped(u);
    const double scale = exp_double(log_scale(channel, parameters, pixel.component));
    const double value =
        mean(channel, parameters, pixel.component, pixel) + sampling_.temperature * scale * logistic(u);
    double level = (value + 1) * (0.5 * static_cast<double>(head_.levels - 1));
    if (!sampling_.reference) level = std::nearbyint(level);
    // Written so that NaN stays NaN.
    if (level < 0) return 0;
    if (level > static_cast<double>(head_.levels - 1)) return static_cast<double>(head_.levels - 1);
    return level;
}

// The component given the channels before: the logits plus the temperature times the log-probabilities of those
// channels under the distribution that the temperature defines (at temperature 0 the model's own), plus noise.
int64_t Sampler::choose_from_posterior(int64_t channel, const float* parameters, const PixelState& pixel,
                                       const NoiseKey& key) {
    kernels_.noise(key, (head_.mixtures + 3) / 4, words_.data());
    const double temperature = sampling_.temperature;
    const double spread = temperature > 0 ? log_double(temperature) : 0.0;
    for (int64_t k = 0; k < head_.mixtures; ++k) {
        double evidence = 0;
        for (int64_t c = 0; c < channel; ++c)
            evidence += log_bin(mean(c, parameters, k, pixel), log_scale(c, parameters, k) + spread, pixel.values[c]);
        scores_[k] = parameters[k] + (temperature > 0 ? temperature : 1.0) * evidence +
                    temperature * gumbel(uniform(words_[k]));
    }
    return argmax(scores_);
}

// Parameters are [logits | for each channel: means, log-scales and, with three channels, coefficients], `mixtures`
// of each.
double Sampler::mean(int64_t channel, const float* parameters, int64_t component, const PixelState& pixel) const {
    const int64_t m = head_.mixtures;
    const int64_t kinds = head_.channels == 3 ? 3 : 2;
    double value = parameters[m + channel * kinds * m + component];
    // Coefficients: red on green, red on blue, green on blue.
    const auto coefficient = [&](int64_t i) {
        return tanh_double(parameters[m + i * kinds * m + 2 * m + component]);
    };
    if (channel == 1) return value + coefficient(0) * to_signed(pixel.values[0]);
    if (channel == 2)
        return value + coefficient(1) * to_signed(pixel.values[0]) + coefficient(2) * to_signed(pixel.values[1]);
    return value;
}

double Sampler::log_scale(int64_t channel, const float* parameters, int64_t component) const {
    const int64_t m = head_.mixtures;
    const int64_t kinds = head_.channels == 3 ? 3 : 2;
    const double value = parameters[m + channel * kinds * m + m + component];
    return value < kLogScaleFloor ? kLogScaleFloor : value;
}

// Log-probability of the bin of `level`, with upper and lower its edges in units of the scale:
// log(sigmoid(upper) - sigmoid(lower)) = log(1 - exp(lower - upper)) - softplus(-upper) - softplus(lower).
// The outermost bins reach to infinity.
double Sampler::log_bin(double mean, double log_scale, double level) const {
    const double highest = static_cast<double>(head_.levels - 1);
    const double inverse = exp_double(-log_scale);
    const double half = inverse / highest;
    const double centred = (to_signed(level) - mean) * inverse;
    const double above = level == highest ? 0.0 : -softplus_double(-(centred + half));
    const double below = level == 0 ? 0.0 : -softplus_double(centred - half);
    if (level == 0 || level == highest) return above + below;
    const double log_width = log_double(2 / highest) - log_scale;
    const double width = exp_double(log_width);
    // For tiny widths the logarithm of 1 - exp(-width) is that of the width, which may itself have vanished.
    return (log_width < -40 ? log_width : log_double(-expm1_double(-width))) + above + below;
}

double Sampler::to_signed(double level) const { return level * (2 / static_cast<double>(head_.levels - 1)) - 1; }

}  // namespace pixelfast
