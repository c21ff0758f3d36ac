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

/* The table that runs a level here: its own where the CPU has the level, the same code without its
 * instructions where it does not, or NULL on machines of another kind. */
const conv_kernels *kernels_of(cpu_level level);

/* Table `index` of all that can run here, emulated ones beside those of the CPU's own levels, or
 * NULL; index < conv_table_count(). */
const conv_kernels *conv_table(size_t index);
size_t conv_table_count(void);

#endif
