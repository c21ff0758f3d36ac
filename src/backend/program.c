/* Programs: lists of values and steps that a backend fills when it lowers a graph. */
#include "backend/backend.h"

#include <string.h>

/* Makes room for one more element; NULL with the error set, and the old array still valid, when
 * there is no memory. */
static void *array_grow(void *array, int count, int *capacity, size_t size, onestep_error *error)
{
    if (count < *capacity) {
        return array;
    }
    int larger = *capacity ? *capacity * 2 : 64;
    void *grown = memory_resize(array, (size_t)larger, size, error);
    if (grown) {
        *capacity = larger;
    }
    return grown;
}

int program_value_add(program *p, value_kind kind, size_t bytes, tensor_id id, onestep_error *error)
{
    program_value *values =
        array_grow(p->values, p->value_count, &p->value_capacity, sizeof *values, error);
    if (!values) {
        return -1;
    }
    p->values = values;
    values[p->value_count] = (program_value){.kind = kind, .bytes = bytes, .tensor = id};
    return p->value_count++;
}

program_step *program_step_add(program *p, onestep_error *error)
{
    program_step *steps =
        array_grow(p->steps, p->step_count, &p->step_capacity, sizeof *steps, error);
    if (!steps) {
        return NULL;
    }
    p->steps = steps;
    program_step *step = &steps[p->step_count++];
    memset(step, 0, sizeof *step);
    step->in_place = -1;
    step->weight_number_bytes = sizeof(float);
    return step;
}

void program_destroy(backend *b, program *p)
{
    if (p->lowered) {
        b->functions->lowered_destroy(b, p->lowered);
    }
    memory_free(p->values);
    memory_free(p->steps);
    memory_free(p->tensor_values);
    memset(p, 0, sizeof *p);
}

void backend_destroy(backend **b)
{
    if (*b) {
        (*b)->functions->destroy(*b);
        *b = NULL;
    }
}
