/* Attention without the matrix of all scores: an online softmax over blocks of keys.
 *
 * Tensors are sequences of tokens with `heads` heads of `width` channels side by side. The blocks
 * are cut by the shape alone, so that results do not depend on threads or the batch. */
#ifndef ONESTEP_BACKEND_CPU_ATTENTION_H
#define ONESTEP_BACKEND_CPU_ATTENTION_H

#include "backend/cpu/conv_kernels.h"
#include "backend/cpu/tensor_kernels.h"

typedef struct attention_shape {
    size_t batch, queries, keys, heads, width;
    bool shared_keys; /* keys and values have a batch of 1 that serves every picture */
    bool causal;      /* query i sees keys 0..i */
} attention_shape;

typedef struct attention_plan {
    attention_shape shape;
    size_t query_block, key_block;
    size_t padded_keys, padded_width; /* whole panels */
    size_t packed_floats;             /* of keys or values of one head */
    size_t worker_floats;
    size_t scratch_bytes;
    double predicted_seconds;
} attention_plan;

/* False when sizes overflow. `threads` workers will take part. */
bool attention_plan_create(attention_plan *plan, const attention_shape *shape,
                           const conv_kernels *products, unsigned threads) MUST_USE;

typedef struct attention_arguments {
    const float *query, *key, *value; /* [batch][tokens][heads * width] */
    float *output;                    /* may be `query` */
    float scale;                      /* of the logits */
} attention_arguments;

void attention_run(const attention_plan *plan, const attention_arguments *arguments,
                   const conv_kernels *products, const tensor_kernels *kernels, void *scratch,
                   thread_pool *pool);

#endif
