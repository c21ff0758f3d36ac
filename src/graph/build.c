/* Building graphs: arrays that grow, and a sticky first error. */
#include "graph/graph.h"

#include <stdio.h>
#include <string.h>

static const char *const operation_names[OPERATION_COUNT] = {
#define OPERATION(enumerator, name, least, most, gradient) [OPERATION_##enumerator] = #name,
#include "graph/ops.def"
#undef OPERATION
};

static const struct {
    unsigned least, most;
} operation_inputs[OPERATION_COUNT] = {
#define OPERATION(enumerator, name, least, most, gradient) [OPERATION_##enumerator] = {least, most},
#include "graph/ops.def"
#undef OPERATION
};

const char *operation_name(operation op)
{
    return (unsigned)op < OPERATION_COUNT ? operation_names[op] : "unknown";
}

onestep_status graph_create(graph **result, onestep_error *error)
{
    *result = NULL;
    graph *g = memory_allocate(1, sizeof *g, error);
    if (!g) {
        return ONESTEP_ERROR_MEMORY;
    }
    g->stage = "";
    *result = g;
    return ONESTEP_OK;
}

void graph_destroy(graph **result)
{
    graph *g = *result;
    if (!g) {
        return;
    }
    for (int t = 0; t < g->tensor_count; t++) {
        memory_free((void *)g->tensors[t].constant);
    }
    for (int i = 0; i < g->name_count; i++) {
        memory_free(g->names[i]);
    }
    memory_free(g->tensors);
    memory_free(g->nodes);
    memory_free(g->outputs);
    memory_free(g->names);
    memory_free(g);
    *result = NULL;
}

onestep_status graph_check(const graph *g, onestep_error *error)
{
    if (g->error.code != ONESTEP_OK && error) {
        *error = g->error;
    }
    return g->error.code;
}

