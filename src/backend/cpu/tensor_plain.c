/* Tensor kernels in portable C with the compiler's vectors. */
#define CONV_VECTOR_FLOATS 4
#include "backend/cpu/tensor_loops.h"

TENSOR_KERNELS_TABLE(plain, CPU_LEVEL_PLAIN);
