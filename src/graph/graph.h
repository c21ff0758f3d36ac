/* graph: a network as pure data.
 *
 * Network code builds a graph of operations (ops.def) on tensors; a backend lowers it; the plan
 * places and runs what comes out. The same graph gives inference, its gradient (more nodes), its
 * cost in floating-point operations and its picture (Graphviz).
 *
 * Activations are NHWC [n,h,w,c], float32 (token ids: int32). Weights keep PyTorch's layout,
 * [o,i,kh,kw] for convolutions, [o,i,1,1] for linear layers, [c,1,1,1] for vectors. */
#ifndef ONESTEP_GRAPH_H
#define ONESTEP_GRAPH_H

#include "base/base.h"
#include "formats/formats.h"

/* ---- scalars and weights ------------------------------------------------------------------ */

/* Scalars are numbers bound at run time, known by index. */
typedef enum graph_scalar { SCALAR_GAMMA, SCALAR_COUNT } graph_scalar;
#define SCALAR_NONE (-1)

/* constant + slope * scalars[scalar] */
typedef struct coefficient {
    float constant, slope;
    int scalar; /* SCALAR_NONE: just the constant */
} coefficient;

static inline coefficient coefficient_constant(float value)
{
    return (coefficient){.constant = value, .scalar = SCALAR_NONE};
}

static inline float coefficient_value(coefficient c, const float scalars[SCALAR_COUNT])
{
    return c.scalar == SCALAR_NONE ? c.constant : c.constant + c.slope * scalars[c.scalar];
}

/* One summand of a weight: scale * full, or the low-rank product scale * up * down (LoRA: down is
 * A [rank, i, kh, kw], up is B [o, rank, 1, 1], alpha / rank is part of the scale). */
typedef struct weight_term {
    coefficient scale;
    const named_tensor *full;
    const named_tensor *down, *up;
} weight_term;

#define WEIGHT_TERMS 4

/* A weight is an expression: W + s*B*A, (1-r)*Wp + r*Wc. Backends fold it when they pack and cache
 * the packed form by the scalars it depends on; nothing else in the code knows of LoRA. Owned by
 * the model and kept alive longer than any graph or cache that refers to it: its address is its
 * identity. */
typedef struct weight_expression {
    const char *name; /* canonical: "down_blocks.0.resnets.0.conv1.weight" */
    size_t dims[4];
    unsigned term_count;
    weight_term terms[WEIGHT_TERMS];
} weight_expression;

/* Numbers in the weight; a bit a scalar that it depends on. */
size_t weight_element_count(const weight_expression *weight);
unsigned weight_scalar_mask(const weight_expression *weight);

/* ---- tensors, nodes, graphs ---------------------------------------------------------------- */

typedef int tensor_id;
#define TENSOR_NONE (-1)

typedef enum tensor_kind {
    TENSOR_ACTIVATION,
    TENSOR_INPUT,
    TENSOR_CONSTANT,
    TENSOR_WEIGHT
} tensor_kind;

typedef struct tensor {
    tensor_kind kind;
    element_type type; /* ELEMENT_F32, or ELEMENT_I32 for token ids */
    size_t dims[4];    /* n,h,w,c; of a weight as in the file, filled up with ones */
    const char *name;  /* inputs: for binding; others may be NULL */
    int producer;      /* node index, -1 for inputs, constants, weights */
    const weight_expression *weight;
    const float *constant; /* owned by the graph */
    bool observed;         /* an output, or watched by name: a backend must not fuse it away */
    bool steady;           /* an input that is often the same from one run to the next */
} tensor;

typedef enum operation {
#define OPERATION(enumerator, name, least, most, gradient) OPERATION_##enumerator,
#include "graph/ops.def"
#undef OPERATION
    OPERATION_COUNT
} operation;

/* The attributes of every operation; each uses its own (see ops.def), the others are zero. */
typedef struct node_attributes {
    unsigned stride;                                   /* conv2d */
    unsigned pad_top, pad_left, pad_bottom, pad_right; /* conv2d */
    unsigned groups;                                   /* group_norm */
    float epsilon;                                     /* group_norm, layer_norm */
    unsigned heads;                                    /* attention */
    float attention_scale;                             /* attention */
    bool causal;                                       /* attention */
    coefficient scale[2];                              /* scale, combine */
    float offset;                                      /* scale */
    float low, high;                                   /* clamp */
    size_t first, count;                               /* slice */
    size_t height, width;                              /* upsample and gradients */
    unsigned wrt;                                      /* gradients: of which input */
    operation of;                                      /* activation_gradient */
    bool keep_batch;                                   /* sum */
} node_attributes;

#define NODE_INPUTS 4

/* What becomes of a node's errors on their way to the result: reduced precision must be gentle
 * where they grow. */
typedef enum amplification {
    AMPLIFICATION_NONE,
    AMPLIFICATION_PARTIAL, /* they grow, but arrive on two ways whose errors cancel for the most */
    AMPLIFICATION_FULL
} amplification;

typedef struct node {
    operation operation;
    unsigned input_count;
    tensor_id inputs[NODE_INPUTS];
    tensor_id output;
    node_attributes attributes;
    const char *stage; /* static string: "text", "encode", "unet", "decode" */
    amplification amplification;
    bool stored_f32; /* see graph_stored_f32 */
} node;

typedef struct graph_output {
    const char *name;
    tensor_id tensor;
} graph_output;

