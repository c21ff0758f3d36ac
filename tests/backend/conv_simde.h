/* Kernel tables of levels that the machine may lack, compiled through SIMDe. */
#ifndef ONESTEP_TESTS_CONV_SIMDE_H
#define ONESTEP_TESTS_CONV_SIMDE_H

#include "backend/cpu/conv_kernels.h"

extern const conv_kernels conv_kernels_avx512_simde;
extern const conv_kernels conv_kernels_avx512vnni_simde;
extern const conv_kernels conv_kernels_avx512bf16_simde;

#endif
