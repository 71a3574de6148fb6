// Noise in bulk: Philox blocks and Gumbel choices, a vector at a time. No fused multiply-add, so every instruction set
// gives the same bits.

static void noise(const NoiseKey& key, int64_t blocks, uint32_t* words) {
    for (int64_t first = 0; first < blocks; first += kDoubleLanes) {
        const Counters c =
            philox_rounds({{UL{} + key.sample, UL{} + key.number, lanes_from(first), UL{} + key.stream}}, key.seed);
        const int64_t count = blocks - first < kDoubleLanes ? blocks - first : kDoubleLanes;
        for (int64_t i = 0; i < count; ++i) {
            uint32_t* block = words + 4 * (first + i);
            block[0] = static_cast<uint32_t>(c.word[0][i]);
            block[1] = static_cast<uint32_t>(c.word[1][i]);
            block[2] = static_cast<uint32_t>(c.word[2][i]);
            block[3] = static_cast<uint32_t>(c.word[3][i]);
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
