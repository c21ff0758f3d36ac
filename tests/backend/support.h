/* Helpers of the backend tests: made-up weights and inputs, and running a graph on any backend. */
#ifndef TESTS_BACKEND_SUPPORT_H
#define TESTS_BACKEND_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backend/backend.h"

/* Fails the test with the error's message. */
#define assert_ok(call)                                                                            \
    do {                                                                                           \
        onestep_error assert_error = {0};                                                          \
        onestep_error *error = &assert_error;                                                      \
        if ((call) != ONESTEP_OK) {                                                                \
            fail_msg("%s: %s", #call, error->message);                                             \
        }                                                                                          \
    } while (0)

/* Normal-like numbers (sum of uniforms) with the given standard deviation; the same for a seed. */
void fill_random(float *values, size_t count, uint64_t seed, float deviation);

/* norm(a - b) / norm(b); infinite when something is not finite. */
double relative_error(const float *a, const float *b, size_t count);

/* ---- weights ------------------------------------------------------------------------------------
 */

/* A weight expression of one full term on f32 values that it owns; more terms may be added. */
typedef struct test_weight {
    weight_expression expression; /* first: the address counts */
    named_tensor tensors[3 * WEIGHT_TERMS];
    void *data[3 * WEIGHT_TERMS];
} test_weight;

test_weight *test_weight_create(const size_t dims[4], uint64_t seed, float deviation);
void test_weight_destroy(test_weight *weight);
/* Adds terms of random numbers of the given type (f32, f16, bf16 or f64). */
void test_weight_add_full(test_weight *weight, element_type type, coefficient scale, uint64_t seed,
                          float deviation);
void test_weight_add_low_rank(test_weight *weight, element_type type, coefficient scale,
                              size_t rank, uint64_t seed, float deviation);
/* The numbers of the first term (f32), to look at or to change. */
float *test_weight_values(test_weight *weight);

/* ---- running ------------------------------------------------------------------------------- */

typedef struct test_input {
    const char *name;
    const void *data;
} test_input;

/* Lowers and runs `g` on `b` and gives the value of the output `name` (released with free). Every
 * value and the scratch have places of their own, filled with NaN before the run and with guard
 * bytes behind that are checked after every step. NULL with the error set on failure. */
float *test_run(backend *b, const graph *g, weight_cache *weights, precision precision,
                const test_input *inputs, size_t input_count, const float *scalars,
                const char *name, onestep_error *error);

#endif
