/* The shape rule and the cost of every operation. */
#include "graph/graph.h"

#include <stdio.h>
#include <string.h>

static const size_t no_dims[4];

const size_t *graph_dims(const graph *g, tensor_id t)
{
    return t >= 0 && t < g->tensor_count ? g->tensors[t].dims : no_dims;
}

size_t graph_element_count(const tensor *t)
{
    return t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
}

/* Says which node does not fit, with the shapes of its inputs; always false. */
static bool shape_fail(graph *g, const node *n, const char *reason)
{
    char shapes[256] = "";
    size_t length = 0;
    for (unsigned i = 0; i < n->input_count && length < sizeof shapes - 1; i++) {
        const tensor *t = &g->tensors[n->inputs[i]];
        length += (size_t)snprintf(shapes + length, sizeof shapes - length, " %s[%zu,%zu,%zu,%zu]",
                                   t->name ? t->name : "", t->dims[0], t->dims[1], t->dims[2],
                                   t->dims[3]);
    }
    graph_fail(g, ONESTEP_ERROR_MISMATCH, "%s: %s (inputs%s)", operation_name(n->operation), reason,
               shapes);
    return false;
}

static bool dims_equal(const size_t a[4], const size_t b[4])
{
    return memcmp(a, b, 4 * sizeof *a) == 0;
}

/* A weight vector [c,1,1,1]. */
static bool is_vector(const size_t dims[4], size_t count)
{
    return dims[0] == count && dims[1] == 1 && dims[2] == 1 && dims[3] == 1;
}

static bool shape_conv2d(graph *g, const node *n, size_t dims[4])
{
    const size_t *x = graph_dims(g, n->inputs[0]), *w = graph_dims(g, n->inputs[1]);
    const node_attributes *a = &n->attributes;
    if (w[1] != x[3]) {
        return shape_fail(g, n, "the weight's input channels differ from the input's");
    }
    if (n->input_count == 3 && !is_vector(graph_dims(g, n->inputs[2]), w[0])) {
        return shape_fail(g, n, "the bias does not have one number an output channel");
    }
    size_t height = x[1] + a->pad_top + a->pad_bottom, width = x[2] + a->pad_left + a->pad_right;
    if (a->stride == 0 || height < w[2] || width < w[3]) {
        return shape_fail(g, n, "the input is smaller than the kernel");
    }
    dims[0] = x[0];
    dims[1] = (height - w[2]) / a->stride + 1;
    dims[2] = (width - w[3]) / a->stride + 1;
    dims[3] = w[0];
    return true;
}

static bool shape_linear(graph *g, const node *n, size_t dims[4])
{
    const size_t *x = graph_dims(g, n->inputs[0]), *w = graph_dims(g, n->inputs[1]);
    if (w[1] != x[3] || w[2] != 1 || w[3] != 1) {
        return shape_fail(g, n, "the weight's input width differs from the input's");
    }
    if (n->input_count == 3 && !is_vector(graph_dims(g, n->inputs[2]), w[0])) {
        return shape_fail(g, n, "the bias does not have one number an output");
    }
    memcpy(dims, x, 3 * sizeof *dims);
    dims[3] = w[0];
    return true;
}

static bool shape_embedding(graph *g, const node *n, size_t dims[4])
{
    const size_t *ids = graph_dims(g, n->inputs[0]), *tokens = graph_dims(g, n->inputs[1]),
                 *positions = graph_dims(g, n->inputs[2]);
    if (ids[1] != 1 || ids[3] != 1 || tokens[1] != positions[1] || positions[0] < ids[2]) {
        return shape_fail(g, n, "token and position tables do not fit the ids");
    }
    dims[0] = ids[0];
    dims[1] = 1;
    dims[2] = ids[2];
    dims[3] = tokens[1];
    return true;
}

static bool shape_norm(graph *g, const node *n, size_t dims[4])
{
    const size_t *x = graph_dims(g, n->inputs[0]);
    if (!is_vector(graph_dims(g, n->inputs[1]), x[3]) ||
        !is_vector(graph_dims(g, n->inputs[2]), x[3])) {
        return shape_fail(g, n, "gamma or beta does not have one number a channel");
    }
    if (n->operation == OPERATION_GROUP_NORM &&
        (n->attributes.groups == 0 || x[3] % n->attributes.groups != 0)) {
        return shape_fail(g, n, "the channels cannot be divided into the groups");
    }
    memcpy(dims, x, 4 * sizeof *dims);
    return true;
}

