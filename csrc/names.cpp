#include "names.h"

#include <initializer_list>
#include <stdexcept>
#include <utility>
#include <vector>

namespace pixelfast {

namespace {

template <class Choice>
Choice chosen(const std::string& name, std::initializer_list<std::pair<const char*, Choice>> choices,
              const std::string& otherwise) {
    for (const auto& [choice, value] : choices)
        if (name == choice) return value;
    throw std::invalid_argument(otherwise);
}

}  // namespace

Precision precision_of(const std::string& name) {
    return chosen<Precision>(name,
                             {{"float32", Precision::float32},
                              {"bfloat16", Precision::bfloat16},
                              {"int8", Precision::int8}},
                             "precision must be float32, bfloat16 or int8");
}

Reduction reduction_of(const std::string& name) {
    return chosen<Reduction>(name,
                             {{"sum", Reduction::sum},
                              {"amax", Reduction::amax},
                              {"amin", Reduction::amin},
                              {"prod", Reduction::prod}},
                             "unknown reduction " + name);
}

HeadKind head_kind_of(const std::string& name) {
    return chosen<HeadKind>(name,
                            {{"categorical", HeadKind::categorical},
                             {"mixture", HeadKind::mixture},
                             {"bernoulli", HeadKind::bernoulli},
                             {"gaussian", HeadKind::gaussian}},
                            "unknown likelihood " + name);
}

Sharing sharing_of(const std::string& name) {
    return chosen<Sharing>(
        name, {{"auto", Sharing::automatic}, {"images", Sharing::images}, {"tasks", Sharing::tasks}},
        "sharing must be auto, images or tasks");
}

const char* name_of(Sharing sharing) { return sharing == Sharing::tasks ? "tasks" : "images"; }

NumberType number_type_of(const std::string& name) {
    return chosen<NumberType>(name,
                              {{"float32", NumberType::float32},
                               {"float64", NumberType::float64},
                               {"float16", NumberType::float16},
                               {"bfloat16", NumberType::bfloat16},
                               {"uint8", NumberType::uint8},
                               {"int32", NumberType::int32},
                               {"int64", NumberType::int64}},
                              "a tensor cannot be of dtype " + name);
}

FloatType float_type_of(const std::string& name) {
    return chosen<FloatType>(name,
                             {{"float32", FloatType::float32},
                              {"float64", FloatType::float64},
                              {"bfloat16", FloatType::bfloat16},
                              {"float16", FloatType::float16}},
                             "unknown name " + name);
}

Activation activation_of(const std::string& name) {
    return chosen<Activation>(name,
                              {{"none", Activation::none},
                               {"concat_elu", Activation::concat_elu},
                               {"tanh", Activation::tanh_gate},
                               {"linear", Activation::linear_gate}},
                              "unknown name " + name);
}

int32_t operation_of(const std::string& name) {
    const std::vector<ElementwiseName>& names = elementwise_names();
    for (size_t i = 0; i < names.size(); ++i)
        if (name == names[i].name) return static_cast<int32_t>(i);
    throw std::invalid_argument("unknown operation " + name);
}

}  // namespace pixelfast
