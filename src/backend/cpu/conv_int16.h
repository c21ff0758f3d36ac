/* Matrix products of 16-bit integers that are files of their own. */
#ifndef ONESTEP_BACKEND_CPU_CONV_INT16_H
#define ONESTEP_BACKEND_CPU_CONV_INT16_H

#include "backend/cpu/conv_kernels.h"

void conv_multiply_int16_avx2(const conv_multiply_pairs *task);

#endif
