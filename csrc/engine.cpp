#include "engine.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>

#include "worker.h"

namespace pixelfast {

namespace {

// A thread that is given less, in multiply-adds, costs more to start and to wait for than it saves; nor is a task ever
// less than so much.
constexpr double kWorkPerThread = 5e6;
constexpr double kWorkPerTask = 2000;

// With so few images for each thread, all threads had better share every task, if tasks are as large as this on average
// for one image: such a product is bound by the reading of its weights, which they then split.
constexpr int64_t kImagesPerThread = 4;
constexpr double kWorkOfLargeTasks = 1e5;

struct Plan {
    int threads;
    Sharing sharing;
};

Plan plan(const CompiledProgram& program, const Request& request) {
    double work = 0;
    for (const Task& task : program.tasks) work += task.work + kWorkPerTask;
    const double worthwhile = work * static_cast<double>(request.samples) / kWorkPerThread;
    int threads = static_cast<int>(std::clamp(worthwhile, 1.0, static_cast<double>(omp_get_max_threads())));
    if (request.threads > 0) threads = request.threads;
    if (request.sharing != Sharing::automatic) return {threads, request.sharing};
    const bool large = work > kWorkOfLargeTasks * static_cast<double>(program.tasks.size());
    if (large && request.samples < kImagesPerThread * threads) return {threads, Sharing::tasks};
    return {static_cast<int>(std::min<int64_t>(threads, request.samples)), Sharing::images};
}

// Everything the threads of a call share.
struct Call {
    const CompiledProgram& program;
    const Request& request;
    Storage<float> arenas;
    std::vector<PixelState> pixels;  // by sample
    std::atomic<bool> stop{false};
    std::exception_ptr error;
    std::mutex error_lock;

