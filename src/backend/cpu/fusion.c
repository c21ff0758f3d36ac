/* Finding the nodes that one step computes together. */
#include "backend/cpu/cpu.h"

#include <string.h>

/* The nodes that read a tensor. */
typedef struct tensor_use {
    int count; /* of inputs that read it; outputs of the graph count in `observed` */
    int first; /* one of the nodes */
} tensor_use;

typedef struct fusion_state {
    const graph *g;
    node_fusion *nodes;
    tensor_use *uses; /* by tensor */
} fusion_state;

/* Marks what some output needs, in reverse order. */
static void mark_needed(fusion_state *s)
{
    const graph *g = s->g;
    for (int o = 0; o < g->output_count; o++) {
        const int producer = g->tensors[g->outputs[o].tensor].producer;
        if (producer >= 0) {
            s->nodes[producer].needed = true;
        }
    }
    for (int n = g->node_count - 1; n >= 0; n--) {
        for (unsigned i = 0; s->nodes[n].needed && i < g->nodes[n].input_count; i++) {
            const tensor_id input = g->nodes[n].inputs[i];
            const int producer = g->tensors[input].producer;
            if (producer >= 0) {
                s->nodes[producer].needed = true;
            }
            s->uses[input].count++;
            s->uses[input].first = n;
        }
    }
}

/* The only node that reads a tensor which need not exist outside a step; -1 when there is none. */
static int only_reader(const fusion_state *s, tensor_id t)
{
    return s->uses[t].count == 1 && !s->g->tensors[t].observed ? s->uses[t].first : -1;
}

/* Whether every reader of `t` is a convolution (or, with `linear`, a linear layer) that reads it as
 * its picture. */
static bool only_products_read(const fusion_state *s, tensor_id t, bool linear)
{
    int found = 0;
    for (int n = 0; n < s->g->node_count; n++) {
        const node *reader = &s->g->nodes[n];
        if (!s->nodes[n].needed || reader->inputs[0] != t) {
            continue;
        }
        if (reader->operation != OPERATION_CONV2D &&
            !(linear && reader->operation == OPERATION_LINEAR)) {
            return false;
        }
        found++;
    }
    return found > 0 && found == s->uses[t].count && !s->g->tensors[t].observed;
}

/* ---- before a convolution ----------------------------------------------------------------------
 */

/* A normalisation is applied while a convolution reads its input, when only one does: several
 * (queries, keys and values) share a normalised tensor instead. */
static bool norm_folds(const fusion_state *s, tensor_id normalised)
{
    return s->uses[normalised].count == 1 && only_products_read(s, normalised, true);
}

static void fuse_group_norm(fusion_state *s, int n)
{
    node_fusion *f = &s->nodes[n];
    f->last = n;
    f->output = s->g->nodes[n].output;
    const int next = only_reader(s, f->output);
    if (next >= 0 && s->g->nodes[next].operation == OPERATION_SILU) {
        f->silu = true;
        f->last = next;
        f->output = s->g->nodes[next].output;
        s->nodes[next].into = n;
    }
    if (norm_folds(s, f->output)) {
        f->folded = true;
        node_fusion *product = &s->nodes[s->uses[f->output].first];
        product->norm = n;
        product->silu = f->silu;
        product->input = s->g->nodes[n].inputs[0];
    }
}

/* An upsampling that only 3x3 convolutions of stride 1 and padding 1 read is done as they read. */
static void fuse_upsample(fusion_state *s, int n)
{
    const graph *g = s->g;
    const tensor_id output = g->nodes[n].output;
    if (!only_products_read(s, output, false)) {
        return;
    }
    for (int pass = 0; pass < 2; pass++) { /* look first, then do it */
        for (int r = n + 1; r < g->node_count; r++) {
            const node *reader = &g->nodes[r];
            if (!s->nodes[r].needed || reader->inputs[0] != output) {
                continue;
            }
            const node_attributes *a = &reader->attributes;
            const size_t *weight = graph_dims(g, reader->inputs[1]);
            if (weight[2] != 3 || weight[3] != 3 || a->stride != 1 || a->pad_top != 1 ||
                a->pad_left != 1 || a->pad_bottom != 1 || a->pad_right != 1) {
                return;
            }
            if (pass == 1) {
                s->nodes[r].upsample = true;
                s->nodes[r].input = g->nodes[n].inputs[0];
                s->nodes[n].into = r;
            }
        }
    }
}

