#include "engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <stdexcept>

#include "call.h"
#include "forecast.h"
#include "parallel.h"
#include "plan.h"
#include "worker.h"

namespace pixelfast {

namespace {

void check(const CompiledProgram& program, const Request& request) {
    const auto require = [](bool condition, const char* message) {
        if (!condition) throw std::invalid_argument(message);
    };
    require(request.lookahead >= 0, "lookahead must be 1 or more, or 0 for as many as pays");
    require(request.samples >= 0, "samples must not be negative");
    require(request.last_number >= 0 && request.last_number <= program.numbers(), "last_number leaves the image");
    require((request.known == nullptr) == (request.mask == nullptr), "known and mask must be given together");
    require(std::isfinite(request.sampling.temperature) && request.sampling.temperature >= 0,
            "temperature must be 0 or a positive number");
    require(!request.sampling.reference || program.input_table.empty(),
            "mode \"reference\" feeds unrounded values back: it cannot look them up in a table");
    for (const Condition& condition : request.conditions) {
        require(condition.buffer >= 0 && condition.buffer < static_cast<int32_t>(program.buffers.size()) &&
                    !program.buffers[condition.buffer].constant,
                "a condition has no buffer");
    }
    if (request.mask == nullptr) return;
    const bool real = program.head.continuous();
    const double highest = static_cast<double>(program.head.levels - 1);
    for (int64_t i = 0; i < request.samples * program.numbers(); ++i) {
        const double value = request.known[i];
        require(!request.mask[i] || (real ? std::isfinite(value) : value >= 0 && value <= highest),
                "known has values outside the levels");
    }
}

void start_arena(const Call& call, int64_t sample) {
    const CompiledProgram& program = call.program;
    float* arena = call.arena(sample);
    // What is read before it is written shows as NaN, not as a plausible number: of both halves of a float.
    constexpr uint32_t kNaNs = 0x7FC07FC0;
    float nan;
    std::memcpy(&nan, &kNaNs, sizeof(nan));
    std::fill_n(arena, program.arena_floats, nan);
    for (const Condition& condition : call.request.conditions) {
        const Slots& slots = program.buffers[condition.buffer];
        const double* source = condition.data + sample * slots.slots * slots.channels;
        std::vector<float> row(static_cast<size_t>(slots.channels + kLineFloats));
        for (int64_t s = 0; s < slots.slots; ++s) {
            for (int64_t c = 0; c < slots.channels; ++c) row[c] = static_cast<float>(source[s * slots.channels + c]);
            write_slot(*program.isa, slots, s, row.data(), slots.channels, arena);
        }
    }
}

// The end of an image row: errors, interrupts and the caller's function. Threads meet where they have a barrier. True
// where the call is over.
bool end_row(Call& call, SpinBarrier* meeting, int64_t row, bool master) {
    if (meeting != nullptr) meeting->wait();
    if (master && call.request.on_row && !call.stop.load(std::memory_order_acquire)) {
        try {
            call.request.on_row(row);
        } catch (...) {
            call.fail(std::current_exception());
        }
    }
    if (meeting == nullptr) return call.stop.load(std::memory_order_acquire);
    // One answer for all who meet: a thread that is already at the next row may be failing there.
    if (master) call.over = call.stop.load(std::memory_order_acquire);
    meeting->wait();
    return call.over;
}

// One thread: its place in a team, and what it works with.
struct Member {
    Member(const Call& call, Team& team, int64_t first_sample, int index)
        : team(team),
          worker(call.program, team, index),
          sampler(call.program.head, *call.program.isa, call.request.sampling),
          first_sample(first_sample) {}

