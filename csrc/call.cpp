#include "call.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace pixelfast {

Call::Call(const CompiledProgram& program, const Request& request)
    : program(program),
      request(request),
      ahead(static_cast<size_t>(request.samples), 0),
      arenas(allocate<float>(request.samples * program.arena_floats)),
      pixels(static_cast<size_t>(request.samples), PixelState::start(program.channels)) {}

const float* Call::parameters(int64_t sample, int64_t number) const {
    const CompiledOutput& output = program.outputs[number % program.channels];
    const int32_t slot = output.table[number / program.channels + ahead[sample]];
    if (slot < 0) return program.zeros.get();
    const float* base = output.slots.constant ? program.constants.get() : arena(sample);
    return base + output.slots.offset + slot * output.slots.stride;
}

int64_t Call::place(int64_t sample, int64_t number) const {
    const int64_t channel = number % program.channels, position = number / program.channels;
    return (sample * program.channels + channel) * program.height * program.width + position;
}

float Call::fed(int64_t number, double value) const {
    if (program.input_table.empty()) return static_cast<float>(program.input_scale * value + program.input_offset);
    const int64_t channel = number % program.channels, level = static_cast<int64_t>(std::nearbyint(value));
    return static_cast<float>(program.input_table[channel * program.head.levels + level]);
}

void Call::feed(int64_t sample, int64_t number, double value) const {
    const CompiledInput& input = program.inputs[number % program.channels];
    if (input.buffer == kNone) return;
    arena(sample)[input.slots.offset + number / program.channels * input.slots.stride] = fed(number, value);
}

double Call::settle(Sampler& sampler, int64_t sample, int64_t number) {
    const int64_t channel = number % program.channels, position = number / program.channels;
    const float* of_number = parameters(sample, number);
    if (!request.parameters.empty()) {
        const int64_t count = program.outputs[channel].slots.channels;
        const int64_t row = sample * program.height * program.width + position;
        std::copy_n(of_number, count, request.parameters[channel] + row * count);
    }
    PixelState& pixel = pixels[sample];
    if (channel == 0) pixel.restart();
    double value;
    if (given(sample, number)) {
        value = request.known[place(sample, number)];
        pixel.known[channel] = 1;
        sampler.skip(channel, of_number, pixel, noise(sample, number));
    } else {
        value = sampler.draw(channel, of_number, pixel, noise(sample, number));
        if (value != value) {
            const int64_t y = position / program.width, x = position % program.width;
            throw ParametersNotFinite("the parameters of channel " + std::to_string(channel) + " at row " +
                                      std::to_string(y) + ", column " + std::to_string(x) + " of sample " +
                                      std::to_string(request.sample_ids[sample]) +
                                      " are not numbers: check the model's weights and condition for NaN or infinity");
        }
    }
    pixel.values[channel] = value;
    request.images.set(place(sample, number), value);
    feed(sample, number, value);
    return value;
}

void Call::fail(std::exception_ptr cause) {
    const std::lock_guard<std::mutex> lock(error_lock_);
    if (!error) error = cause;
    stop.store(true, std::memory_order_release);
}

}  // namespace pixelfast
