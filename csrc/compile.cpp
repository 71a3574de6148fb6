// Puts a compiled program together: its image, kernels, tasks and ends. What refuses, places and packs is in
// compile_checks.h, compile_layout.h, compile_weights.h and compile_kernel.h.
#include <map>
#include <string>
#include <utility>

#include "compile_checks.h"
#include "compile_kernel.h"
#include "compile_layout.h"
#include "compile_weights.h"
#include "compiled.h"

namespace pixelfast {

namespace {

constexpr int64_t kMostNumbers = int64_t{1} << 32;

class Compiler {
public:
    Compiler(const ProgramSpec& spec, const KernelTable& isa) : spec_(spec) { out_.isa = &isa; }

    CompiledProgram run() {
        require(spec_.channels > 0 && spec_.height > 0 && spec_.width > 0, "the image is empty");
        require(spec_.channels <= kMostNumbers && spec_.height <= kMostNumbers / spec_.channels &&
                    spec_.width <= kMostNumbers / (spec_.channels * spec_.height),
                "the image has more numbers than the noise can count");
        out_.channels = spec_.channels;
        out_.height = spec_.height;
        out_.width = spec_.width;
        require(spec_.lookahead >= 1 && spec_.lookahead <= spec_.channels * spec_.width, "steps of ", spec_.lookahead,
                " numbers cannot be merged within an image row");
        out_.lookahead = spec_.lookahead;
        const Layout layout(spec_, out_);
        WeightPacker weights(out_);
        out_.kernels.resize(spec_.kernels.size());
        for (size_t k = 0; k < spec_.kernels.size(); ++k) {
            KernelCompiler compiler(out_, layout, weights, "kernel " + std::to_string(k) + ": ");
            compiler.compile_kernel(spec_.kernels[k], out_.kernels[k]);
        }
        compile_tasks();
        compile_ends(layout);
        return std::move(out_);
    }

private:
    // Sorts each task's sites by pattern and finds where each step's tasks begin.
    void compile_tasks() {
        const int64_t numbers = out_.numbers();
        out_.first_task.assign(static_cast<size_t>(numbers + 1), static_cast<int64_t>(spec_.tasks.size()));
        int64_t step = -1;
        std::vector<int32_t> order;
        for (size_t i = 0; i < spec_.tasks.size(); ++i) {
            const TaskSpec& task = spec_.tasks[i];
            const std::string name = "task " + std::to_string(i);
            require(task.step >= step && task.step >= 0 && task.step < numbers, name, " is out of order");
            for (; step < task.step; ++step) out_.first_task[step + 1] = static_cast<int64_t>(i);
            require(in_range(task.kernel, spec_.kernels.size()), name, " has no kernel");
            // What is merged is taken kernel by kernel.
            const bool same_step = i > 0 && spec_.tasks[i - 1].step == task.step;
            require(out_.lookahead == 1 || !same_step || task.kernel > spec_.tasks[i - 1].kernel, name,
                    " does not follow the order of kernels");
            require(task.first >= 0 && task.count > 0 &&
                        int64_t{task.first} + task.count <= static_cast<int64_t>(spec_.sites.size()),
                    name, " leaves the list of sites");
            const KernelSpec& kernel = spec_.kernels[task.kernel];
            order.assign(spec_.sites.begin() + task.first, spec_.sites.begin() + task.first + task.count);
            for (const int32_t site : order)
                require(site >= 0 && site < kernel.sites, name, " leaves its kernel's sites");
            append_task(task.kernel, kernel, order);
        }
    }

    void append_task(int32_t index, const KernelSpec& kernel, const std::vector<int32_t>& order) {
        const auto pattern = [&](int32_t site) {
            return kernel.has_contraction ? kernel.contraction.pattern_of_site[site] : 0;
        };
        std::map<int32_t, std::vector<int32_t>> sites;
        for (const int32_t site : order) sites[pattern(site)].push_back(site);
        Task task{index, static_cast<int32_t>(out_.runs.size()), static_cast<int32_t>(sites.size()),
                  static_cast<int32_t>(order.size()), 0.0, 0.0};
        for (const auto& [own, members] : sites) {
            out_.runs.push_back({own, static_cast<int32_t>(out_.sites.size()), static_cast<int32_t>(members.size())});
            out_.sites.insert(out_.sites.end(), members.begin(), members.end());
            if (kernel.has_attention) {
                const AttentionSpec& attention = kernel.attention;
                const double channels = static_cast<double>(attention.heads * (attention.keys.width + attention.values.width));
                for (const int32_t site : members)
                    task.work += channels * static_cast<double>(attention.first[site + 1] - attention.first[site]);
            }
            if (!kernel.has_contraction) continue;
            const double weights = static_cast<double>(out_.kernels[index].contraction.patterns[own].channels) *
                                   static_cast<double>(kernel.contraction.columns);
            task.work += weights * static_cast<double>(members.size());
            task.weight_bytes += weights * static_cast<double>(sizeof(float)) /
                                 static_cast<double>(step_of(kernel.contraction.precision));
        }
        out_.tasks.push_back(task);
    }

    void compile_ends(const Layout& layout) {
        const Head& head = spec_.head;
        const size_t channels = static_cast<size_t>(spec_.channels);
        const int64_t pixels = spec_.height * spec_.width;
        require(head.channels == spec_.channels && (head.continuous() ? head.levels == 0 : head.levels >= 2),
                "the likelihood is for other images");
        require(head.kind != HeadKind::mixture || (head.mixtures > 0 && (channels == 1 || channels == 3)),
                "a mixture is for 1 or 3 channels");
        require(spec_.input_buffers.size() == channels && spec_.outputs.size() == channels,
                "inputs and outputs must be given for every channel");
        require(spec_.input_table.empty() ||
                    spec_.input_table.size() == channels * static_cast<size_t>(head.levels),
                "the table of input values must be (channels, levels)");
        for (const int32_t index : spec_.input_buffers) {
            CompiledInput input;
            input.buffer = index;
            if (index != kNone) {
                input.slots = layout.buffer("", index);
                require(!input.slots.constant && input.slots.slots >= pixels, "an input buffer is too small");
                require(input.slots.narrow_offset == kNone && input.slots.code_offset == kNone,
                        "a contraction in low precision reads the input");
            }
            out_.inputs.push_back(input);
        }
        for (const OutputSpec& output : spec_.outputs) {
            const Slots& slots = layout.buffer("", output.buffer);
            require(slots.channels == head.parameters(), "an output has ", slots.channels,
                    " channels, not the likelihood's ", head.parameters());
            out_.outputs.push_back({slots, layout.table("", output.table, pixels, slots)});
        }
        out_.input_scale = spec_.input_scale;
        out_.input_offset = spec_.input_offset;
        out_.input_table = spec_.input_table;
        out_.head = head;
    }

    const ProgramSpec& spec_;
    CompiledProgram out_;
};

}  // namespace

CompiledProgram compile(const ProgramSpec& spec, const KernelTable& isa) { return Compiler(spec, isa).run(); }

}  // namespace pixelfast
