/* Convolution kernels for AVX2 with FMA, compiled twice: as it is, and with AVX-VNNI's vpdpwssd and
 * vpdpbusd (CONV_AVX_VNNI). Tests compile the second without assembly (CONV_NO_ASSEMBLY), which any
 * machine with AVX2 runs. */
#ifndef ONESTEP_BACKEND_CPU_CONV_AVX2_H
#define ONESTEP_BACKEND_CPU_CONV_AVX2_H

#include <immintrin.h>

#define CONV_VECTOR_FLOATS 8
#include "backend/cpu/conv_tile.h"

#include "backend/cpu/conv_avx2_pairs.h"
#include "backend/cpu/conv_table.h"

#endif
