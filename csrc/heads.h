// Drawing one number from the parameters of its likelihood. The same functions as `draw` of pixelfast/likelihoods/,
// in double precision on float32 parameters.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace pixelfast {

enum class HeadKind { categorical, mixture, bernoulli, gaussian };

struct Head {
    HeadKind kind;
    int64_t channels;  // of the image
    int64_t levels;    // 0: numbers are real
    int64_t mixtures;  // of a mixture

    // Parameters that drawing one number takes.
    int64_t parameters() const;

    bool continuous() const { return kind == HeadKind::gaussian; }
};

struct Sampling {
    double temperature;
    bool reference;  // feed unrounded values back, as the published sampler of the mixture does
};

// What the numbers of one pixel know of each other.
struct PixelState {
    std::vector<double> values;   // in levels, or real, by channel
    std::vector<uint8_t> known;   // given rather than drawn
    int64_t component = 0;        // of a mixture

    static PixelState start(int64_t channels) {
        const size_t count = static_cast<size_t>(channels);
        return {std::vector<double>(count, 0.0), std::vector<uint8_t>(count, 0), 0};
    }

    // To be called at the first channel of a pixel.
    void restart() { std::fill(known.begin(), known.end(), uint8_t{0}); }
};

class Sampler {
public:
    Sampler(const Head& head, const KernelTable& kernels, const Sampling& sampling);

    // The value of `channel` in levels, whole but for mode "reference"; or real, a float. NaN where the parameters are
    // not numbers.
    // Up to a vector past the end of `parameters` is read.
    double draw(int64_t channel, const float* parameters, PixelState& pixel, const NoiseKey& key);

    // What a given number still decides: in mode "reference" the component is chosen at channel 0 in any case.
    void skip(int64_t channel, const float* parameters, PixelState& pixel, const NoiseKey& key);

private:
    double draw_mixture(int64_t channel, const float* parameters, PixelState& pixel, const NoiseKey& key);
    int64_t choose_component(const float* logits, const NoiseKey& key);
    int64_t choose_from_posterior(int64_t channel, const float* parameters, const PixelState& pixel,
                                  const NoiseKey& key);
    double mean(int64_t channel, const float* parameters, int64_t component, const PixelState& pixel) const;
    double log_scale(int64_t channel, const float* parameters, int64_t component) const;
    double log_bin(double mean, double log_scale, double level) const;
    double to_signed(double level) const;

    const Head head_;
    const KernelTable& kernels_;
    const Sampling sampling_;
    std::vector<uint32_t> words_;
    std::vector<double> scores_;
};

}  // namespace pixelfast
