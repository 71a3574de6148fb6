// Reading and writing tensors a tile of pixels at a time: one vector per plane, numbers of any type and strides.
//
// Included inside an instruction set's namespace, after vec.h.

template <class V>
struct Lanes;
template <>
struct Lanes<F> {
    using Number = float;
    static constexpr int count = kLanes;
};
// Double precision is for checking: one pixel at a time.
template <>
struct Lanes<double> {
    using Number = double;
    static constexpr int count = 1;
};

PF_INLINE double load(const double* p) { return *p; }
PF_INLINE void store(double* p, double v) { *p = v; }

struct Half {
    uint16_t bits;
};
struct Bfloat16 {
    uint16_t bits;
};

PF_INLINE float float_of_bits(uint32_t pattern) { return bits<float>(&pattern); }

PF_INLINE float widen(float x) { return x; }
PF_INLINE double widen(double x) { return x; }
PF_INLINE float widen(uint8_t x) { return static_cast<float>(x); }
PF_INLINE double widen(int32_t x) { return x; }
PF_INLINE double widen(int64_t x) { return static_cast<double>(x); }
PF_INLINE float widen(Bfloat16 x) { return float_of_bits(static_cast<uint32_t>(x.bits) << 16); }
PF_INLINE float widen(Half x) {
    const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7FFF) << 13;
    // The product moves the exponent from a half's bias to a float's, and makes denormal halves normal.
    const float finite = float_of_bits(magnitude) * 0x1p112f;
    const uint32_t value = magnitude >= 0x0F800000u ? magnitude | 0x7F800000u : bits<uint32_t>(&finite);
    return float_of_bits(value | static_cast<uint32_t>(x.bits & 0x8000) << 16);
}

