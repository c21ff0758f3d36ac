/* Tensor kernels for AVX-512. */
#include <immintrin.h>

#define CONV_VECTOR_FLOATS 16
#include "backend/cpu/tensor_loops.h"

TENSOR_KERNELS_TABLE(avx512, CPU_LEVEL_AVX512);
