/* Reverse accumulation: from the gradient of each node's output, nodes that compute the gradients
 * of its inputs. One rule an operation, named in ops.def. */
#include "graph/graph.h"

#include <string.h>

/* Adds the nodes for the gradient of input number `input`; the shape of that input comes out (a
 * bias [c,1,1,1]: [1,1,1,c]). */
typedef tensor_id (*gradient_rule)(graph *g, const node *n, tensor_id upstream, unsigned input);

/* ---- products ------------------------------------------------------------------------------ */

static tensor_id sum_pixels(graph *g, tensor_id x, bool keep_batch)
{
    node_attributes attributes = {.keep_batch = keep_batch};
    return graph_add(g, OPERATION_SUM, &x, 1, &attributes);
}

static tensor_id gradient_conv2d(graph *g, const node *n, tensor_id upstream, unsigned input)
{
    node_attributes attributes = n->attributes;
    tensor_id x = n->inputs[0], weight = n->inputs[1];
    if (input == 0) {
        attributes.height = graph_dims(g, x)[1];
        attributes.width = graph_dims(g, x)[2];
        tensor_id inputs[] = {upstream, weight};
        return graph_add(g, OPERATION_CONV2D_INPUT_GRADIENT, inputs, 2, &attributes);
    }
    if (input == 1) {
        attributes.height = graph_dims(g, weight)[2];
        attributes.width = graph_dims(g, weight)[3];
        tensor_id inputs[] = {x, upstream};
        return graph_add(g, OPERATION_CONV2D_WEIGHT_GRADIENT, inputs, 2, &attributes);
    }
    return sum_pixels(g, upstream, false);
}

static tensor_id gradient_linear(graph *g, const node *n, tensor_id upstream, unsigned input)
{
    node convolution = *n;
    convolution.attributes.stride = 1;
    return gradient_conv2d(g, &convolution, upstream, input);
}

/* ---- normalisation and attention ----------------------------------------------------------- */

static tensor_id normalisation(graph *g, const node *n, operation op, tensor_id upstream,
                               unsigned input)
{
    node_attributes attributes = n->attributes;
    attributes.wrt = input;
    tensor_id inputs[] = {n->inputs[0], n->inputs[1], upstream};
    return graph_add(g, op, inputs, 3, &attributes);
}

static tensor_id gradient_group_norm(graph *g, const node *n, tensor_id upstream, unsigned input)
{
    return normalisation(g, n, OPERATION_GROUP_NORM_GRADIENT, upstream, input);
}

static tensor_id gradient_layer_norm(graph *g, const node *n, tensor_id upstream, unsigned input)
{
    return normalisation(g, n, OPERATION_LAYER_NORM_GRADIENT, upstream, input);
}

static tensor_id gradient_attention(graph *g, const node *n, tensor_id upstream, unsigned input)
{
    node_attributes attributes = n->attributes;
    attributes.wrt = input;
    tensor_id inputs[] = {n->inputs[0], n->inputs[1], n->inputs[2], upstream};
    return graph_add(g, OPERATION_ATTENTION_GRADIENT, inputs, 4, &attributes);
}

/* ---- element by element -----------------------------------------------------------------------
 */

static tensor_id activation(graph *g, operation of, node_attributes attributes, tensor_id x,
                            tensor_id upstream)
{
    attributes.of = of;
    tensor_id inputs[] = {x, upstream};
    return graph_add(g, OPERATION_ACTIVATION_GRADIENT, inputs, 2, &attributes);
}

static tensor_id gradient_silu(graph *g, const node *n, tensor_id upstream, unsigned input)
{
    return activation(g, n->operation, n->attributes, n->inputs[input], upstream);
}

#define gradient_gelu       gradient_silu
#define gradient_quick_gelu gradient_silu
#define gradient_clamp      gradient_silu

static tensor_id gradient_exp(graph *g, const node *n, tensor_id upstream, unsigned input)
{
    (void)input;
    return graph_multiply(g, upstream, n->output);
}

static tensor_id gradient_geglu(graph *g, const node *n, tensor_id upstream, unsigned input)
{
    tensor_id x = n->inputs[input];
    size_t channels = graph_dims(g, n->output)[3];
    tensor_id value = graph_slice(g, x, 0, channels), gate = graph_slice(g, x, channels, channels);
    tensor_id of_value = graph_multiply(g, upstream, graph_activation(g, OPERATION_GELU, gate));
    tensor_id of_gate = activation(g, OPERATION_GELU, (node_attributes){0}, gate,
                                   graph_multiply(g, upstream, value));
    return graph_concat(g, of_value, of_gate);
}

static tensor_id scaled(graph *g, tensor_id x, coefficient scale)
{
    bool is_one = scale.scalar == SCALAR_NONE && scale.constant == 1.0f;
    return is_one ? x : graph_scale(g, x, scale, 0.0f);
}

static tensor_id gradient_scale(graph *g, const node *n, tensor_id upstream, unsigned input)
{
    return scaled(g, upstream, n->attributes.scale[input]);
}

static tensor_id gradient_combine(graph *g, const node *n, tensor_id upstream, unsigned input)
{
    const size_t *dims = graph_dims(g, n->inputs[input]), *all = graph_dims(g, n->output);
    if (memcmp(dims, all, 4 * sizeof *dims) != 0) {
        upstream = sum_pixels(g, upstream, dims[0] == all[0]);
    }
    return scaled(g, upstream, n->attributes.scale[input]);
}

static tensor_id gradient_multiply(graph *g, const node *n, tensor_id upstream, unsigned input)
{
    return graph_multiply(g, upstream, n->inputs[1 - input]);
}

