/* plan: gives every value of a lowered graph a place in one arena, and runs the steps.
 *
 * A plan belongs to one session and one picture size. It knows of times, sizes and lifetimes, never
 * of kernels. */
#ifndef ONESTEP_PLAN_H
#define ONESTEP_PLAN_H

#include "backend/backend.h"

typedef struct plan plan;

/* Lowers the graph, which must outlive the plan, and places its values. No activation memory is
 * taken before the first run. */
onestep_status plan_create(plan **result, backend *b, const graph *g, const lower_options *options,
                           onestep_error *error) MUST_USE;
void plan_destroy(plan **result);

/* Bytes of the arena; of the largest step's scratch (a part of the arena). */
size_t plan_arena_bytes(const plan *p);
/* Floating-point operations of one run (direct count). */
double plan_operations(const plan *p);
/* Gives the arena back to the system until the next run. */
void plan_release_memory(plan *p);

/* An input of the graph by name; `data` is NHWC float32 or int32 with the tensor's size. */
typedef struct plan_input {
    const char *name;
    const void *data;
} plan_input;

/* Called for every output of the graph right after the step that makes it, in that order; `values`
 * is NHWC, valid during the call. A status other than ONESTEP_OK ends the run with it. */
typedef onestep_status (*plan_output_function)(void *context, const char *name,
                                               const size_t dims[4], const float *values,
                                               onestep_error *error);

/* Called before every step with the operations done so far and the step's stage. A status other
 * than ONESTEP_OK ends the run with it. */
typedef onestep_status (*plan_progress_function)(void *context, double operations_done,
                                                 const char *stage, onestep_error *error);

typedef struct plan_run_arguments {
    const plan_input *inputs;
    size_t input_count;
    const float *scalars; /* SCALAR_COUNT */
    plan_output_function output;
    plan_progress_function progress; /* may be NULL */
    void *context;                   /* of both */
} plan_run_arguments;

/* Runs all steps, but for those whose results are kept from the run before (steady.h): they take no
 * time. After a failure the plan can be run again. */
onestep_status plan_run(plan *p, const plan_run_arguments *arguments,
                        onestep_error *error) MUST_USE;

/* Seconds that the steps of a stage took in the last run. */
double plan_stage_seconds(const plan *p, const char *stage);

/* What is known of one step. */
typedef struct plan_layer {
    const char *stage, *algorithm;
    const char *weight; /* the name of its node's weight, or "" */
    /* n,h,w,c of its node's output, of which a gate that was fused into it keeps half; zero when it
     * has no node */
    size_t dims[4];
    double operations;                 /* direct count */
    double bytes;                      /* what it must move at least, see plan.c */
    double predicted_seconds, seconds; /* 0: no model; of the last run */
} plan_layer;

int plan_layer_count(const plan *p);
/* Steps stand in the order in which they run; strings live as long as the plan. */
void plan_layer_get(const plan *p, int index, plan_layer *layer);

/* One line a step: stage, operation, shape, algorithm, operations, predicted and measured time. */
void plan_print(const plan *p, text_buffer *out);

#endif
