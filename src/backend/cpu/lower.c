/* Fusions -> the steps and values of a program. */
#include "backend/cpu/cpu.h"

#include <string.h>

typedef struct lowering {
    cpu_backend *self;
    const graph *g;
    const lower_options *options;
    program *p;
    lowered_program *lowered;
    node_fusion *nodes;
    double *costs;         /* by node: of everything its step computes */
    int *products;         /* by tensor: the convolution or linear layer that ends in it, or -1 */
    bool *wanted;          /* by tensor: a GroupNorm wants its statistics */
    int *statistics;       /* by tensor: value of its producer's statistics, or -1 */
    size_t *blocks;        /* by tensor: blocks of these */
    bool *halves;          /* by tensor: rounded to halves, and stored so unless it is watched */
    int *folds;            /* by GROUP_NORM node: value of scale and shift, or -1 */
    onestep_status status; /* the first failure; everything does nothing after it */
    onestep_error *error;
} lowering;

static bool lowering_failed(const lowering *l)
{
    return l->status != ONESTEP_OK;
}

static bool same_dims(const graph *g, tensor_id a, tensor_id b)
{
    return memcmp(graph_dims(g, a), graph_dims(g, b), 4 * sizeof(size_t)) == 0;
}

/* ---- values and steps --------------------------------------------------------------------------
 */

static int value_add(lowering *l, value_kind kind, size_t bytes, tensor_id id)
{
    if (lowering_failed(l)) {
        return -1;
    }
    const int value = program_value_add(l->p, kind, bytes, id, l->error);
    if (value < 0) {
        l->status = ONESTEP_ERROR_MEMORY;
    }
    return value;
}

/* How a tensor lies in memory. One that is watched is rounded as if it were not. */
static conv_storage storage_of(const lowering *l, tensor_id id)
{
    return id == TENSOR_NONE || !l->halves[id] || l->g->tensors[id].observed ? CONV_STORE_F32
                                                                             : CONV_STORE_F16;
}

/* The value of a tensor, made when it has none yet. */
static int value_of(lowering *l, tensor_id id)
{
    const tensor *t = &l->g->tensors[id];
    if (l->p->tensor_values[id] < 0) {
        const value_kind kind = t->kind == TENSOR_INPUT ? VALUE_INPUT
                                : t->observed           ? VALUE_OUTPUT
                                                        : VALUE_INTERNAL;
        const size_t value_bytes = storage_of(l, id) == CONV_STORE_F16
                                       ? conv_storage_bytes(CONV_STORE_F16)
                                       : element_size(t->type);
        l->p->tensor_values[id] = value_add(l, kind, graph_element_count(t) * value_bytes, id);
    }
    return l->p->tensor_values[id];
}

/* Adds a step for node `n` that gives the tensor `output` (or TENSOR_NONE); NULL after a failure.
 * The pointer holds until the next step is added; the program's step is the last one. */
static lowered_step *step_add(lowering *l, int n, const char *algorithm, step_function run,
                              tensor_id output)
{
    if (lowering_failed(l)) {
        return NULL;
    }
    lowered_program *lowered = l->lowered;
    if (lowered->step_count == lowered->step_capacity) {
        const int capacity = lowered->step_capacity ? 2 * lowered->step_capacity : 64;
        lowered_step *steps =
            memory_resize(lowered->steps, (size_t)capacity, sizeof *steps, l->error);
        if (!steps) {
            l->status = ONESTEP_ERROR_MEMORY;
            return NULL;
        }
        lowered->steps = steps;
        lowered->step_capacity = capacity;
    }
    program_step *step = program_step_add(l->p, l->error);
    if (!step) {
        l->status = ONESTEP_ERROR_MEMORY;
        return NULL;
    }
    const node *source = &l->g->nodes[n];
    step->algorithm = algorithm;
    step->stage = source->stage;
    step->node = n;
    lowered_step *result = &lowered->steps[lowered->step_count++];
    memset(result, 0, sizeof *result);
    result->run = run;
    result->operation = source->operation;
    result->attributes = source->attributes;
    for (int i = 0; i < NODE_INPUTS; i++) {
        result->inputs[i].value = -1;
    }
    memcpy(result->source, graph_dims(l->g, source->inputs[0]), sizeof result->source);
    if (source->input_count > 1) {
        memcpy(result->second, graph_dims(l->g, source->inputs[1]), sizeof result->second);
    }
    if (output != TENSOR_NONE) {
        memcpy(result->dims, graph_dims(l->g, output), sizeof result->dims);
        step->outputs[step->output_count++] = value_of(l, output);
    }
    return result;
}

