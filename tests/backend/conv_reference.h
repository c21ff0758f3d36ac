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

/* The same for halves, whose last one may end between two floats. */
typedef struct guarded_halves {
    void *mapping;
    size_t mapping_bytes;
    uint16_t *values;
    size_t count;
} guarded_halves;

void guarded_halves_create(guarded_halves *buffer, size_t halves, bool at_end);
void guarded_halves_destroy(guarded_halves *buffer);

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
    /* Weights are positive, and these input channels' a thousandth as large (0, 0: as usual). */
    size_t gentle_begin, gentle_end;
    conv_storage input_storage, residual_storage, output_storage;
} conv_case;

typedef struct conv_buffers {
    guarded_floats input, weights, scale, shift, bias, image_bias, residual, output, statistics;
    /* What is stored as halves: `input` and `residual` are then what these stand for. */
    guarded_halves input_halves, residual_halves, output_halves;
    double *expected; /* [batch][height][width][channels] */
    size_t outputs;   /* how many */
} conv_buffers;

void conv_buffers_create(conv_buffers *buffers, const conv_case *test, uint64_t seed);
void conv_buffers_destroy(conv_buffers *buffers);
conv_arguments conv_buffers_arguments(const conv_buffers *buffers, const conv_case *test);
/* Makes every output NaN, with all bits set, as what lies between the pixels of all activations
 * is; the second tells whether that still is so between the pixels of the outputs. */
void conv_buffers_clear(conv_buffers *buffers);
bool conv_buffers_gaps_kept(const conv_buffers *buffers, const conv_case *test);
/* Gives residual `index`, counted without the stride, a value. */
void conv_buffers_set_residual(conv_buffers *buffers, const conv_case *test, size_t index,
                               float value);
/* norm(output - expected) / norm(expected), of an output in floats */
double conv_buffers_error(const conv_buffers *buffers, const conv_case *test);
/* The output as plain rows without the stride, to compare bytes; what halves stand for differs
 * where they do. Released with free. */
float *conv_buffers_output(const conv_buffers *buffers, const conv_case *test);

/* The half that stores a value, what a half stands for, and one after the other. */
uint16_t conv_half_of(float value);
float conv_value_of(uint16_t half);
float conv_rounded(float value);

#endif
