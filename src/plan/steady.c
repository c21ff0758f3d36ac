#include "plan/steady.h"

#include <string.h>

const void *plan_input_data(const plan_run_arguments *arguments, const char *name)
{
    for (size_t i = 0; i < arguments->input_count; i++) {
        if (strcmp(arguments->inputs[i].name, name) == 0) {
            return arguments->inputs[i].data;
        }
    }
    return NULL;
}

static bool is_steady_input(const program *p, const graph *g, int id)
{
    const tensor *t = &g->tensors[id];
    return t->kind == TENSOR_INPUT && t->steady && p->tensor_values[id] >= 0;
}

/* Takes out of the part whatever needs, writes or overwrites a value that others change, until
 * nothing more follows. `fickle` is by value. */
static void spread(steady_part *part, const program *p, bool *fickle)
{
    for (bool changed = true; changed;) {
        changed = false;
        for (int s = 0; s < p->step_count; s++) {
            const program_step *step = &p->steps[s];
            for (unsigned i = 0; i < step->input_count && part->steps[s]; i++) {
                part->steps[s] = !fickle[step->inputs[i]];
            }
            for (unsigned o = 0; o < step->output_count && part->steps[s]; o++) {
                part->steps[s] = !fickle[step->outputs[o]];
            }
            for (unsigned o = 0; o < step->output_count && !part->steps[s]; o++) {
                changed |= !fickle[step->outputs[o]];
                fickle[step->outputs[o]] = true;
            }
        }
    }
}

onestep_status steady_find(steady_part *result, const program *p, const graph *g,
                           onestep_error *error)
{
    *result = (steady_part){0};
    bool *fickle = memory_allocate((size_t)p->value_count, sizeof *fickle, error);
    result->steps = memory_allocate((size_t)p->step_count, sizeof *result->steps, error);
    result->kept = memory_allocate((size_t)p->value_count, sizeof *result->kept, error);
    for (int t = 0; t < g->tensor_count; t++) {
        if (is_steady_input(p, g, t)) {
            result->input_bytes += p->values[p->tensor_values[t]].bytes;
        }
    }
    result->inputs = memory_allocate(result->input_bytes + 1, 1, error);
    if (!fickle || !result->steps || !result->kept || !result->inputs) {
        memory_free(fickle);
        steady_free(result);
        return ONESTEP_ERROR_MEMORY;
    }
    /* Outputs are handed out in every run, so they are made in every run. */
    for (int v = 0; v < p->value_count; v++) {
        fickle[v] = p->values[v].kind != VALUE_INTERNAL;
    }
    for (int t = 0; t < g->tensor_count; t++) {
        if (is_steady_input(p, g, t)) {
            fickle[p->tensor_values[t]] = false;
        }
    }
    for (int s = 0; s < p->step_count; s++) {
        result->steps[s] = true;
    }
    spread(result, p, fickle);
    for (int s = 0; s < p->step_count; s++) {
        const program_step *step = &p->steps[s];
        result->any |= result->steps[s];
        for (unsigned i = 0; i < step->input_count && !result->steps[s]; i++) {
            const int value = step->inputs[i];
            result->kept[value] = !fickle[value] && p->values[value].kind == VALUE_INTERNAL;
        }
    }
    memory_free(fickle);
    return ONESTEP_OK;
}

void steady_free(steady_part *part)
{
    memory_free(part->steps);
    memory_free(part->kept);
    memory_free(part->inputs);
    *part = (steady_part){0};
}

bool steady_holds(const steady_part *part, const program *p, const graph *g,
                  const plan_run_arguments *arguments)
{
    if (!part->valid || memcmp(part->scalars, arguments->scalars, sizeof part->scalars) != 0) {
        return false;
    }
    const uint8_t *kept = part->inputs;
    for (int t = 0; t < g->tensor_count; t++) {
        if (is_steady_input(p, g, t)) {
            const void *data = plan_input_data(arguments, g->tensors[t].name);
            const size_t bytes = p->values[p->tensor_values[t]].bytes;
            if (!data || memcmp(kept, data, bytes) != 0) {
                return false;
            }
            kept += bytes;
        }
    }
    return true;
}

void steady_note(steady_part *part, const program *p, const graph *g,
                 const plan_run_arguments *arguments)
{
    memcpy(part->scalars, arguments->scalars, sizeof part->scalars);
    uint8_t *kept = part->inputs;
    for (int t = 0; t < g->tensor_count; t++) {
        if (is_steady_input(p, g, t)) {
            const size_t bytes = p->values[p->tensor_values[t]].bytes;
            memcpy(kept, plan_input_data(arguments, g->tensors[t].name), bytes);
            kept += bytes;
        }
    }
    part->valid = true;
}