static program_step *last_step(const lowering *l)
{
    return &l->p->steps[l->p->step_count - 1];
}

static void reads_value(lowering *l, int value)
{
    program_step *step = last_step(l);
    for (unsigned i = 0; i < step->input_count; i++) {
        if (step->inputs[i] == value) {
            return;
        }
    }
    step->inputs[step->input_count++] = value;
}

/* What the last step reads; its values are noted there. */
static operand reads(lowering *l, tensor_id id)
{
    operand o = {.value = -1};
    if (id == TENSOR_NONE || lowering_failed(l)) {
        return o;
    }
    const tensor *t = &l->g->tensors[id];
    if (t->kind == TENSOR_WEIGHT) {
        o.weight = t->weight;
    } else if (t->kind == TENSOR_CONSTANT) {
        o.constant = t->constant;
    } else {
        o.value = value_of(l, id);
        reads_value(l, o.value);
    }
    return o;
}

static operand reads_own(lowering *l, int value)
{
    if (!lowering_failed(l)) {
        reads_value(l, value);
    }
    return (operand){.value = value};
}

/* The output may take over the memory of `o`, if it is a value. */
static void in_place(lowering *l, operand o)
{
    program_step *step = last_step(l);
    for (unsigned i = 0; i < step->input_count && !lowering_failed(l); i++) {
        if (step->inputs[i] == o.value) {
            step->in_place = (int)i;
        }
    }
}

/* ---- models of time -----------------------------------------------------------------------------
 */

/* A step that only moves memory, at about what one core reads and writes; more cores add little. */
static double memory_seconds(double floats)
{
    return 4.0 * floats / 10e9 + 2e-6;
}

/* ---- convolutions and linear layers
 * --------------------------------------------------------------- */

/* Where reduced precision is not asked for or costs too much of the picture: layers that read or
 * write fewer channels than this (first and last ones) stay in float32. */
#define REDUCED_CHANNELS 16

/* The precision of a layer's products, by what was asked for. */
static conv_precision choose_precision(const lowering *l, const conv_shape *shape)
{
    if (shape->input_channels < REDUCED_CHANNELS || shape->output_channels < REDUCED_CHANNELS) {
        return CONV_F32;
    }
    switch (l->options->precision) {
    case PRECISION_BF16:
        return CONV_BF16;
    case PRECISION_INT16:
        return CONV_INT16;
    case PRECISION_F32:
        break;
    }
    return CONV_F32;
}

/* With fewer keys, quantising them costs what the products gain. */
#define REDUCED_KEYS 256

/* Logits of wider heads lose too much by 8 bits where the scheduler's step is still to come. */
#define INT8_HEAD_WIDTH 128

static bool multiplies_bytes(const lowering *l)
{
    return l->self->products->multiply_int8 != NULL;
}

static attention_precision attention_precision_of(const lowering *l, const node *source,
                                                  const attention_shape *shape)
{
    if (l->options->precision != PRECISION_INT16 || shape->keys < REDUCED_KEYS) {
        return ATTENTION_F32;
    }
    const bool exact =
        source->amplification != AMPLIFICATION_NONE && shape->width > INT8_HEAD_WIDTH;
    const bool bytes = multiplies_bytes(l) && shape->width <= ATTENTION_INT8_WIDTH;
    return !bytes ? ATTENTION_INT16 : exact ? ATTENTION_INT8_VALUES : ATTENTION_INT8;
}

static const char *attention_name(attention_precision of)
{
    static const char *const names[] = {
        [ATTENTION_F32] = "attention f32",
        [ATTENTION_INT16] = "attention int16",
        [ATTENTION_INT8_VALUES] = "attention int16 int8",
        [ATTENTION_INT8] = "attention int8",
    };
    return names[of];
}

