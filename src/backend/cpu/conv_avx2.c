/* Convolution kernels for AVX2 with FMA. */
#include "backend/cpu/conv_avx2.h"

const conv_kernels conv_kernels_avx2 = CONV_TABLE("avx2", CPU_LEVEL_AVX2, INT8_KERNELS);
