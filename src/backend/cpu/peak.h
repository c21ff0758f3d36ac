/* The machine's float32 peak: chains of multiply-adds in registers. */
#ifndef ONESTEP_BACKEND_CPU_PEAK_H
#define ONESTEP_BACKEND_CPU_PEAK_H

#include <stddef.h>

/* Runs `rounds` rounds of independent multiply-adds and returns the floating-point operations done.
 * `*sink` receives a value that depends on all of them, so that none is optimised away. */
typedef double (*peak_loop)(size_t rounds, float *sink);

double peak_loop_plain(size_t rounds, float *sink);
double peak_loop_avx2(size_t rounds, float *sink);
double peak_loop_avx512(size_t rounds, float *sink);
double peak_loop_neon(size_t rounds, float *sink);

#endif