static const char *conv_name(const conv_plan *plan)
{
    static const char *const names[3][CONV_ALGORITHM_COUNT] = {
        [CONV_F32] = {"direct f32", "winograd 2x2 f32", "winograd 4x4 f32", "winograd 6x6 f32",
                      "winograd 8x6 f32", "winograd 8x8 f32"},
        [CONV_BF16] = {"direct bf16"}, /* the only algorithm that has it */
        [CONV_INT16] = {"direct int16", "winograd 2x2 int16", "winograd 4x4 int16",
                        "winograd 6x6 int16", "winograd 8x6 int16", "winograd 8x8 int16"},
    };
    return names[plan->precision][plan->algorithm];
}

static bool conv_shape_of(const lowering *l, int n, conv_shape *shape)
{
    const graph *g = l->g;
    const node *source = &g->nodes[n];
    const node_fusion *f = &l->nodes[n];
    const size_t *x = graph_dims(g, f->input), *w = graph_dims(g, source->inputs[1]),
                 *y = graph_dims(g, source->output);
    const bool linear = source->operation == OPERATION_LINEAR;
    *shape = (conv_shape){
        .batch = x[0],
        .input_height = x[1],
        .input_width = x[2],
        .input_channels = x[3],
        .output_height = y[1],
        .output_width = y[2],
        .output_channels = f->geglu ? y[3] / 2 : y[3],
        .kernel = linear ? 1 : (unsigned)w[2],
        .stride = linear ? 1 : source->attributes.stride,
        .pad_top = source->attributes.pad_top,
        .pad_left = source->attributes.pad_left,
        .upsample = f->upsample,
        .geglu = f->geglu,
    };
    return w[2] == w[3];
}

/* From one tile to the next larger, integers' errors grow 4.5 and 2.2 times, floats' 1.8 and 3. */
static conv_largest largest_of(const lowering *l, amplification of_errors)
{
    switch (of_errors) {
    case AMPLIFICATION_NONE:
        return (conv_largest){.f32 = CONV_WINOGRAD_8, .int16 = CONV_WINOGRAD_8X6};
    case AMPLIFICATION_PARTIAL:
        /* Where attention takes bytes, its errors leave less room for others. */
        return (conv_largest){
            .f32 = CONV_WINOGRAD_8X6,
            .int16 = multiplies_bytes(l) ? CONV_WINOGRAD_4 : CONV_WINOGRAD_6,
        };
    case AMPLIFICATION_FULL:
        break;
    }
    return (conv_largest){.f32 = CONV_WINOGRAD_6, .int16 = CONV_WINOGRAD_4};
}

static bool conv_plan_of(const lowering *l, const node *source, const conv_shape *shape,
                         conv_plan *plan)
{
    return conv_plan_cheapest(plan, shape, l->self->base.level, choose_precision(l, shape),
                              largest_of(l, source->amplification),
                              thread_pool_size(l->self->base.pool));
}

