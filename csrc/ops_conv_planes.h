// Between tensors and planes: `linear` planes hold an image's pixels one after the other, those of a PlaneLayout hold rows
// that lie apart.
//
// Included inside an instruction set's namespace, after ops_activations.h.

// Rows of `width` numbers, copied from and to rows that lie apart.
template <class Real>
PF_INLINE void copy_rows(const Real* from, int64_t from_pitch, int64_t height, int64_t width, Real* to,
                         int64_t to_pitch) {
    constexpr int64_t lanes = VectorOf<Real>::lanes;
    const bool whole = from_pitch == width && to_pitch == width;
    const int64_t rows = whole ? 1 : height, count = whole ? height * width : width;
    for (int64_t y = 0; y < rows; ++y) {
        const Real* source = from + y * from_pitch;
        Real* row = to + y * to_pitch;
        int64_t x = 0;
        for (; x + lanes <= count; x += lanes) store(row + x, load_vector(source + x));
        if (x == count) continue;
        if (count >= lanes) {  // the last vector once more, up to the end
            store(row + count - lanes, load_vector(source + count - lanes));
        } else {
            for (; x < count; ++x) row[x] = source[x];
        }
    }
}
template <class Real>
PF_INLINE void spread(const Real* linear, int64_t height, int64_t width, Real* to, int64_t pitch) {
    copy_rows(linear, width, height, width, to, pitch);
}
template <class Real>
PF_INLINE void gather(const Real* from, int64_t pitch, int64_t height, int64_t width, Real* linear) {
    copy_rows(from, pitch, height, width, linear, width);
}

// gather, with another linear plane added where that is not null.
template <class Real>
PF_INLINE void gather_sum(const Real* from, int64_t pitch, int64_t height, int64_t width, const Real* added,
                          Real* linear) {
    if (added == nullptr) return gather(from, pitch, height, width, linear);
    constexpr int64_t lanes = VectorOf<Real>::lanes;
    const int64_t rows = pitch == width ? 1 : height, count = pitch == width ? height * width : width;
    for (int64_t y = 0; y < rows; ++y) {
        const Real* source = from + y * pitch;
        const int64_t start = y * width;
        const auto sum = [&](int64_t x) {
            store(linear + start + x, load_vector(source + x) + load_vector(added + start + x));
        };
        int64_t x = 0;
        for (; x + lanes <= count; x += lanes) sum(x);
        if (x == count) continue;
        if (count >= lanes) {
            sum(count - lanes);
        } else {
            for (; x < count; ++x) linear[start + x] = source[x] + added[start + x];
        }
    }
}

// One plane of a tensor <-> rows `pitch` apart.
template <class Real>
static void read_plane(const ConvTensor& tensor, FloatType type, int64_t image, int64_t channel, int64_t height,
                       int64_t width, Real* to, int64_t pitch) {
    as_stored<Real>(type, [&](auto example) {
        using Stored = decltype(example);
        const int64_t step = tensor.strides[3];
        const Stored* plane = static_cast<const Stored*>(tensor.data) + image * tensor.strides[0] + channel * tensor.strides[1];
        if constexpr (std::is_same_v<Stored, Real>)
            if (step == 1) return copy_rows(plane, tensor.strides[2], height, width, to, pitch);
        for (int64_t y = 0; y < height; ++y) {
            const Stored* from = plane + y * tensor.strides[2];
            if (step == 1) {
                for (int64_t x = 0; x < width; ++x) to[y * pitch + x] = widen(from[x]);
            } else {
                for (int64_t x = 0; x < width; ++x) to[y * pitch + x] = widen(from[x * step]);
            }
        }
    });
}

template <class Real>
static void write_plane(const ConvTensor& tensor, FloatType type, int64_t image, int64_t channel, int64_t height,
                        int64_t width, const Real* from, int64_t pitch) {
    as_stored<Real>(type, [&](auto example) {
        using Stored = decltype(example);
        const int64_t step = tensor.strides[3];
        Stored* plane = static_cast<Stored*>(tensor.data) + image * tensor.strides[0] + channel * tensor.strides[1];
        if constexpr (std::is_same_v<Stored, Real>)
            if (step == 1) return copy_rows(from, pitch, height, width, plane, tensor.strides[2]);
        for (int64_t y = 0; y < height; ++y) {
            Stored* to = plane + y * tensor.strides[2];
            if (step == 1) {
                for (int64_t x = 0; x < width; ++x) assign(to[x], from[y * pitch + x]);
            } else {
                for (int64_t x = 0; x < width; ++x) assign(to[x * step], from[y * pitch + x]);
            }
        }
    });
}