    Team& team;
    Worker worker;
    Sampler sampler;
    int64_t first_sample;  // of the team
    Forecaster* forecaster = nullptr;  // of the team; its first member's to use
};

struct Crew {
    Crew(Call& call, const std::vector<StepWork>& steps, Sharing sharing, int threads, bool ahead) : everyone(threads) {
        const Request& request = call.request;
        const bool tasks = sharing == Sharing::tasks;
        for (int thread = 0; thread < threads; ++thread) {
            const int64_t first = tasks ? 0 : request.samples * thread / threads;
            const int64_t last = tasks ? request.samples : request.samples * (thread + 1) / threads;
            const bool new_team = thread == 0 || !tasks;
            if (new_team)
                teams.push_back(std::make_unique<Team>(call.program,
                                                       call.arenas.get() + first * call.program.arena_floats,
                                                       last - first, tasks ? threads : 1));
            members.push_back(std::make_unique<Member>(call, *teams.back(), first, tasks ? thread : 0));
            // The rows of several images share their weights already: to add rows would cost what it saves.
            if (last - first != 1 || !ahead) continue;
            if (new_team) {
                teams.back()->ahead = call.ahead[first] = call.program.ahead;
                forecasters.push_back(std::make_unique<Forecaster>(call, steps, *teams.back(),
                                                                   members.back()->sampler, first));
            }
            members.back()->forecaster = forecasters.back().get();
        }
    }

