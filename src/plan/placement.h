/* Liveness and placement: where in the arena every value and every step's scratch lies. */
#ifndef ONESTEP_PLAN_PLACEMENT_H
#define ONESTEP_PLAN_PLACEMENT_H

#include "backend/backend.h"

typedef struct placement {
    size_t *offsets;         /* by value */
    size_t *scratch_offsets; /* by step */
    size_t arena_bytes;
} placement;

/* Places values so that no two that live at the same time overlap; a step's output takes over its
 * input's place where the step allows it and nobody reads that input later. `kept` (by value) have
 * their places to themselves from run to run. */
onestep_status placement_create(placement *result, const program *p, const bool *kept,
                                onestep_error *error) MUST_USE;
void placement_free(placement *result);

#endif
