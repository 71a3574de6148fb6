// Attention of one site: a softmax over scores of the sites it attends to, and their values weighted by it. See
// ir.Attend and program.Attention for the mathematics and the order of sums.
//
// Included inside an instruction set's namespace, after vec_math.h.

PF_INLINE float sum_of_lanes(F v) {
    float total = v[0];
    for (int i = 1; i < kLanes; ++i) total += v[i];
    return total;
}

PF_INLINE float dot(const float* a, const float* b, int64_t count) {
    F total = splat(0.0f);
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) total = fma(load(a + i), load(b + i), total);
    float sum = i > 0 ? sum_of_lanes(total) : 0.0f;
    for (; i < count; ++i) sum += a[i] * b[i];
    return sum;
}

// scores[0 : pairs] <- exp(score - largest); zeros follow up to a whole vector. Returns what they are divided by: their
// sum and epsilon. All are zero where there are none, or all are minus infinity.
PF_INLINE float weights_of(float* scores, int64_t pairs, float epsilon) {
    float top = -__builtin_inff();
    for (int64_t p = 0; p < pairs; ++p) top = scores[p] > top || scores[p] != scores[p] ? scores[p] : top;
    if (top == -__builtin_inff()) {
        for (int64_t p = 0; p < pairs; ++p) scores[p] = 0.0f;
        return 1.0f;
    }
    float total = 0.0f;
    for (int64_t first = 0; first < pairs; first += kAttentionBlock) {
        const int64_t last = first + kAttentionBlock < pairs ? first + kAttentionBlock : pairs;
        F sum = splat(0.0f);
        for (int64_t p = first; p < last; p += kLanes) {
            F weight = exponential(load(scores + p) - top);
            for (int64_t lane = last - p; lane < kLanes; ++lane) weight[lane] = 0.0f;
            store(scores + p, weight);
            sum += weight;
        }
        total += sum_of_lanes(sum);
    }
    return epsilon + total;
}

static void attend(const AttentionRow& row) {
    // Blocks are whole vectors, so a vector of scores is of one block.
    static_assert(kAttentionBlock % kLanes == 0);
    const int64_t stride = attention_stride(row.pairs);
    for (int64_t p = 0; p < row.pairs; ++p)
        for (int64_t h = 0; h < row.heads; ++h)
            row.scratch[h * stride + p] =
                dot(row.query + h * row.key_width, row.keys[p] + h * row.key_width, row.key_width);
    for (int64_t h = 0; h < row.heads; ++h) {
        float* const scores = row.scratch + h * stride;
        const float* const bias = row.bias == nullptr ? nullptr : row.bias + h * row.bias_stride;
        for (int64_t p = 0; p < row.pairs; ++p) scores[p] = scores[p] * row.scale + (bias == nullptr ? 0.0f : bias[p]);
        const F total = splat(weights_of(scores, row.pairs, row.epsilon));
        for (int64_t c = 0; c < row.value_width; c += kLanes) {
            F sum = splat(0.0f);
            for (int64_t first = 0; first < row.pairs; first += kAttentionBlock) {
                const int64_t last = first + kAttentionBlock < row.pairs ? first + kAttentionBlock : row.pairs;
                F block = splat(0.0f);
                for (int64_t p = first; p < last; ++p)
                    block = fma(splat(scores[p]), load(row.values[p] + h * row.value_width + c), block);
                sum += block;
            }
            // A head's last vector may reach into the next head's, which follows.
            store(row.out + h * row.value_width + c, sum / total);
        }
    }
}
