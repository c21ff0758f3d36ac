/* The reference backend's table of functions: lowering to one step a node, and running it. */
#include "backend/reference/reference.h"
#include "backend/host.h"

#include <math.h>
#include <string.h>

/* Where an operand is when the program runs. */
typedef struct lowered_operand {
    int value;                       /* or -1 */
    const weight_expression *weight; /* or NULL */
    const float *constant;           /* owned by the graph; or NULL */
    size_t dims[4];
    size_t count;
} lowered_operand;

typedef struct lowered_step {
    operation operation;
    node_attributes attributes;
    unsigned input_count;
    lowered_operand inputs[NODE_INPUTS];
    size_t dims[4];
    size_t count;
} lowered_step;

typedef struct lowered_program {
    weight_cache *weights;
    int step_count;
    lowered_step *steps; /* as many as the program has */
} lowered_program;

static const reference_kernel kernels[OPERATION_COUNT] = {
#define OPERATION(enumerator, name, least, most, gradient)                                         \
    [OPERATION_##enumerator] = reference_##name,
#include "graph/ops.def"
#undef OPERATION
};

/* ---- lowering ------------------------------------------------------------------------------ */

/* Marks the nodes that some output needs. */
static onestep_status find_needed(const graph *g, bool **result, onestep_error *error)
{
    bool *needed = memory_allocate((size_t)g->node_count, sizeof *needed, error);
    if (!needed) {
        return ONESTEP_ERROR_MEMORY;
    }
    for (int o = 0; o < g->output_count; o++) {
        const tensor *t = &g->tensors[g->outputs[o].tensor];
        if (t->producer >= 0) {
            needed[t->producer] = true;
        } else if (t->kind != TENSOR_INPUT) {
            memory_free(needed);
            return error_set(error, ONESTEP_ERROR_INTERNAL, "output %s is a weight or a constant",
                             g->outputs[o].name);
        }
    }
    for (int n = g->node_count - 1; n >= 0; n--) {
        for (unsigned i = 0; needed[n] && i < g->nodes[n].input_count; i++) {
            int producer = g->tensors[g->nodes[n].inputs[i]].producer;
            if (producer >= 0) {
                needed[producer] = true;
            }
        }
    }
    *result = needed;
    return ONESTEP_OK;
}

/* The value of a tensor, made when it has none yet; -1 for want of memory. */
static int value_of(const graph *g, program *p, tensor_id id, onestep_error *error)
{
    const tensor *t = &g->tensors[id];
    if (p->tensor_values[id] < 0) {
        value_kind kind = t->kind == TENSOR_INPUT ? VALUE_INPUT
                          : t->observed           ? VALUE_OUTPUT
                                                  : VALUE_INTERNAL;
        p->tensor_values[id] =
            program_value_add(p, kind, graph_element_count(t) * element_size(t->type), id, error);
    }
    return p->tensor_values[id];
}

/* The input whose memory the output may take over: of operations that read a number just before
 * they write it. */
static int in_place_input(operation op)
{
    switch (op) {
    case OPERATION_SILU:
    case OPERATION_GELU:
    case OPERATION_QUICK_GELU:
    case OPERATION_EXP:
    case OPERATION_CLAMP:
    case OPERATION_SCALE:
    case OPERATION_COMBINE:
    case OPERATION_MULTIPLY:
    case OPERATION_ACTIVATION_GRADIENT:
        return 0;
    default:
        return -1;
    }
}

static bool step_scratch(const lowered_step *s, unsigned threads, size_t *bytes)
{
    *bytes = 0;
    switch (s->operation) {
    case OPERATION_CONV2D:
    case OPERATION_LINEAR:
    case OPERATION_CONV2D_INPUT_GRADIENT:
        return reference_product_scratch(s->inputs[1].dims, bytes);
    case OPERATION_ATTENTION:
    case OPERATION_ATTENTION_GRADIENT:
        return reference_attention_scratch(s->inputs[0].dims, s->inputs[1].dims, &s->attributes,
                                           s->operation == OPERATION_ATTENTION_GRADIENT, threads,
                                           bytes);
    default:
        return true;
    }
}

static onestep_status lower_node(const backend *self, const graph *g, int index, program *p,
                                 lowered_step *lowered, onestep_error *error)
{
    const node *n = &g->nodes[index];
    program_step *step = program_step_add(p, error);
    if (!step) {
        return ONESTEP_ERROR_MEMORY;
    }
    step->algorithm = operation_name(n->operation);
    step->stage = n->stage;
    step->node = index;
    step->operations = operation_cost(g, n);
    lowered->operation = n->operation;
    lowered->attributes = n->attributes;
    lowered->input_count = n->input_count;
    memcpy(lowered->dims, g->tensors[n->output].dims, sizeof lowered->dims);
    lowered->count = graph_element_count(&g->tensors[n->output]);
    for (unsigned i = 0; i < n->input_count; i++) {
        const tensor *t = &g->tensors[n->inputs[i]];
        lowered_operand *operand = &lowered->inputs[i];
        operand->value = -1;
        operand->weight = t->weight;
        operand->constant = t->constant;
        operand->count = graph_element_count(t);
        memcpy(operand->dims, t->dims, sizeof operand->dims);
        if (t->kind == TENSOR_ACTIVATION || t->kind == TENSOR_INPUT) {
            operand->value = value_of(g, p, n->inputs[i], error);
            if (operand->value < 0) {
                return ONESTEP_ERROR_MEMORY;
            }
            if (i == 0 && in_place_input(n->operation) == 0) {
                step->in_place = (int)step->input_count;
            }
            step->inputs[step->input_count++] = operand->value;
        }
    }
    step->outputs[0] = value_of(g, p, n->output, error);
    if (step->outputs[0] < 0) {
        return ONESTEP_ERROR_MEMORY;
    }
    step->output_count = 1;
    if (!step_scratch(lowered, thread_pool_size(self->pool), &step->scratch_bytes)) {
        return error_set(error, ONESTEP_ERROR_MEMORY, "%s: the scratch memory's size overflows",
                         step->algorithm);
    }
    return ONESTEP_OK;
}

static void reference_lowered_destroy(backend *self, void *lowered)
{
    (void)self;
    lowered_program *l = lowered;
    memory_free(l->steps);
    memory_free(l);
}

static onestep_status reference_lower(backend *self, const graph *g, const lower_options *options,
                                      program *p, onestep_error *error)
{
    memset(p, 0, sizeof *p);
    bool *needed = NULL;
    onestep_status status = find_needed(g, &needed, error);
    lowered_program *l = NULL;
    if (status != ONESTEP_OK) {
        return status;
    }
    status = ONESTEP_ERROR_MEMORY;
    p->tensor_values = memory_allocate((size_t)g->tensor_count, sizeof *p->tensor_values, error);
    if (!p->tensor_values) {
        goto done;
    }
    memset(p->tensor_values, -1, (size_t)g->tensor_count * sizeof *p->tensor_values);
    l = memory_allocate(1, sizeof *l, error);
    if (!l) {
        goto done;
    }
    p->lowered = l;
    l->weights = options->weights;
    l->steps = memory_allocate((size_t)g->node_count, sizeof *l->steps, error);
    if (!l->steps) {
        goto done;
    }
    for (int o = 0; o < g->output_count; o++) {
        if (value_of(g, p, g->outputs[o].tensor, error) < 0) {
            goto done;
        }
    }
    for (int n = 0; n < g->node_count; n++) {
        if (needed[n]) {
            status = lower_node(self, g, n, p, &l->steps[l->step_count], error);
            if (status != ONESTEP_OK) {
                goto done;
            }
            l->step_count++;
        }
    }
    status = ONESTEP_OK;
done:
    memory_free(needed);
    if (status != ONESTEP_OK) {
        program_destroy(self, p);
    }
    return status;
}

/* ---- running ------------------------------------------------------------------------------- */

/* Tells the reference backend's packed form, plain floats as in the file, from other backends'. */
#define REFERENCE_FORMAT UINT64_C(0x7265666572656e63)

/* Rows of a weight that one task evaluates: about this many numbers. */
#define EVALUATE_NUMBERS 65536

typedef struct evaluation {
    const weight_expression *weight;
    const float *scalars;
    float *result;
    size_t rest, rows; /* numbers a row, rows a task */
} evaluation;

static void evaluate_rows(void *context, size_t index, unsigned worker)
{
    (void)worker;
    const evaluation *e = context;
    size_t first = index * e->rows, count = size_minimum(e->rows, e->weight->dims[0] - first);
    weight_evaluate(e->weight, e->scalars, first, count, e->result + first * e->rest);
}

static onestep_status pack_plain(void *context, const weight_expression *weight,
                                 const float *scalars, void *packed, onestep_error *error)
{
    backend *self = context;
    size_t rest = weight->dims[1] * weight->dims[2] * weight->dims[3];
    evaluation e = {.weight = weight,
                    .scalars = scalars,
                    .result = packed,
                    .rest = rest,
                    .rows = size_maximum(EVALUATE_NUMBERS / rest, 1)};
    thread_pool_run(self->pool, (weight->dims[0] + e.rows - 1) / e.rows, evaluate_rows, &e);
    for (size_t i = 0; i < weight->dims[0] * rest; i++) {
        if (!isfinite(e.result[i])) {
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "weight %s holds a value that is not finite (%f at [%zu,%zu]): the "
                             "file is damaged or was made by a training that diverged",
                             weight->name, (double)e.result[i], i / rest, i % rest);
        }
    }
    return ONESTEP_OK;
}

