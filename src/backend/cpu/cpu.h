/* Private to the cpu backend: what lowering leaves behind for running.
 *
 *   fusion.c      graph -> which nodes one step computes together
 *   lower.c       fusions -> steps and values of the program
 *   step_*.c      running the steps
 *   pack.c        weights on their way into the weight cache */
#ifndef ONESTEP_BACKEND_CPU_CPU_H
#define ONESTEP_BACKEND_CPU_CPU_H

#include "backend/backend.h"
#include "backend/cpu/attention.h"
#include "backend/cpu/conv.h"
#include "backend/cpu/conv_kernels.h"
#include "backend/cpu/tensor_kernels.h"

typedef struct cpu_backend {
    backend base; /* first */
    const conv_kernels *products;
    const tensor_kernels *kernels;
} cpu_backend;

/* ---- lowered programs ------------------------------------------------------------------------ */

/* Something a step reads: a value of the program, a constant of the graph, or a weight as plain
 * floats. Nothing: all empty. */
typedef struct operand {
    int value; /* or -1 */
    const float *constant;
    const weight_expression *weight;
} operand;

typedef struct step_context step_context;
typedef struct lowered_step lowered_step;
typedef onestep_status (*step_function)(step_context *context, const lowered_step *step,
                                        onestep_error *error);

/* A convolution or linear layer with what was fused into it. */
typedef struct conv_step {
    conv_plan plan;
    uint64_t format; /* of the packed weights */
    const weight_expression *weight;
    operand input, norm, bias, image_bias, residual;
    conv_storage input_storage, residual_storage, output_storage;
    bool input_silu;
    bool shared_image_bias; /* one for all pictures */
    conv_activation activation;
    coefficient output_scale, residual_scale;
    int statistics; /* value, or -1 */
} conv_step;

/* Where a GroupNorm gets the sums of its input: from the convolutions that made the parts of a
 * concatenation (or the whole), or from a pass over the tensor. */
#define NORM_PARTS 4

typedef struct norm_part {
    operand sums; /* [batch][blocks][2][channels]; of a pass: the tensor */
    size_t channels, blocks;
} norm_part;

/* GroupNorm as a scale and a shift of every channel of every picture: [2][batch][channels]. */
typedef struct norm_statistics_step {
    norm_part parts[NORM_PARTS];
    unsigned part_count;
    bool pass; /* parts[0] is the tensor itself */
    operand gamma, beta;
    size_t groups;
    float epsilon;
} norm_statistics_step;

struct lowered_step {
    step_function run;
    size_t dims[4];   /* of the output */
    size_t source[4]; /* of the first input */
    size_t second[4]; /* of the second, or zeros */
    operand inputs[NODE_INPUTS];
    node_attributes attributes;
    operation operation;
    bool silu; /* group_norm: fused */
    union {
        conv_step conv;
        norm_statistics_step norm;
        attention_plan attention;
    };
};

typedef struct lowered_program {
    weight_cache *weights;
    lowered_step *steps;
    int step_count, step_capacity;
} lowered_program;

/* Weights that one step holds at most. */
#define STEP_WEIGHTS 6

struct step_context {
    const cpu_backend *backend;
    const lowered_program *lowered;
    const program_step *step;
    int index; /* of the step */
    uint8_t *arena;
    const size_t *offsets;
    uint8_t *scratch;
    const float *scalars;
    const void *held[STEP_WEIGHTS];
    unsigned held_count;
    bool packed; /* a weight had to be packed: the next step's may have to be, too */
};

/* ---- fusion.c ---------------------------------------------------------------------------------
 */

/* Convolutions and linear layers. */
static inline bool is_product(operation op)
{
    return op == OPERATION_CONV2D || op == OPERATION_LINEAR;
}

/* What becomes of a node. */
typedef struct node_fusion {
    bool needed;
    int into;         /* the node whose step computes it too; -1: it has its own step */
    int last;         /* the last node that its step computes */
    tensor_id output; /* of the last node */

    /* convolutions and linear layers */
    tensor_id input; /* before normalisation and upsampling */
    int norm;        /* the GROUP_NORM node folded into the input, or -1 */
    bool upsample, geglu;
    conv_activation activation;
    tensor_id image_bias, residual;
    coefficient output_scale, residual_scale;

    /* GROUP_NORM (and convolutions with a folded one): SiLU follows */
    bool silu;
    bool folded; /* GROUP_NORM: only its statistics are a step */
} node_fusion;

/* An entry a node of the graph; released with memory_free. */
onestep_status fusion_find(const graph *g, node_fusion **result, onestep_error *error) MUST_USE;

/* ---- lower.c ----------------------------------------------------------------------------------
 */

onestep_status cpu_lower(backend *self, const graph *g, const lower_options *options, program *p,
                         onestep_error *error);
void cpu_lowered_destroy(backend *self, void *lowered);

/* ---- pack.c ------------------------------------------------------------------------------------
 */

/* The packed weights of a convolution, and a weight's plain floats; held by the context until
 * context_release. */
onestep_status context_acquire_conv(step_context *context, const conv_step *conv,
                                    const void **packed, onestep_error *error) MUST_USE;
onestep_status context_acquire_plain(step_context *context, const weight_expression *weight,
                                     const float **values, onestep_error *error) MUST_USE;
void context_release(step_context *context);
/* Scratch that packing a convolution's weight needs; false when the size overflows. */
bool pack_scratch(const weight_expression *weight, const conv_plan *plan, size_t *bytes) MUST_USE;
/* Tells packed forms of one weight apart. */
uint64_t conv_format(const conv_plan *plan);

/* ---- step_*.c ----------------------------------------------------------------------------------
 */

/* An operand's data, which may be a convolution's halves; *data is NULL for an empty one. Weights
 * are held by the context. */
onestep_status context_operand(step_context *context, const operand *o, const float **data,
                               onestep_error *error) MUST_USE;
float *context_output(const step_context *context, unsigned index);
/* To be called when the step's weights are there: asks for the next step's, when this one's had to
 * be packed. */
void context_prefetch(const step_context *context);

/* Runs `run` over 0..count-1 in pieces of `grain` on the pool. */
typedef void (*range_function)(void *context, size_t first, size_t count);
void parallel_range(thread_pool *pool, size_t count, size_t grain, range_function run,
                    void *context);

onestep_status step_conv(step_context *, const lowered_step *, onestep_error *);
onestep_status step_norm_statistics(step_context *, const lowered_step *, onestep_error *);
onestep_status step_norm_apply(step_context *, const lowered_step *, onestep_error *);
onestep_status step_layer_norm(step_context *, const lowered_step *, onestep_error *);
onestep_status step_attention(step_context *, const lowered_step *, onestep_error *);
onestep_status step_elements(step_context *, const lowered_step *, onestep_error *);
onestep_status step_geglu(step_context *, const lowered_step *, onestep_error *);
onestep_status step_broadcast(step_context *, const lowered_step *, onestep_error *);
onestep_status step_concat(step_context *, const lowered_step *, onestep_error *);
onestep_status step_slice(step_context *, const lowered_step *, onestep_error *);
onestep_status step_upsample(step_context *, const lowered_step *, onestep_error *);
onestep_status step_embedding(step_context *, const lowered_step *, onestep_error *);

/* Bytes of scratch that a step needs; false when the size overflows. */
bool norm_statistics_scratch(const lowered_step *step, size_t *bytes) MUST_USE;

#endif