static void lower_product(lowering *l, int n)
{
    const graph *g = l->g;
    const node *source = &g->nodes[n];
    const node_fusion *f = &l->nodes[n];
    const tensor *weight = &g->tensors[source->inputs[1]];
    conv_shape shape;
    conv_plan plan;
    size_t packing;
    if (weight->kind != TENSOR_WEIGHT || !conv_shape_of(l, n, &shape) ||
        !conv_plan_of(l, source, &shape, &plan) || !pack_scratch(weight->weight, &plan, &packing)) {
        l->status = error_set(
            l->error, ONESTEP_ERROR_UNSUPPORTED,
            "%s %s: the cpu backend has no way to compute a %zux%zu kernel of stride %u on "
            "[%zu,%zu,%zu,%zu] (use the reference backend)",
            operation_name(source->operation), weight->name ? weight->name : "", weight->dims[2],
            weight->dims[3], source->attributes.stride, graph_dims(g, f->input)[0],
            graph_dims(g, f->input)[1], graph_dims(g, f->input)[2], graph_dims(g, f->input)[3]);
        return;
    }
    lowered_step *step = step_add(l, n, conv_name(&plan), step_conv, f->output);
    if (!step) {
        return;
    }
    conv_step *conv = &step->conv;
    conv->plan = plan;
    conv->format = conv_format(&plan);
    conv->weight = weight->weight;
    conv->input = reads(l, f->input);
    conv->norm.value = -1;
    if (f->norm >= 0) {
        conv->norm = reads_own(l, l->folds[f->norm]);
        conv->input_silu = f->silu;
    }
    conv->bias = reads(l, source->input_count > 2 ? source->inputs[2] : TENSOR_NONE);
    conv->image_bias = reads(l, f->image_bias);
    conv->shared_image_bias =
        f->image_bias != TENSOR_NONE && graph_dims(g, f->image_bias)[0] < shape.batch;
    conv->residual = reads(l, f->residual);
    conv->activation = f->activation;
    conv->output_scale = f->output_scale;
    conv->residual_scale = f->residual_scale;
    conv->statistics = -1;
    conv->input_storage = storage_of(l, f->input);
    conv->residual_storage = storage_of(l, f->residual);
    conv->output_storage = storage_of(l, f->output);
    const bool stored_alike = conv->residual_storage == conv->output_storage;
    if (conv->output_storage == CONV_STORE_F32 && l->halves[f->output]) {
        conv->output_storage = CONV_STORE_ROUNDED;
    }
    if (conv->residual.value >= 0 && stored_alike && conv->residual.value != conv->input.value &&
        conv->residual.value != conv->image_bias.value) {
        in_place(l, conv->residual);
    }
    program_step *entry = last_step(l);
    entry->scratch_bytes = size_round_up(plan.scratch_bytes, 64);
    if (conv->shared_image_bias) {
        entry->scratch_bytes += shape.batch * shape.output_channels * sizeof(float);
    }
    entry->scratch_bytes = size_maximum(entry->scratch_bytes, packing);
    entry->weight_number_bytes = plan.precision == CONV_F32 ? sizeof(float) : sizeof(int16_t);
    entry->predicted_seconds = plan.predicted_seconds;
    if (l->wanted[f->output]) {
        l->blocks[f->output] = conv_statistics_blocks(&plan);
        const size_t floats = 2 * shape.batch * l->blocks[f->output] * shape.output_channels;
        const int value = value_add(l, VALUE_INTERNAL, floats * sizeof(float), TENSOR_NONE);
        l->statistics[f->output] = conv->statistics = value;
        entry->outputs[entry->output_count++] = value;
    }
}

/* ---- normalisation
 * -------------------------------------------------------------------------------- */

/* The tensors whose channels stand side by side in `t`; 0 when there are more than fit. */
static unsigned parts_of(const graph *g, tensor_id t, tensor_id parts[NORM_PARTS], unsigned count)
{
    const int producer = g->tensors[t].producer;
    if (producer < 0 || g->nodes[producer].operation != OPERATION_CONCAT) {
        if (count == NORM_PARTS) {
            return 0;
        }
        parts[count] = t;
        return count + 1;
    }
    const unsigned left = parts_of(g, g->nodes[producer].inputs[0], parts, count);
    return left == 0 ? 0 : parts_of(g, g->nodes[producer].inputs[1], parts, left);
}

/* Notes which products have to give statistics: those of which a normalisation's input is made,
 * when it is made of nothing else. */
static void find_wanted(lowering *l)
{
    const graph *g = l->g;
    for (int n = 0; n < g->node_count; n++) {
        tensor_id parts[NORM_PARTS];
        if (!l->nodes[n].needed || g->nodes[n].operation != OPERATION_GROUP_NORM) {
            continue;
        }
        const unsigned count = parts_of(g, g->nodes[n].inputs[0], parts, 0);
        bool all = count > 0;
        for (unsigned i = 0; i < count; i++) {
            const int product = l->products[parts[i]];
            all = all && product >= 0 && !l->nodes[product].geglu;
        }
        for (unsigned i = 0; all && i < count; i++) {
            l->wanted[parts[i]] = true;
        }
    }
}

/* Tensors of more values a picture than this (8 MB as floats) do not stay in a cache until they are
 * read. */
#define HALF_VALUES ((size_t)1 << 21)

static bool may_be_halves(const lowering *l, tensor_id t)
{
    const size_t *dims = graph_dims(l->g, t);
    return l->products[t] >= 0 && !l->g->nodes[l->products[t]].stored_f32 &&
           dims[3] >= REDUCED_CHANNELS &&
           graph_element_count(&l->g->tensors[t]) / dims[0] > HALF_VALUES;
}

