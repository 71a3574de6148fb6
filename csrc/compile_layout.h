// Where the tables and buffers of a program lie in memory, and every index into them, checked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compiled.h"

namespace pixelfast {

// Slots of a buffer from channel `start`; codes are read from their scale on.
inline Slots from_channel(Slots slots, int64_t start) {
    if (slots.offset != kNone) slots.offset += start;
    if (slots.narrow_offset != kNone) slots.narrow_offset += start;
    return slots;
}

class Layout {
public:
    // Lays tables, buffers, constants and zeros out in `out`; both must outlive the layout.
    Layout(const ProgramSpec& spec, CompiledProgram& out);

    // `user` is what refers to the buffer or table: messages begin with it.
    const Slots& buffer(const std::string& user, int32_t index) const;

    // The entries of a table that must have `length` of them, each a slot of `slots` or outside the image.
    const int32_t* table(const std::string& user, int32_t index, int64_t length, const Slots& slots) const;

private:
    void lay_out_tables();
    void lay_out_buffers();

    const ProgramSpec& spec_;
    CompiledProgram& out_;
    std::vector<int64_t> first_entry_;  // of each table
};

}  // namespace pixelfast
