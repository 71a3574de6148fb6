// The names that Python has for choices. All throw std::invalid_argument for a name that is unknown.
#pragma once

#include <cstdint>
#include <string>

#include "heads.h"
#include "kernels.h"
#include "ops_conv.h"
#include "program.h"
#include "sharing.h"

namespace pixelfast {

Precision precision_of(const std::string& name);
Reduction reduction_of(const std::string& name);
HeadKind head_kind_of(const std::string& name);
Sharing sharing_of(const std::string& name);
const char* name_of(Sharing sharing);  // as it was decided: never automatic
NumberType number_type_of(const std::string& name);
FloatType float_type_of(const std::string& name);
Activation activation_of(const std::string& name);

// The number of an elementwise operation.
int32_t operation_of(const std::string& name);

}  // namespace pixelfast
