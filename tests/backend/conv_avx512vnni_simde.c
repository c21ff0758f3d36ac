/* The AVX-512 VNNI kernels through SIMDe, so that their code runs on every machine. */
#include "conv_tables.h"

/* 64-byte vectors are passed between inlined functions only. */
#pragma GCC diagnostic ignored "-Wpsabi"

#define CONV_SIMDE
#define conv_kernels_avx512vnni conv_kernels_avx512vnni_simde
#include "../../src/backend/cpu/conv_avx512vnni.c"
