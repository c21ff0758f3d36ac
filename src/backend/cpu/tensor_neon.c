/* Tensor kernels for NEON. */
#include <arm_neon.h>

#define CONV_NEON          1
#define CONV_VECTOR_FLOATS 4
#include "backend/cpu/tensor_loops.h"

TENSOR_KERNELS_TABLE(neon, CPU_LEVEL_NEON);
