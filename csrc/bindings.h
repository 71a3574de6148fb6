// What the files with pybind11 share: bindings.cpp, bindings_program.cpp and bindings_ops.cpp. No other includes this.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine.h"

namespace pixelfast {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

// Keeps the arrays alive whose memory a ProgramSpec points to.
using Owners = std::vector<py::object>;

template <class T>
std::vector<T> to_vector(const py::handle& object) {
    const Array<T> array = Array<T>::ensure(object);
    if (!array) throw py::error_already_set();
    return std::vector<T>(array.data(), array.data() + array.size());
}

// The memory of an array of the given shape.
template <class T>
const T* checked(const py::handle& object, std::vector<py::ssize_t> shape, const std::string& name, Owners& owners) {
    Array<T> array = Array<T>::ensure(object);
    if (!array) throw py::error_already_set();
    bool fits = array.ndim() == static_cast<py::ssize_t>(shape.size());
    for (size_t i = 0; fits && i < shape.size(); ++i) fits = array.shape(i) == shape[i];
    if (!fits) throw std::invalid_argument(name + " has the wrong shape");
    owners.push_back(array);
    return array.data();
}

inline py::tuple tuple_of(const py::handle& object, size_t size, const char* name) {
    py::tuple result = py::reinterpret_borrow<py::object>(object);
    if (result.size() != size) throw std::invalid_argument(std::string(name) + " has the wrong number of fields");
    return result;
}

// The engine of a program given as Python tuples and arrays. Throws std::invalid_argument where it is malformed.
std::unique_ptr<Engine> make_engine(const std::string& isa, const std::string& precision,
                                    const std::vector<int64_t>& shape, const py::list& buffers,
                                    const py::list& tables, const py::list& kernels, const py::handle& tasks,
                                    const py::handle& sites, const py::tuple& input,
                                    const std::vector<std::pair<int32_t, int32_t>>& outputs,
                                    const py::tuple& head, int32_t lookahead, const py::list& ahead_tables);

// Convolutions, gates, blocks and losses, with their gradients.
void define_training_operations(py::module& module);

}  // namespace pixelfast
