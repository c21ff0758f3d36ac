/* A convolution as simple as can be, in double precision, and buffers that end at a page which
 * must not be touched: what the convolution tests compare with and run on. */
#ifndef ONESTEP_TESTS_CONV_REFERENCE_H
#define ONESTEP_TESTS_CONV_REFERENCE_H

#include "backend/cpu/conv_kernels.h"

/* `floats` values that end right before a protected page (at_end) or begin right after one. */
typedef struct guarded_floats {
    void *mapping;
    size_t mapping_bytes;
    float *values;
    size_t count;
} guarded_floats;

void guarded_create(guarded_floats *buffer, size_t floats, bool at_end);
void guarded_destroy(guarded_floats *buffer);

/* A small generator of its own, so that a failing case can be repeated. */
typedef struct test_random {
    uint64_t state;
} test_random;

uint32_t test_random_below(test_random *random, uint32_t limit);
float test_random_normal(test_random *random);

/* What a convolution is given, in unpadded double-checked form. */
typedef struct conv_case {
    conv_shape shape;
    bool normalise, silu, bias, image_bias, residual, statistics, in_place;
    conv_activation activation;
    float output_scale, residual_scale;
    size_t extra_stride; /* floats between pixels beyond the channels */
    bool at_end;         /* where the guard pages are */
    float offset;        /* mean of the input: stresses cancellation */
} conv_case;

typedef struct conv_buffers {
    guarded_floats input, weights, scale, shift, bias, image_bias, residual, output, statistics;
    double *expected; /* [batch][height][width][channels] */
    size_t outputs;   /* how many */
} conv_buffers;

void conv_buffers_create(conv_buffers *buffers, const conv_case *test, uint64_t seed);
void conv_buffers_destroy(conv_buffers *buffers);
conv_arguments conv_buffers_arguments(const conv_buffers *buffers, const conv_case *test);
/* norm(output - expected) / norm(expected) */
double conv_buffers_error(const conv_buffers *buffers, const conv_case *test);
/* The output as plain rows without the stride, to compare bytes; released with free. */
float *conv_buffers_output(const conv_buffers *buffers, const conv_case *test);

#endif
