/* Convolution kernels for AVX2 with AVX-VNNI: products of 16-bit and 8-bit integers in one
 * instruction. */
#define CONV_AVX_VNNI
#include "backend/cpu/conv_avx2.h"

const conv_kernels conv_kernels_avxvnni = CONV_TABLE("avxvnni", CPU_LEVEL_AVX_VNNI, INT8_KERNELS);