void graph_fail(graph *g, onestep_status code, const char *format, ...)
{
    if (g->error.code != ONESTEP_OK) {
        return;
    }
    char message[sizeof g->error.message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    error_set(&g->error, code, "%s", message);
}

void graph_stage(graph *g, const char *stage)
{
    g->stage = stage;
}

void graph_amplification(graph *g, amplification of_errors)
{
    g->amplification = of_errors;
}

void graph_stored_f32(graph *g, bool stored_f32)
{
    g->stored_f32 = stored_f32;
}

/* Makes room for one more element of an array of the graph; NULL when building has failed. */
static void *array_grow(graph *g, void *array, int count, int *capacity, size_t size)
{
    if (g->error.code != ONESTEP_OK) {
        return NULL;
    }
    if (count < *capacity) {
        return array;
    }
    int larger = *capacity ? *capacity * 2 : 64;
    void *grown = memory_resize(array, (size_t)larger, size, &g->error);
    if (grown) {
        *capacity = larger;
    }
    return grown;
}

static const char *name_keep(graph *g, const char *name)
{
    char **names = array_grow(g, g->names, g->name_count, &g->name_capacity, sizeof *names);
    if (!names) {
        return NULL;
    }
    g->names = names;
    char *copy = string_duplicate(name, &g->error);
    if (copy) {
        g->names[g->name_count++] = copy;
    }
    return copy;
}

/* Appends a tensor after checking that its size in bytes can be computed with. */
static tensor_id tensor_add(graph *g, tensor_kind kind, element_type type, const size_t dims[4])
{
    size_t elements = element_size(type);
    for (int d = 0; d < 4; d++) {
        if (dims[d] == 0 || !size_multiply(elements, dims[d], &elements) ||
            elements > PTRDIFF_MAX / 4) {
            graph_fail(g, ONESTEP_ERROR_UNSUPPORTED, "tensor [%zu,%zu,%zu,%zu] has no usable size",
                       dims[0], dims[1], dims[2], dims[3]);
            return TENSOR_NONE;
        }
    }
    tensor *tensors =
        array_grow(g, g->tensors, g->tensor_count, &g->tensor_capacity, sizeof *tensors);
    if (!tensors) {
        return TENSOR_NONE;
    }
    g->tensors = tensors;
    tensor *t = &tensors[g->tensor_count];
    memset(t, 0, sizeof *t);
    t->kind = kind;
    t->type = type;
    t->producer = -1;
    memcpy(t->dims, dims, sizeof t->dims);
    return g->tensor_count++;
}

tensor_id graph_input(graph *g, const char *name, element_type type, const size_t dims[4])
{
    const char *kept = name_keep(g, name);
    tensor_id id = kept ? tensor_add(g, TENSOR_INPUT, type, dims) : TENSOR_NONE;
    if (id != TENSOR_NONE) {
        g->tensors[id].name = kept;
    }
    return id;
}

void graph_steady(graph *g, tensor_id input)
{
    if (input != TENSOR_NONE) {
        g->tensors[input].steady = true;
    }
}

tensor_id graph_constant(graph *g, const float *values, const size_t dims[4])
{
    tensor_id id = tensor_add(g, TENSOR_CONSTANT, ELEMENT_F32, dims);
    if (id == TENSOR_NONE) {
        return TENSOR_NONE;
    }
    size_t count = graph_element_count(&g->tensors[id]);
    float *copy = memory_allocate(count, sizeof *copy, &g->error);
    if (!copy) {
        return TENSOR_NONE;
    }
    memcpy(copy, values, count * sizeof *copy);
    g->tensors[id].constant = copy;
    return id;
}

tensor_id graph_weight(graph *g, const weight_expression *weight)
{
    if (!weight) {
        return TENSOR_NONE;
    }
    /* A weight is used by few nodes, most recently added first: a short search backwards. */
    for (int t = g->tensor_count - 1; t >= 0; t--) {
        if (g->tensors[t].weight == weight) {
            return t;
        }
    }
    tensor_id id = tensor_add(g, TENSOR_WEIGHT, ELEMENT_F32, weight->dims);
    if (id != TENSOR_NONE) {
        g->tensors[id].weight = weight;
        g->tensors[id].name = weight->name;
    }
    return id;
}

tensor_id graph_add(graph *g, operation op, const tensor_id *inputs, unsigned input_count,
                    const node_attributes *attributes)
{
    if (g->error.code != ONESTEP_OK) {
        return TENSOR_NONE;
    }
    node n = {
        .operation = op,
        .input_count = input_count,
        .stage = g->stage,
        .amplification = g->amplification,
        .stored_f32 = g->stored_f32,
        .output = TENSOR_NONE,
    };
    if (attributes) {
        n.attributes = *attributes;
    }
    if (input_count < operation_inputs[op].least || input_count > operation_inputs[op].most) {
        graph_fail(g, ONESTEP_ERROR_INTERNAL, "%s: %u inputs", operation_name(op), input_count);
        return TENSOR_NONE;
    }
    for (unsigned i = 0; i < NODE_INPUTS; i++) {
        n.inputs[i] = i < input_count ? inputs[i] : TENSOR_NONE;
        if (i < input_count && (inputs[i] < 0 || inputs[i] >= g->tensor_count)) {
            graph_fail(g, ONESTEP_ERROR_INTERNAL, "%s: input %u is missing", operation_name(op), i);
            return TENSOR_NONE;
        }
    }
    size_t dims[4] = {1, 1, 1, 1};
    if (!operation_shape(g, &n, dims)) {
        return TENSOR_NONE;
    }
    node *nodes = array_grow(g, g->nodes, g->node_count, &g->node_capacity, sizeof *nodes);
    if (!nodes) {
        return TENSOR_NONE;
    }
    g->nodes = nodes;
    n.output = tensor_add(g, TENSOR_ACTIVATION, ELEMENT_F32, dims);
    if (n.output == TENSOR_NONE) {
        return TENSOR_NONE;
    }
    g->tensors[n.output].producer = g->node_count;
    g->nodes[g->node_count++] = n;
    return n.output;
}

void graph_output_add(graph *g, const char *name, tensor_id id)
{
    if (g->error.code != ONESTEP_OK) {
        return;
    }
    if (id < 0 || id >= g->tensor_count) {
        graph_fail(g, ONESTEP_ERROR_INTERNAL, "output %s is missing", name);
        return;
    }
    const char *kept = name_keep(g, name);
    graph_output *outputs =
        array_grow(g, g->outputs, g->output_count, &g->output_capacity, sizeof *outputs);
    if (!kept || !outputs) {
        return;
    }
    g->outputs = outputs;
    outputs[g->output_count++] = (graph_output){.name = kept, .tensor = id};
    g->tensors[id].observed = true;
}

/* ---- one builder an operation ---------------------------------------------------------------- */

tensor_id graph_conv2d(graph *g, tensor_id x, tensor_id weight, tensor_id bias, unsigned stride,
                       padding pad)
{
    tensor_id inputs[] = {x, weight, bias};
    node_attributes attributes = {.stride = stride,
                                  .pad_top = pad.top,
                                  .pad_left = pad.left,
                                  .pad_bottom = pad.bottom,
                                  .pad_right = pad.right};
    return graph_add(g, OPERATION_CONV2D, inputs, bias == TENSOR_NONE ? 2 : 3, &attributes);
}

tensor_id graph_linear(graph *g, tensor_id x, tensor_id weight, tensor_id bias)
{
    tensor_id inputs[] = {x, weight, bias};
    return graph_add(g, OPERATION_LINEAR, inputs, bias == TENSOR_NONE ? 2 : 3, NULL);
}

tensor_id graph_embedding(graph *g, tensor_id ids, tensor_id tokens, tensor_id positions)
{
    tensor_id inputs[] = {ids, tokens, positions};
    return graph_add(g, OPERATION_EMBEDDING, inputs, 3, NULL);
}

tensor_id graph_group_norm(graph *g, tensor_id x, tensor_id gamma, tensor_id beta, unsigned groups,
                           float epsilon)
{
    tensor_id inputs[] = {x, gamma, beta};
    node_attributes attributes = {.groups = groups, .epsilon = epsilon};
    return graph_add(g, OPERATION_GROUP_NORM, inputs, 3, &attributes);
}

tensor_id graph_layer_norm(graph *g, tensor_id x, tensor_id gamma, tensor_id beta, float epsilon)
{
    tensor_id inputs[] = {x, gamma, beta};
    node_attributes attributes = {.epsilon = epsilon};
    return graph_add(g, OPERATION_LAYER_NORM, inputs, 3, &attributes);
}

tensor_id graph_attention(graph *g, tensor_id q, tensor_id k, tensor_id v, unsigned heads,
                          float scale, bool causal)
{
    tensor_id inputs[] = {q, k, v};
    node_attributes attributes = {.heads = heads, .attention_scale = scale, .causal = causal};
    return graph_add(g, OPERATION_ATTENTION, inputs, 3, &attributes);
}

tensor_id graph_activation(graph *g, operation op, tensor_id x)
{
    return graph_add(g, op, &x, 1, NULL);
}

tensor_id graph_clamp(graph *g, tensor_id x, float low, float high)
{
    node_attributes attributes = {.low = low, .high = high};
    return graph_add(g, OPERATION_CLAMP, &x, 1, &attributes);
}

tensor_id graph_scale(graph *g, tensor_id x, coefficient scale, float offset)
{
    node_attributes attributes = {.scale = {scale, coefficient_constant(0)}, .offset = offset};
    return graph_add(g, OPERATION_SCALE, &x, 1, &attributes);
}

tensor_id graph_combine(graph *g, tensor_id a, coefficient scale_a, tensor_id b,
                        coefficient scale_b)
{
    tensor_id inputs[] = {a, b};
    node_attributes attributes = {.scale = {scale_a, scale_b}};
    return graph_add(g, OPERATION_COMBINE, inputs, 2, &attributes);
}

tensor_id graph_sum_of(graph *g, tensor_id a, tensor_id b)
{
    return graph_combine(g, a, coefficient_constant(1), b, coefficient_constant(1));
}

tensor_id graph_multiply(graph *g, tensor_id a, tensor_id b)
{
    tensor_id inputs[] = {a, b};
    return graph_add(g, OPERATION_MULTIPLY, inputs, 2, NULL);
}

tensor_id graph_concat(graph *g, tensor_id a, tensor_id b)
{
    tensor_id inputs[] = {a, b};
    return graph_add(g, OPERATION_CONCAT, inputs, 2, NULL);
}

tensor_id graph_slice(graph *g, tensor_id x, size_t first, size_t count)
{
    node_attributes attributes = {.first = first, .count = count};
    return graph_add(g, OPERATION_SLICE, &x, 1, &attributes);
}

tensor_id graph_upsample(graph *g, tensor_id x, size_t height, size_t width)
{
    node_attributes attributes = {.height = height, .width = width};
    return graph_add(g, OPERATION_UPSAMPLE, &x, 1, &attributes);
}
