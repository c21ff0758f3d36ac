/* Tensor kernels for AVX2 with FMA. */
#include <immintrin.h>

#define CONV_VECTOR_FLOATS 8
#include "backend/cpu/tensor_loops.h"

TENSOR_KERNELS_TABLE(avx2, CPU_LEVEL_AVX2);
