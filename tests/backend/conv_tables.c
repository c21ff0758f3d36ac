#include "conv_tables.h"

static const cpu_level levels[] = {
#define CONV_KERNELS(name, level, family) level,
#include "backend/cpu/conv_kernels.def"
#undef CONV_KERNELS
};

#if KERNELS_HAVE_X86
/* The code of a level without its instructions, or NULL. */
static const conv_kernels *emulation_of(cpu_level level)
{
    cpu_features features;
    cpu_features_detect(&features);
    switch (level) {
    case CPU_LEVEL_AVX_VNNI:
        return cpu_level_runs(&features, CPU_LEVEL_AVX2) ? &conv_kernels_avxvnni_twin : NULL;
    case CPU_LEVEL_AVX512:
        return &conv_kernels_avx512_simde;
    case CPU_LEVEL_AVX512_VNNI:
        return &conv_kernels_avx512vnni_simde;
    case CPU_LEVEL_AVX512_BF16:
        return &conv_kernels_avx512bf16_simde;
    default:
        return NULL;
    }
}

const conv_kernels *kernels_of(cpu_level level)
{
    cpu_features features;
    cpu_features_detect(&features);
    const conv_kernels *kernels = conv_kernels_find(level);
    if (cpu_level_runs(&features, level)) {
        return kernels->level == level ? kernels : NULL;
    }
    if (level == CPU_LEVEL_AVX_VNNI && cpu_level_runs(&features, CPU_LEVEL_AVX512_VNNI)) {
        return &conv_kernels_avxvnni_evex;
    }
    return emulation_of(level);
}
#else
static const conv_kernels *emulation_of(cpu_level level)
{
    (void)level;
    return NULL;
}

const conv_kernels *kernels_of(cpu_level level)
{
    const conv_kernels *kernels = conv_kernels_find(level);
    return kernels->level == level ? kernels : NULL;
}
#endif

size_t conv_table_count(void)
{
    return 2 * sizeof levels / sizeof *levels;
}

const conv_kernels *conv_table(size_t index)
{
    const cpu_level level = levels[index / 2];
    const conv_kernels *here = kernels_of(level);
    if (index % 2 == 0) {
        return here;
    }
    const conv_kernels *emulated = emulation_of(level);
    return emulated != here ? emulated : NULL;
}
