// Attention of one site: a softmax over scores of the sites it attends to, and their values weighted by it. See
// ir.Attend and program.Attention for the mathematics and the order of sums.
//
// Every result is the same sequence of operations however many are done side by side: a vector of pairs is scored at
// once, each pair's product summed as if it were alone, and several vectors of values are summed in one pass.
//
// Included inside an instruction set's namespace, after vec_math.h.

PF_INLINE float sum_of_lanes(F v) {
    float total = v[0];
    for (int i = 1; i < kLanes; ++i) total += v[i];
    return total;
}

PF_INLINE F first_lanes(F v, int64_t count, F others) { return lane_numbers() < static_cast<int32_t>(count) ? v : others; }

// Exchanges the lanes of a pair of rows that differ in one bit of their number: as one step of a transposition.
template <int bit>
PF_INLINE void exchange(F (&rows)[kLanes]) {
    I low, high;
    for (int i = 0; i < kLanes; ++i) {
        low[i] = (i & bit) == 0 ? i : kLanes + i - bit;
        high[i] = (i & bit) == 0 ? i + bit : kLanes + i;
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
        if ((i & bit) != 0) continue;
        const F a = rows[i], b = rows[i + bit];
        rows[i] = __builtin_shuffle(a, b, low);
        rows[i + bit] = __builtin_shuffle(a, b, high);
    }
}

PF_INLINE void transpose(F (&rows)[kLanes]) {
    static_assert(kLanes == 4 || kLanes == 8 || kLanes == 16);
    exchange<1>(rows);
    exchange<2>(rows);
    if constexpr (kLanes > 4) exchange<4>(rows);
    if constexpr (kLanes > 8) exchange<8>(rows);
}

// The products of a query with `kLanes` keys: of each, whole vectors of channels are multiplied and added lane by lane,
// then the lanes in order, then the products of what channels remain.
PF_INLINE F dots(const float* query, const float* const* keys, int64_t channel, int64_t count) {
    F rows[kLanes];
    F total = splat(0.0f);
    int64_t i = 0;
    if (count >= kLanes) {
#pragma GCC unroll 16
        for (int p = 0; p < kLanes; ++p) rows[p] = splat(0.0f);
        for (; i + kLanes <= count; i += kLanes) {
            const F q = load(query + i);
#pragma GCC unroll 16
            for (int p = 0; p < kLanes; ++p) rows[p] = fma(q, load(keys[p] + channel + i), rows[p]);
        }
        transpose(rows);
        total = rows[0];
#pragma GCC unroll 16
        for (int lane = 1; lane < kLanes; ++lane) total += rows[lane];
    }
    if (i == count) return total;
#pragma GCC unroll 16
    for (int p = 0; p < kLanes; ++p) rows[p] = load(keys[p] + channel + i);
    transpose(rows);
#pragma GCC unroll 16
    for (int lane = 0; lane < kLanes; ++lane)
        if (i + lane < count) total += splat(query[i + lane]) * rows[lane];
    return total;
}

// scores[0 : pairs] <- scale * (query . key) + bias of a head; returns the largest.
PF_INLINE float scores_of(const AttentionRow& row, int64_t head, float* scores) {
    const float* const query = row.query + head * row.key_width;
    const float* const bias = row.bias == nullptr ? nullptr : row.bias + head * row.bias_stride;
    const F lowest = splat(-__builtin_inff());
    F top = lowest;
    I unknown{};
    for (int64_t p = 0; p < row.pairs; p += kLanes) {
        F score = dots(query, row.keys + p, head * row.key_width, row.key_width) * row.scale;
        score += bias == nullptr ? splat(0.0f) : load(bias + p);
        store(scores + p, score);
        const F counted = first_lanes(score, row.pairs - p, lowest);
        top = counted > top ? counted : top;
        unknown |= counted != counted;
    }
    float largest = top[0];
    for (int i = 0; i < kLanes; ++i) {
        if (unknown[i] != 0) return __builtin_nanf("");
        largest = top[i] > largest ? top[i] : largest;
    }
    return largest;
}