/* ---- behind a convolution ----------------------------------------------------------------------
 */

static bool is_one(coefficient c)
{
    return c.scalar == SCALAR_NONE && c.constant == 1;
}

static bool same_dims(const graph *g, tensor_id a, tensor_id b)
{
    return memcmp(graph_dims(g, a), graph_dims(g, b), 4 * sizeof(size_t)) == 0;
}

/* Takes a COMBINE node in: a vector a picture before the activation, or a residual, which ends the
 * chain. */
static bool fuse_combine(const graph *g, const node *n, node_fusion *f, bool *ended)
{
    const bool first = n->inputs[0] == f->output;
    const tensor_id other = n->inputs[first ? 1 : 0];
    const coefficient *scale = n->attributes.scale;
    if (!same_dims(g, n->inputs[0], n->inputs[1])) {
        if (!first || f->geglu || f->image_bias != TENSOR_NONE || f->activation != CONV_LINEAR ||
            !is_one(scale[0]) || !is_one(scale[1])) {
            return false;
        }
        f->image_bias = other;
        return true;
    }
    f->residual = other;
    f->output_scale = scale[first ? 0 : 1];
    f->residual_scale = scale[first ? 1 : 0];
    *ended = true;
    return true;
}

static bool fuse_activation(operation op, node_fusion *f, bool linear)
{
    if (f->activation != CONV_LINEAR || f->geglu) {
        return false;
    }
    switch (op) {
    case OPERATION_SILU:
        f->activation = CONV_SILU;
        return true;
    case OPERATION_GELU:
        f->activation = CONV_GELU;
        return true;
    case OPERATION_QUICK_GELU:
        f->activation = CONV_QUICK_GELU;
        return true;
    case OPERATION_GEGLU:
        f->geglu = linear && f->image_bias == TENSOR_NONE;
        return f->geglu;
    default:
        return false;
    }
}

/* Follows what happens to a product's result for as long as one step can do it. */
static void fuse_epilogue(fusion_state *s, int n)
{
    const graph *g = s->g;
    node_fusion *f = &s->nodes[n];
    bool ended = false;
    f->last = n;
    f->output = g->nodes[n].output;
    while (!ended) {
        const int next = only_reader(s, f->output);
        if (next < 0 || s->nodes[next].into >= 0) {
            return;
        }
        const node *reader = &g->nodes[next];
        const bool fused =
            reader->operation == OPERATION_COMBINE
                ? fuse_combine(g, reader, f, &ended)
                : fuse_activation(reader->operation, f, g->nodes[n].operation == OPERATION_LINEAR);
        if (!fused) {
            return;
        }
        s->nodes[next].into = n;
        f->last = next;
        f->output = reader->output;
    }
}

onestep_status fusion_find(const graph *g, node_fusion **result, onestep_error *error)
{
    *result = NULL;
    fusion_state s = {.g = g};
    s.nodes = memory_allocate((size_t)g->node_count, sizeof *s.nodes, error);
    s.uses = memory_allocate((size_t)g->tensor_count, sizeof *s.uses, error);
    if (!s.nodes || !s.uses) {
        memory_free(s.nodes);
        memory_free(s.uses);
        return ONESTEP_ERROR_MEMORY;
    }
    for (int n = 0; n < g->node_count; n++) {
        node_fusion *f = &s.nodes[n];
        f->into = f->norm = -1;
        f->last = n;
        f->output = g->nodes[n].output;
        f->input = g->nodes[n].inputs[0];
        f->image_bias = f->residual = TENSOR_NONE;
        f->output_scale = coefficient_constant(1);
    }
    mark_needed(&s);
    for (int n = 0; n < g->node_count; n++) {
        if (s.nodes[n].needed && g->nodes[n].operation == OPERATION_GROUP_NORM) {
            fuse_group_norm(&s, n);
        } else if (s.nodes[n].needed && g->nodes[n].operation == OPERATION_UPSAMPLE) {
            fuse_upsample(&s, n);
        }
    }
    /* Of two convolutions whose results are added, the later one takes the earlier as its residual:
     * so it runs last, and in the residual's memory. */
    for (int n = g->node_count - 1; n >= 0; n--) {
        if (s.nodes[n].needed && is_product(g->nodes[n].operation)) {
            fuse_epilogue(&s, n);
        }
    }
    memory_free(s.uses);
    *result = s.nodes;
    return ONESTEP_OK;
}