/* Ids come from a tokenizer's file, the table from another one. */
static onestep_status check_ids(const reference_call *call, onestep_error *error)
{
    const int32_t *ids = (const int32_t *)call->inputs[0].data;
    for (size_t i = 0; i < call->inputs[0].count; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= call->inputs[1].dims[0]) {
            return error_set(error, ONESTEP_ERROR_MISMATCH,
                             "token id %d is outside the embedding table of %zu entries: tokenizer "
                             "and text encoder do not belong together",
                             (int)ids[i], call->inputs[1].dims[0]);
        }
    }
    return ONESTEP_OK;
}

static onestep_status reference_run(backend *self, const program *p, int index,
                                    const step_bindings *bindings, onestep_error *error)
{
    const lowered_program *l = p->lowered;
    const lowered_step *step = &l->steps[index];
    uint8_t *arena = bindings->arena->data;
    reference_call call = {
        .attributes = &step->attributes,
        .scalars = bindings->scalars,
        .input_count = step->input_count,
        .output = (float *)(void *)(arena + bindings->offsets[p->steps[index].outputs[0]]),
        .count = step->count,
        .scratch = arena + bindings->scratch_offset,
        .pool = self->pool};
    memcpy(call.dims, step->dims, sizeof call.dims);
    const void *packed[NODE_INPUTS] = {NULL};
    onestep_status status = ONESTEP_OK;
    for (unsigned i = 0; i < step->input_count && status == ONESTEP_OK; i++) {
        const lowered_operand *operand = &step->inputs[i];
        reference_operand *input = &call.inputs[i];
        memcpy(input->dims, operand->dims, sizeof input->dims);
        input->count = operand->count;
        if (operand->weight) {
            status = weight_cache_acquire(l->weights, operand->weight, REFERENCE_FORMAT,
                                          operand->count * sizeof(float), bindings->scalars,
                                          pack_plain, self, &packed[i], error);
            input->data = packed[i];
        } else {
            input->data =
                operand->constant
                    ? operand->constant
                    : (const float *)(const void *)(arena + bindings->offsets[operand->value]);
        }
    }
    if (status == ONESTEP_OK && step->operation == OPERATION_EMBEDDING) {
        status = check_ids(&call, error);
    }
    if (status == ONESTEP_OK) {
        kernels[step->operation](&call);
    }
    for (unsigned i = 0; i < step->input_count; i++) {
        if (packed[i]) {
            weight_cache_release(l->weights, packed[i]);
        }
    }
    return status;
}

/* ---- the backend --------------------------------------------------------------------------- */

static void reference_destroy(backend *self)
{
    memory_free(self);
}

static const backend_functions reference_functions = {.name = "reference",
                                                      .destroy = reference_destroy,
                                                      .allocate = host_allocate,
                                                      .release = host_release,
                                                      .upload = host_upload,
                                                      .download = host_download,
                                                      .lower = reference_lower,
                                                      .lowered_destroy = reference_lowered_destroy,
                                                      .run = reference_run,
                                                      .sync = host_sync};

onestep_status backend_reference_create(backend **result, thread_pool *pool, onestep_error *error)
{
    *result = memory_allocate(1, sizeof **result, error);
    if (!*result) {
        return ONESTEP_ERROR_MEMORY;
    }
    (*result)->functions = &reference_functions;
    (*result)->pool = pool;
    (*result)->level = CPU_LEVEL_PLAIN;
    return ONESTEP_OK;
}