static bool shape_attention(graph *g, const node *n, size_t dims[4])
{
    const size_t *q = graph_dims(g, n->inputs[0]), *k = graph_dims(g, n->inputs[1]),
                 *v = graph_dims(g, n->inputs[2]);
    if (!dims_equal(k, v) || q[3] != k[3] || (q[0] != k[0] && k[0] != 1) ||
        n->attributes.heads == 0 || q[3] % n->attributes.heads != 0) {
        return shape_fail(g, n, "queries, keys, values and heads do not fit");
    }
    memcpy(dims, q, 4 * sizeof *dims);
    return true;
}

static bool shape_pair(graph *g, const node *n, size_t dims[4])
{
    const size_t *a = graph_dims(g, n->inputs[0]), *b = graph_dims(g, n->inputs[1]);
    bool broadcast = n->operation == OPERATION_COMBINE && b[1] == 1 && b[2] == 1 && a[3] == b[3] &&
                     (b[0] == 1 || b[0] == a[0]);
    if (!broadcast && !dims_equal(a, b)) {
        return shape_fail(g, n, "the two shapes differ");
    }
    memcpy(dims, a, 4 * sizeof *dims);
    return true;
}

static bool shape_movement(graph *g, const node *n, size_t dims[4])
{
    const size_t *x = graph_dims(g, n->inputs[0]);
    const node_attributes *a = &n->attributes;
    memcpy(dims, x, 4 * sizeof *dims);
    switch (n->operation) {
    case OPERATION_CONCAT: {
        const size_t *b = graph_dims(g, n->inputs[1]);
        if (memcmp(x, b, 3 * sizeof *x) != 0) {
            return shape_fail(g, n, "the two pictures differ in size");
        }
        dims[3] += b[3];
        return true;
    }
    case OPERATION_SLICE:
        if (a->count == 0 || a->first > x[3] || a->count > x[3] - a->first) {
            return shape_fail(g, n, "the slice is outside the channels");
        }
        dims[3] = a->count;
        return true;
    case OPERATION_UPSAMPLE:
        if ((a->height != 2 * x[1] && a->height != 2 * x[1] - 1) ||
            (a->width != 2 * x[2] && a->width != 2 * x[2] - 1)) {
            return shape_fail(g, n, "the target is not twice the size, or one less");
        }
        dims[1] = a->height;
        dims[2] = a->width;
        return true;
    case OPERATION_GEGLU:
        if (x[3] % 2 != 0) {
            return shape_fail(g, n, "an odd number of channels");
        }
        dims[3] /= 2;
        return true;
    case OPERATION_SUM:
        dims[0] = a->keep_batch ? x[0] : 1;
        dims[1] = dims[2] = 1;
        return true;
    case OPERATION_UPSAMPLE_GRADIENT:
        dims[1] = a->height;
        dims[2] = a->width;
        return true;
    case OPERATION_SLICE_GRADIENT:
        dims[3] = a->count;
        return true;
    default:
        return true; /* one value in, one out */
    }
}

static bool shape_gradient(graph *g, const node *n, size_t dims[4])
{
    const node_attributes *a = &n->attributes;
    switch (n->operation) {
    case OPERATION_CONV2D_INPUT_GRADIENT: {
        const size_t *upstream = graph_dims(g, n->inputs[0]), *w = graph_dims(g, n->inputs[1]);
        dims[0] = upstream[0];
        dims[1] = a->height;
        dims[2] = a->width;
        dims[3] = w[1];
        return true;
    }
    case OPERATION_CONV2D_WEIGHT_GRADIENT: {
        const size_t *x = graph_dims(g, n->inputs[0]), *upstream = graph_dims(g, n->inputs[1]);
        dims[0] = upstream[3];
        dims[1] = x[3];
        dims[2] = a->height; /* of the kernel */
        dims[3] = a->width;
        return true;
    }
    case OPERATION_GROUP_NORM_GRADIENT:
    case OPERATION_LAYER_NORM_GRADIENT:
        memcpy(dims, graph_dims(g, n->inputs[a->wrt == 0 ? 0 : 1]), 4 * sizeof *dims);
        return true;
    default: /* attention, activations: the shape of the input differentiated by */
        memcpy(dims, graph_dims(g, n->inputs[a->wrt]), 4 * sizeof *dims);
        return true;
    }
}

