#include "forecast.h"

#include <algorithm>
#include <cmath>

namespace pixelfast {

namespace {

constexpr double kRateWindow = 128;    // guesses
constexpr double kLeastChance = 0.05;  // of being of use, for a number to be computed early
constexpr double kLeastGain = 1.03;    // a multiple of plain sampling's speed

// A draw takes time: a guess that must be drawn has to be better than one that is there by this much.
constexpr double kWorthDrawing = 0.03;

// While sampling goes number by number, guesses are drawn only to be judged: often in the first turns, then seldom.
constexpr int64_t kFirstTurns = 64;
constexpr int64_t kJudgedAtFirst = 4;
constexpr int64_t kJudgedLater = 32;

// Later, turns of one step are timed now and then only.
constexpr int64_t kTimed = 4;

// One of so many first turns computes more than one step in any case, to see what further rows cost.
constexpr int64_t kTrials = 16;

}  // namespace

void Forecaster::Rate::note(bool right) {
    weight = std::min(weight + 1, kRateWindow);
    value += (static_cast<double>(right) - value) / weight;
}

Forecaster::Forecaster(Call& call, const std::vector<StepWork>& steps, Team& team, Sampler& sampler, int64_t sample)
    : call_(call),
      steps_(steps),
      progress_(team.progress),
      sampler_(sampler),
      sample_(sample),
      row_(call.program.channels * call.program.width),
      draw_(work_of_draw(call.program.head)),
      row_end_(std::min(row_, call.request.last_number)),
      guesses_(static_cast<size_t>(call.program.lookahead)),
      easy_(static_cast<size_t>(row_), 0),
      pixel_(PixelState::start(call.program.channels)) {
    int64_t counted = 0;
    for (const StepWork& step : steps) {
        if (step.empty() || step.row_start()) continue;
        usual_.first += step.first;
        usual_.rows += step.rows;
        ++counted;
    }
    usual_.first /= static_cast<double>(std::max<int64_t>(1, counted));
    usual_.rows /= static_cast<double>(std::max<int64_t>(1, counted));
    progress_.next = {0, std::min<int64_t>(1, row_end_)};
    progress_.finished = row_end_ == 0;
}

void Forecaster::settle() {
    const Stretch run = progress_.next;
    stale_until_ = run.first + run.count;
    try {
        progress_.next.first += settle_numbers();
    } catch (...) {
        call_.fail(std::current_exception());
        progress_.next.first = stale_until_;
    }
    if (timed_) measure(run);
    ++turns_;
    if (progress_.next.first == row_end_) {
        if (row_end_ % row_ == 0) ++progress_.rows;
        progress_.finished = row_end_ == call_.request.last_number;
        row_end_ = std::min(row_end_ + row_, call_.request.last_number);
    }
    if (progress_.finished) return;
    resume();
    choose();
    timed_ = progress_.next.count > 1 || turns_ < kFirstTurns || turns_ % kTimed == 0;
}

// How many.
int64_t Forecaster::settle_numbers() {
    const int64_t first = progress_.next.first, end = first + progress_.next.count;
    const auto begin = steps_.begin();
    counts_.evaluations += std::any_of(begin + first, begin + end, [](const StepWork& s) { return !s.empty(); });
    bool right = true;
    int64_t number = first;
    // A step without tasks has the parameters of an earlier one: no guess made them wrong.
    for (; number < end && (right || steps_[number].empty()); ++number) {
        const Guess& guess = guesses_[number - first];
        const double value = call_.settle(sampler_, sample_, number);
        judge(number, guess, value);
        right = right && guess.made && agree(number, guess.value, value);
        counts_.accepted += right && guess.used;
    }
    return number - first;
}

void Forecaster::judge(int64_t number, const Guess& guess, double value) {
    const int64_t column = number % row_;
    uint8_t& easy = easy_[column];
    const bool after_easy = column == 0 || easy_[column - 1];
    const bool as_above = agree(number, number_above(number), value);
    const bool judged = guess.made && guess.source != above && guess.source != given;
    const bool right = judged ? agree(number, guess.value, value) : as_above;
    if (!call_.given(sample_, number)) {
        rates_[above][easy][after_easy].note(as_above);
        if (judged) rates_[guess.source][easy][after_easy].note(right);
    }
    easy = right;
}

void Forecaster::measure(const Stretch& run) {
    const double seconds = std::chrono::duration<double>(Clock::now() - since_).count();
    double first = 0, rows = 0;
    for (int64_t number = run.first; number < run.first + run.count; ++number) {
        const StepWork& step = steps_[number];
        if (step.row_start()) return;
        first = std::max(first, step.first);
        rows += step.rows + draw_ * ((number < progress_.next.first) + guesses_[number - run.first].drawn());
    }
    pace_.note(first, rows - first, seconds);
}

void Forecaster::choose() {
    Stretch& next = progress_.next;
    const int64_t room = std::min(row_end_ - next.first, call_.program.lookahead);
    const int64_t forced = call_.request.lookahead;
    int64_t count = forced > 0 ? std::min(forced, room) : best_count(room);
    std::fill_n(guesses_.begin(), guessed_, Guess{});
    guessed_ = 0;
    if (count > 1) {
        make_guesses(count - 1, true);
    } else if (forced == 0 && turns_ % (turns_ < kFirstTurns ? kJudgedAtFirst : kJudgedLater) == 0) {
        make_guesses(1, false);
    }
    while (count < room && steps_[next.first + count].empty()) ++count;
    next.count = count;
}

// So many steps that the work they are expected to settle, in the time of plain sampling, is the largest multiple of the
// time they take: in the long run that settles most. A first step that is larger than usual has to be run in any case.
int64_t Forecaster::best_count(int64_t room) const {
    const int64_t first = progress_.next.first;
    const StepWork& begin = steps_[first];
    const double alone = seconds(begin.first, begin.rows + draw_);
    const double usual = std::min(alone, seconds(usual_.first, usual_.rows + draw_));
    double most = begin.first, rows = begin.rows + draw_;
    double chance = 1, settled = usual, best = kLeastGain;
    const bool trial = turns_ < kFirstTurns && turns_ % kTrials == kTrials - 1;
    int64_t count = 1;
    for (int64_t number = first + 1; number < first + room; ++number) {
        const StepWork& step = steps_[number];
        if (step.row_start()) break;
        const Choice guess = best_source(number - 1);
        chance *= guess.chance;
        if (chance < kLeastChance) break;
        if (step.empty()) continue;
        most = std::max(most, step.first);
        rows += step.rows + draw_ * (guess.source == newest || guess.source == stale ? 2 : 1);
        settled += chance * seconds(step.first, step.rows + draw_);
        const double gain = settled / (usual + seconds(most, rows) - alone);
        if (gain > best || (trial && count == 1)) {
            best = std::max(gain, best);
            count = number - first + 1;
        }
    }
    return count;
}

// Of one row of each kernel, and the rest of the rows.
double Forecaster::seconds(double first, double rows) const { return pace_.seconds(first, rows - first); }

// Numbers before it in the stretch are taken for easy: if they are not, this one is of no use anyway.
Forecaster::Choice Forecaster::best_source(int64_t number) const {
    if (call_.given(sample_, number)) return {given, 1};
    const int64_t column = number % row_;
    const bool after_easy = number > progress_.next.first || column == 0 || easy_[column - 1];
    const auto chance = [&](Source source) { return rates_[source][easy_[column]][after_easy].value; };
    const Source drawn = number < stale_until_ && chance(stale) >= chance(newest) ? stale : newest;
    const Source best = chance(drawn) > chance(above) + kWorthDrawing ? drawn : above;
    return {best, chance(best)};
}

// Guesses of the stretch's first numbers, each made as if the ones before were right.
void Forecaster::make_guesses(int64_t count, bool used) {
    const int64_t first = progress_.next.first, channels = call_.program.channels;
    pixel_ = call_.pixels[sample_];
    guessed_ = count;
    for (int64_t number = first; number < first + count; ++number) {
        const int64_t channel = number % channels;
        if (channel == 0) pixel_.restart();
        Guess guess{true, used, newest, 0};
        if (used) guess.source = best_source(number).source;
        if (guess.source == newest && first <= channel) guess.source = above;
        if (guess.source == given) guess.value = call_.request.known[call_.place(sample_, number)];
        if (guess.drawn()) {
            const int64_t settled = (first - 1 - channel) / channels * channels + channel;  // the last of this channel
            const float* parameters = call_.parameters(sample_, guess.source == stale ? number : settled);
            guess.value = sampler_.draw(channel, parameters, pixel_, call_.noise(sample_, number));
            if (guess.value != guess.value) guess.source = above;
        }
        if (guess.source == above) guess.value = number_above(number);
        // Where no mixture component was drawn, later channels choose one that fits the values before them.
        pixel_.known[channel] = !guess.drawn();
        pixel_.values[channel] = guess.value;
        guesses_[number - first] = guess;
        if (!used) continue;
        call_.feed(sample_, number, guess.value);
        ++counts_.guesses;
    }
}

// In the first row, the number to the left.
double Forecaster::number_above(int64_t number) const {
    const int64_t back = number >= row_ ? row_ : call_.program.channels;
    if (number < back) return 0;
    return call_.request.images.at(call_.place(sample_, number - back));
}

// Whether the network sees the same.
bool Forecaster::agree(int64_t number, double one, double other) const {
    return call_.program.inputs[number % call_.program.channels].buffer == kNone ||
           call_.fed(number, one) == call_.fed(number, other);
}

}  // namespace pixelfast
