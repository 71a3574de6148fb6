// Which instruction set runs: the best the CPU has, unless one is asked for.
#include <cstdlib>
#include <stdexcept>

#include "kernels.h"

namespace pixelfast {

namespace baseline {
const KernelTable& table();
}
#if defined(__x86_64__)
namespace avx2 {
const KernelTable& table();
}
namespace avx512 {
const KernelTable& table();
}
namespace avx512_bf16 {
const KernelTable& table();
}
namespace avx512_vnni {
const KernelTable& table();
}
#endif

namespace {

struct Isa {
    const KernelTable& (*table)();
    bool present;
};

// Best first. One that differs from another in one precision only is left out of the others.
std::vector<Isa> known_isas(Precision precision) {
    std::vector<Isa> isas;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (precision == Precision::bfloat16)
        isas.push_back({&avx512_bf16::table, has_avx512 && __builtin_cpu_supports("avx512bf16")});
    if (precision == Precision::int8)
        isas.push_back({&avx512_vnni::table, has_avx512 && __builtin_cpu_supports("avx512vnni")});
    isas.push_back({&avx512::table, has_avx512});
    isas.push_back({&avx2::table, has_avx2});
#endif
    isas.push_back({&baseline::table, true});
    return isas;
}

}  // namespace

std::vector<std::string> available_isas(Precision precision) {
    std::vector<std::string> names;
    for (const Isa& isa : known_isas(precision))
        if (isa.present) names.push_back(isa.table().name);
    return names;
}

const KernelTable& select_isa(const std::string& name, Precision precision) {
    std::string wanted = name;
    if (wanted.empty()) {
        const char* variable = std::getenv("PIXELFAST_ISA");
        if (variable != nullptr) wanted = variable;
    }
    std::string accepted;
    for (const Isa& isa : known_isas(precision)) {
        if (!isa.present) continue;
        if (wanted.empty() || wanted == isa.table().name) return isa.table();
        accepted += (accepted.empty() ? "" : ", ") + std::string(isa.table().name);
    }
    throw std::invalid_argument("instruction set \"" + wanted + "\" is not available: this CPU runs " + accepted);
}

}  // namespace pixelfast
