// Philox4x32-10 for a vector of counters at once, each half of a 64-bit lane; the same words as philox.h.
//
// Included inside an instruction set's namespace, after vec.h.

struct Counters {
    UL word[4];
};

// first, first + 1, ... by lane.
PF_INLINE UL lanes_from(int64_t first) {
    UL lane;
    for (int i = 0; i < kDoubleLanes; ++i) lane[i] = static_cast<uint64_t>(first + i);
    return lane;
}

PF_INLINE Counters philox_rounds(Counters c, uint64_t seed) {
    const UL low = UL{} + 0xFFFFFFFFu;
    const UL multiplier0 = UL{} + kPhiloxMultiplier0, multiplier1 = UL{} + kPhiloxMultiplier1;
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round) {
        const UL p0 = multiply_low_halves(multiplier0, c.word[0]);
        const UL p1 = multiply_low_halves(multiplier1, c.word[2]);
        c = {{(p1 >> 32) ^ c.word[1] ^ (UL{} + k0), p1 & low, (p0 >> 32) ^ c.word[3] ^ (UL{} + k1), p0 & low}};
        k0 += kPhiloxWeyl0;
        k1 += kPhiloxWeyl1;
    }
    return c;
}
