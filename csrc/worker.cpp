#include "worker.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>
#include <type_traits>

namespace pixelfast {

namespace {

// So many long waits within so many numbers make the first member work alone, at first for kFirstAlone numbers, then
// longer each time until sharing goes well again.
constexpr int kLongWaits = 2;
constexpr int64_t kWindow = 64;
constexpr int64_t kFirstAlone = 128;
constexpr int64_t kLongestAlone = 4096;

constexpr int64_t kLeft = std::numeric_limits<int64_t>::max();

}  // namespace

Team::Team(const CompiledProgram& program, float* arenas, int64_t images, int size)
    : arenas(arenas),
      arena_floats(program.arena_floats),
      images(images),
      size(size),
      barrier(size),
      results(allocate<float>(kChunkRows * program.result_floats + 2 * kLineFloats)) {
    std::fill_n(results.get(), kChunkRows * program.result_floats + 2 * kLineFloats, 0.0f);
}

Worker::Worker(const CompiledProgram& program, Team& team, int member)
    : program_(program),
      team_(team),
      member_(member),
      alone_for_(kFirstAlone),
      site_(static_cast<size_t>(kChunkRows)),
      arena_(static_cast<size_t>(kChunkRows)),
      sources_(static_cast<size_t>(program.max_terms * kChunkRows)),
      narrow_sources_(sources_.size()),
      code_sources_(sources_.size()),
      keys_(static_cast<size_t>(program.max_pairs + kLineFloats)),
      values_(keys_.size()),
      scores_(allocate<float>(program.attention_floats)),
      row_(allocate<float>(program.row_floats)),
      registers_(static_cast<size_t>(program.max_registers)) {
    std::fill_n(row_.get(), program.row_floats, 0.0f);
    spans_.reserve(static_cast<size_t>(kChunkRows));
}

void Worker::join() {
    if (team_.size == 1) return;
    if (member_ == 0) announce();
    if (profile_ != nullptr) profile_->begin_wait();
    if (team_.barrier.wait()) team_.long_waits.fetch_add(1, std::memory_order_relaxed);
    if (profile_ != nullptr) profile_->end_wait();
    alone_until_ = team_.alone_until[joins_ % 2];
    ++joins_;
    unseen_ = false;
}

void Worker::announce() {
    if (team_.long_waits.load(std::memory_order_relaxed) >= kLongWaits) {
        team_.long_waits.store(0, std::memory_order_relaxed);
        alone_until_ = number_ + alone_for_;
        window_end_ = alone_until_ + kWindow;
        alone_for_ = std::min(2 * alone_for_, kLongestAlone);
    }
    team_.alone_until[joins_ % 2] = alone_until_;
}

bool Worker::idle(int64_t number) {
    // The first member will have worked alone, and will wait for all to see that before its next shared task.
    unseen_ = true;
    int64_t passed;
    while ((passed = team_.passed.load(std::memory_order_acquire)) < number)
        std::this_thread::sleep_for(std::chrono::microseconds(50));
    return passed != kLeft;
}

void Worker::leave() {
    if (member_ == 0) team_.passed.store(kLeft, std::memory_order_release);
}

void Worker::pass(int64_t number) {
    if (member_ == 0 && alone()) team_.passed.store(number, std::memory_order_release);
}

void Worker::run(int64_t number) {
    number_ = number;
    run_step(number);
}

void Worker::run_step(int64_t number) {
    for (int64_t t = program_.first_task[number]; t < program_.first_task[number + 1]; ++t) {
        const Task& task = program_.tasks[t];
        const double images = static_cast<double>(team_.images);
        if (!begin(program_.kernels[task.kernel], task.work * images, task.sites * team_.images)) continue;
        for (int32_t r = task.first_run; r < task.first_run + task.runs; ++r)
            for (int64_t image = 0; image < team_.images; ++image) add(program_.runs[r], image);
        end();
    }
}

// Kernels are in the order of the data flow, within a step and so across steps: each runs once, at its sites of all
// steps. What a later step overwrites is no longer needed: see Program.lookahead in pixelfast/program.py.
void Worker::run(const Stretch& stretch, int64_t turn) {
    number_ = turn;
    if (stretch.count == 1) {
        run_step(stretch.first);
        return;
    }
    constexpr int32_t kNoMore = std::numeric_limits<int32_t>::max();
    int32_t next = kNoMore;
    cursors_.clear();
    for (int64_t number = stretch.first; number < stretch.first + stretch.count; ++number) {
        const Task* tasks = program_.tasks.data();
        const Cursor cursor{tasks + program_.first_task[number], tasks + program_.first_task[number + 1]};
        if (cursor.task == cursor.end) continue;
        cursors_.push_back(cursor);
        next = std::min(next, cursor.task->kernel);
    }
    while (next != kNoMore) {
        const int32_t kernel = next;
        next = kNoMore;
        runs_.clear();
        double work = 0;
        int64_t sites = 0;
        bool sorted = true;
        for (Cursor& cursor : cursors_) {
            if (cursor.task == cursor.end) continue;
            if (cursor.task->kernel == kernel) {
                const Task& task = *cursor.task++;
                for (int32_t r = task.first_run; r < task.first_run + task.runs; ++r) {
                    const Run* run = &program_.runs[r];
                    sorted = sorted && (runs_.empty() || runs_.back()->pattern <= run->pattern);
                    runs_.push_back(run);
                }
                work += task.work;
                sites += task.sites;
                if (cursor.task == cursor.end) continue;
            }
            next = std::min(next, cursor.task->kernel);
        }
        if (!begin(program_.kernels[kernel], work, sites)) continue;
        if (!sorted)
            std::sort(runs_.begin(), runs_.end(), [](const Run* a, const Run* b) { return a->pattern < b->pattern; });
        for (const Run* run : runs_) add(*run, 0);
        end();
    }
}

Worker::Cut Worker::images_to_draw() {
    if (profile_ != nullptr) profile_->begin(profile_->drawing());
    if (!alone()) join();
    if (!alone()) return share(team_.images);
    unseen_ = true;
    return member_ == 0 ? Cut{0, team_.images} : Cut{0, 0};
}

bool Worker::first_to_draw() {
    if (profile_ != nullptr) profile_->begin(profile_->drawing());
    if (!alone()) join();
    unseen_ = unseen_ || alone();
    return first();
}

void Worker::finish_number() {
    if (!alone()) {
        if (member_ == 0 && number_ >= window_end_) {
            if (team_.long_waits.exchange(0, std::memory_order_relaxed) == 0)
                alone_for_ = std::max(alone_for_ / 2, kFirstAlone);
            window_end_ = number_ + kWindow;
        }
        join();
    }
    if (profile_ != nullptr) profile_->end(team_.images);
}

Worker::Cut Worker::share(int64_t total) const {
    return {total * member_ / team_.size, total * (member_ + 1) / team_.size};
}

bool Worker::begin(const CompiledKernel& kernel, double work, int64_t rows) {
    if (profile_ != nullptr) profile_->begin(&kernel - program_.kernels.data());
    together_ = !alone() && worth_sharing(work, rows);
    task_rows_ = rows;
    if (together_ && unseen_) join();
    if (!together_ && member_ != 0) {
        unseen_ = true;
        return false;
    }
    unseen_ = unseen_ || (!together_ && team_.size > 1);
    kernel_ = &kernel;
    place_registers(kernel);
    rows_ = 0;
    spans_.clear();
    return true;
}

void Worker::add(const Run& run, int64_t image) {
    const int32_t* sites = program_.sites.data() + run.first;
    float* arena = team_.arena(image);
    for (int32_t done = 0; done < run.count;) {
        if (rows_ == kChunkRows) {
            run_chunk(*kernel_, together_);
            rows_ = 0;
            spans_.clear();
        }
        const int64_t count = std::min<int64_t>(run.count - done, kChunkRows - rows_);
        if (spans_.empty() || spans_.back().pattern != run.pattern) spans_.push_back({run.pattern, rows_, 0});
        spans_.back().count += count;
        for (int64_t i = 0; i < count; ++i) site_[rows_ + i] = sites[done + i] + team_.ahead;
        std::fill_n(arena_.begin() + rows_, count, arena);
        rows_ += count;
        done += static_cast<int32_t>(count);
    }
}

void Worker::end() {
    run_chunk(*kernel_, together_);
    if (profile_ != nullptr) profile_->end(task_rows_);
}

void Worker::run_chunk(const CompiledKernel& kernel, bool together) {
    const Cut all{0, rows_};
    const Cut own = together ? share(rows_) : all;
    const CompiledContraction& contraction = kernel.contraction;
    if (contraction.result != kNone) {
        const std::vector<Panel>& panels = contraction.panels;
        if (together && panels.size() >= static_cast<size_t>(team_.size)) {
            // By columns: every member reads its own part of the weights.
            const Cut columns = share(static_cast<int64_t>(contraction.bias.size()));
            const auto first_from = [&](int64_t column) {
                const auto found = std::lower_bound(panels.begin(), panels.end(), column,
                                                    [](const Panel& p, int64_t c) { return p.column < c; });
                return static_cast<size_t>(found - panels.begin());
            };
            contract(contraction, all, first_from(columns.first), first_from(columns.last));
            join();
        } else {
            contract(contraction, own, 0, panels.size());
        }
    }
    for (int64_t row = own.first; row < own.last; ++row) finish_row(kernel, row);
    if (together) join();
}

void Worker::contract(const CompiledContraction& contraction, Cut rows, size_t first_panel, size_t last_panel) {
    if (rows.first >= rows.last || first_panel >= last_panel) return;
    switch (contraction.precision) {
        case Precision::bfloat16: return contract(contraction, rows, first_panel, last_panel, narrow_sources_);
        case Precision::int8: return contract(contraction, rows, first_panel, last_panel, code_sources_);
        case Precision::float32: return contract(contraction, rows, first_panel, last_panel, sources_);
    }
}

template <class Number>
void Worker::contract(const CompiledContraction& contraction, Cut rows, size_t first_panel, size_t last_panel,
                      std::vector<const Number*>& sources) {
    const KernelTable& isa = *program_.isa;
    for (const Span& span : spans_) {
        const int64_t first = std::max(span.first, rows.first), last = std::min(span.first + span.count, rows.last);
        for (const int32_t t : contraction.patterns[span.pattern].terms) {
            const CompiledTerm& term = contraction.terms[t];
            const Number** of_term = sources.data() + t * kChunkRows;
            for (int64_t row = first; row < last; ++row) of_term[row] = slot<Number>(term.slots, term.table, row);
        }
    }
    Tile<Number> tile;
    tile.source_stride = kChunkRows;
    tile.destination_stride = contraction.row_stride;
    for (size_t p = first_panel; p < last_panel; ++p) {
        const Panel& panel = contraction.panels[p];
        tile.panel = reinterpret_cast<const Number*>(panel.weights);
        tile.scales = contraction.scales.data() + panel.column;
        tile.bias = contraction.bias.data() + panel.column;
        for (const Span& span : spans_) {
            const Pattern& pattern = contraction.patterns[span.pattern];
            const int64_t first = std::max(span.first, rows.first), last = std::min(span.first + span.count, rows.last);
            if (first >= last) continue;
            tile.segments = pattern.segments.data();
            tile.segment_count = static_cast<int64_t>(pattern.segments.size());
            // Tiles of nearly equal height: 9 rows are better done as 5 and 4 than as 8 and 1.
            const int64_t count = last - first;
            const int64_t tiles = (count + isa.tile_rows - 1) / isa.tile_rows;
            for (int64_t i = 0; i < tiles; ++i) {
                const int64_t row = first + count * i / tiles;
                const int64_t height = first + count * (i + 1) / tiles - row;
                tile.sources = sources.data() + row;
                tile.destination = team_.results.get() + row * contraction.row_stride + panel.column;
                if constexpr (std::is_same_v<Number, Narrow>) {
                    isa.narrow_tiles[height - 1][panel.vectors - 1](tile);
                } else if constexpr (std::is_same_v<Number, Code>) {
                    isa.code_tiles[height - 1][panel.vectors - 1](tile);
                } else {
                    isa.tiles[height - 1][panel.vectors - 1](tile);
                }
            }
        }
    }
}

void Worker::place_registers(const CompiledKernel& kernel) {
    for (size_t r = 0; r < kernel.registers.size(); ++r)
        registers_[r] = kernel.registers[r] < 0 ? nullptr : row_.get() + kernel.registers[r];
}

template <class Number>
const Number* Worker::slot(const Slots& slots, const int32_t* table, int64_t row) const {
    return slot<Number>(slots, table == nullptr ? 0 : table[site_[row]], arena_[row]);
}

template <class Number>
const Number* Worker::slot(const Slots& slots, int32_t index, const float* arena) const {
    const float* base = index < 0 ? program_.zeros.get() : slots.constant ? program_.constants.get() : arena;
    if constexpr (std::is_same_v<Number, Narrow>) {
        return narrow_memory(base) + (index < 0 ? 0 : slots.narrow_offset + index * slots.narrow_stride);
    } else if constexpr (std::is_same_v<Number, Code>) {
        return code_memory(base) + (index < 0 ? 0 : slots.code_offset + index * slots.code_stride);
    } else {
        return base + (index < 0 ? 0 : slots.offset + index * slots.stride);
    }
}

void Worker::attend(const CompiledAttention& attention, int64_t row) {
    const int32_t site = site_[row] - team_.ahead;
    const int32_t first = attention.first[site], pairs = attention.first[site + 1] - first;
    const auto find = [&](const CompiledAttended& part, std::vector<const float*>& found) {
        const int32_t* table = part.table + team_.ahead + first;
        if (part.inside) {
            const float* base = slot<float>(part.slots, 0, arena_[row]);
            for (int32_t p = 0; p < pairs; ++p) found[p] = base + table[p] * part.slots.stride;
        } else {
            for (int32_t p = 0; p < pairs; ++p) found[p] = slot<float>(part.slots, table[p], arena_[row]);
        }
    };
    find(attention.keys, keys_);
    find(attention.values, values_);
    if (pairs > 0) std::fill_n(keys_.begin() + pairs, kLineFloats, keys_[pairs - 1]);
    AttentionRow task;
    task.pairs = pairs;
    task.query = slot<float>(attention.query.slots, attention.query.table, row);
    task.keys = keys_.data();
    task.values = values_.data();
    task.bias = attention.bias.empty() ? nullptr : attention.bias.data() + first;
    task.bias_stride = attention.bias_stride;
    task.heads = attention.heads;
    task.key_width = attention.keys.width;
    task.value_width = attention.values.width;
    task.scale = attention.scale;
    task.epsilon = attention.epsilon;
    task.scratch = scores_.get();
    task.out = registers_[attention.result];
    program_.isa->attend(task);
}

void Worker::finish_row(const CompiledKernel& kernel, int64_t row) {
    if (kernel.attention.result != kNone) attend(kernel.attention, row);
    if (kernel.contraction.result != kNone)
        registers_[kernel.contraction.result] = team_.results.get() + row * kernel.contraction.row_stride;
    for (const CompiledLoad& load : kernel.loads) {
        const float* source = slot<float>(load.slots, load.table, row);
        if (!load.copy) {
            // Never written: compile gives a written register memory of its own.
            registers_[load.result] = const_cast<float*>(source);
        } else if (load.channels.empty()) {
            std::memcpy(registers_[load.result], source, static_cast<size_t>(load.count) * sizeof(float));
        } else {
            float* destination = registers_[load.result];
            for (size_t i = 0; i < load.channels.size(); ++i) destination[i] = source[load.channels[i]];
        }
    }
    for (const CompiledInstruction& instruction : kernel.instructions) execute(instruction, kernel);
    for (const CompiledStore& store : kernel.stores) {
        const int32_t index = store.table[site_[row]];
        if (index < 0) continue;
        write_slot(*program_.isa, store.slots, index, registers_[store.source] + store.start, store.count,
                   arena_[row]);
    }
}

void Worker::execute(const CompiledInstruction& instruction, const CompiledKernel& kernel) {
    float* destination = registers_[instruction.result] + instruction.start;
    if (instruction.reduction != Reduction::none) return reduce(instruction, destination);
    const float* sources[kMaxArguments];
    int64_t steps[kMaxArguments];
    for (int a = 0; a < instruction.arguments; ++a) {
        const Argument& argument = instruction.argument[a];
        if (argument.mode == ArgumentMode::number) {
            sources[a] = kernel.numbers.get() + argument.offset;
            steps[a] = 0;
            continue;
        }
        const float* source = registers_[argument.source] + argument.start;
        steps[a] = 1;
        if (argument.mode != ArgumentMode::direct) {
            float* temporary = row_.get() + argument.offset;
            if (argument.mode == ArgumentMode::spread) {
                std::fill_n(temporary, kLineFloats, *source);
                steps[a] = 0;
            } else {
                for (int64_t i = 0; i < instruction.width; ++i) temporary[i] = source[i * argument.stride];
            }
            source = temporary;
        }
        sources[a] = source;
    }
    instruction.function(destination, sources, steps, instruction.width, instruction.exact);
}

// Sums and products in double precision: long chains keep their digits.
void Worker::reduce(const CompiledInstruction& instruction, float* destination) const {
    const Argument& argument = instruction.argument[0];
    for (int64_t i = 0; i < instruction.width; ++i) {
        const float* source = registers_[argument.source] + argument.start + i * instruction.outer;
        double value = source[0];
        for (int64_t j = 1; j < instruction.count; ++j) {
            const double element = source[j * instruction.inner];
            switch (instruction.reduction) {
                case Reduction::sum: value += element; break;
                case Reduction::prod: value *= element; break;
                // Comparisons that let NaN through, as torch does.
                case Reduction::amax: value = element > value || element != element ? element : value; break;
                case Reduction::amin: value = element < value || element != element ? element : value; break;
                case Reduction::none: break;
            }
        }
        destination[i] = static_cast<float>(value);
    }
}

}  // namespace pixelfast
