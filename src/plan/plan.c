/* Running a placed program: upload, step by step, download. */
#include "plan/plan.h"
#include "plan/placement.h"
#include "plan/steady.h"

#include <stdio.h>
#include <string.h>

struct plan {
    backend *backend;
    const graph *graph;
    program program;
    placement placement;
    steady_part steady;
    device_buffer *arena; /* NULL until needed */
    double operations;
    double *step_seconds; /* of the last run */
};

onestep_status plan_create(plan **result, backend *b, const graph *g, const lower_options *options,
                           onestep_error *error)
{
    *result = NULL;
    onestep_status status = graph_check(g, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    plan *p = memory_allocate(1, sizeof *p, error);
    if (!p) {
        return ONESTEP_ERROR_MEMORY;
    }
    p->backend = b;
    p->graph = g;
    status = b->functions->lower(b, g, options, &p->program, error);
    if (status == ONESTEP_OK) {
        status = steady_find(&p->steady, &p->program, g, error);
    }
    if (status == ONESTEP_OK) {
        status = placement_create(&p->placement, &p->program, p->steady.kept, error);
    }
    if (status == ONESTEP_OK) {
        p->step_seconds =
            memory_allocate((size_t)p->program.step_count, sizeof *p->step_seconds, error);
        status = p->step_seconds ? ONESTEP_OK : ONESTEP_ERROR_MEMORY;
    }
    for (int s = 0; s < p->program.step_count; s++) {
        p->operations += p->program.steps[s].operations;
    }
    if (status != ONESTEP_OK) {
        plan_destroy(&p);
        return status;
    }
    *result = p;
    return ONESTEP_OK;
}

void plan_destroy(plan **result)
{
    plan *p = *result;
    if (!p) {
        return;
    }
    plan_release_memory(p);
    placement_free(&p->placement);
    steady_free(&p->steady);
    program_destroy(p->backend, &p->program);
    memory_free(p->step_seconds);
    memory_free(p);
    *result = NULL;
}

size_t plan_arena_bytes(const plan *p)
{
    return p->placement.arena_bytes;
}

double plan_operations(const plan *p)
{
    return p->operations;
}

void plan_release_memory(plan *p)
{
    if (p->arena) {
        p->backend->functions->release(p->backend, p->arena);
        p->arena = NULL;
        p->steady.valid = false;
    }
}

static onestep_status upload_inputs(plan *p, const plan_run_arguments *arguments,
                                    onestep_error *error)
{
    const graph *g = p->graph;
    for (int t = 0; t < g->tensor_count; t++) {
        int value = p->program.tensor_values[t];
        if (g->tensors[t].kind != TENSOR_INPUT || value < 0) {
            continue;
        }
        const void *data = plan_input_data(arguments, g->tensors[t].name);
        if (!data) {
            return error_set(error, ONESTEP_ERROR_INTERNAL, "input %s is not bound",
                             g->tensors[t].name);
        }
        p->backend->functions->upload(p->backend, p->arena, p->placement.offsets[value], data,
                                      p->program.values[value].bytes);
    }
    return ONESTEP_OK;
}

/* Hands out the outputs whose value is `value`. */
static onestep_status give_outputs(plan *p, int value, const plan_run_arguments *arguments,
                                   onestep_error *error)
{
    const graph *g = p->graph;
    onestep_status status = ONESTEP_OK;
    for (int o = 0; o < g->output_count && status == ONESTEP_OK; o++) {
        if (p->program.tensor_values[g->outputs[o].tensor] != value) {
            continue;
        }
        size_t bytes = p->program.values[value].bytes;
        float *host = memory_allocate_aligned(bytes, error);
        if (!host) {
            return ONESTEP_ERROR_MEMORY;
        }
        p->backend->functions->sync(p->backend);
        p->backend->functions->download(p->backend, p->arena, p->placement.offsets[value], host,
                                        bytes);
        status = arguments->output(arguments->context, g->outputs[o].name,
                                   g->tensors[g->outputs[o].tensor].dims, host, error);
        memory_free_aligned(host, bytes);
    }
    return status;
}

onestep_status plan_run(plan *p, const plan_run_arguments *arguments, onestep_error *error)
{
    backend *b = p->backend;
    onestep_status status = ONESTEP_OK;
    if (!p->arena) {
        status = b->functions->allocate(b, p->placement.arena_bytes, &p->arena, error);
    }
    if (status == ONESTEP_OK) {
        status = upload_inputs(p, arguments, error);
    }
    for (int v = 0; v < p->program.value_count && status == ONESTEP_OK; v++) {
        if (p->program.values[v].kind == VALUE_INPUT) {
            status = give_outputs(p, v, arguments, error);
        }
    }
    const bool kept = steady_holds(&p->steady, &p->program, p->graph, arguments);
    p->steady.valid = kept;
    double done = 0;
    for (int s = 0; s < p->program.step_count && status == ONESTEP_OK; s++) {
        const program_step *step = &p->program.steps[s];
        if (kept && p->steady.steps[s]) {
            p->step_seconds[s] = 0;
            done += step->operations;
            continue;
        }
        if (arguments->progress) {
            status = arguments->progress(arguments->context, done, step->stage, error);
            if (status != ONESTEP_OK) {
                break;
            }
        }
        step_bindings bindings = {.arena = p->arena,
                                  .offsets = p->placement.offsets,
                                  .scratch_offset = p->placement.scratch_offsets[s],
                                  .scalars = arguments->scalars};
        double start = monotonic_seconds();
        status = b->functions->run(b, &p->program, s, &bindings, error);
        p->step_seconds[s] = monotonic_seconds() - start;
        done += step->operations;
        for (unsigned o = 0; o < step->output_count && status == ONESTEP_OK; o++) {
            status = give_outputs(p, step->outputs[o], arguments, error);
        }
    }
    b->functions->sync(b);
    if (status == ONESTEP_OK && p->steady.any && !kept) {
        steady_note(&p->steady, &p->program, p->graph, arguments);
    }
    return status;
}

double plan_stage_seconds(const plan *p, const char *stage)
{
    double sum = 0;
    for (int s = 0; s < p->program.step_count; s++) {
        if (strcmp(p->program.steps[s].stage, stage) == 0) {
            sum += p->step_seconds[s];
        }
    }
    return sum;
}

/* The weight that a step's node uses, or NULL: not its bias, which is small beside it. */
static const tensor *step_weight(const plan *p, const program_step *step)
{
    if (step->node < 0) {
        return NULL;
    }
    const node *n = &p->graph->nodes[step->node];
    for (unsigned i = 0; i < n->input_count; i++) {
        const tensor *t = &p->graph->tensors[n->inputs[i]];
        if (t->kind == TENSOR_WEIGHT) {
            return t;
        }
    }
    return NULL;
}

/* What a step must move at least, if nothing were kept in a cache from the step before: the values
 * that it reads and writes in the arena, each once, and every number of its weight once, in the
 * type that it is computed in (float32 4 bytes, int16 and bf16 2). Scratch and padding of packed
 * weights are the algorithm's own and not counted. */
static double step_bytes(const plan *p, const program_step *step, const tensor *weight)
{
    double bytes = 0;
    for (unsigned i = 0; i < step->input_count; i++) {
        bytes += (double)p->program.values[step->inputs[i]].bytes;
    }
    for (unsigned o = 0; o < step->output_count; o++) {
        bytes += (double)p->program.values[step->outputs[o]].bytes;
    }
    if (weight) {
        bytes += (double)graph_element_count(weight) * (double)step->weight_number_bytes;
    }
    return bytes;
}

int plan_layer_count(const plan *p)
{
    return p->program.step_count;
}

void plan_layer_get(const plan *p, int index, plan_layer *layer)
{
    const program_step *step = &p->program.steps[index];
    const tensor *weight = step_weight(p, step);
    *layer = (plan_layer){.stage = step->stage,
                          .algorithm = step->algorithm,
                          .weight = weight && weight->name ? weight->name : "",
                          .operations = step->operations,
                          .bytes = step_bytes(p, step, weight),
                          .predicted_seconds = step->predicted_seconds,
                          .seconds = p->step_seconds[index]};
    if (step->node >= 0) {
        memcpy(layer->dims, graph_dims(p->graph, p->graph->nodes[step->node].output),
               sizeof layer->dims);
    }
}

void plan_print(const plan *p, text_buffer *out)
{
    text_buffer_print(out, "%-6s %-26s %-20s %10s %10s %10s %8s  %s\n", "stage", "algorithm",
                      "output (n,h,w,c)", "GFLOP", "predict ms", "took ms", "GFLOP/s", "weight");
    double predicted = 0, seconds = 0;
    for (int s = 0; s < plan_layer_count(p); s++) {
        plan_layer layer;
        plan_layer_get(p, s, &layer);
        char shape[96] = "";
        if (layer.dims[0]) {
            snprintf(shape, sizeof shape, "%zu,%zu,%zu,%zu", layer.dims[0], layer.dims[1],
                     layer.dims[2], layer.dims[3]);
        }
        text_buffer_print(
            out, "%-6s %-26s %-20s %10.4f %10.3f %10.3f %8.1f  %s\n", layer.stage, layer.algorithm,
            shape, layer.operations / 1e9, layer.predicted_seconds * 1e3, layer.seconds * 1e3,
            layer.seconds > 0 ? layer.operations / layer.seconds / 1e9 : 0.0, layer.weight);
        predicted += layer.predicted_seconds;
        seconds += layer.seconds;
    }
    text_buffer_print(out, "%d steps, %.1f GFLOP, predicted %.1f ms, took %.1f ms, arena %.1f MB\n",
                      p->program.step_count, p->operations / 1e9, predicted * 1e3, seconds * 1e3,
                      (double)p->placement.arena_bytes / 1e6);
}