/* Next to 16-bit integers large tensors are halves, when convolutions make them and all that reads
 * them are convolutions, as input or residual, and normalisations that need their statistics only.
 */
static void find_halves(lowering *l)
{
    const graph *g = l->g;
    if (l->options->precision != PRECISION_INT16) {
        return;
    }
    for (tensor_id t = 0; t < g->tensor_count; t++) {
        l->halves[t] = may_be_halves(l, t);
    }
    for (int n = 0; n < g->node_count; n++) {
        const node *reader = &g->nodes[n];
        const node_fusion *f = &l->nodes[n];
        if (!f->needed || f->into >= 0) {
            continue;
        }
        const bool product = is_product(reader->operation);
        if (product && f->image_bias != TENSOR_NONE) {
            l->halves[f->image_bias] = false;
        }
        for (unsigned i = 0; !product && i < reader->input_count; i++) {
            const tensor_id t = reader->inputs[i];
            l->halves[t] = l->halves[t] && f->folded && l->wanted[t];
        }
    }
}

static void lower_group_norm(lowering *l, int n)
{
    const graph *g = l->g;
    const node *source = &g->nodes[n];
    const tensor_id input = source->inputs[0];
    const size_t *dims = graph_dims(g, input);
    lowered_step *step = step_add(l, n, "group_norm statistics", step_norm_statistics, TENSOR_NONE);
    if (!step) {
        return;
    }
    norm_statistics_step *norm = &step->norm;
    memcpy(step->dims, dims, sizeof step->dims);
    norm->groups = source->attributes.groups;
    norm->epsilon = source->attributes.epsilon;
    tensor_id parts[NORM_PARTS];
    norm->part_count = parts_of(g, input, parts, 0);
    norm->pass = norm->part_count == 0;
    for (unsigned i = 0; i < norm->part_count; i++) {
        norm->pass |= l->statistics[parts[i]] < 0;
    }
    if (norm->pass) {
        norm->part_count = 1;
        norm->parts[0] = (norm_part){.sums = reads(l, input), .channels = dims[3]};
    }
    for (unsigned i = 0; !norm->pass && i < norm->part_count; i++) {
        norm->parts[i] = (norm_part){.sums = reads_own(l, l->statistics[parts[i]]),
                                     .channels = graph_dims(g, parts[i])[3],
                                     .blocks = l->blocks[parts[i]]};
    }
    norm->gamma = reads(l, source->inputs[1]);
    norm->beta = reads(l, source->inputs[2]);
    program_step *entry = last_step(l);
    if (!norm_statistics_scratch(step, &entry->scratch_bytes)) {
        l->status = error_set(l->error, ONESTEP_ERROR_MEMORY,
                              "group_norm: the scratch memory's size overflows");
        return;
    }
    if (norm->pass) {
        entry->predicted_seconds = memory_seconds((double)graph_element_count(&g->tensors[input]));
    }
    const int scale =
        value_add(l, VALUE_INTERNAL, 2 * dims[0] * dims[3] * sizeof(float), TENSOR_NONE);
    l->folds[n] = scale;
    entry->outputs[entry->output_count++] = scale;
    if (l->nodes[n].folded) {
        return;
    }
    lowered_step *apply =
        step_add(l, n, l->nodes[n].silu ? "group_norm apply silu" : "group_norm apply",
                 step_norm_apply, l->nodes[n].output);
    if (apply) {
        apply->silu = l->nodes[n].silu;
        apply->inputs[0] = reads(l, input);
        apply->inputs[1] = reads_own(l, scale);
        in_place(l, apply->inputs[0]);
        last_step(l)->predicted_seconds =
            memory_seconds(2 * (double)graph_element_count(&g->tensors[input]));
    }
}

/* ---- everything else
 * ------------------------------------------------------------------------------ */

