/* Convolution kernels for AVX-512 F, BW, DQ, VL. */
#include "backend/cpu/conv_avx512.h"

const conv_kernels conv_kernels_avx512 = CONV_TABLE("avx512", CPU_LEVEL_AVX512, AVX512_KERNELS);
