#include "forecast.h"

#include <algorithm>
#include <cmath>

namespace pixelfast {

namespace {

constexpr double kRateWindow = 128;       // guesses
constexpr double kPaceForgetting = 0.97;  // per turn
constexpr double kLeastChance = 0.05;     // of being of use, for a number to be computed early
constexpr double kLeastGain = 0.03;       // of a turn's time

// While sampling goes number by number, so many turns lie between two guesses that are made only to be judged.
constexpr int64_t kOftenJudged = 4;
constexpr int64_t kSeldomJudged = 32;
constexpr double kHopeful = 0.2;

}  // namespace

void Forecaster::Rate::note(bool right) {
    weight = std::min(weight + 1, kRateWindow);
    value += (static_cast<double>(right) - value) / weight;
}

Forecaster::Forecaster(Call& call, const std::vector<StepWork>& steps, Team& team, Sampler& sampler,
                       int64_t first_sample)
    : call_(call),
      steps_(steps),
      team_(team),
      sampler_(sampler),
      first_sample_(first_sample),
      row_(call.program.channels * call.program.width),
      draw_(work_of_draw(call.program.head)),
      row_end_(std::min(row_, call.request.last_number)),
      states_(static_cast<size_t>(team.images)),
      pixel_(PixelState::start(call.program.channels)) {
    for (Image& state : states_) {
        state.guesses.resize(static_cast<size_t>(call.program.lookahead));
        state.easy.assign(static_cast<size_t>(row_), 0);
    }
    team.progress.stretches.assign(states_.size(), {0, std::min<int64_t>(1, row_end_)});
    team.progress.finished = row_end_ == 0;
}

void Forecaster::settle() {
    std::vector<Stretch>& stretches = team_.progress.stretches;
    run_ = stretches;
    for (int64_t image = 0; image < team_.images; ++image) {
        try {
            settle(image);
        } catch (...) {
            call_.fail(std::current_exception());
            stretches[image].first = run_[image].first + run_[image].count;
        }
    }
    measure();
    ++turns_;
    // Images that are done with their row wait for the others.
    if (std::all_of(stretches.begin(), stretches.end(), [&](const Stretch& s) { return s.first == row_end_; })) {
        if (row_end_ % row_ == 0) ++team_.progress.rows;
        team_.progress.finished = row_end_ == call_.request.last_number;
        row_end_ = std::min(row_end_ + row_, call_.request.last_number);
    }
    for (int64_t image = 0; image < team_.images; ++image) choose(image);
}

// Moves the stretch's start to the first number that remains to be settled.
void Forecaster::settle(int64_t image) {
    Stretch& stretch = team_.progress.stretches[image];
    if (stretch.count == 0) return;
    Image& state = states_[image];
    const int64_t first = stretch.first, end = first + stretch.count;
    const auto begin = steps_.begin();
    counts_.evaluations += std::any_of(begin + first, begin + end, [](const StepWork& s) { return !s.empty(); });
    bool right = true;
    int64_t number = first;
    // A step without tasks has the parameters of an earlier one: no guess made them wrong.
    for (; number < end && (right || steps_[number].empty()); ++number) {
        const Guess& guess = state.guesses[number - first];
        const double value = call_.settle(sampler_, first_sample_ + image, number);
        judge(image, number, guess, value);
        right = right && guess.made && agree(number, guess.value, value);
        counts_.accepted += right && guess.used;
    }
    state.stale_until = end;
    stretch.first = number;
}

void Forecaster::judge(int64_t image, int64_t number, const Guess& guess, double value) {
    Image& state = states_[image];
    const int64_t column = number % row_;
    uint8_t& easy = state.easy[column];
    const bool after_easy = column == 0 || state.easy[column - 1];
    const bool as_above = agree(number, number_above(image, number), value);
    const bool judged = guess.made && guess.source != above && guess.source != given;
    const bool right = judged ? agree(number, guess.value, value) : as_above;
    if (!call_.given(first_sample_ + image, number)) {
        rates_[above][easy][after_easy].note(as_above);
        if (judged) rates_[guess.source][easy][after_easy].note(right);
    }
    easy = right;
}

// Work of one image's turn in seconds: images of a team share the first rows.
double Forecaster::seconds(double first, double rows) const {
    const double own = first / static_cast<double>(std::max<int64_t>(1, team_.images));
    return pace_.seconds(own, rows - own);
}

void Forecaster::measure() {
    const Clock::time_point now = Clock::now();
    const double spent = std::chrono::duration<double>(now - since_).count();
    since_ = now;
    double first = 0, rows = 0, plain = 0;
    for (int64_t image = 0; image < team_.images; ++image) {
        const int64_t begin = run_[image].first, settled = team_.progress.stretches[image].first;
        for (int64_t number = begin; number < begin + run_[image].count; ++number) {
            const StepWork& step = steps_[number];
            if (step.row_start()) return;
            first = std::max(first, step.first);
            rows += step.rows + draw_;
            if (number < settled) plain += seconds(step.first, step.rows + draw_);
        }
    }
    pace_.note(first, rows - first, spent);
    spent_ = spent_ * kPaceForgetting + spent;
    plain_ = plain_ * kPaceForgetting + plain;
}

void Forecaster::choose(int64_t image) {
    Stretch& stretch = team_.progress.stretches[image];
    const int64_t first = stretch.first, room = std::min(row_end_ - first, call_.program.lookahead);
    stretch.count = 0;
    if (room <= 0) return;
    const int64_t forced = call_.request.lookahead;
    int64_t count = forced > 0 ? std::min(forced, room) : best_count(image, first, room);
    const int64_t pause = rates_[newest][1][1].value > kHopeful ? kOftenJudged : kSeldomJudged;
    std::vector<Guess>& guesses = states_[image].guesses;
    std::fill(guesses.begin(), guesses.end(), Guess{});
    if (count > 1) {
        make_guesses(image, first, count - 1, true);
    } else if (forced == 0 && turns_ % pause == 0) {
        make_guesses(image, first, 1, false);
    }
    while (count < room && steps_[first + count].empty()) ++count;
    stretch.count = count;
}

// The number of steps whose gain is largest: the time that right guesses save, less that of computing further rows.
int64_t Forecaster::best_count(int64_t image, int64_t first, int64_t room) const {
    const StepWork& begin = steps_[first];
    const double alone = seconds(begin.first, begin.rows + draw_);
    const double worth = plain_ > 0 ? std::clamp(spent_ / plain_, 0.2, 1.0) : 1.0;
    const Image& state = states_[image];
    double most = begin.first, rows = begin.rows + draw_;
    double chance = 1, saved = 0, best = kLeastGain * alone;
    int64_t count = 1;
    for (int64_t number = first + 1; number < first + room; ++number) {
        const StepWork& step = steps_[number];
        if (step.row_start()) break;
        const int64_t column = (number - 1) % row_;
        const bool after_easy = number - 1 > first || column == 0 || state.easy[column - 1];
        const Choice guess = best_source(image, number - 1, after_easy);
        chance *= guess.chance;
        if (chance < kLeastChance) break;
        if (step.empty()) continue;
        most = std::max(most, step.first);
        rows += step.rows + draw_ * (guess.source == newest || guess.source == stale ? 2 : 1);
        saved += chance * worth * seconds(step.first, step.rows + draw_);
        const double gain = saved - (seconds(most, rows) - alone);
        if (gain > best) {
            best = gain;
            count = number - first + 1;
        }
    }
    return count;
}

Forecaster::Choice Forecaster::best_source(int64_t image, int64_t number, bool after_easy) const {
    if (call_.given(first_sample_ + image, number)) return {given, 1};
    const Image& state = states_[image];
    const auto chance = [&](Source source) { return rates_[source][state.easy[number % row_]][after_easy].value; };
    Choice best{above, chance(above)};
    if (number < state.stale_until && chance(stale) >= best.chance) best = {stale, chance(stale)};
    if (chance(newest) > best.chance) best = {newest, chance(newest)};
    return best;
}

// Guesses of consecutive numbers, each made as if the ones before were right.
void Forecaster::make_guesses(int64_t image, int64_t first, int64_t count, bool used) {
    Image& state = states_[image];
    const int64_t sample = first_sample_ + image, channels = call_.program.channels;
    pixel_ = call_.pixels[sample];
    for (int64_t number = first; number < first + count; ++number) {
        const int64_t channel = number % channels, column = number % row_;
        if (channel == 0) pixel_.restart();
        Guess guess{true, used, newest, 0};
        if (used) guess.source = best_source(image, number, number > first || column == 0 || state.easy[column - 1]).source;
        if (guess.source == newest && first <= channel) guess.source = above;
        bool drawn = false;
        if (guess.source == given) {
            guess.value = static_cast<double>(call_.request.known[call_.place(sample, number)]);
        } else if (guess.source != above) {
            const int64_t last = (first - 1 - channel) / channels * channels + channel;  // settled, of this channel
            guess.value = draw(image, number, guess.source == stale ? number : last);
            drawn = guess.value == guess.value;
            if (!drawn) guess.source = above;
        }
        if (guess.source == above) guess.value = number_above(image, number);
        // Where no component was drawn, later channels take the likeliest for the values before them.
        pixel_.known[channel] = !drawn;
        pixel_.values[channel] = guess.value;
        state.guesses[number - first] = guess;
        if (!used) continue;
        call_.feed(sample, number, guess.value);
        ++counts_.guesses;
    }
}

double Forecaster::draw(int64_t image, int64_t number, int64_t parameters_of) {
    const int64_t sample = first_sample_ + image;
    return sampler_.draw(number % call_.program.channels, call_.parameters(sample, parameters_of), pixel_,
                         call_.noise(sample, number));
}

// In the first row, the number to the left.
double Forecaster::number_above(int64_t image, int64_t number) const {
    const int64_t back = number >= row_ ? row_ : call_.program.channels;
    if (number < back) return 0;
    return static_cast<double>(call_.request.images[call_.place(first_sample_ + image, number - back)]);
}

// Whether the network sees the same.
bool Forecaster::agree(int64_t number, double one, double other) const {
    return call_.program.inputs[number % call_.program.channels].buffer == kNone ||
           call_.fed(number, one) == call_.fed(number, other);
}

}  // namespace pixelfast