bool operation_shape(graph *g, const node *n, size_t dims[4])
{
    switch (n->operation) {
    case OPERATION_CONV2D:
        return shape_conv2d(g, n, dims);
    case OPERATION_LINEAR:
        return shape_linear(g, n, dims);
    case OPERATION_EMBEDDING:
        return shape_embedding(g, n, dims);
    case OPERATION_GROUP_NORM:
    case OPERATION_LAYER_NORM:
        return shape_norm(g, n, dims);
    case OPERATION_ATTENTION:
        return shape_attention(g, n, dims);
    case OPERATION_COMBINE:
    case OPERATION_MULTIPLY:
        return shape_pair(g, n, dims);
    case OPERATION_SILU:
    case OPERATION_GELU:
    case OPERATION_QUICK_GELU:
    case OPERATION_GEGLU:
    case OPERATION_EXP:
    case OPERATION_CLAMP:
    case OPERATION_SCALE:
    case OPERATION_CONCAT:
    case OPERATION_SLICE:
    case OPERATION_UPSAMPLE:
    case OPERATION_SUM:
    case OPERATION_UPSAMPLE_GRADIENT:
    case OPERATION_SLICE_GRADIENT:
        return shape_movement(g, n, dims);
    case OPERATION_CONV2D_INPUT_GRADIENT:
    case OPERATION_CONV2D_WEIGHT_GRADIENT:
    case OPERATION_GROUP_NORM_GRADIENT:
    case OPERATION_LAYER_NORM_GRADIENT:
    case OPERATION_ATTENTION_GRADIENT:
    case OPERATION_ACTIVATION_GRADIENT:
        return shape_gradient(g, n, dims);
    case OPERATION_COUNT:
        break;
    }
    return shape_fail(g, n, "no shape rule");
}

/* ---- cost --------------------------------------------------------------------------------------
 */

double operation_cost(const graph *g, const node *n)
{
    double outputs = (double)graph_element_count(&g->tensors[n->output]);
    const size_t *first = graph_dims(g, n->inputs[0]);
    switch (n->operation) {
    case OPERATION_CONV2D: {
        const size_t *w = graph_dims(g, n->inputs[1]);
        return 2.0 * outputs * (double)(w[1] * w[2] * w[3]);
    }
    case OPERATION_LINEAR:
        return 2.0 * outputs * (double)first[3];
    case OPERATION_CONV2D_INPUT_GRADIENT: {
        const size_t *w = graph_dims(g, n->inputs[1]);
        return 2.0 * (double)(first[0] * first[1] * first[2]) * (double)(w[0] * w[1] * w[2] * w[3]);
    }
    case OPERATION_CONV2D_WEIGHT_GRADIENT: {
        const size_t *upstream = graph_dims(g, n->inputs[1]);
        return 2.0 * outputs * (double)(upstream[0] * upstream[1] * upstream[2]);
    }
    case OPERATION_ATTENTION:
    case OPERATION_ATTENTION_GRADIENT: {
        const size_t *k = graph_dims(g, n->inputs[1]);
        double pairs = (double)(first[0] * first[1] * first[2]) * (double)(k[1] * k[2]);
        return (n->operation == OPERATION_ATTENTION ? 4.0 : 10.0) * pairs * (double)first[3];
    }
    case OPERATION_GROUP_NORM:
    case OPERATION_LAYER_NORM:
    case OPERATION_GELU:
    case OPERATION_QUICK_GELU:
    case OPERATION_SILU:
    case OPERATION_GEGLU:
    case OPERATION_EXP:
        return 8.0 * outputs; /* the usual count for a transcendental function or a normalisation */
    default:
        return outputs;
    }
}

double graph_cost(const graph *g, const char *stage)
{
    double sum = 0;
    for (int i = 0; i < g->node_count; i++) {
        if (!stage || strcmp(g->nodes[i].stage, stage) == 0) {
            sum += operation_cost(g, &g->nodes[i]);
        }
    }
    return sum;
}
