/* The steady part of a program: steps that depend on weights, constants, scalars and inputs that
 * the graph calls steady, and on nothing else. While those stay the same from run to run (one
 * caption, one gamma), so do the results, which are kept in the arena in place of being computed
 * again. */
#ifndef ONESTEP_PLAN_STEADY_H
#define ONESTEP_PLAN_STEADY_H

#include "plan/plan.h"

typedef struct steady_part {
    bool *steps; /* by step: belongs to the part */
    bool *kept;  /* by value: made by the part and read by other steps, so kept between runs */
    bool any;    /* whether a step does */
    bool valid;  /* the kept values are in the arena, made of: */
    float scalars[SCALAR_COUNT];
    uint8_t *inputs; /* the data of all steady inputs, in the order of their tensors */
    size_t input_bytes;
} steady_part;

onestep_status steady_find(steady_part *result, const program *p, const graph *g,
                           onestep_error *error) MUST_USE;
void steady_free(steady_part *part);

/* Whether the kept values are those that these arguments give. */
bool steady_holds(const steady_part *part, const program *p, const graph *g,
                  const plan_run_arguments *arguments);
/* Notes that the kept values have been made of these arguments. */
void steady_note(steady_part *part, const program *p, const graph *g,
                 const plan_run_arguments *arguments);

/* The data bound to an input, or NULL. */
const void *plan_input_data(const plan_run_arguments *arguments, const char *name);

#endif
