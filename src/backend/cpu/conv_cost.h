/* How long a convolution takes: private to the convolution files. */
#ifndef ONESTEP_BACKEND_CPU_CONV_COST_H
#define ONESTEP_BACKEND_CPU_CONV_COST_H

#include "backend/cpu/conv_direct.h"
#include "backend/cpu/winograd.h"

/* Estimated seconds on `threads` cores; calibrated by bench/conv_bench. */
double conv_direct_seconds(const conv_direct_layout *layout, const conv_shape *shape,
                           const conv_kernels *kernels, unsigned threads);
double winograd_seconds(const winograd_layout *layout, const conv_shape *shape,
                        const conv_kernels *kernels, unsigned threads);

#endif