static void lower_attention(lowering *l, int n)
{
    const graph *g = l->g;
    const node *source = &g->nodes[n];
    const size_t *q = graph_dims(g, source->inputs[0]), *k = graph_dims(g, source->inputs[1]);
    const attention_shape shape = {
        .batch = q[0],
        .queries = q[1] * q[2],
        .keys = k[1] * k[2],
        .heads = source->attributes.heads,
        .width = q[3] / source->attributes.heads,
        .shared_keys = k[0] < q[0],
        .causal = source->attributes.causal,
    };
    const attention_precision products = attention_precision_of(l, source, &shape);
    lowered_step *step = step_add(l, n, attention_name(products), step_attention, source->output);
    if (!step) {
        return;
    }
    const unsigned threads = thread_pool_size(l->self->base.pool);
    if (!attention_plan_create(&step->attention, &shape, products, l->self->products, threads)) {
        l->status = error_set(l->error, ONESTEP_ERROR_MEMORY,
                              "attention: the scratch memory's size overflows");
        return;
    }
    for (unsigned i = 0; i < 3; i++) {
        step->inputs[i] = reads(l, source->inputs[i]);
    }
    /* Keys and values are packed first, and a block of queries is copied before it is overwritten.
     */
    if (step->inputs[0].value >= 0) {
        in_place(l, step->inputs[0]);
    }
    last_step(l)->scratch_bytes = step->attention.scratch_bytes;
    last_step(l)->predicted_seconds = step->attention.predicted_seconds;
}

typedef struct simple_lowering {
    step_function run;
    bool in_place; /* in the memory of the first input */
} simple_lowering;

/* Operations that are one step with their inputs as they are. */
static simple_lowering simple_lowering_of(const graph *g, const node *n)
{
    switch (n->operation) {
    case OPERATION_LAYER_NORM:
        return (simple_lowering){step_layer_norm, true};
    case OPERATION_SILU:
    case OPERATION_GELU:
    case OPERATION_QUICK_GELU:
    case OPERATION_EXP:
    case OPERATION_CLAMP:
    case OPERATION_SCALE:
    case OPERATION_MULTIPLY:
        return (simple_lowering){step_elements, true};
    case OPERATION_COMBINE:
        if (same_dims(g, n->inputs[0], n->inputs[1])) {
            return (simple_lowering){step_elements, true};
        }
        return (simple_lowering){step_broadcast, true};
    case OPERATION_GEGLU:
        return (simple_lowering){step_geglu, false};
    case OPERATION_CONCAT:
        return (simple_lowering){step_concat, false};
    case OPERATION_SLICE:
        return (simple_lowering){step_slice, false};
    case OPERATION_UPSAMPLE:
        return (simple_lowering){step_upsample, false};
    case OPERATION_EMBEDDING:
        return (simple_lowering){step_embedding, false};
    default:
        return (simple_lowering){NULL, false};
    }
}

static void lower_simple(lowering *l, int n)
{
    const graph *g = l->g;
    const node *source = &g->nodes[n];
    const simple_lowering simple = simple_lowering_of(g, source);
    if (!simple.run) {
        l->status = error_set(l->error, ONESTEP_ERROR_UNSUPPORTED,
                              "the cpu backend does not compute %s (use the reference backend)",
                              operation_name(source->operation));
        return;
    }
    lowered_step *step =
        step_add(l, n, operation_name(source->operation), simple.run, source->output);
    if (!step) {
        return;
    }
    double floats = (double)graph_element_count(&g->tensors[source->output]);
    for (unsigned i = 0; i < source->input_count; i++) {
        step->inputs[i] = reads(l, source->inputs[i]);
        floats += (double)graph_element_count(&g->tensors[source->inputs[i]]);
    }
    if (simple.in_place && step->inputs[0].value >= 0) {
        in_place(l, step->inputs[0]);
    }
    if (source->operation == OPERATION_EMBEDDING) {
        const size_t row = step->dims[3] * sizeof(float);
        last_step(l)->scratch_bytes = thread_pool_size(l->self->base.pool) * row;
        if (!step->inputs[1].weight || !step->inputs[2].weight) {
            l->status = error_set(l->error, ONESTEP_ERROR_UNSUPPORTED,
                                  "embedding: the tables must be weights");
        }
        floats = 3 * (double)graph_element_count(&g->tensors[source->output]);
    }
    last_step(l)->predicted_seconds = memory_seconds(floats);
}

