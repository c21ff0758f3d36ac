/* Convolution kernels for AVX-512 with VNNI: products of 16-bit integers in one instruction. */
#define CONV_AVX512_VNNI
#include "backend/cpu/conv_avx512.h"

const conv_kernels conv_kernels_avx512vnni =
    CONV_TABLE("avx512vnni", CPU_LEVEL_AVX512_VNNI, AVX512_KERNELS);