/* Read freely; change only through the functions below. Nodes stand in an order in which they can
 * run. */
typedef struct graph {
    tensor *tensors;
    int tensor_count, tensor_capacity;
    node *nodes;
    int node_count, node_capacity;
    graph_output *outputs; /* results, and watched tensors */
    int output_count, output_capacity;
    char **names; /* owned strings */
    int name_count, name_capacity;
    const char *stage;           /* of the nodes that are added now */
    amplification amplification; /* the same */
    bool stored_f32;             /* the same */
    onestep_error error;         /* the first thing that went wrong while building */
} graph;

onestep_status graph_create(graph **g, onestep_error *error) MUST_USE;
void graph_destroy(graph **g);

/* Building. Mistakes are kept in the graph: after one, builders return TENSOR_NONE and accept it,
 * so that network code reads without error handling; graph_check tells at the end. */
onestep_status graph_check(const graph *g, onestep_error *error) MUST_USE;
/* Records a mistake found by network code itself. */
void graph_fail(graph *g, onestep_status code, const char *format, ...) PRINTF_LIKE(3, 4);
/* A static string that names the stage of the nodes added from now on. */
void graph_stage(graph *g, const char *stage);
/* Of the nodes added from now on. None at first. */
void graph_amplification(graph *g, amplification of_errors);
/* Whether the results of nodes added from now on are to be stored as float32 in any precision, as
 * their roundings add up over many layers. False at first. */
void graph_stored_f32(graph *g, bool stored_f32);
/* Says that an input is often the same from one run to the next: what depends on nothing else then
 * need not be computed again. */
void graph_steady(graph *g, tensor_id input);

tensor_id graph_input(graph *g, const char *name, element_type type, const size_t dims[4]);
/* `values` are copied. */
tensor_id graph_constant(graph *g, const float *values, const size_t dims[4]);
/* `weight` NULL gives TENSOR_NONE (an absent bias). The same expression gives the same tensor. */
tensor_id graph_weight(graph *g, const weight_expression *weight);
/* Adds a node and the tensor it makes; checks the inputs and works out the shape. */
tensor_id graph_add(graph *g, operation op, const tensor_id *inputs, unsigned input_count,
                    const node_attributes *attributes);
/* Marks a result (or a tensor to watch) under a name that is copied. */
void graph_output_add(graph *g, const char *name, tensor_id tensor);

typedef struct padding {
    unsigned top, left, bottom, right;
} padding;

tensor_id graph_conv2d(graph *g, tensor_id x, tensor_id weight, tensor_id bias, unsigned stride,
                       padding pad);
tensor_id graph_linear(graph *g, tensor_id x, tensor_id weight, tensor_id bias);
tensor_id graph_embedding(graph *g, tensor_id ids, tensor_id tokens, tensor_id positions);
tensor_id graph_group_norm(graph *g, tensor_id x, tensor_id gamma, tensor_id beta, unsigned groups,
                           float epsilon);
tensor_id graph_layer_norm(graph *g, tensor_id x, tensor_id gamma, tensor_id beta, float epsilon);
tensor_id graph_attention(graph *g, tensor_id q, tensor_id k, tensor_id v, unsigned heads,
                          float scale, bool causal);
/* SILU, GELU, QUICK_GELU, GEGLU or EXP */
tensor_id graph_activation(graph *g, operation op, tensor_id x);
tensor_id graph_clamp(graph *g, tensor_id x, float low, float high);
tensor_id graph_scale(graph *g, tensor_id x, coefficient scale, float offset);
tensor_id graph_combine(graph *g, tensor_id a, coefficient scale_a, tensor_id b,
                        coefficient scale_b);
tensor_id graph_sum_of(graph *g, tensor_id a, tensor_id b); /* a + b */
tensor_id graph_multiply(graph *g, tensor_id a, tensor_id b);
tensor_id graph_concat(graph *g, tensor_id a, tensor_id b);
tensor_id graph_slice(graph *g, tensor_id x, size_t first, size_t count);
tensor_id graph_upsample(graph *g, tensor_id x, size_t height, size_t width);

/* dims of a tensor; all zero for TENSOR_NONE */
const size_t *graph_dims(const graph *g, tensor_id t);
size_t graph_element_count(const tensor *t);

const char *operation_name(operation op);
/* Works out the output dims of a node; false with the graph's error set when they do not fit. */
bool operation_shape(graph *g, const node *n, size_t dims[4]);
/* Floating-point operations of a node: 2 a multiply-add for products and attention (counted as
 * direct convolution), a few an element for the others. */
double operation_cost(const graph *g, const node *n);
double graph_cost(const graph *g, const char *stage); /* NULL: of all stages */

/* The graph in Graphviz's language, into a buffer. */
void graph_print_dot(const graph *g, text_buffer *out);

/* ---- gradients ------------------------------------------------------------------------------ */

/* Adds the nodes that compute the gradients of sum(output * upstream) with respect to `wrt`
 * (inputs, activations or weights), and writes their tensors to `gradients` (TENSOR_NONE where
 * there is no path). They have the shape of what they are the gradient of, except that of a bias,
 * [1,1,1,c]. An operation on the way whose rule is `none` is an error that names it and leaves the
 * graph as it was. */
onestep_status graph_differentiate(graph *g, tensor_id output, tensor_id upstream,
                                   const tensor_id *wrt, size_t wrt_count, tensor_id *gradients,
                                   onestep_error *error) MUST_USE;

#endif
