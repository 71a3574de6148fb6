// Noise in bulk: Philox blocks and Gumbel choices, a vector at a time. No fused multiply-add, so every instruction set
// gives the same bits.

static void noise(const NoiseKey& key, int64_t blocks, uint32_t* words) {
    UL lane;
    for (int i = 0; i < kDoubleLanes; ++i) lane[i] = static_cast<uint64_t>(i);
    const UL low = UL{} + 0xFFFFFFFFu;
    const UL multiplier0 = UL{} + kPhiloxMultiplier0, multiplier1 = UL{} + kPhiloxMultiplier1;
    for (int64_t first = 0; first < blocks; first += kDoubleLanes) {
        UL c0 = UL{} + key.sample, c1 = UL{} + key.number;
        UL c2 = lane + static_cast<uint64_t>(first), c3 = UL{} + key.stream;
        uint32_t k0 = static_cast<uint32_t>(key.seed), k1 = static_cast<uint32_t>(key.seed >> 32);
        for (int round = 0; round < kPhiloxRounds; ++round) {
            const UL p0 = multiply_low_halves(multiplier0, c0);
            const UL p1 = multiply_low_halves(multiplier1, c2);
            c0 = (p1 >> 32) ^ c1 ^ (UL{} + k0);
            c1 = p1 & low;
            c2 = (p0 >> 32) ^ c3 ^ (UL{} + k1);
            c3 = p0 & low;
            k0 += kPhiloxWeyl0;
            k1 += kPhiloxWeyl1;
        }
        const int64_t count = blocks - first < kDoubleLanes ? blocks - first : kDoubleLanes;
        for (int64_t i = 0; i < count; ++i) {
            uint32_t* block = words + 4 * (first + i);
            block[0] = static_cast<uint32_t>(c0[i]);
            block[1] = static_cast<uint32_t>(c1[i]);
            block[2] = static_cast<uint32_t>(c2[i]);
            block[3] = static_cast<uint32_t>(c3[i]);
        }
    }
}

// Natural logarithm of positive normal numbers, within 1 ulp; as log_double in scalar_math.h.
PF_INLINE D log_doubles(D x) {
    const L shift_bits = (L)x - 0x3FE6A09E667F3BCDll;
    // Arithmetic shift by 52 as in the scalar code, by way of a logical one: exponents here are in [-1023, 1024].
    const UL biased = ((UL)shift_bits + 0x4000000000000000ull) >> 52;
    const UL back = (biased - 0x400) << 52;
    const D e = (D)(biased | 0x4330000000000000ull) - (0x1p52 + 0x400);
    const D f = (D)((UL)x - back) - 1.0;
    const D s = f / (2.0 + f);
    const D z = s * s;
    D series = z * (2.0 / 21) + 2.0 / 19;
    series = series * z + 2.0 / 17;
    series = series * z + 2.0 / 15;
    series = series * z + 2.0 / 13;
    series = series * z + 2.0 / 11;
    series = series * z + 2.0 / 9;
    series = series * z + 2.0 / 7;
    series = series * z + 2.0 / 5;
    series = series * z + 2.0 / 3;
    series = series * z;
    const D h = 0.5 * f * f;
    return e * kLn2High - ((h - (s * (h + series) + e * kLn2Low)) - f);
}

// Noise words as doubles: the integer k in the mantissa of 2^52 + k; u = (k + 0.5) 2^-32.
PF_INLINE D whole(UL word) { return (D)(word | 0x4330000000000000ull) - 0x1p52; }
PF_INLINE D gumbel_of(UL word) { return -log_doubles(-log_doubles((whole(word) + 0.5) * 0x1p-32)); }

// No less than the above, and cheap: -log(-log u) <= -log(1 - u), and of the latter the exponent alone.
PF_INLINE D gumbel_limit(UL word) {
    constexpr double kSlack = 1e-6;  // for the rounding of either side
    const UL pattern = (UL)(whole(0xFFFFFFFFu - word) + 0.5);
    const D exponent = (D)((pattern >> 52) | 0x4330000000000000ull) - (0x1p52 + 1023);
    return (32.0 - exponent) * 0.69314718055994531 + kSlack;
}

// Most classes cannot win: their logit and the most that their noise can add stay below what the largest logit has
// already. Logarithms are spent on the others only, which changes no result.
static int64_t gumbel_argmax(const float* logits, const uint32_t* words, double temperature, int64_t count) {
    const double infinity = __builtin_inf();
    D lane;
    for (int i = 0; i < kDoubleLanes; ++i) lane[i] = i;
    const auto logits_at = [&](int64_t i) { return __builtin_convertvector(bits<HalfF>(logits + i), D); };
    const auto words_at = [&](int64_t i) { return __builtin_convertvector(bits<HalfU>(words + i), UL); };
    const auto inside_at = [&](int64_t i) { return lane + static_cast<double>(i) < static_cast<double>(count); };

    D highest = D{} - infinity, highest_index = D{}, sick = D{};
    for (int64_t i = 0; i < count; i += kDoubleLanes) {
        const D logit = logits_at(i);
        const L inside = inside_at(i);
        sick = (inside & (logit != logit)) ? D{} + 1.0 : sick;
        const L higher = inside & (logit > highest);
        highest = higher ? logit : highest;
        highest_index = higher ? lane + static_cast<double>(i) : highest_index;
    }
    int top = 0;
    for (int i = 0; i < kDoubleLanes; ++i) {
        if (sick[i] != 0.0) return -1;
        if (highest[i] > highest[top]) top = i;
    }
    const int64_t likely = static_cast<int64_t>(highest_index[top]);
    const double enough = highest[top] + temperature * gumbel_of(UL{} + words[likely])[0];

    D best = D{} - infinity, best_index = D{};
    for (int64_t i = 0; i < count; i += kDoubleLanes) {
        const D logit = logits_at(i);
        const UL word = words_at(i);
        const L inside = inside_at(i);
        if (!any(inside & (logit + temperature * gumbel_limit(word) >= enough))) continue;
        const D score = inside ? logit + temperature * gumbel_of(word) : D{} - infinity;
        const L better = score > best;
        best = better ? score : best;
        best_index = better ? lane + static_cast<double>(i) : best_index;
    }
    double winner = -infinity;
    int64_t result = -1;
    for (int i = 0; i < kDoubleLanes; ++i) {
        const int64_t index = static_cast<int64_t>(best_index[i]);
        if (best[i] > winner || (best[i] == winner && result >= 0 && index < result)) {
            winner = best[i];
            result = index;
        }
    }
    return result;
}
