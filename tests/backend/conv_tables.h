/* Kernel tables of every level, those that the machine lacks too. */
#ifndef ONESTEP_TESTS_CONV_TABLES_H
#define ONESTEP_TESTS_CONV_TABLES_H

#include "backend/cpu/conv_kernels.h"

/* Compiled through SIMDe. */
extern const conv_kernels conv_kernels_avx512_simde;
extern const conv_kernels conv_kernels_avx512vnni_simde;
extern const conv_kernels conv_kernels_avx512bf16_simde;
/* AVX-VNNI's without its instructions, for AVX2; and with the encoding that AVX-512 VNNI has for
 * them. */
extern const conv_kernels conv_kernels_avxvnni_twin;
extern const conv_kernels conv_kernels_avxvnni_evex;

/* The code of a level without its instructions, or NULL. */
const conv_kernels *emulation_of(cpu_level level);

/* The table that runs a level here: its own where the CPU has the level, the same code without its
 * instructions where it does not, or NULL on machines of another kind. */
const conv_kernels *kernels_of(cpu_level level);

#endif