/* ---- moving values ------------------------------------------------------------------------------
 */

static tensor_id gradient_concat(graph *g, const node *n, tensor_id upstream, unsigned input)
{
    size_t left = graph_dims(g, n->inputs[0])[3], right = graph_dims(g, n->inputs[1])[3];
    return input == 0 ? graph_slice(g, upstream, 0, left) : graph_slice(g, upstream, left, right);
}

static tensor_id gradient_slice(graph *g, const node *n, tensor_id upstream, unsigned input)
{
    node_attributes attributes = {.first = n->attributes.first,
                                  .count = graph_dims(g, n->inputs[input])[3]};
    return graph_add(g, OPERATION_SLICE_GRADIENT, &upstream, 1, &attributes);
}

static tensor_id gradient_upsample(graph *g, const node *n, tensor_id upstream, unsigned input)
{
    const size_t *dims = graph_dims(g, n->inputs[input]);
    node_attributes attributes = {.height = dims[1], .width = dims[2]};
    return graph_add(g, OPERATION_UPSAMPLE_GRADIENT, &upstream, 1, &attributes);
}

#define gradient_none NULL

static const gradient_rule rules[OPERATION_COUNT] = {
#define OPERATION(enumerator, name, least, most, gradient)                                         \
    [OPERATION_##enumerator] = gradient_##gradient,
#include "graph/ops.def"
#undef OPERATION
};

/* ---- the walk ---------------------------------------------------------------------------------
 */

/* Marks the tensors that depend on one of `wrt`. */
static void mark_dependent(const graph *g, const tensor_id *wrt, size_t wrt_count, bool *depends)
{
    for (size_t i = 0; i < wrt_count; i++) {
        depends[wrt[i]] = true;
    }
    for (int k = 0; k < g->node_count; k++) {
        const node *n = &g->nodes[k];
        for (unsigned i = 0; i < n->input_count; i++) {
            depends[n->output] |= depends[n->inputs[i]];
        }
    }
}

/* Marks the tensors through which `output` depends on `wrt`; every operation on the way must have a
 * rule. Looks at everything before the first node is added, so that a refusal leaves the graph as
 * it was. */
static onestep_status mark_path(const graph *g, tensor_id output, const bool *depends,
                                bool *on_path, onestep_error *error)
{
    on_path[output] = depends[output];
    for (int k = g->node_count - 1; k >= 0; k--) {
        const node *n = &g->nodes[k];
        bool through = false;
        for (unsigned i = 0; on_path[n->output] && i < n->input_count; i++) {
            on_path[n->inputs[i]] |= depends[n->inputs[i]];
            through |= depends[n->inputs[i]];
        }
        if (through && !rules[n->operation]) {
            return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                             "operation %s (stage \"%s\") has no gradient and is on the way to "
                             "what is to be differentiated by",
                             operation_name(n->operation), n->stage);
        }
    }
    return ONESTEP_OK;
}

static onestep_status check_arguments(const graph *g, tensor_id output, tensor_id upstream,
                                      const tensor_id *wrt, size_t wrt_count, onestep_error *error)
{
    onestep_status status = graph_check(g, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    bool known =
        output >= 0 && output < g->tensor_count && upstream >= 0 && upstream < g->tensor_count;
    for (size_t i = 0; i < wrt_count; i++) {
        known &= wrt[i] >= 0 && wrt[i] < g->tensor_count;
    }
    if (!known) {
        return error_set(error, ONESTEP_ERROR_INTERNAL, "gradient of or by a missing tensor");
    }
    if (memcmp(graph_dims(g, output), graph_dims(g, upstream), 4 * sizeof(size_t)) != 0) {
        return error_set(error, ONESTEP_ERROR_INTERNAL,
                         "the upstream gradient has another shape than the output");
    }
    return ONESTEP_OK;
}

onestep_status graph_differentiate(graph *g, tensor_id output, tensor_id upstream,
                                   const tensor_id *wrt, size_t wrt_count, tensor_id *gradients,
                                   onestep_error *error)
{
    onestep_status status = check_arguments(g, output, upstream, wrt, wrt_count, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    size_t tensor_count = (size_t)g->tensor_count; /* without those that are added */
    bool *depends = memory_allocate(tensor_count, sizeof *depends, error);
    bool *on_path = memory_allocate(tensor_count, sizeof *on_path, error);
    tensor_id *of = memory_allocate(tensor_count, sizeof *of, error);
    if (!depends || !on_path || !of) {
        status = ONESTEP_ERROR_MEMORY;
        goto done;
    }
    mark_dependent(g, wrt, wrt_count, depends);
    status = mark_path(g, output, depends, on_path, error);
    if (status != ONESTEP_OK) {
        goto done;
    }
    for (size_t t = 0; t < tensor_count; t++) {
        of[t] = TENSOR_NONE;
    }
    of[output] = on_path[output] ? upstream : TENSOR_NONE;
    for (int k = g->node_count - 1; k >= 0; k--) {
        node n = g->nodes[k]; /* adding nodes moves the array */
        for (unsigned i = 0; i < n.input_count && of[n.output] != TENSOR_NONE; i++) {
            tensor_id input = n.inputs[i];
            if (on_path[input]) {
                tensor_id part = rules[n.operation](g, &n, of[n.output], i);
                of[input] = of[input] == TENSOR_NONE ? part : graph_sum_of(g, of[input], part);
            }
        }
    }
    status = graph_check(g, error);
    for (size_t i = 0; i < wrt_count && status == ONESTEP_OK; i++) {
        gradients[i] = of[wrt[i]];
    }
done:
    memory_free(depends);
    memory_free(on_path);
    memory_free(of);
    return status;
}