    // The first error of any thread ends the call, at the end of the image row.
    void fail(std::exception_ptr cause) {
        const std::lock_guard<std::mutex> lock(error_lock);
        if (!error) error = cause;
        stop.store(true, std::memory_order_release);
    }
};

void check(const CompiledProgram& program, const Request& request) {
    const auto require = [](bool condition, const char* message) {
        if (!condition) throw std::invalid_argument(message);
    };
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
    for (int64_t i = 0; i < request.samples * program.numbers(); ++i)
        require(!request.mask[i] || (request.known[i] >= 0 && request.known[i] < program.head.levels),
                "known has values outside the levels");
}

void start_arena(const Call& call, int64_t sample) {
    const CompiledProgram& program = call.program;
    float* arena = call.arenas.get() + sample * program.arena_floats;
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

// Draws number `number` of one image and writes it where the network reads it.
void settle_number(Call& call, Sampler& sampler, int64_t sample, int64_t number) {
    const CompiledProgram& program = call.program;
    const Request& request = call.request;
    const int64_t channel = number % program.channels, position = number / program.channels;
    const int64_t positions = program.height * program.width;
    const int64_t place = (sample * program.channels + channel) * positions + position;
    float* arena = call.arenas.get() + sample * program.arena_floats;

    const CompiledOutput& output = program.outputs[channel];
    const int32_t slot = output.table[position];
    const float* base = output.slots.constant ? program.constants.get() : arena;
    const float* parameters = slot < 0 ? program.zeros.get() : base + output.slots.offset + slot * output.slots.stride;
    if (!request.parameters.empty()) {
        const int64_t count = output.slots.channels;
        std::copy_n(parameters, count, request.parameters[channel] + (sample * positions + position) * count);
    }

    PixelState& pixel = call.pixels[sample];
    if (channel == 0) std::fill(pixel.known.begin(), pixel.known.end(), uint8_t{0});
    const NoiseKey key{request.seed, request.sample_ids[sample], static_cast<uint32_t>(number), request.stream};
    double value;
    if (request.mask != nullptr && request.mask[place]) {
        value = static_cast<double>(request.known[place]);
        pixel.known[channel] = 1;
        sampler.skip(channel, parameters, pixel, key);
    } else {
        value = sampler.draw(channel, parameters, pixel, key);
        if (value != value) {
            const int64_t y = position / program.width, x = position % program.width;
            throw ParametersNotFinite("the parameters of channel " + std::to_string(channel) + " at row " +
                                    std::to_string(y) + ", column " + std::to_string(x) + " of sample " +
                                    std::to_string(request.sample_ids[sample]) +
                                    " are not numbers: check the model's weights and condition for NaN or infinity");
        }
    }
    pixel.values[channel] = value;
    const int64_t level = static_cast<int64_t>(std::nearbyint(value));
    request.images[place] = level;
    const CompiledInput& input = program.inputs[channel];
    if (input.buffer == kNone) return;
    const double fed = program.input_table.empty() ? program.input_scale * value + program.input_offset
                                                   : program.input_table[channel * program.head.levels + level];
    arena[input.slots.offset + position * input.slots.stride] = static_cast<float>(fed);
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
    if (meeting != nullptr) meeting->wait();
    return call.stop.load(std::memory_order_acquire);
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
};

struct Crew {
    Crew(const Call& call, Sharing sharing, int threads) : everyone(threads) {
        const Request& request = call.request;
        const bool tasks = sharing == Sharing::tasks;
        for (int thread = 0; thread < threads; ++thread) {
            const int64_t first = tasks ? 0 : request.samples * thread / threads;
            const int64_t last = tasks ? request.samples : request.samples * (thread + 1) / threads;
            if (thread == 0 || !tasks)
                teams.push_back(std::make_unique<Team>(call.program,
                                                       call.arenas.get() + first * call.program.arena_floats,
                                                       last - first, tasks ? threads : 1));
            members.push_back(std::make_unique<Member>(call, *teams.back(), first, tasks ? thread : 0));
        }
    }

    SpinBarrier everyone;
    std::vector<std::unique_ptr<Team>> teams;
    std::vector<std::unique_ptr<Member>> members;
};

void work(Call& call, Crew& crew, int thread) {
    const CompiledProgram& program = call.program;
    Member& member = *crew.members[thread];
    const Worker::Cut own = member.worker.images_to_draw();
    for (int64_t image = own.first; image < own.last; ++image) start_arena(call, member.first_sample + image);
    member.worker.finish_number();
    const int64_t numbers_of_row = program.channels * program.width;
    const int64_t end = call.request.last_number;
    for (int64_t number = 0; number < end;) {
        const int64_t resume = std::min(member.worker.idle_until(), end);
        if (number < resume) {
            if (!member.worker.idle(resume, call.stop)) return;
            number = resume;
            continue;
        }
        member.worker.run(number);
        const Worker::Cut images = member.worker.images_to_draw();
        for (int64_t image = images.first; image < images.last; ++image) {
            try {
                settle_number(call, member.sampler, member.first_sample + image, number);
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

}  // namespace

Outcome Engine::run(const Request& request) const {
    check(program_, request);
    Outcome outcome;
    const auto start = std::chrono::steady_clock::now();
    if (request.samples > 0) {
        Call call{program_, request, allocate<float>(request.samples * program_.arena_floats), {}, {}, {}, {}};
        const size_t channels = static_cast<size_t>(program_.channels);
        call.pixels.assign(static_cast<size_t>(request.samples),
                           {std::vector<double>(channels, 0.0), std::vector<uint8_t>(channels, 0), 0});
        const Plan planned = plan(program_, request);
        std::unique_ptr<Crew> crew;
#pragma omp parallel num_threads(planned.threads)
        {
            // OpenMP may give fewer threads than were asked for.
#pragma omp single
            {
                outcome.threads = omp_get_num_threads();
                outcome.sharing = outcome.threads == 1 ? Sharing::images : planned.sharing;
                try {
                    crew = std::make_unique<Crew>(call, outcome.sharing, outcome.threads);
                } catch (...) {
                    call.fail(std::current_exception());
                }
            }
            if (crew) work(call, *crew, omp_get_thread_num());
        }
        if (call.error) std::rethrow_exception(call.error);
    }
    outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return outcome;
}

}  // namespace pixelfast
