// How fast the micro-kernels are by themselves: what the sizes of tiles and panels were chosen by.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace pixelfast {

// Seconds of one pass over panels that hold about `bytes` of weights: each panel has `channels` channels and `vectors`
// vectors of columns and is multiplied by a tile of `rows` rows. The fastest of several passes, on one thread.
// `weights`: number of weights of a pass. Throws std::invalid_argument for sizes that the instruction set has not.
struct TileTime {
    double seconds = 0;
    int64_t weights = 0;
};
TileTime time_tiles(const KernelTable& isa, Precision precision, int rows, int vectors, int64_t channels, int64_t bytes);

}  // namespace pixelfast
