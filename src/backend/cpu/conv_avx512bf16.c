/* Convolution kernels for AVX-512 with VNNI and bfloat16. */
#define CONV_AVX512_VNNI
#define CONV_AVX512_BF16
#include "backend/cpu/conv_avx512.h"

const conv_kernels conv_kernels_avx512bf16 =
    CONV_TABLE("avx512bf16", CPU_LEVEL_AVX512_BF16, AVX512_KERNELS);
