// Floats to codes. Included inside an instruction set's namespace, after vec.h.

// A slot of scale and codes: the largest magnitude becomes kLargestCode. A slot that holds NaN or infinity has scale
// NaN; one that holds nothing but zeros, or numbers too small to divide by, has scale 0.
static void quantise(const float* source, int64_t count, Code* slot) {
    constexpr float kTooSmall = 0x1p-100f;
    // Patterns of magnitudes are ordered as the magnitudes are, then infinity, then NaN.
    I largest{};
    const auto magnitudes = [&](int64_t i) {
        const I pattern = bits<I>(source + i) & 0x7FFFFFFF;
        return count - i >= kLanes ? pattern : pattern & (lane_numbers() < static_cast<int32_t>(count - i));
    };
    for (int64_t i = 0; i < count; i += kLanes) {
        const I pattern = magnitudes(i);
        largest = pattern > largest ? pattern : largest;
    }
    int32_t pattern = 0;
    for (int lane = 0; lane < kLanes; ++lane) pattern = largest[lane] > pattern ? largest[lane] : pattern;

    float magnitude;
    __builtin_memcpy(&magnitude, &pattern, sizeof(magnitude));
    const bool small = magnitude < kTooSmall;
    float scale = small ? 0.0f : magnitude / kLargestCode;
    if (!(magnitude <= __FLT_MAX__)) scale = __builtin_nanf("");
    __builtin_memcpy(slot, &scale, sizeof(scale));
    Code* codes = slot + kCodesOfScale;

    // Next to 1.5 * 2^23 floats are integers, and the lowest byte of their pattern is that of the integer.
    const F inverse = splat(small ? 0.0f : kLargestCode / magnitude), magic = splat(0x1.8p23f + kZeroCode);
    for (int64_t i = 0; i < count; i += kLanes)
        store_lowest_bytes(codes + i, (U)(load(source + i) * inverse + magic));
}