    SpinBarrier everyone;
    std::vector<std::unique_ptr<Team>> teams;
    std::vector<std::unique_ptr<Member>> members;
    std::vector<std::unique_ptr<Forecaster>> forecasters;  // by team, where it samples ahead
};

void work(Call& call, Crew& crew, int thread) {
    const CompiledProgram& program = call.program;
    Member& member = *crew.members[thread];
    const int64_t numbers_of_row = program.channels * program.width;
    const int64_t end = call.request.last_number;
    for (int64_t number = 0; number < end;) {
        const int64_t resume = std::min(member.worker.idle_until(), end);
        if (number < resume) {
            if (!member.worker.idle(resume)) return;
            number = resume;
            continue;
        }
        member.worker.run(number);
        const Worker::Cut images = member.worker.images_to_draw();
        for (int64_t image = images.first; image < images.last; ++image) {
            try {
                call.settle(member.sampler, member.first_sample + image, number);
            } catch (...) {
                call.fail(std::current_exception());
            }
        }
        member.worker.finish_number();
        ++number;
        if (number % numbers_of_row == 0) {
            // With one team, its first member may be working alone: then nobody else comes here.
            const bool shared = member.team.size > 1 && !member.worker.alone();
            const bool wait = shared || (member.team.size == 1 && call.request.wait_for_row);
            if (end_row(call, wait ? &crew.everyone : nullptr, number / numbers_of_row - 1, thread == 0)) return;
        }
        member.worker.pass(number);
    }
}

// The same for one image, ahead of what is known: in turns of some numbers each, which the first member chooses and
// draws.
void work_ahead(Call& call, Crew& crew, int thread) {
    Member& member = *crew.members[thread];
    const Progress& progress = member.team.progress;
    int64_t rows = 0;
    if (member.worker.first()) member.forecaster->resume();
    for (int64_t turn = 0;;) {
        const int64_t resume = member.worker.idle_until();
        if (turn < resume) {
            // While the first member works alone, nobody else looks at how far it is.
            if (!member.worker.idle(resume)) return;
            turn = resume;
            rows = progress.rows;
        }
        if (progress.finished) break;
        member.worker.run(progress.next, turn);
        if (member.worker.first_to_draw()) member.forecaster->settle();
        member.worker.finish_number();
        ++turn;
        if (turn < member.worker.idle_until()) continue;
        if (progress.rows > rows) {
            rows = progress.rows;
            const bool shared = member.team.size > 1 && !member.worker.alone();
            const bool wait = shared || (member.team.size == 1 && call.request.wait_for_row);
            if (end_row(call, wait ? &crew.everyone : nullptr, rows - 1, thread == 0)) return;
            if (member.worker.first()) member.forecaster->resume();
        }
        member.worker.pass(turn);
    }
}

void sample(Call& call, Crew& crew, int thread) {
    Member& member = *crew.members[thread];
    const Worker::Cut own = member.worker.images_to_draw();
    for (int64_t image = own.first; image < own.last; ++image) start_arena(call, member.first_sample + image);
    member.worker.finish_number();
    if (member.forecaster != nullptr) {
        work_ahead(call, crew, thread);
    } else {
        work(call, crew, thread);
    }
    member.worker.leave();
}

// Evaluations of the network saved for sampling ahead to be called useful, and the share of given numbers that makes it
// so in any case.
constexpr double kLeastSaved = 0.03;
constexpr double kManyGiven = 0.1;

// Calls without, after one that was of no use.
constexpr int kFirstPause = 7;
constexpr int kLongestPause = 63;

// Whether it depends on the network how many guesses are right.
bool usual(const CompiledProgram& program, const Request& request) {
    if (request.lookahead > 0) return false;
    if (request.mask == nullptr) return true;
    const int64_t numbers = request.samples * program.numbers();
    const int64_t given = std::count(request.mask, request.mask + numbers, true);
    return static_cast<double>(given) < kManyGiven * static_cast<double>(numbers);
}

void count(const Crew& crew, const CompiledProgram& program, const Request& request,
           const std::vector<StepWork>& steps, Patience& patience, Outcome& outcome) {
    const int64_t of_image = std::count_if(steps.begin(), steps.begin() + request.last_number,
                                           [](const StepWork& step) { return !step.empty(); });
    outcome.plain_evaluations = of_image * request.samples;
    outcome.forecasts.evaluations = outcome.plain_evaluations;
    if (crew.forecasters.empty()) return;
    int64_t saved = 0;
    for (const std::unique_ptr<Forecaster>& forecaster : crew.forecasters) {
        const Forecasts& counts = forecaster->counts();
        outcome.forecasts.guesses += counts.guesses;
        outcome.forecasts.accepted += counts.accepted;
        saved += of_image - counts.evaluations;
    }
    outcome.forecasts.evaluations -= saved;
    const int64_t plain = of_image * static_cast<int64_t>(crew.forecasters.size());
    if (usual(program, request)) patience.note(static_cast<double>(saved) > kLeastSaved * static_cast<double>(plain));
}

bool chosen_ahead(const CompiledProgram& program, const Request& request, Sharing sharing, int threads,
                  Patience& patience) {
    // Only images that have a team of their own are sampled ahead.
    if (program.lookahead == 1 || request.lookahead == 1) return false;
    if (sharing == Sharing::tasks ? request.samples > 1 : request.samples >= 2 * threads) return false;
    return !usual(program, request) || patience.try_ahead(request.sampling);
}

}  // namespace

bool Patience::try_ahead(const Sampling& sampling) {
    const std::lock_guard<std::mutex> guard(lock_);
    if (sampling.temperature != temperature_ || sampling.reference != reference_) {
        temperature_ = sampling.temperature;
        reference_ = sampling.reference;
        pause_ = left_ = 0;
    }
    if (left_ == 0) return true;
    --left_;
    return false;
}

void Patience::note(bool useful) {
    const std::lock_guard<std::mutex> guard(lock_);
    pause_ = useful ? 0 : std::min(2 * pause_ + kFirstPause, kLongestPause);
    left_ = pause_;
}

Outcome Engine::run(const Request& request) const {
    check(program_, request);
    Outcome outcome;
    const auto start = std::chrono::steady_clock::now();
    if (request.samples > 0) {
        Call call(program_, request);
        const Plan planned = plan(program_, request.samples, request.threads, request.sharing);
        std::unique_ptr<Crew> crew;
        Profile profile(static_cast<int64_t>(program_.kernels.size()));
        const auto prepare = [&](int threads) {
            outcome.threads = threads;
            outcome.sharing = threads == 1 ? Sharing::images : planned.sharing;
            try {
                const bool ahead = chosen_ahead(program_, request, outcome.sharing, threads, patience_);
                crew = std::make_unique<Crew>(call, steps_, outcome.sharing, threads, ahead);
                if (request.profile) crew->members[0]->worker.measure(&profile);
            } catch (...) {
                call.fail(std::current_exception());
            }
        };
        parallel(planned.threads, prepare, [&](int thread) {
            if (crew) sample(call, *crew, thread);
        });
        if (call.error) std::rethrow_exception(call.error);
        count(*crew, program_, request, steps_, patience_, outcome);
        if (request.profile) outcome.profile = profile.entries();
    }
    outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return outcome;
}

}  // namespace pixelfast
