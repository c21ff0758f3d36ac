#include "backend/cpu/tensor_kernels.h"

const tensor_kernels *tensor_kernels_find(cpu_level level)
{
    static const tensor_kernels *const tables[] = {
#define TENSOR_KERNELS(name, level, family) KERNELS_##family(&tensor_kernels_##name, )
#include "backend/cpu/tensor_kernels.def"
#undef TENSOR_KERNELS
    };
    const tensor_kernels *best = tables[0];
    for (size_t i = 1; i < sizeof tables / sizeof tables[0]; i++) {
        if (tables[i]->level <= level && tables[i]->level > best->level) {
            best = tables[i];
        }
    }
    return best;
}
