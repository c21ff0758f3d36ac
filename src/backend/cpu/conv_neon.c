/* Convolution kernels for NEON. Twice 16 bits a lane multiply no faster there than 32, so `auto`
 * keeps to floats. */
#include <arm_neon.h>

#define CONV_NEON          1
#define CONV_VECTOR_FLOATS 4
#include "backend/cpu/conv_tile.h"

#include "backend/cpu/conv_portable_pairs.h"
#include "backend/cpu/conv_table.h"

const conv_kernels conv_kernels_neon = CONV_TABLE("neon", CPU_LEVEL_NEON, );