// scores[0 : pairs] <- exp(score - top); zeros follow up to a whole vector. Returns what they are divided by: their
// sum and epsilon. All are zero where there are none, or all are minus infinity.
PF_INLINE float weights_of(float* scores, int64_t pairs, float top, float epsilon) {
    if (top == -__builtin_inff()) {
        for (int64_t p = 0; p < pairs; ++p) scores[p] = 0.0f;
        return 1.0f;
    }
    float total = 0.0f;
    for (int64_t first = 0; first < pairs; first += kAttentionBlock) {
        const int64_t last = first + kAttentionBlock < pairs ? first + kAttentionBlock : pairs;
        F sum = splat(0.0f);
        for (int64_t p = first; p < last; p += kLanes) {
            const F weight = first_lanes(exponential(load(scores + p) - top), last - p, splat(0.0f));
            store(scores + p, weight);
            sum += weight;
        }
        total += sum_of_lanes(sum);
    }
    return epsilon + total;
}

// A vector of channels of the result, of one head. Its weights are followed by what their sum is divided by.
struct Mixed {
    const float* weights;
    int64_t channel;
};

// `vectors` of them in one pass over the values; `alike`: all of one head.
template <int vectors, bool alike>
PF_INLINE void mix(const AttentionRow& row, int64_t divisor, const Mixed* mixed) {
    F sum[vectors];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) sum[v] = splat(0.0f);
    for (int64_t first = 0; first < row.pairs; first += kAttentionBlock) {
        const int64_t last = first + kAttentionBlock < row.pairs ? first + kAttentionBlock : row.pairs;
        F block[vectors];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) block[v] = splat(0.0f);
        for (int64_t p = first; p < last; ++p) {
            const float* const values = row.values[p];
            const F shared = splat(mixed[0].weights[p]);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v)
                block[v] = fma(alike ? shared : splat(mixed[v].weights[p]), load(values + mixed[v].channel), block[v]);
        }
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) sum[v] += block[v];
    }
    // A head's last vector may reach into the next head's, which follows.
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) store(row.out + mixed[v].channel, sum[v] / splat(mixed[v].weights[divisor]));
}

template <int vectors>
PF_INLINE void mix_some(const AttentionRow& row, int64_t divisor, const Mixed* mixed) {
    if (mixed[0].weights == mixed[vectors - 1].weights) {
        mix<vectors, true>(row, divisor, mixed);
    } else {
        mix<vectors, false>(row, divisor, mixed);
    }
}

static void attend(const AttentionRow& row) {
    // Blocks are whole vectors, so a vector of scores is of one block.
    static_assert(kAttentionBlock % kLanes == 0);
    constexpr int kMost = 8;  // as many sums hide how long a multiply-add takes
    const int64_t stride = attention_stride(row.pairs), divisor = stride - 1;
    for (int64_t h = 0; h < row.heads; ++h) {
        float* const scores = row.scratch + h * stride;
        const float top = scores_of(row, h, scores);
        scores[divisor] = weights_of(scores, row.pairs, top, row.epsilon);
    }
    Mixed mixed[kMost];
    int count = 0;
    for (int64_t h = 0; h < row.heads; ++h) {
        for (int64_t c = 0; c < row.value_width; c += kLanes) {
            mixed[count++] = {row.scratch + h * stride, h * row.value_width + c};
            if (count < kMost) continue;
            mix_some<kMost>(row, divisor, mixed);
            count = 0;
        }
    }
    const Mixed* rest = mixed;
    if (count >= 4) mix_some<4>(row, divisor, rest), rest += 4, count -= 4;
    if (count >= 2) mix_some<2>(row, divisor, rest), rest += 2, count -= 2;
    if (count >= 1) mix_some<1>(row, divisor, rest);
}
