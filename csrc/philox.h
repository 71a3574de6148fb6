// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// Counter and key are laid out as pixelfast/rng.py does; both give the same words.
#pragma once

#include <cstdint>

namespace pixelfast {

constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u;
constexpr uint32_t kPhiloxMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u;
constexpr uint32_t kPhiloxWeyl1 = 0xBB67AE85u;
constexpr int kPhiloxRounds = 10;

// Which noise: the words of number `number` of sample `sample`; draws are counted from 0.
struct NoiseKey {
    uint64_t seed;
    uint32_t sample;
    uint32_t number;
    uint32_t stream;  // rng version << 16 | stream
};

// out[0:4] <- the block of words for counter[0:4] under key[0:2].
inline void philox4x32(const uint32_t* counter, const uint32_t* key, uint32_t* out) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < kPhiloxRounds; ++round) {
        const uint64_t p0 = uint64_t{kPhiloxMultiplier0} * c0;
        const uint64_t p1 = uint64_t{kPhiloxMultiplier1} * c2;
        c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<uint32_t>(p1);
        c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<uint32_t>(p0);
        k0 += kPhiloxWeyl0;
        k1 += kPhiloxWeyl1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

}  // namespace pixelfast
