#include "backend/cpu/tensor_kernels.h"

const tensor_kernels *tensor_kernels_find(cpu_level level)
{
    static const tensor_kernels *const tables[] = {
#define TENSOR_KERNELS_ANY(name) &tensor_kernels_##name,
#if TENSOR_KERNELS_HAVE_X86
#define TENSOR_KERNELS_X86(name) &tensor_kernels_##name,
#else
#define TENSOR_KERNELS_X86(name)
#endif
#if TENSOR_KERNELS_HAVE_ARM
#define TENSOR_KERNELS_ARM(name) &tensor_kernels_##name,
#else
#define TENSOR_KERNELS_ARM(name)
#endif
#define TENSOR_KERNELS(name, level, family) TENSOR_KERNELS_##family(name)
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
