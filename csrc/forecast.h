// Exact predictive sampling (Wiggers and Hoogeboom 2020): guess the next numbers of an image row, run the network for
// all of them at once, then draw number by number with the noise that plain sampling would use. Numbers that follow
// right guesses are right; what follows the first wrong guess is computed again. So the image is that of plain
// sampling, bit for bit, and every turn settles at least one number.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "call.h"
#include "heads.h"
#include "pace.h"
#include "worker.h"

namespace pixelfast {

// Used by the first member of a team of one image, between the run of a turn and the next.
class Forecaster {
public:
    // The first turn computes the first number: nothing is known that a guess could be made from.
    Forecaster(Call& call, const std::vector<StepWork>& steps, Team& team, Sampler& sampler, int64_t sample);

    // Draws the numbers of a turn that has run, and chooses what the next one computes.
    void settle();

    // To be called after something else has taken time between two turns.
    void resume() { since_ = Clock::now(); }

    const Forecasts& counts() const { return counts_; }

private:
    using Clock = std::chrono::steady_clock;

    // Where a guess comes from. Those before `given` may be wrong.
    enum Source {
        above,   // the number one image row up
        newest,  // drawn from the last right parameters of the channel
        stale,   // drawn from the parameters that an abandoned turn left behind
        given,   // by the caller
    };

    struct Guess {
        bool made = false;
        bool used = false;  // by the network; else only to be judged
        Source source = above;
        double value = 0;
        bool drawn() const { return made && (source == newest || source == stale); }
    };

    // How often guesses have been right lately.
    struct Rate {
        double value = 0.3;
        double weight = 3;
        void note(bool right);
    };

    struct Choice {
        Source source;
        double chance;  // of being right
    };

    int64_t settle_numbers();
    void judge(int64_t number, const Guess& guess, double value);
    void measure(const Stretch& run);
    void choose();
    int64_t best_count(int64_t room) const;
    Choice best_source(int64_t number) const;
    void make_guesses(int64_t count, bool used);
    double number_above(int64_t number) const;
    bool agree(int64_t number, double one, double other) const;
    double seconds(double first, double rows) const;

    Call& call_;
    const std::vector<StepWork>& steps_;
    Progress& progress_;
    Sampler& sampler_;
    const int64_t sample_;
    const int64_t row_;  // numbers of an image row
    const double draw_;  // work
    StepWork usual_;     // of steps that neither are empty nor start a row
    int64_t row_end_;
    int64_t turns_ = 0;
    int64_t stale_until_ = 0;     // what lies between the stretch's start and here has been computed on wrong guesses
    std::vector<Guess> guesses_;  // of the stretch's numbers
    int64_t guessed_ = 0;         // so many of them are made
    std::vector<uint8_t> easy_;   // by column: whether the last number there was as guessed
    PixelState pixel_;            // of the number that is being guessed
    Rate rates_[given][2][2];     // by source, whether the number above was easy, and the one before
    Pace pace_;
    Clock::time_point since_;
    bool timed_ = true;
    Forecasts counts_;
};

}  // namespace pixelfast
