/* The machine's float32 peak. */
#ifndef ONESTEP_BACKEND_CPU_PEAK_H
#define ONESTEP_BACKEND_CPU_PEAK_H

#include "base/base.h"

/* Operations a second of multiply-adds in registers on every thread of the pool (at most 64), with
 * the vectors of `level`; a multiply-add counts as two. The best of a few short runs. */
double cpu_peak(thread_pool *pool, cpu_level level);

#endif