// Rounded to nearest, ties to even; NaN stays NaN.
PF_INLINE void assign(float& to, float x) { to = x; }
PF_INLINE void assign(double& to, double x) { to = x; }
PF_INLINE void assign(Bfloat16& to, float x) {
    const uint32_t pattern = bits<uint32_t>(&x);
    to.bits = x != x ? 0x7FC0 : static_cast<uint16_t>((pattern + 0x7FFFu + ((pattern >> 16) & 1u)) >> 16);
}
PF_INLINE void assign(Half& to, float x) {
    const uint32_t pattern = bits<uint32_t>(&x), magnitude = pattern & 0x7FFFFFFFu;
    // Below 2^-14: the sum with 1/2 has the spacing of denormal halves, 2^-24, and is rounded to it.
    const float shifted = float_of_bits(magnitude) + 0.5f;
    const uint32_t denormal = bits<uint32_t>(&shifted) - 0x3F000000u;
    const uint32_t normal = (magnitude - (112u << 23) + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
    const uint32_t special = magnitude > 0x7F800000u ? 0x7E00u : 0x7C00u;
    const uint32_t value = magnitude >= 0x47800000u ? special : magnitude < 0x38800000u ? denormal : normal;
    to.bits = static_cast<uint16_t>(value | (pattern >> 16 & 0x8000u));
}

// Where the pixels of a tile lie in a tensor, in elements; `adjacent` if one after the other.
template <int lanes>
struct Offsets {
    int64_t of[lanes];
    bool adjacent;
};

template <int lanes>
struct TilePixels {
    int64_t image[lanes], row[lanes], column[lanes];
    int64_t count;  // what comes after are copies of the last pixel: read, never written

    TilePixels(int64_t first, int64_t end, int64_t height, int64_t width)
        : count(end - first < lanes ? end - first : lanes) {
        int64_t c = first % width, r = first / width % height, n = first / (width * height);
        for (int i = 0; i < lanes; ++i) {
            image[i] = n;
            row[i] = r;
            column[i] = c;
            if (i + 1 >= count || ++c < width) continue;
            c = 0;
            if (++r < height) continue;
            r = 0;
            ++n;
        }
    }

    Offsets<lanes> in(const Planes& tensor) const {
        Offsets<lanes> out;
        for (int i = 0; i < lanes; ++i)
            out.of[i] = image[i] * tensor.strides[0] + row[i] * tensor.strides[2] + column[i] * tensor.strides[3];
        out.adjacent = true;
        for (int i = 1; i < lanes; ++i) out.adjacent &= out.of[i] == out.of[0] + i;
        return out;
    }
};

// A vector per plane at data + plane * stride.
template <class Number>
struct Vectors {
    Number* data;
    int64_t stride;

    // The pixels after these: there are more planes than a CPU sees streams. Into the second cache, for planes of a
    // power of two all fall into one set of the first.
    void prefetch_next(int64_t plane) const {
        __builtin_prefetch(data + plane * stride + 64 / sizeof(Number), std::is_const_v<Number> ? 0 : 1, 2);
    }
};

template <class T, class Number, int lanes>
static Vectors<const Number> read_planes_of(const Planes& tensor, const Offsets<lanes>& offsets, int64_t planes,
                                            Number* scratch) {
    const T* data = static_cast<const T*>(tensor.data);
    const int64_t stride = tensor.strides[1];
    if (offsets.adjacent) {
        if constexpr (std::is_same_v<T, Number>) return {data + offsets.of[0], stride};
        for (int64_t p = 0; p < planes; ++p) {
            const T* from = data + offsets.of[0] + p * stride;
            for (int i = 0; i < lanes; ++i) scratch[p * lanes + i] = static_cast<Number>(widen(from[i]));
        }
    } else {
        for (int i = 0; i < lanes; ++i) {
            const T* from = data + offsets.of[i];
            for (int64_t p = 0; p < planes; ++p) scratch[p * lanes + i] = static_cast<Number>(widen(from[p * stride]));
        }
    }
    return {scratch, lanes};
}

template <class Number, int lanes>
static Vectors<const Number> read_planes(const Planes& tensor, const Offsets<lanes>& offsets, int64_t planes,
                                         Number* scratch) {
    if constexpr (std::is_same_v<Number, double>) {
        if (tensor.type == NumberType::float64) return read_planes_of<double>(tensor, offsets, planes, scratch);
    } else {
        if (tensor.type == NumberType::float32) return read_planes_of<float>(tensor, offsets, planes, scratch);
        if (tensor.type == NumberType::float16) return read_planes_of<Half>(tensor, offsets, planes, scratch);
        if (tensor.type == NumberType::bfloat16) return read_planes_of<Bfloat16>(tensor, offsets, planes, scratch);
    }
    if (tensor.type == NumberType::uint8) return read_planes_of<uint8_t>(tensor, offsets, planes, scratch);
    if (tensor.type == NumberType::int32) return read_planes_of<int32_t>(tensor, offsets, planes, scratch);
    return read_planes_of<int64_t>(tensor, offsets, planes, scratch);
}

// Where to compute planes: in the tensor itself if `write_planes` would only copy them.
template <class Number, int lanes>
static Vectors<Number> destination(const Planes& tensor, const Offsets<lanes>& offsets, Number* scratch) {
    const NumberType own = std::is_same_v<Number, double> ? NumberType::float64 : NumberType::float32;
    if (offsets.adjacent && tensor.type == own)
        return {static_cast<Number*>(tensor.data) + offsets.of[0], tensor.strides[1]};
    return {scratch, lanes};
}

template <class T, class Number, int lanes>
static void write_planes_of(const Planes& tensor, const Offsets<lanes>& offsets, int64_t planes, int64_t count,
                            const Number* scratch) {
    T* data = static_cast<T*>(tensor.data);
    const int64_t stride = tensor.strides[1];
    if (offsets.adjacent) {
        for (int64_t p = 0; p < planes; ++p) {
            T* to = data + offsets.of[0] + p * stride;
            for (int i = 0; i < lanes; ++i) assign(to[i], scratch[p * lanes + i]);
        }
    } else {
        for (int64_t i = 0; i < count; ++i) {
            T* to = data + offsets.of[i];
            for (int64_t p = 0; p < planes; ++p) assign(to[p * stride], scratch[p * lanes + i]);
        }
    }
}

// What was computed at `destination`, into the first `count` pixels of a floating-point tensor.
template <class Number, int lanes>
static void write_planes(const Planes& tensor, const Offsets<lanes>& offsets, int64_t planes, int64_t count,
                         const Vectors<Number>& computed, const Number* scratch) {
    if (computed.data != scratch) return;
    if constexpr (std::is_same_v<Number, double>) {
        write_planes_of<double>(tensor, offsets, planes, count, scratch);
    } else if (tensor.type == NumberType::float32) {
        write_planes_of<float>(tensor, offsets, planes, count, scratch);
    } else if (tensor.type == NumberType::float16) {
        write_planes_of<Half>(tensor, offsets, planes, count, scratch);
    } else {
        write_planes_of<Bfloat16>(tensor, offsets, planes, count, scratch);
    }
}