static void lower_node(lowering *l, int n)
{
    const int before = l->p->step_count;
    switch (l->g->nodes[n].operation) {
    case OPERATION_CONV2D:
    case OPERATION_LINEAR:
        lower_product(l, n);
        break;
    case OPERATION_GROUP_NORM:
        lower_group_norm(l, n);
        break;
    case OPERATION_ATTENTION:
        lower_attention(l, n);
        break;
    default:
        lower_simple(l, n);
        break;
    }
    if (l->p->step_count > before) {
        l->p->steps[before].operations = l->costs[n];
    }
}

/* ---- the whole graph
 * -------------------------------------------------------------------------------- */

static bool lowering_allocate(lowering *l)
{
    const size_t tensors = (size_t)l->g->tensor_count, nodes = (size_t)l->g->node_count;
    l->p->tensor_values = memory_allocate(tensors, sizeof(int), l->error);
    l->products = memory_allocate(tensors, sizeof(int), l->error);
    l->statistics = memory_allocate(tensors, sizeof(int), l->error);
    l->wanted = memory_allocate(tensors, sizeof(bool), l->error);
    l->blocks = memory_allocate(tensors, sizeof(size_t), l->error);
    l->halves = memory_allocate(tensors, sizeof(bool), l->error);
    l->costs = memory_allocate(nodes, sizeof(double), l->error);
    l->folds = memory_allocate(nodes, sizeof(int), l->error);
    if (!l->p->tensor_values || !l->products || !l->statistics || !l->wanted || !l->blocks ||
        !l->halves || !l->costs || !l->folds) {
        return false;
    }
    for (size_t t = 0; t < tensors; t++) {
        l->p->tensor_values[t] = l->products[t] = l->statistics[t] = -1;
    }
    l->lowered = memory_allocate(1, sizeof *l->lowered, l->error);
    if (!l->lowered) {
        return false;
    }
    l->p->lowered = l->lowered;
    l->lowered->weights = l->options->weights;
    return true;
}

static void lowering_free(lowering *l)
{
    memory_free(l->nodes);
    memory_free(l->products);
    memory_free(l->statistics);
    memory_free(l->wanted);
    memory_free(l->blocks);
    memory_free(l->halves);
    memory_free(l->costs);
    memory_free(l->folds);
}

/* The node whose step computes node `n`. */
static int step_node(const lowering *l, int n)
{
    return l->nodes[n].into < 0 ? n : l->nodes[n].into;
}

onestep_status cpu_lower(backend *self, const graph *g, const lower_options *options, program *p,
                         onestep_error *error)
{
    memset(p, 0, sizeof *p);
    lowering l = {.self = (cpu_backend *)self, .g = g, .options = options, .p = p, .error = error};
    l.status = fusion_find(g, &l.nodes, error);
    if (l.status == ONESTEP_OK && !lowering_allocate(&l)) {
        l.status = ONESTEP_ERROR_MEMORY;
    }
    if (l.status != ONESTEP_OK) {
        goto done;
    }
    for (int n = 0; n < g->node_count; n++) {
        if (l.nodes[n].needed) {
            l.costs[step_node(&l, n)] += operation_cost(g, &g->nodes[n]);
            if (is_product(g->nodes[n].operation)) {
                l.products[l.nodes[n].output] = n;
            }
        }
    }
    find_wanted(&l);
    find_halves(&l);
    for (int o = 0; o < g->output_count && l.status == ONESTEP_OK; o++) {
        const tensor *t = &g->tensors[g->outputs[o].tensor];
        if (t->kind == TENSOR_WEIGHT || t->kind == TENSOR_CONSTANT) {
            l.status = error_set(error, ONESTEP_ERROR_INTERNAL,
                                 "output %s is a weight or a constant", g->outputs[o].name);
        } else {
            value_of(&l, g->outputs[o].tensor);
        }
    }
    /* A step stands where its last node stands: there all that it reads has been computed. */
    for (int n = 0; n < g->node_count && l.status == ONESTEP_OK; n++) {
        if (l.nodes[n].needed && l.nodes[step_node(&l, n)].last == n) {
            lower_node(&l, step_node(&l, n));
        }
    }
done:
    lowering_free(&l);
    if (l.status != ONESTEP_OK) {
        program_destroy(self, p);
    }
    return l.status;
}

void cpu_lowered_destroy(backend *self, void *lowered)
{
    (void)self;
    lowered_program *l = lowered;
    memory_free(l->steps);
    memory_free(l);
}