// A plane of a tensor where it lies, if that is one after the other and a whole number of vectors; else null.
template <class Real, class Task>
PF_INLINE Real* plane_in_place(const Task& task, const ConvTensor& tensor, int64_t image, int64_t channel) {
    const bool same = sizeof(Real) == sizeof(double) ? task.type == FloatType::float64 : task.type == FloatType::float32;
    const bool dense = tensor.strides[3] == 1 && tensor.strides[2] == task.width;
    if (!same || !dense || task.height * task.width % VectorOf<Real>::lanes != 0) return nullptr;
    return static_cast<Real*>(tensor.data) + image * tensor.strides[0] + channel * tensor.strides[1];
}

// A plane of a tensor as a linear plane: in place, or read into `spare`.
template <class Real, class Task>
PF_INLINE const Real* linear_plane(const Task& task, const ConvTensor& tensor, int64_t image, int64_t channel,
                                   Real* spare) {
    if (const Real* plane = plane_in_place<Real>(task, tensor, image, channel)) return plane;
    read_plane(tensor, task.type, image, channel, task.height, task.width, spare, task.width);
    return spare;
}

// Calls compute(linear plane), and puts what it computes into the tensor.
template <class Real, class Task, class Compute>
PF_INLINE void write_linear(const Task& task, const ConvTensor& tensor, int64_t image, int64_t channel, Real* spare,
                            const Compute& compute) {
    Real* plane = plane_in_place<Real>(task, tensor, image, channel);
    compute(plane != nullptr ? plane : spare);
    if (plane == nullptr) write_plane(tensor, task.type, image, channel, task.height, task.width, spare, task.width);
}

// x(image, channel) + condition(image, channel) as a linear plane.
template <class Real, class Task>
static const Real* conditioned(const Task& task, const ConvTensor& x, const ConvTensor& condition, int64_t image,
                               int64_t channel, int64_t pixels, Real* spare, Real* other) {
    const Real* plane = linear_plane(task, x, image, channel, spare);
    if (condition.data == nullptr) return plane;
    add(plane, linear_plane(task, condition, image, channel, other), pixels, spare);
    return spare;
}


// Zeros around the pixels of `images` images in each plane.
template <class Real>
static void clear_surroundings(const PlaneLayout& layout, int64_t images, int64_t planes, Real* first) {
    for (int64_t i = 0; i < planes; ++i) {
        Real* plane = first + i * layout.plane;
        int64_t done = 0;
        const auto clear_until = [&](int64_t end) {
            for (; done < end; ++done) plane[done] = 0;
        };
        for (int64_t g = 0; g < images; ++g) {
            for (int64_t y = 0; y < layout.height; ++y) {
                clear_until(layout.place(g) + y * layout.pitch);
                done += layout.width;
            }
        }
        clear_until(layout.plane);
    }
}


// Reads an image's channels into their places of the layout's planes.
template <class Real, class Task>
static void read_channels(const Task& task, const PlaneLayout& layout, const ConvTensor& tensor, int64_t first,
                          int64_t images, int64_t channels, Real* planes) {
    for (int64_t c = 0; c < channels; ++c)
        for (int64_t g = 0; g < images; ++g)
            read_plane(tensor, task.type, first + g, c, task.height, task.width,
                       planes + c * layout.plane + layout.place(g), layout.pitch);
}

// Writes the channels of images that lie in `planes`, without a margin; what is added may be no tensor.
template <class Real, class Task>
static void write_channels(const Task& task, const PlaneLayout& layout, const Real* planes, const ConvTensor& added,
                           const ConvTensor& tensor, int64_t first, int64_t images, int64_t begin, int64_t end,
                           Real* const* linear) {
    for (int64_t c = begin; c < end; ++c) {
        for (int64_t g = 0; g < images; ++g) {
            const Real* from = planes + (c - begin) * layout.plane + g * layout.image_pitch;
            const Real* other =
                added.data == nullptr ? nullptr : linear_plane(task, added, first + g, c, linear[1]);
            write_linear(task, tensor, first + g, c, linear[0], [&](Real* to) {
                gather_sum(from, layout.pitch, task.height, task.width, other, to);
            });
        }
    }
}
